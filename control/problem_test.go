package control_test

import (
	"net/http"
	"testing"

	"github.com/dspgate/dspgate/authz"
)

// TestProblemsAreExplainedToEverybody: without sign-in, all codes and each.
func TestProblemsAreExplainedToEverybody(t *testing.T) {
	w := newWorld(t)
	var all []struct{ Code, Remedy, Who string }
	w.call(nobody, "GET", "/v1/problems?limit=100", nil).data(t, 200, &all)
	if len(all) != int(authz.NReasons)-1 {
		t.Errorf("%d codes of %d", len(all), authz.NReasons-1)
	}
	var one struct {
		Code, Title, Remedy, Who string
		Status                   int
		Again                    bool
	}
	for _, p := range all {
		w.call(nobody, "GET", "/v1/problems/"+p.Code, nil).data(t, 200, &one)
		if one.Code != p.Code || one.Remedy != p.Remedy || one.Status < 400 {
			t.Errorf("%s: %+v", p.Code, one)
		}
	}
	for _, code := range []string{"ok", "no-such-code", "%00"} {
		w.call(nobody, "GET", "/v1/problems/"+code, nil).refused(t, http.StatusNotFound, "not-found")
	}
}
