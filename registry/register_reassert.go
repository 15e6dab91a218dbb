package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	reassertTimeout = 8 * time.Second
	// settleGrace is how long a new writer leaves a store that may have lost its
	// end alone, so that a control plane that holds that end gives it back first:
	// every one of them looks at the store each rollIdle.
	settleGrace = rollIdle + 500*time.Millisecond
)

// errLostMore: the store lost more than this control plane can give back.
var errLostMore = errors.New("restore it from its append-only file, from a replica or from a backup, " +
	"and what was changed since is given back; or stop every sidecar, remove the state files and make the register anew")

// heal runs what brings the store up to what is held; it says why that failed
// once, not at every reading of the roll.
func (r *Register) heal(ctx context.Context, failed string, how func(context.Context) error) {
	err := how(context.WithoutCancel(ctx))
	switch {
	case err == nil:
		r.unhealed = ""
	case err.Error() != r.unhealed:
		r.unhealed = err.Error()
		r.cfg.Log.ErrorContext(ctx, failed, "err", err)
	}
}

// reassert gives the store back what it lost: the changes after its head, as
// far as this control plane has followed or made them, the same bytes at the
// same revisions, in one step.
//
// Any control plane may do so, the writer or not, because nothing new is said:
// the store's own head must be a revision of this very history (its digest
// tells) and each change carries its writer's seal and epoch. It is done only
// when every change in between is held. A store that was emptied, or belongs to
// another register, is not filled: that an empty store appears where a register
// was is a fault or an attack that somebody must look at, and the mirrors hold
// what they have meanwhile until their leases run out.
func (r *Register) reassert(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reassertTimeout)
	defer cancel()
	held, err := r.View()
	if err != nil {
		return err
	}
	p, err := r.mirror.log.Follow(ctx, Ack{ID: r.mirror.cfg.ID, Incarnation: r.mirror.cfg.Incarnation, Revision: held.Revision, Observer: true}, 1)
	if err != nil && !errors.Is(err, ErrTrimmed) {
		return fmt.Errorf("read the store's head: %w", err)
	}
	store := p.Head
	if store.Revision >= held.Revision {
		return nil // given back meanwhile
	}
	fail := func(what string) error {
		return fmt.Errorf("%w: %w: its head is %d, %d was committed, and %s: %w", ErrUnavailable, ErrRewound, store.Revision, held.Revision, what, errLostMore)
	}
	if store == (Head{}) {
		return fail("it is empty")
	}
	if r.sealer.Head(&store) != store.MAC {
		return fmt.Errorf("%w: the store's head is not of this register: %w", ErrUnavailable, ErrTampered)
	}
	changes, ok := r.mirror.tail.between(store.Revision, held.Revision)
	if !ok {
		return fail("the changes between are not all held here")
	}
	if s, known := r.mirror.tail.state(store.Revision); !known || s != (tailState{store.Digest, store.CaseSum}) {
		if tip := r.tip.Load(); tip != nil && tip.Revision == held.Revision && r.mirror.View().Revision <= store.Revision {
			// Only what was committed here and not durable reaches beyond it, and
			// another has gone on without: that is how it stays.
			r.tip.Store(nil)
			r.cfg.Log.ErrorContext(ctx, "changes that were answered as not durable are lost: another took their place",
				"first", store.Revision+1, "last", held.Revision)
			return nil
		}
		return fail("that revision is another than the one committed here")
	}
	if s, _ := r.mirror.tail.state(held.Revision); s != (tailState{held.Digest, held.CaseSum}) {
		return fail("the changes held here do not lead there")
	}
	if changes, ok = r.withBodies(changes); !ok {
		return fail("the casework of the changes between is not all held here")
	}
	head := Head{Revision: held.Revision, Epoch: max(held.Epoch, store.Epoch), Records: held.Records, Digest: held.Digest, CaseSum: held.CaseSum}
	head.MAC = r.sealer.Head(&head)
	err = r.ledger.Reassert(ctx, store, changes, &head)
	if err != nil && !errors.Is(err, ErrNotDurable) {
		return fmt.Errorf("give back what the store lost: %w", err)
	}
	r.roll.count(func(st *RollStats) { st.Reasserts += uint64(len(changes)) })
	r.cfg.Log.WarnContext(ctx, "given back what the store had lost", "from", store.Revision, "to", held.Revision, "durable", err == nil)
	return nil
}

// holdOff keeps a new writer from writing while another control plane may hold
// changes that this store has lost.
func (r *Register) holdOff(ctx context.Context) {
	r.readRoll(ctx)
	r.roll.turn <- struct{}{}
	m := &r.roll.memory
	left := time.Duration(0)
	if !m.settled && m.tenure != "" {
		left = m.learnt + settleGrace - r.mirror.Now()
	}
	<-r.roll.turn
	if left > 0 {
		wait(ctx, left, nil)
	}
}
