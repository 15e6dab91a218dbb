package registry

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Journal is where every committed change is recorded before it is
// acknowledged; translog.Log is one.
type Journal interface {
	// Journaled is the revision of the last change recorded.
	Journaled(ctx context.Context) (Revision, error)
	// Record records changes in the order of their revisions, the last recorded
	// before them being after. ErrConflict when it is another by now; ErrNotDurable
	// when recorded on fewer replicas than asked for. Changes that begin later than
	// after+1 begin the journal, or leave a gap that it notes.
	Record(ctx context.Context, after Revision, changes []*Change) error
}

const (
	journalQueueMax  = 64  // groups committed and not yet recorded
	journalChunk     = 256 // changes recorded at once when catching up
	journalTimeout   = 8 * time.Second
	journalRetryWait = time.Second
)

// journaling is a group that is committed and waits to be recorded. changes is
// empty when nothing was changed; then its answers only keep their place in the
// line, since they may rest on changes before them.
type journaling struct {
	group   []*command
	answers []answer
	changes []*Change
}

// finish answers a group, through the journal where there is one: the next
// group is committed meanwhile.
func (r *Register) finish(ctx context.Context, group []*command, answers []answer, changes []*Change) {
	if r.cfg.Journal == nil {
		for i, c := range group {
			c.answer <- answers[i]
		}
		return
	}
	r.journalQueue <- journaling{group, answers, changes}
}

// keepJournal records what is committed, until the queue is closed. The writer
// that begins records first what was committed before it and has no record:
// the one before it died between the commit and the record, and acknowledged
// nothing.
func (r *Register) keepJournal(ctx context.Context) {
	var have Revision
	behind := true // what is recorded must be asked for
	retry := time.NewTicker(journalRetryWait)
	defer retry.Stop()
	for {
		var queued []journaling
		select {
		case j, ok := <-r.journalQueue:
			if !ok {
				return
			}
			queued = r.moreJournaling(j)
		case <-retry.C:
			if !behind || !r.Writing() {
				continue
			}
		}
		var changes []*Change
		for _, j := range queued {
			changes = append(changes, j.changes...)
		}
		if len(queued) > 0 && len(changes) == 0 && !behind {
			answerAll(queued, nil)
			continue
		}
		jctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), journalTimeout)
		reached, err := r.record(jctx, have, behind, changes)
		cancel()
		behind = err != nil && !errors.Is(err, ErrNotDurable)
		if behind {
			r.cfg.Log.ErrorContext(ctx, "committed changes not recorded in the audit log yet", "changes", len(changes), "err", err)
			err = fmt.Errorf("%w: committed, not yet recorded in the audit log: %v", ErrNotDurable, err) // not %w: it was committed, whatever the journal lacks
		} else {
			have = reached
		}
		answerAll(queued, err)
	}
}

// moreJournaling takes what else waits, so that it is recorded in one step.
func (r *Register) moreJournaling(first journaling) []journaling {
	queued := []journaling{first}
	for len(queued) < journalQueueMax {
		select {
		case j, ok := <-r.journalQueue:
			if !ok {
				return queued
			}
			queued = append(queued, j)
		default:
			return queued
		}
	}
	return queued
}

// answerAll answers what was committed; err tells those who changed something.
func answerAll(queued []journaling, err error) {
	for _, j := range queued {
		for i, c := range j.group {
			a := j.answers[i]
			if err != nil && a.err == nil && (a.existing || a.revision > 0 && len(j.changes) > 0 && a.revision >= j.changes[0].Revision) {
				a.err = err
			}
			c.answer <- a
		}
	}
}

// record brings the journal to the last of the changes, from the register's
// log where it is behind. It returns what is recorded then.
func (r *Register) record(ctx context.Context, have Revision, ask bool, changes []*Change) (Revision, error) {
	var short error
	for range conflictsMax {
		if ask {
			var err error
			if have, err = r.cfg.Journal.Journaled(ctx); err != nil {
				return have, err
			}
			if have, err = r.recordMissed(ctx, have); errors.Is(err, ErrConflict) {
				continue
			} else if errors.Is(err, ErrNotDurable) {
				short = err
			} else if err != nil {
				return have, err
			}
		}
		for len(changes) > 0 && changes[0].Revision <= have {
			changes = changes[1:]
		}
		if len(changes) == 0 {
			return have, short
		}
		if changes[0].Revision == have+1 {
			err := r.cfg.Journal.Record(ctx, have, changes)
			if err == nil || errors.Is(err, ErrNotDurable) {
				return changes[len(changes)-1].Revision, errors.Join(err, short)
			}
			if !errors.Is(err, ErrConflict) {
				return have, err
			}
		}
		ask = true // another control plane recorded, or one was passed over
	}
	return have, fmt.Errorf("%w: the journal keeps moving", ErrUnavailable)
}

// recordMissed records what the register's log holds beyond the journal.
func (r *Register) recordMissed(ctx context.Context, have Revision) (Revision, error) {
	var short error
	for {
		missed, err := r.ledger.Changes(ctx, have, journalChunk)
		if errors.Is(err, ErrTrimmed) {
			missed, err = r.firstKept(ctx)
		}
		if err != nil {
			return have, err
		}
		var changes []*Change
		for i := range missed {
			if r.sealer.Change(&missed[i]) != missed[i].MAC {
				return have, fmt.Errorf("%w: revision %d of the log", ErrTampered, missed[i].Revision)
			}
			changes = append(changes, &missed[i])
		}
		if len(changes) == 0 {
			return have, short
		}
		if err := r.cfg.Journal.Record(ctx, have, changes); errors.Is(err, ErrNotDurable) {
			short = err
		} else if err != nil {
			return have, err
		}
		have = changes[len(changes)-1].Revision
	}
}

// firstKept finds the oldest changes that the register's log still holds, by
// halving the revisions between.
func (r *Register) firstKept(ctx context.Context) ([]Change, error) {
	v, err := r.View()
	if err != nil {
		return nil, err
	}
	low, high := Revision(0), v.Revision // the log begins after one of them
	for low < high {
		mid := low + (high-low)/2
		switch _, err := r.ledger.Changes(ctx, mid, 1); {
		case errors.Is(err, ErrTrimmed):
			low = mid + 1
		case err != nil:
			return nil, err
		default:
			high = mid
		}
	}
	return r.ledger.Changes(ctx, low, journalChunk)
}
