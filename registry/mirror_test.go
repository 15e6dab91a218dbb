package registry_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

const (
	short = 2 * time.Second
	poll  = 500 * time.Millisecond
	// back is within what time a lease is renewed once the store is back.
	back = time.Second
)

// rig is one mirror over a store in memory, in a synctest bubble.
type rig struct {
	t     *testing.T
	store *registrytest.Memory
	link  *registrytest.Link
	w     *registrytest.Writer
	m     *registry.Mirror
	start time.Time
	stop  func()

	mu     sync.Mutex
	alarms []registry.Alarm
	sent   time.Duration // when the last poll that acknowledges was sent
}

func newRig(t *testing.T) *rig {
	store := registrytest.NewMemory()
	r := &rig{t: t, store: store, link: registrytest.NewLink(store), start: time.Now()}
	r.w = registrytest.NewWriter(t, store)
	r.w.Put(registry.Entity{ABN: 65000000101, Name: "Wattlebird", State: registry.EntityRegistered}, productNamed("FP-1", "first"))
	return r
}

func productNamed(id, name string) registry.Product {
	return registry.Product{ID: id, Name: name, Owner: 65000000101, Certification: registry.Certification{State: registry.CertWhitelisted}}
}

func suspension(id, product string) registry.Suspension {
	return registry.Suspension{ID: id, Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: product}, Reason: "leak", Starts: 1}
}

func (r *rig) now() time.Duration { return time.Since(r.start) }

// run starts a mirror, as a process would; it ends with the test or by stop.
func (r *rig) run(change func(*registry.MirrorConfig)) *registry.Mirror {
	r.t.Helper()
	cfg := registry.MirrorConfig{
		ID: "sidecar-1", Incarnation: "i1", Short: short, Poll: poll, Clock: r.now,
		OnAlarm: func(a registry.Alarm) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.alarms = append(r.alarms, a)
		},
	}
	if change != nil {
		change(&cfg)
	}
	r.m = registry.NewMirror(watched{r.link, r}, registrytest.Sealer(r.t), cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func(m *registry.Mirror) { done <- m.Run(ctx) }(r.m)
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("run: %v", err)
		}
	})
	r.t.Cleanup(r.stop)
	synctest.Wait()
	return r.m
}

// watched checks at every poll what makes an acknowledgement true.
type watched struct {
	*registrytest.Link
	r *rig
}

func (w watched) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	if !ack.Observer {
		if v := w.r.m.View(); v == nil || v.Revision != ack.Revision || v.Digest != ack.Digest {
			w.r.t.Errorf("acknowledged revision %d while serving %+v", ack.Revision, v)
		}
		w.r.mu.Lock()
		w.r.sent = w.r.now()
		w.r.mu.Unlock()
	}
	return w.Link.Follow(ctx, ack, n)
}

// lastSent is when the last poll that acknowledges was sent.
func (r *rig) lastSent() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sent
}

func (r *rig) fresh(risk registry.Risk) bool { return r.m.Served().Fresh(risk, r.now()) }

// holds checks what the mirror serves from.
func (r *rig) holds(revision registry.Revision, name string) {
	r.t.Helper()
	v := r.m.View()
	if v == nil || v.Revision != revision {
		r.t.Fatalf("holds %+v, want revision %d", v, revision)
	}
	if p := v.Product("FP-1"); p == nil || p.Name != name {
		r.t.Fatalf("FP-1 is %+v, want the name %q", p, name)
	}
}

// told checks that the alarms raised since the last call are of these kinds.
func (r *rig) told(kinds ...registry.AlarmKind) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, a := range r.alarms {
		if i >= len(kinds) || a.Kind != kinds[i] {
			r.t.Errorf("alarm %d is %s: %s: %v", i, a.Kind, a.What, a.Err)
		}
	}
	if len(r.alarms) < len(kinds) {
		r.t.Errorf("%d alarms, want %v", len(r.alarms), kinds)
	}
	r.alarms = nil
}

// lapses checks that the leases are not renewed and end when they should, with
// the register held as it is.
func (r *rig) lapses(revision registry.Revision) {
	r.t.Helper()
	time.Sleep(short)
	synctest.Wait()
	if r.fresh(4) || r.fresh(0) || r.m.Ready() {
		r.t.Error("ratings 3 and 4 served beyond the short lease")
	}
	if !r.fresh(2) {
		r.t.Error("ratings 1 and 2 not served within the long lease")
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if r.fresh(1) {
		r.t.Error("served beyond the long lease")
	}
	if v := r.m.View(); v == nil || v.Revision != revision {
		r.t.Errorf("did not hold revision %d: %+v", revision, v)
	}
}

func (r *rig) recovers() {
	r.t.Helper()
	r.link.Set(registrytest.Fault{})
	time.Sleep(back)
	synctest.Wait()
	if !r.fresh(4) {
		r.t.Fatalf("not fresh %v after the store came back: %+v", back, r.m.Status())
	}
	if v := r.m.View(); v.Revision != r.w.View.Revision || v.Digest != r.w.View.Digest {
		r.t.Errorf("holds revision %d, the store is at %d", v.Revision, r.w.View.Revision)
	}
}

func bubble(t *testing.T, name string, test func(*testing.T, *rig)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) { test(t, newRig(t)) })
	})
}

func TestMirrorFollows(t *testing.T) {
	bubble(t, "a wake-up brings a change at once", func(t *testing.T, r *rig) {
		r.run(nil)
		r.holds(1, "first")
		r.w.Put(productNamed("FP-1", "second"))
		synctest.Wait() // and no time passes
		r.holds(2, "second")
		r.told()
	})
	bubble(t, "a lost wake-up is healed by the next poll", func(t *testing.T, r *rig) {
		r.run(nil)
		r.link.Set(registrytest.Fault{LoseWakes: true})
		r.w.Put(productNamed("FP-1", "second"))
		synctest.Wait()
		r.holds(1, "first")
		time.Sleep(poll)
		synctest.Wait()
		r.holds(2, "second")
	})
	bubble(t, "what is held and served is acknowledged at once", func(t *testing.T, r *rig) {
		r.run(nil)
		r.w.Put(suspension("SU-2", "FP-1"))
		synctest.Wait() // and no time passes: a suspension waits for this poll
		roll, err := r.store.Roll(t.Context())
		members := roll.Members
		if err != nil || len(members) != 1 || members[0].Revision != 2 || members[0].Digest != r.w.View.Digest {
			t.Errorf("roll %+v, %v", members, err)
		}
	})
	bubble(t, "more changes than a poll takes", func(t *testing.T, r *rig) {
		r.run(func(c *registry.MirrorConfig) { c.Batch = 10 })
		r.link.Set(registrytest.Fault{Refused: true})
		for i := range 95 {
			r.w.Put(productNamed("FP-1", fmt.Sprint(i)))
		}
		before := r.link.Polls()
		r.recovers()
		r.holds(96, "94")
		if n := r.link.Polls() - before; n < 10 || n > 20 {
			t.Errorf("%d polls for 95 changes, 10 at a time", n)
		}
	})
	bubble(t, "every subscriber hears of every change", func(t *testing.T, r *rig) {
		r.run(nil)
		a, b := r.m.Changed(), r.m.Changed()
		select {
		case <-a:
			t.Error("changed without a change")
		default:
		}
		r.w.Put(productNamed("FP-1", "second"))
		<-a
		<-b
	})
	bubble(t, "a late joiner serves only once it is on the roll", func(t *testing.T, r *rig) {
		r.w.Put(suspension("SU-2", "FP-1"))
		r.link.Set(registrytest.Fault{ReplyDelay: 100 * time.Millisecond})
		r.run(nil)
		for range 100 {
			roll, _ := r.store.Roll(t.Context())
			members := roll.Members
			if len(members) == 0 && r.fresh(1) {
				t.Fatal("serves and is not on the roll")
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !r.fresh(4) || r.m.View().Suspended(registry.KindProduct, "FP-1", 2) == nil {
			t.Error("not serving what the store holds")
		}
	})
	bubble(t, "an observer is not on the roll", func(t *testing.T, r *rig) {
		r.run(func(c *registry.MirrorConfig) { c.Observer = true })
		time.Sleep(2 * poll)
		roll, _ := r.store.Roll(t.Context())
		members := roll.Members
		if len(members) != 0 || !r.m.Ready() {
			t.Errorf("roll %+v, ready %t", members, r.m.Ready())
		}
	})
	bubble(t, "a mirror that ends allows nothing more and leaves the roll", func(t *testing.T, r *rig) {
		r.run(nil)
		r.stop()
		roll, _ := r.store.Roll(t.Context())
		members := roll.Members
		if len(members) != 0 || r.fresh(1) {
			t.Errorf("roll %+v, fresh %t", members, r.fresh(1))
		}
	})
	bubble(t, "an empty register is one too", func(t *testing.T, r *rig) {
		r.store.Flush()
		r.run(nil)
		if !r.m.Ready() || r.m.View().Records != 0 {
			t.Errorf("%+v", r.m.Status())
		}
		r.told()
	})
	bubble(t, "a register that changes while it is loaded", func(t *testing.T, r *rig) {
		for i := range 50 {
			r.w.Put(productNamed(fmt.Sprintf("FP-%d", i+2), "early"))
		}
		n := 0
		log := during{watched{r.link, r}, func() {
			if n++; n%10 == 0 {
				r.w.Put(productNamed(fmt.Sprintf("FP-%d", n*7%50), "late"), productNamed(fmt.Sprint("FP-new-", n), "new"))
			}
		}}
		r.m = registry.NewMirror(log, registrytest.Sealer(t), registry.MirrorConfig{ID: "x", Clock: r.now, OnAlarm: func(a registry.Alarm) { t.Errorf("%+v", a) }})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go r.m.Run(ctx)
		synctest.Wait()
		if st := r.m.Status(); st.Digest != r.w.View.Digest || st.Loads != 1 || !r.m.Ready() {
			t.Errorf("%+v, want digest %v", st, r.w.View.Digest)
		}
	})
}

// during does something at every record of a snapshot.
type during struct {
	registry.Log
	do func()
}

func (d during) Snapshot(ctx context.Context, put func(*registry.Record) error) (registry.Head, error) {
	return d.Log.Snapshot(ctx, func(r *registry.Record) error {
		d.do()
		return put(r)
	})
}

func TestMirrorLease(t *testing.T) {
	for name, f := range map[string]registrytest.Fault{
		"a cut link":                      {Silent: true},
		"a store that refuses":            {Refused: true},
		"answers that never come":         {LoseReply: true},
		"answers slower than the lease":   {ReplyDelay: 3 * time.Second},
		"requests as slow as the lease":   {RequestDelay: short},
		"answers that come after the cut": {ReplyDelay: short / 2},
	} {
		bubble(t, name, func(t *testing.T, r *rig) {
			r.run(nil)
			time.Sleep(3*poll + poll/2)
			synctest.Wait()
			last := r.lastSent()
			r.link.Set(f)
			time.Sleep(last + short - r.now() - time.Nanosecond)
			if !r.fresh(4) {
				t.Error("the lease ended early")
			}
			time.Sleep(time.Nanosecond)
			if r.fresh(4) {
				t.Error("the lease did not end at its bound")
			}
			r.lapses(1)
			r.w.Put(productNamed("FP-1", "second"))
			r.recovers()
			r.holds(2, "second")
			r.told() // a store that does not answer is ordinary trouble
		})
	}
	bubble(t, "the lease counts from the poll, not from its answer", func(t *testing.T, r *rig) {
		r.link.Set(registrytest.Fault{ReplyDelay: 400 * time.Millisecond})
		r.run(nil)
		seen := 0
		for range 1000 {
			time.Sleep(7 * time.Millisecond)
			synctest.Wait()
			s := r.m.Served()
			if s == nil || s.ShortUntil == 0 {
				continue
			}
			seen++
			if sent := r.lastSent(); s.ShortUntil > sent+short || s.LongUntil > sent+time.Minute {
				t.Fatalf("short lease until %v, the last poll was sent at %v", s.ShortUntil, sent)
			}
			if !r.fresh(4) {
				t.Fatal("slow answers cost the lease")
			}
		}
		if seen == 0 {
			t.Error("never held a lease")
		}
	})
	bubble(t, "only a poll that leads to the head renews", func(t *testing.T, r *rig) {
		r.run(func(c *registry.MirrorConfig) { c.Batch = 1 })
		// Each answer is one change behind the head, which is always two ahead.
		r.link.Set(registrytest.Fault{ReplyDelay: 300 * time.Millisecond, Alter: func(p *registry.Poll) { r.w.Put(productNamed("FP-1", "again")); p.Head = r.store.Head() }})
		time.Sleep(short)
		synctest.Wait()
		if r.fresh(4) {
			t.Error("renewed while behind the head")
		}
	})
	bubble(t, "nothing is fresh before anything is loaded", func(t *testing.T, r *rig) {
		r.link.Set(registrytest.Fault{Silent: true})
		r.run(nil)
		time.Sleep(time.Minute)
		if r.m.Served() != nil || r.fresh(1) || r.m.Ready() || r.m.Status().Loaded {
			t.Error("serves what it does not have")
		}
		r.recovers1(30 * time.Second)
	})
}

// recovers1 waits longer: a snapshot that hangs is given up after some seconds.
func (r *rig) recovers1(d time.Duration) {
	r.link.Set(registrytest.Fault{})
	time.Sleep(d)
	r.recovers()
}

func TestMirrorHoldsAgainstAStoreThatWentBack(t *testing.T) {
	bubble(t, "an older store", func(t *testing.T, r *rig) {
		r.w.Put(productNamed("FP-1", "second"))
		restore := r.store.Save()
		base := r.w.View.Mark()
		lost, head, next := r.w.Change(suspension("SU-3", "FP-1"))
		if err := r.store.Commit(t.Context(), r.w.Epoch, base, lost, head); err != nil {
			t.Fatal(err)
		}
		r.w.View = next
		r.run(nil)
		restore()
		r.lapses(3)
		r.told(registry.AlarmRewound) // once, however often it polled
		if r.m.View().Suspended(registry.KindProduct, "FP-1", 2) == nil {
			t.Error("the suspension the store lost is lost here too")
		}
		// The control plane asserts again what the store lost.
		if err := r.store.Commit(t.Context(), r.w.Epoch, base, lost, head); err != nil {
			t.Fatal(err)
		}
		r.recovers()
		r.told()
	})
	bubble(t, "an emptied store", func(t *testing.T, r *rig) {
		r.run(nil)
		r.store.Flush()
		r.lapses(1)
		r.told(registry.AlarmRewound)
		r.holds(1, "first")
	})
	bubble(t, "another register under the same key, with fewer records", func(t *testing.T, r *rig) {
		r.w.Put(productNamed("FP-2", "a"), productNamed("FP-3", "b"), productNamed("FP-4", "c"))
		r.run(nil)
		r.store.TamperHead(func(h *registry.Head) {
			h.Revision, h.Records = 9, 2
			h.MAC = registrytest.Sealer(t).Head(h)
		})
		r.lapses(2)
		r.told(registry.AlarmShrunk)
	})
	bubble(t, "an epoch that went down", func(t *testing.T, r *rig) {
		r.run(nil)
		r.store.TamperHead(func(h *registry.Head) {
			h.Epoch--
			h.MAC = registrytest.Sealer(t).Head(h)
		})
		r.lapses(1)
		r.told(registry.AlarmRewound)
	})
	bubble(t, "a forged head", func(t *testing.T, r *rig) {
		r.run(nil)
		r.store.TamperHead(func(h *registry.Head) { h.Revision++ })
		r.lapses(1)
		r.told(registry.AlarmTampered)
	})
	bubble(t, "a head that promises changes the log does not have", func(t *testing.T, r *rig) {
		r.run(nil)
		r.store.TamperHead(func(h *registry.Head) {
			h.Revision++
			h.MAC = registrytest.Sealer(t).Head(h)
		})
		r.lapses(1)
		r.told(registry.AlarmGap)
	})
}

func TestMirrorRefusesWhatDoesNotVerify(t *testing.T) {
	bubble(t, "a change altered in the log, after a good one", func(t *testing.T, r *rig) {
		r.run(nil)
		r.link.Set(registrytest.Fault{Refused: true})
		r.w.Put(suspension("SU-2", "FP-1"))
		r.w.Put(productNamed("FP-1", "third"))
		r.store.TamperLog(3, func(c *registry.Change) { c.Actor = "mallory" })
		r.link.Set(registrytest.Fault{})
		r.lapses(2) // what verifies takes effect, and no lease on it
		if r.m.View().Suspended(registry.KindProduct, "FP-1", 2) == nil {
			t.Error("a good change before an altered one was not applied")
		}
		r.told(registry.AlarmTampered)
	})
	for name, alter := range map[string]func(*registry.Change){
		"a record altered in the log": func(c *registry.Change) { c.Puts[0].Data = []byte(`{"id":"FP-1","name":"evil"}`) },
		"a record taken out":          func(c *registry.Change) { c.Puts = nil },
		"a record twice":              func(c *registry.Change) { c.Puts = append(c.Puts, c.Puts[0]) },
		"another digest":              func(c *registry.Change) { c.Digest[0]++ },
		"another time":                func(c *registry.Change) { c.At++ },
		"another reason":              func(c *registry.Change) { c.Reason = "x" },
		"a reason moved":              func(c *registry.Change) { c.Command, c.Reason = "", c.Command },
	} {
		bubble(t, name, func(t *testing.T, r *rig) {
			r.run(nil)
			r.link.Set(registrytest.Fault{Refused: true})
			r.w.Put(productNamed("FP-1", "second"))
			r.store.TamperLog(2, alter)
			r.link.Set(registrytest.Fault{})
			r.lapses(1)
			r.holds(1, "first")
			r.told(registry.AlarmTampered)
		})
	}
	bubble(t, "an old genuine change in place of a new one", func(t *testing.T, r *rig) {
		r.w.Put(productNamed("FP-1", "second"))
		r.w.Put(suspension("SU-3", "FP-1"))
		r.link.Set(registrytest.Fault{Alter: func(p *registry.Poll) {
			for i := range p.Changes {
				if p.Changes[i].Revision == 4 {
					old, err := r.store.Changes(context.Background(), 1, 1)
					if err != nil {
						t.Error(err)
					}
					p.Changes[i] = old[0]
				}
			}
		}})
		r.run(nil)
		r.w.Put(productNamed("FP-1", "fourth"))
		synctest.Wait()
		r.holds(3, "second")
		r.told(registry.AlarmGap)
		r.recovers()
	})
	bubble(t, "a gap in an answer heals with the next", func(t *testing.T, r *rig) {
		r.run(nil)
		cut := false
		r.link.Set(registrytest.Fault{LoseWakes: true, Alter: func(p *registry.Poll) {
			if len(p.Changes) > 1 && !cut {
				cut, p.Changes = true, p.Changes[1:]
			}
		}})
		r.w.Put(suspension("SU-2", "FP-1"))
		r.w.Put(productNamed("FP-1", "third"))
		time.Sleep(poll + back)
		synctest.Wait()
		r.holds(3, "third")
		r.told(registry.AlarmGap)
	})
	bubble(t, "a genuine record that cannot be read", func(t *testing.T, r *rig) {
		r.run(nil)
		c, h, _ := r.w.Change(productNamed("FP-1", "second"))
		c.Puts[0].Data = []byte(`{"id":"FP-1","name":"x","owner":"65000000101","certification":{"state":"SomethingNew"}}`)
		s := registrytest.Sealer(t)
		s.Seal(&c.Puts[0], 2)
		c.MAC = s.Change(c)
		if err := r.store.Commit(t.Context(), r.w.Epoch, r.w.View.Mark(), c, h); err != nil {
			t.Fatal(err)
		}
		r.lapses(1)
		r.told(registry.AlarmUndecodable)
	})
	bubble(t, "another digest at the same revision is repaired and told", func(t *testing.T, r *rig) {
		r.run(nil)
		forked := func(p *registry.Poll) {
			p.Head.Digest[1]++
			p.Head.MAC = registrytest.Sealer(t).Head(&p.Head)
		}
		r.link.Set(registrytest.Fault{Alter: forked})
		time.Sleep(poll)
		synctest.Wait()
		r.link.Set(registrytest.Fault{})
		time.Sleep(back)
		synctest.Wait()
		if st := r.m.Status(); st.Loads != 2 || !r.fresh(4) {
			t.Errorf("%+v", st)
		}
		r.told(registry.AlarmDigest)
	})
}
