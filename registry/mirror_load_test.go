package registry_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

func TestLateJoinerOfATamperedStore(t *testing.T) {
	sealed := func(value any, revision registry.Revision) registry.Record {
		r := registrytest.Record(value)
		registrytest.Sealer(t).Seal(&r, revision)
		return r
	}
	lifted := suspension("SU-2", "FP-1")
	lifted.LiftedAt = 5
	for name, tamper := range map[string]func(*registry.Record) bool{
		"an altered suspension":       func(r *registry.Record) bool { r.Data = registrytest.Record(lifted).Data; return true },
		"a removed suspension":        func(*registry.Record) bool { return false },
		"an older genuine suspension": func(r *registry.Record) bool { *r = sealed(lifted, 1); return true },
		"one under a false revision":  func(r *registry.Record) bool { r.Revision = 77; return true },
	} {
		tampered := 1
		if name == "a removed suspension" || name == "an older genuine suspension" {
			tampered = 0
		}
		kinds := append([]registry.AlarmKind{registry.AlarmTampered}[:tampered:tampered], registry.AlarmDigest)
		bubble(t, name+" is found again in the log", func(t *testing.T, r *rig) {
			r.w.Put(suspension("SU-2", "FP-1"))
			r.store.Tamper("suspension/SU-2", tamper)
			r.run(nil)
			r.told(kinds...)
			if !r.fresh(4) || r.m.View().Suspended(registry.KindProduct, "FP-1", 9) == nil || r.m.View().Digest != r.w.View.Digest {
				t.Errorf("not rebuilt: %+v", r.m.Status())
			}
		})
		bubble(t, name+" and no log: nothing is served", func(t *testing.T, r *rig) {
			r.w.Put(suspension("SU-2", "FP-1"))
			if err := r.store.Trim(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
			r.store.Tamper("suspension/SU-2", tamper)
			r.run(nil)
			time.Sleep(time.Minute)
			if r.m.Served() != nil {
				t.Errorf("serves a register that is not whole: %+v", r.m.Status())
			}
			r.told(kinds...)
		})
		bubble(t, name+" does not touch a mirror that runs", func(t *testing.T, r *rig) {
			r.run(nil)
			r.w.Put(suspension("SU-2", "FP-1"))
			synctest.Wait()
			r.store.Tamper("suspension/SU-2", tamper)
			r.w.Put(productNamed("FP-2", "next"))
			time.Sleep(poll)
			synctest.Wait()
			if !r.fresh(4) || r.m.View().Suspended(registry.KindProduct, "FP-1", 9) == nil || r.m.View().Revision != 3 {
				t.Errorf("%+v", r.m.Status())
			}
			r.told()
		})
	}
}

func TestMirrorReloadsWhenTheLogWasTrimmed(t *testing.T) {
	bubble(t, "trimmed", func(t *testing.T, r *rig) {
		r.run(nil)
		r.link.Set(registrytest.Fault{Refused: true})
		r.w.Put(suspension("SU-2", "FP-1"))
		r.w.Put(productNamed("FP-1", "third"))
		if err := r.store.Trim(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		r.recovers()
		r.holds(3, "third")
		r.told()
		if st := r.m.Status(); st.Loads != 2 {
			t.Errorf("%d loads", st.Loads)
		}
	})
	bubble(t, "trimmed and the snapshot is not whole: the View held is kept", func(t *testing.T, r *rig) {
		r.run(nil)
		r.link.Set(registrytest.Fault{Refused: true})
		r.w.Put(suspension("SU-2", "FP-1"))
		r.w.Put(productNamed("FP-1", "third"))
		if err := r.store.Trim(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		r.store.Tamper("suspension/SU-2", func(*registry.Record) bool { return false })
		r.link.Set(registrytest.Fault{})
		r.lapses(1)
		r.told(registry.AlarmDigest)
	})
}

func TestRestartedMirrorRefusesAnOlderStore(t *testing.T) {
	for name, change := range map[string]func(r *rig, restore func()){
		"restored": func(_ *rig, restore func()) { restore() },
		"emptied":  func(r *rig, _ func()) { r.store.Flush() },
	} {
		bubble(t, name, func(t *testing.T, r *rig) {
			file := t.TempDir() + "/state"
			withState := func(c *registry.MirrorConfig) { c.StateFile = file }
			restore := r.store.Save()
			r.w.Put(suspension("SU-2", "FP-1"))
			r.run(withState)
			r.stop()
			r.run(withState) // the same store is taken again
			r.holds(2, "first")
			r.stop()
			r.told()
			change(r, restore)
			r.run(withState)
			time.Sleep(time.Minute)
			if r.m.Served() != nil {
				t.Errorf("serves an older store: %+v", r.m.Status())
			}
			r.told(registry.AlarmRewound)
		})
	}
	bubble(t, "a state file that was altered", func(t *testing.T, r *rig) {
		file := t.TempDir() + "/state"
		r.run(func(c *registry.MirrorConfig) { c.StateFile = file })
		r.stop()
		alter(t, file, "\"revision\":1", "\"revision\":0")
		m := registry.NewMirror(r.link, registrytest.Sealer(t), registry.MirrorConfig{StateFile: file, Clock: r.now})
		if err := m.Run(t.Context()); !errors.Is(err, registry.ErrTampered) {
			t.Errorf("run: %v", err)
		}
	})
}
