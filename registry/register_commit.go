package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// gather takes, with one command, those that wait beside it, if the ledger can
// commit several at once.
func (r *Register) gather(first *command) []*command {
	group := append(make([]*command, 0, 8), first)
	if _, ok := r.ledger.(GroupLedger); !ok {
		return group
	}
	for len(group) < groupCommandsMax {
		select {
		case c := <-r.commands:
			group = append(group, c)
		default:
			return group
		}
	}
	return group
}

// commitGroup plans each command on what the one before it left, and commits
// all their changes in one step. Nobody is answered before that step is done:
// even a refusal may rest on a change of the same group.
func (r *Register) commitGroup(ctx context.Context, group []*command) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	var err error
	for range conflictsMax {
		var answers []answer
		var changes []*Change
		answers, changes, err = r.tryGroup(ctx, group)
		if answers != nil {
			r.finish(ctx, group, answers, changes)
			return
		}
		if !errors.Is(err, ErrConflict) {
			break
		}
	}
	for _, c := range group {
		c.answer <- answer{err: err}
	}
}

// tryGroup returns an answer for each command, and what was committed; or none and the error of the
// whole group, ErrConflict when it may be planned again.
func (r *Register) tryGroup(ctx context.Context, group []*command) ([]answer, []*Change, error) {
	base, err := r.View()
	if err != nil {
		return nil, nil, err
	}
	epoch := Epoch(r.epoch.Load())
	if epoch == 0 {
		return nil, nil, ErrFenced
	}
	book, err := r.bookFor(ctx, base, group)
	if err != nil {
		return nil, nil, err
	}
	answers, changes, tip, book := r.plan(base, book, epoch, group)
	if len(changes) == 0 {
		answers, err := r.confirm(ctx, epoch, base, answers)
		return answers, nil, err
	}
	head := Head{Revision: tip.Revision, Epoch: epoch, Records: tip.Records, Digest: tip.Digest, CaseSum: tip.CaseSum}
	head.MAC = r.sealer.Head(&head)

	r.planned.Store(&changes)
	err = r.commit(ctx, epoch, base.Mark(), changes, &head)
	if err != nil && !errors.Is(err, ErrNotDurable) {
		// Whoever holds them holds what may never be: a lift among them would be
		// taken for an acknowledgement of the suspension it ends.
		r.planned.Store(nil)
	}
	switch {
	case err == nil:
	case errors.Is(err, ErrNotDurable):
		for i := range answers {
			if answers[i].err == nil && answers[i].revision > base.Revision {
				answers[i].err = err
			}
		}
	case errors.Is(err, ErrRewound):
		return nil, nil, r.reassertAnd(ctx)
	case errors.Is(err, ErrConflict):
		if cerr := r.catchUp(ctx, base.Revision+1); cerr != nil {
			return nil, nil, cerr
		}
		return nil, nil, err
	case errors.Is(err, ErrFenced):
		r.deposed(epoch)
		return nil, nil, err
	default:
		return nil, nil, err
	}
	for _, c := range changes {
		r.mirror.tail.note(c)
	}
	r.books.offer(book)
	r.tip.Store(tip)
	return answers, changes, nil
}

// confirm makes sure of answers that say that something was there already: the
// store must hold it still, and on as many replicas as are asked for, which the
// command that put it there may have been told it was not.
func (r *Register) confirm(ctx context.Context, epoch Epoch, base *View, answers []answer) ([]answer, error) {
	if base.Revision == 0 || !slices.ContainsFunc(answers, func(a answer) bool { return a.existing && a.err == nil }) {
		return answers, nil
	}
	newest, err := r.ledger.Changes(ctx, base.Revision-1, 1)
	switch {
	case errors.Is(err, ErrTrimmed): // its end, which nobody trims: it is whole again with the next change
		return nil, fmt.Errorf("%w: the log has lost revision %d, which its head names", ErrUnavailable, base.Revision)
	case err != nil:
		return nil, err
	case len(newest) == 0:
		return nil, r.reassertAnd(ctx)
	case newest[0].Revision != base.Revision || newest[0].Digest != base.Digest || newest[0].CaseSum != base.CaseSum || r.sealer.Change(&newest[0]) != newest[0].MAC:
		return nil, fmt.Errorf("%w: the log does not hold revision %d as it was followed", ErrUnavailable, base.Revision)
	}
	// Offered again it changes nothing and is waited for like the first time; or it
	// is committed again, to a store that lost it a moment ago.
	c := &newest[0]
	head := Head{Revision: c.Revision, Epoch: c.Epoch, Records: base.Records, Digest: base.Digest, CaseSum: base.CaseSum}
	head.MAC = r.sealer.Head(&head)
	again := []*Change{c}
	if whole, ok := r.withBodies(again); ok {
		again = whole
	}
	before := Mark{Revision: base.Revision - 1}
	if s, known := r.mirror.tail.state(before.Revision); known {
		before.Digest, before.CaseSum = s.digest, s.cases
	}
	err = r.offer(ctx, epoch, before, again, &head)
	switch {
	case errors.Is(err, ErrNotDurable):
		for i := range answers {
			if answers[i].existing && answers[i].err == nil {
				answers[i].err = err
			}
		}
	case errors.Is(err, ErrFenced):
		r.deposed(epoch)
		return nil, err
	case err != nil:
		return nil, err
	}
	return answers, nil
}

// reassertAnd asks to plan again once the store is where it was.
func (r *Register) reassertAnd(ctx context.Context) error {
	if err := r.reassert(ctx); err != nil {
		return err
	}
	return ErrConflict
}

// deposed notes that another is the writer.
func (r *Register) deposed(epoch Epoch) {
	r.epoch.CompareAndSwap(uint64(epoch), 0)
	select {
	case r.reclaim <- struct{}{}:
	default:
	}
}

// plan runs the commands one on top of the other. book is nil when the casework
// is not available; no change then writes any.
func (r *Register) plan(base *View, book *Casebook, epoch Epoch, group []*command) (answers []answer, changes []*Change, tip *View, tipBook *Casebook) {
	tip = base
	now := At(r.cfg.Now())
	answers = make([]answer, len(group))
	for i, c := range group {
		b := NewBuilder(tip, now)
		t := &Tx{view: &b.v, now: now, revision: tip.Revision + 1, b: b, sealer: r.sealer, actor: c.actor, book: book}
		err := c.plan(t)
		if err != nil {
			answers[i].err = err
			continue
		}
		if len(t.puts)+len(t.cases) > 0 || c.empty {
			b.v.CaseSum = t.caseSum(tip.CaseSum)
			next, err := b.View(t.revision, epoch)
			if err != nil {
				answers[i].err = err
				continue
			}
			change := &Change{
				Revision: t.revision, Epoch: epoch, At: now, Actor: c.actor.Name, Command: c.name, Reason: c.reason,
				Puts: t.puts, Cases: t.cases, Digest: next.Digest, CaseSum: next.CaseSum,
			}
			change.MAC = r.sealer.Change(change)
			if c.once != nil {
				change.Keyed = c.once.keeps(onceStep{Command: c.name, Revision: cmp.Or(t.found, t.revision), ID: t.id, Existing: t.found != 0})
			}
			answers[i].changed = true
			changes = append(changes, change)
			book = book.after(change, tip, next)
			tip = next
		}
		answers[i] = answer{view: tip, book: book, id: t.id, revision: tip.Revision, existing: t.found != 0, changed: answers[i].changed}
		if t.found != 0 {
			answers[i].revision = t.found
		}
	}
	return answers, changes, tip, book
}

// commit writes the changes, and finds out what became of them when the store
// goes silent: the same changes are offered again, which the base revision
// lets happen at most once, until the store accepts them or shows what stands
// in their place.
func (r *Register) commit(ctx context.Context, epoch Epoch, base Mark, changes []*Change, head *Head) error {
	pause := 5 * time.Millisecond
	uncertain := false
	for {
		err := r.offer(ctx, epoch, base, changes, head)
		switch {
		case err == nil, errors.Is(err, ErrNotDurable):
			return err
		case errors.Is(err, ErrConflict), errors.Is(err, ErrFenced) && uncertain:
			ours, lerr := r.committed(ctx, changes)
			if lerr == nil && ours {
				return nil
			}
			if lerr == nil || !uncertain {
				return err
			}
			err = fmt.Errorf("%w: %w", ErrUncertain, lerr)
		case errors.Is(err, ErrUncertain):
			uncertain = true
		case !uncertain:
			return err
		}
		r.cfg.Log.WarnContext(ctx, "commit outcome unknown, asking again", "revision", changes[0].Revision, "err", err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUncertain, err)
		case <-time.After(pause):
			pause = min(2*pause, 500*time.Millisecond)
		}
	}
}

func (r *Register) offer(ctx context.Context, epoch Epoch, base Mark, changes []*Change, head *Head) error {
	ctx, cancel := context.WithTimeout(ctx, offerTimeout)
	defer cancel()
	if len(changes) == 1 {
		return r.ledger.Commit(ctx, epoch, base, changes[0], head)
	}
	return r.ledger.(GroupLedger).CommitGroup(ctx, epoch, base, changes, head)
}

// committed tells whether the log holds the first of the changes (a group is
// written whole) at its revision.
func (r *Register) committed(ctx context.Context, changes []*Change) (bool, error) {
	got, err := r.ledger.Changes(ctx, changes[0].Revision-1, 1)
	if err != nil {
		return false, err
	}
	return len(got) == 1 && got[0].Revision == changes[0].Revision && got[0].MAC == changes[0].MAC, nil
}

// catchUp waits until the own mirror holds a revision.
func (r *Register) catchUp(ctx context.Context, rev Revision) error {
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	for {
		changed := r.mirror.Changed()
		if v, err := r.View(); err == nil && v.Revision >= rev {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: another control plane changed the register, and this one's mirror has not caught up", ErrUnavailable)
		case <-changed:
		}
	}
}
