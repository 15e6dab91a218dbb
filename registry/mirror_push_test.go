package registry_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// pushing is a link whose wake-ups carry the store's changes, altered at will.
type pushing struct {
	watched
	alter func(*registry.Change)

	mu    sync.Mutex
	acked []registry.Revision // in the order of the polls
}

func (p *pushing) Pushed(after registry.Revision) []registry.Change {
	all, err := p.r.store.Changes(context.Background(), after, 100)
	if err != nil {
		p.r.t.Error(err)
	}
	for i := range all {
		if p.alter != nil {
			p.alter(&all[i])
		}
	}
	return all
}

func (p *pushing) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	p.mu.Lock()
	if !ack.Observer {
		p.acked = append(p.acked, ack.Revision)
	}
	p.mu.Unlock()
	return p.watched.Follow(ctx, ack, n)
}

// took is what was acknowledged since it was last asked.
func (p *pushing) took() (acked []registry.Revision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	acked, p.acked = p.acked, nil
	return acked
}

func runPushing(t *testing.T, r *rig, alter func(*registry.Change)) *pushing {
	p := &pushing{watched: watched{r.link, r}, alter: alter}
	r.m = registry.NewMirror(p, registrytest.Sealer(t), registry.MirrorConfig{
		ID: "sidecar-1", Incarnation: "i1", Short: short, Poll: poll, Clock: r.now,
		OnAlarm: func(a registry.Alarm) { t.Errorf("alarm: %+v", a) },
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	p.took()
	return p
}

func TestAPushedChangeIsAcknowledgedByTheFirstPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		p := runPushing(t, r, nil)
		r.w.Put(suspension("SU-1", "FP-1"))
		synctest.Wait()
		if got := p.took(); len(got) != 1 || got[0] != r.w.View.Revision {
			t.Errorf("after the wake-up revisions %d were acknowledged, want %d alone", got, r.w.View.Revision)
		}
		if r.m.View().Suspended(registry.KindProduct, "FP-1", registry.At(r.start)) == nil {
			t.Error("the suspension is not served")
		}
	})
}

func TestAPushedChangeRenewsNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		runPushing(t, r, nil)
		before := *r.m.Served()
		r.link.Set(registrytest.Fault{Refused: true})
		r.w.Put(suspension("SU-1", "FP-1"))
		time.Sleep(poll)
		synctest.Wait()
		after := *r.m.Served()
		if after.View.Revision != r.w.View.Revision {
			t.Errorf("revision %d is served, want %d", after.View.Revision, r.w.View.Revision)
		}
		if after.ShortUntil != before.ShortUntil || after.LongUntil != before.LongUntil {
			t.Error("a lease was renewed without a poll")
		}
	})
}

func TestAPushedChangeThatDoesNotVerifyIsLeftToThePoll(t *testing.T) {
	for name, alter := range map[string]func(*registry.Change){
		"forged":   func(c *registry.Change) { c.MAC[0] ^= 1 },
		"a gap":    func(c *registry.Change) { c.Revision++ },
		"tampered": func(c *registry.Change) { c.Puts[0].Data = []byte(`{"id":"SU-1"}`) },
		"a digest": func(c *registry.Change) { c.Digest[0]++ },
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			p := runPushing(t, r, alter)
			had := r.w.View.Revision
			r.w.Put(suspension("SU-1", "FP-1"))
			synctest.Wait()
			// As without any push: a poll fetches, another acknowledges.
			if got := p.took(); len(got) != 2 || got[0] != had || got[1] != r.w.View.Revision {
				t.Errorf("%s: revisions %d were acknowledged, want %d and then %d", name, got, had, r.w.View.Revision)
			}
		})
	}
}

// A subscription may outlive its primary's term: what is told by one that was
// deposed must let nothing pass that did not before.
func TestOnlyWhatStopsIsTakenAsPushed(t *testing.T) {
	lifted := suspension("SU-1", "FP-1")
	lifted.LiftedAt = 5
	for name, value := range map[string]any{
		"a lift":    lifted,
		"a product": productNamed("FP-1", "another"),
	} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t)
			r.w.Put(suspension("SU-1", "FP-1"))
			p := runPushing(t, r, nil)
			had := r.w.View.Revision
			// With a stop before it, which is taken, and one after, which has to wait.
			r.link.Set(registrytest.Fault{LoseWakes: true})
			r.w.Put(suspension("SU-2", "FP-2"))
			r.w.Put(value)
			synctest.Wait()
			r.link.Set(registrytest.Fault{})
			r.w.Put(suspension("SU-3", "FP-3"))
			synctest.Wait()
			if got := p.took(); len(got) != 2 || got[0] != had+1 || got[1] != r.w.View.Revision {
				t.Errorf("%s: revisions %d were acknowledged, want %d and then %d", name, got, had+1, r.w.View.Revision)
			}
		})
	}
}
