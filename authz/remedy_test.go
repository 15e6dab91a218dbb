package authz_test

import (
	"strings"
	"testing"

	"github.com/dspgate/dspgate/authz"
)

// TestEveryRefusalSaysWhatToDo: each reason but OK has its remedy, whole
// sentences of it, and those that carry Retry-After say that it may pass later.
func TestEveryRefusalSaysWhatToDo(t *testing.T) {
	if got := authz.OK.Remedy(); got != (authz.Remedy{}) {
		t.Errorf("ok has the remedy %+v", got)
	}
	seen := map[string]authz.Reason{}
	for r := authz.OK + 1; r < authz.NReasons; r++ {
		m := r.Remedy()
		if len(m.Do) < 60 || !strings.HasSuffix(m.Do, ".") {
			t.Errorf("%v says no more than %q", r, m.Do)
		}
		if other, ok := seen[m.Do]; ok {
			t.Errorf("%v says the same as %v", r, other)
		}
		seen[m.Do] = r
		if s := r.Status(); (s == 429 || s == 503) && !m.Again {
			t.Errorf("%v has Retry-After, but trying again is said to be of no use", r)
		}
		if m.Who.String() == "" {
			t.Errorf("%v: %+v", r, m)
		}
	}
}
