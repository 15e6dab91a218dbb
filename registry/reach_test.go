package registry

import (
	"errors"
	"slices"
	"testing"
)

// A suspension of an entity reaches each product it owns, of a client app the
// services of its environment, and of nothing in the register nothing.
func TestReach(t *testing.T) {
	s := testSealer(t)
	m := NewMirror(newBenchLog(t, s, benchRecords(t, s, 20)), s, MirrorConfig{ID: "test"})
	v, err := m.load(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	all, err := v.Reach(SubjectRef{KindEntity, "65000000101"}, false)
	if err != nil || len(all.Products) != 20 || !slices.IsSorted(all.Products) || all.Apps != 20 || all.Name != "Wattlebird" {
		t.Errorf("of the entity: %v %+v", err, all)
	}
	one, err := v.Reach(SubjectRef{KindProduct, "FP-000003"}, false)
	if err != nil || !slices.Equal(one.Products, []string{"FP-000003"}) || one.Apps != 1 || one.Owner != 65000000101 {
		t.Errorf("of a product: %v %+v", err, one)
	}
	if app, err := v.Reach(SubjectRef{KindClientApp, "fp-000003-prod"}, false); err != nil || !slices.Equal(app.Products, one.Products) || app.Apps != 0 {
		t.Errorf("of a client app: %v %+v", err, app)
	}
	if _, err := v.Reach(SubjectRef{KindProduct, "FP-999999"}, false); !errors.Is(err, ErrInvalid) {
		t.Errorf("of nothing: %v", err)
	}
}

// BenchmarkReach is what it costs to ask what a suspension of an entity that owns
// 100,000 products would stop.
func BenchmarkReach(b *testing.B) {
	s := testSealer(b)
	m := NewMirror(newBenchLog(b, s, benchRecords(b, s, benchProducts)), s, MirrorConfig{ID: "bench"})
	v, err := m.load(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r, err := v.Reach(SubjectRef{KindEntity, "65000000101"}, false); err != nil || len(r.Products) != benchProducts {
			b.Fatal(err)
		}
	}
}
