package registry

import (
	"context"
	"errors"
	"fmt"
)

// supersede commits as many changes that change nothing as lead to a revision
// that a sidecar holds and the store does not.
//
// A primary that was deposed while it slept may, as it wakes up, still commit
// what was under way and tell those who are connected to it. They follow its
// successor by now, whose head they refuse as a step back; nobody can give that
// head what they hold, since its writer heard of no success, or gave up. They
// would refuse everything, once their leases are over, until the next command.
// Once the head is as high as theirs they see by its digest that it is another
// register than theirs, and load it anew.
//
// One that took the number which the store has given to another change by now
// sees that by itself, unless the deposed primary's writer was of a later epoch
// than the present one, of which its successor never heard: then the writer
// claims a later epoch, and commits one change under it.
//
// Only the writer does so, and not before every control plane has had the time to
// give back what it holds (settleGrace).
func (r *Register) supersede(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	r.roll.mu.Lock()
	roll := r.roll.known
	r.roll.mu.Unlock()
	if fork := r.mirror.forked.Load(); fork != nil {
		return r.supersedeFork(ctx, fork)
	}
	held, err := r.View()
	epoch := Epoch(r.epoch.Load())
	if err != nil || held.Revision != roll.head || epoch == 0 {
		return err // there by now, or for another to do
	}
	if roll.high <= held.Revision && held.Epoch >= epoch {
		r.cfg.Log.WarnContext(ctx, "a sidecar holds a change of a deposed writer: claiming a later epoch", "epoch", epoch, "revision", held.Revision)
		r.deposed(epoch)
		return nil
	}
	n := max(roll.high, held.Revision+1) - held.Revision
	if n > groupCommandsMax {
		return fmt.Errorf("%w: a sidecar holds revision %d, the store %d: more than one commit is missing, so it was put back or forged", ErrRewound, roll.high, roll.head)
	}
	if _, ok := r.ledger.(GroupLedger); !ok {
		n = 1 // the next reading shows the rest
	}
	group := make([]*command, n)
	for i := range group {
		group[i] = &command{
			actor: Actor{Name: r.cfg.Holder}, name: supersedeCommand, empty: true, plan: func(*Tx) error { return nil },
			answer: make(chan answer, 1),
			reason: "a sidecar holds what the store never had or lost",
		}
	}
	answers, changes, err := r.tryGroup(ctx, group)
	switch {
	case errors.Is(err, ErrConflict), errors.Is(err, ErrFenced):
		return nil // the next reading shows whether it is still to be done
	case err != nil:
		return err
	}
	r.finish(ctx, group, answers, changes)
	r.roll.count(func(st *RollStats) { st.Superseded++ })
	r.cfg.Log.WarnContext(ctx, "superseded what a sidecar holds and the store does not", "from", held.Revision, "to", held.Revision+n)
	return nil
}

// supersedeFork is for the writer that itself holds what no store has any more:
// changes of a later epoch than the one under which the store went on from
// before them. Nothing that it plans can be committed then, nor can it give back
// what is no continuation of what the store has. It goes past the store's head,
// as the seal vouches for it, and so loads what is there; what it held is lost,
// and said so, since suspensions may be among it.
func (r *Register) supersedeFork(ctx context.Context, fork *Head) error {
	held, err := r.View()
	epoch := Epoch(r.epoch.Load())
	switch {
	case err != nil || epoch == 0:
		return err
	case epoch <= max(fork.Epoch, held.Epoch):
		r.deposed(epoch) // to claim a later one
		return nil
	}
	c := &Change{
		Revision: fork.Revision + 1, Epoch: epoch, At: At(r.cfg.Now()), Actor: r.cfg.Holder, Command: supersedeCommand,
		Reason: "the writer holds what the store lost and cannot be given back", Digest: fork.Digest, CaseSum: fork.CaseSum,
	}
	c.MAC = r.sealer.Change(c)
	head := Head{Revision: c.Revision, Epoch: epoch, Records: fork.Records, Digest: fork.Digest, CaseSum: fork.CaseSum}
	head.MAC = r.sealer.Head(&head)
	err = r.commit(ctx, epoch, Mark{fork.Revision, fork.Digest, fork.CaseSum}, []*Change{c}, &head)
	switch {
	case errors.Is(err, ErrConflict):
		return nil // the next reading shows whether it is still to be done
	case errors.Is(err, ErrFenced):
		r.deposed(epoch)
		return nil
	case err != nil && !errors.Is(err, ErrNotDurable):
		return err
	}
	r.tip.Store(nil)
	r.roll.count(func(st *RollStats) { st.Superseded++ })
	r.tellLost(ctx, held.Revision)
	r.finish(ctx, nil, nil, []*Change{c})
	return nil
}

// tellLost logs what this control plane holds up to a revision and the store
// does not, newest first.
func (r *Register) tellLost(ctx context.Context, rev Revision) {
	for n := 0; n < tailChangesMax && rev > 0; n, rev = n+1, rev-1 {
		held, ok := r.mirror.tail.between(rev-1, rev)
		there, err := r.ledger.Changes(ctx, rev-1, 1)
		if !ok || err != nil || len(there) > 0 && there[0].MAC == held[0].MAC {
			return
		}
		for i := range held[0].Puts {
			r.cfg.Log.ErrorContext(ctx, "LOST: this was committed, and the store that took over went on without it: see whether it is to be done again",
				"revision", rev, "command", held[0].Command, "actor", held[0].Actor, "record", held[0].Puts[i].Key(), "reason", held[0].Reason)
		}
	}
}

// supersedeCommand names in the log what changes nothing.
const supersedeCommand = "supersede"
