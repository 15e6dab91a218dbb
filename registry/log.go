package registry

import (
	"context"
	"time"
)

// Log is what a Mirror follows. redisstore implements it over Redis, and
// registrytest in memory with faults to order.
type Log interface {
	// Snapshot streams every record to put, in no order, and returns the head as
	// it was before the first record was read. The records may be newer than that
	// head, never older; replaying the log from it makes them whole. put must not
	// keep r.Data.
	Snapshot(ctx context.Context, put func(*Record) error) (Head, error)

	// Follow records that the sidecar holds ack.Revision (this *is* the
	// acknowledgement) and returns the changes after it, oldest first, in one
	// atomic step. At most max changes are returned; Poll.Head tells whether there
	// are more. ErrTrimmed when the log no longer reaches back to ack.Revision.
	Follow(ctx context.Context, ack Ack, max int) (Poll, error)

	// Leave takes one incarnation of a sidecar off the roll: it has stopped
	// serving. Every other incarnation stays.
	Leave(ctx context.Context, id, incarnation string) error

	// Wake returns a channel that gets a value, never blocking the sender, soon
	// after the log grew. Wake-ups may be lost; polling heals that.
	Wake(ctx context.Context) <-chan struct{}
}

// Pusher is a Log whose wake-ups carry the changes they tell of, as a rule.
// A Mirror that takes them needs one step to the store, not two, from a commit to
// its acknowledgement.
type Pusher interface {
	// Pushed returns the changes after a revision that came with wake-ups since it
	// was last called, oldest first and without a gap; none when some were lost.
	// Nobody vouches for them: they are verified as those of a poll are, and may
	// come from a primary that was deposed.
	Pushed(after Revision) []Change
}

// Ack is what a follower says of itself at each poll.
type Ack struct {
	ID          string        // of the sidecar, stable over restarts
	Incarnation string        // random, one per process
	Revision    Revision      // held and served by now; 0 when not loaded
	Digest      Digest        // of the View held
	Short, Long time.Duration // the serving leases it was configured with, for risk ratings 3–4 and 1–2
	Observer    bool          // follows but serves no traffic (a control plane), or loads and does not serve yet: the roll is left as it is
}

// Poll is the answer to Follow.
type Poll struct {
	Head    Head
	Changes []Change
}

// Ledger is where Register commits.
type Ledger interface {
	// Commit appends one change whose Revision is that of base+1 and writes its
	// records, and for a day what it keeps of a request, in one atomic step. ErrFenced when fence is not the present epoch,
	// ErrConflict when the head is not base, in its digests too; ErrNotDurable when committed on fewer replicas
	// than asked for; ErrUncertain when the outcome is unknown.
	Commit(ctx context.Context, fence Epoch, base Mark, c *Change, head *Head) error

	// Lead makes this control plane the writer: it raises and returns the epoch,
	// unless another writer's claim, renewed within ttl, still stands (ErrFenced).
	// A holder of the epoch it names in have renews it instead.
	Lead(ctx context.Context, holder string, have Epoch, ttl time.Duration) (Epoch, error)

	// Replayed looks up what is kept of an Idempotency-Key.
	Replayed(ctx context.Context, key string) (Kept, error)
	// Remember stores the answer for an Idempotency-Key for a day.
	Remember(ctx context.Context, key string, answer []byte) error

	// Roll reads the roll: every incarnation of a sidecar, with what it last
	// acknowledged and the store's own time at which it did.
	Roll(ctx context.Context) (Roll, error)

	// Settle notes that the roll of a tenure is known to be whole. Another tenure
	// than the present one is left alone.
	Settle(ctx context.Context, tenure string) error

	// Reassert appends again, in one atomic step, changes that this store has
	// lost, when its head is still exactly store: the same changes at the same
	// revisions, up to head. It asks for no fence, since it makes nothing new: it
	// only completes a history whose beginning the store holds. ErrConflict when
	// the head is another by now; ErrNotDurable and ErrUncertain as for Commit.
	Reassert(ctx context.Context, store Head, changes []*Change, head *Head) error

	// Changes reads the log after a revision, oldest first, for the audit and for listings.
	Changes(ctx context.Context, after Revision, max int) ([]Change, error)
}

// Mark names one state of the register. The number alone does not: a primary
// that was deposed may have given it to another.
type Mark struct {
	Revision Revision
	Digest   Digest
	CaseSum  CaseSum
}

// Mark names the state that a View shows.
func (v *View) Mark() Mark { return Mark{v.Revision, v.Digest, v.CaseSum} }

// Roll is one reading of the roll.
type Roll struct {
	Members []Member
	At      Time     // by the store's clock
	Head    Revision // of the store, read in the same step
	// Tenure names the life of the primary that answered: it changes whenever the
	// store was started anew, promoted or emptied, and with it the end of the roll
	// may have been lost. "" when the store does not tell, which is as good as a
	// new tenure each time.
	Tenure string
	// Settled: the roll of this tenure is known to lack nobody who may still serve.
	Settled bool
}

// Member is one incarnation of a sidecar on the roll.
type Member struct {
	ID          string        `json:"id"`
	Incarnation string        `json:"incarnation"`
	Revision    Revision      `json:"revision"`
	Digest      Digest        `json:"digest"`
	Short       time.Duration `json:"short_ns"`
	Long        time.Duration `json:"long_ns"`
	PolledAt    Time          `json:"polled_at"` // by the store's clock
}
