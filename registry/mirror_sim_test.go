package registry_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

func alter(t *testing.T, file, old, new string) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(data, []byte(old), []byte(new), 1)
	if bytes.Equal(changed, data) {
		t.Fatalf("no %q in %q", old, data)
	}
	if err := os.WriteFile(file, changed, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestMirrorUnderRandomFaults holds a mirror to its promises while its link
// and its store misbehave at random. A failing seed is printed; it replays.
func TestMirrorUnderRandomFaults(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("seed %d", seed)
				}
			}()
			file := ""
			if seed%10 == 0 { // what costs is the disk
				file = t.TempDir() + "/state"
			}
			simulate(t, rand.New(rand.NewPCG(seed, 1)), file)
		})
		if t.Failed() {
			return
		}
	}
}

func simulate(t *testing.T, rnd *rand.Rand, file string) {
	r := newRig(t)
	lives := 0
	start := func() {
		lives++
		r.run(func(c *registry.MirrorConfig) {
			c.StateFile, c.Incarnation, c.Batch = file, fmt.Sprint(lives), 1+rnd.IntN(5)
		})
	}
	start()
	upTo := func(d time.Duration) time.Duration { return time.Duration(rnd.Int64N(int64(d))) }
	var highest registry.Revision
	check := func() {
		s := r.m.Served()
		if s == nil {
			return
		}
		if s.View.Revision < highest {
			t.Fatalf("went back from %d to %d", highest, s.View.Revision)
		}
		highest = s.View.Revision
		if sent := r.lastSent(); s.Fresh(4, r.now()) && r.now() >= sent+short {
			t.Fatalf("fresh at %v, the last poll was sent at %v", r.now(), sent)
		}
		roll, _ := r.store.Roll(context.Background())
		members := roll.Members
		if s.Fresh(1, r.now()) && len(members) == 0 {
			t.Fatal("serves and is not on the roll")
		}
		for _, m := range members {
			if m.Revision > s.View.Revision && m.Incarnation == fmt.Sprint(lives) {
				t.Fatalf("the roll says %d, served is %d", m.Revision, s.View.Revision)
			}
		}
		// Whatever revision is held is the register of that revision, whole.
		if want, ok := r.digests()[s.View.Revision]; ok && want != s.View.Digest {
			t.Fatalf("the register of revision %d has another digest", s.View.Revision)
		}
	}
	for range 60 {
		switch rnd.IntN(9) {
		case 0, 1, 2:
			r.w.Put(productNamed(fmt.Sprint("FP-", rnd.IntN(5)), fmt.Sprint(rnd.Uint32())))
		case 3:
			r.w.Put(suspension(fmt.Sprint("SU-", r.w.View.Revision), fmt.Sprint("FP-", rnd.IntN(5))))
		case 4:
			if err := r.store.Trim(context.Background(), registry.Revision(rnd.Uint64N(uint64(r.w.View.Revision)+1))); err != nil {
				t.Fatal(err)
			}
		case 5:
			r.stop() // a restart
			if r.fresh(1) {
				t.Fatal("fresh after its end")
			}
			r.link.Set(registrytest.Fault{})
			start()
		case 6:
			r.link.Set(registrytest.Fault{})
		default:
			r.link.Set(registrytest.Fault{
				Refused: rnd.IntN(4) == 0, Silent: rnd.IntN(4) == 0, LoseReply: rnd.IntN(4) == 0, LoseWakes: rnd.IntN(2) == 0,
				RequestDelay: upTo(500 * time.Millisecond), ReplyDelay: upTo(500 * time.Millisecond),
			})
		}
		for range 5 {
			time.Sleep(upTo(600 * time.Millisecond))
			synctest.Wait()
			check()
		}
	}
	r.recovers1(10 * time.Second)
	check()
	r.told() // no fault of a link is an alarm
}

// digests are those of the register by revision, as far as the log reaches.
func (r *rig) digests() map[registry.Revision]registry.Digest {
	all := map[registry.Revision]registry.Digest{}
	changes, err := r.store.Changes(context.Background(), 0, 1<<20)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, c := range changes {
		all[c.Revision] = c.Digest
	}
	return all
}
