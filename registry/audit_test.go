package registry_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
)

// TestAuditFindsWhatNoMirrorReads: a running mirror follows the log and is not
// harmed by a record changed behind its back, so nothing but the audit would
// tell before another process starts.
func TestAuditFindsWhatNoMirrorReads(t *testing.T) {
	forge := func(r *registry.Record) bool {
		r.Data = []byte(`{"id":"FP-1","name":"forged"}`)
		return true
	}
	gone := func(*registry.Record) bool { return false }
	var old registry.Record
	for name, c := range map[string]struct {
		tamper func(*rig)
		want   registry.Audit
	}{
		"nothing":      {func(*rig) {}, registry.Audit{Records: 2}},
		"forged":       {func(r *rig) { r.store.Tamper("product/FP-1", forge) }, registry.Audit{Records: 2, Wrong: []string{"product/FP-1"}}},
		"removed":      {func(r *rig) { r.store.Tamper("product/FP-1", gone) }, registry.Audit{Records: 1, Missing: 1}},
		"put back old": {func(r *rig) { r.store.Tamper("product/FP-1", func(x *registry.Record) bool { *x = old; return true }) }, registry.Audit{Records: 2, Wrong: []string{"product/FP-1"}}},
	} {
		bubble(t, name, func(t *testing.T, r *rig) {
			r.store.Tamper("product/FP-1", func(x *registry.Record) bool { old = *x; return true })
			r.w.Put(productNamed("FP-1", "second"))
			r.run(nil)
			c.tamper(r)
			got, err := r.m.Audit(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" || got.OK() != (name == "nothing") {
				t.Errorf("OK %v, %s", got.OK(), diff)
			}
			r.holds(2, "second") // and no decision was touched
			r.told()
		})
	}
}
