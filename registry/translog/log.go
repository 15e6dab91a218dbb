package translog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
)

// Bounds of the writing side.
const (
	batchRequestsMax = 512
	batchLeavesMax   = 4096
	appendTimeout    = 6 * time.Second
	acceptTimeout    = 5 * time.Second
	conflictPauseMax = 50 * time.Millisecond
	tailBatchesMax   = 256 // appends that can be given back to a store that lost them
	stateEvery       = time.Second
)

// ErrForked: the store's tree does not extend one that this log has signed or
// seen. Nothing is appended or signed any more until a person has looked.
var ErrForked = errors.New("the audit log does not extend what was signed before")

// Config is how a Log signs and remembers.
type Config struct {
	// Signer signs checkpoints; its name is the log's origin. Needed.
	Signer note.Signer
	// Verifier is of the same key. Needed.
	Verifier note.Verifier
	// StateFile keeps the newest checkpoint this log has signed or seen, so that
	// a store put back to an older or another tree is refused after a restart too.
	// Empty keeps none.
	StateFile string
	// Witnesses are asked to cosign the newest checkpoint each WitnessEvery
	// (default 1 s) while it is new to them.
	Witnesses    []RemoteWitness
	WitnessEvery time.Duration
	// Now is the clock of new leaves; default time.Now.
	Now func() time.Time
	// OnForked hears, once, of a tree that does not extend what was signed. Optional.
	OnForked func(error)
	Log      *slog.Logger
}

// Log appends to a Store and proves what is in it; for any number of
// goroutines. Appends are made one after another by the goroutine of Run, which
// gathers those that wait into one trip to the store.
type Log struct {
	store Store
	cfg   Config

	requests chan *request
	stopped  chan struct{}

	// at, high, edge and tail are owned by the goroutine of Run.
	at     State               // the store's, as far as is known
	high   State               // the largest tree signed or seen
	edge   map[int64]tlog.Hash // hashes of the complete subtrees of at
	tail   []batch
	loaded bool
	told   bool // OnForked was called

	// served is the newest durable state, swapped whole.
	served atomic.Pointer[State]

	cosigned struct {
		sync.Mutex
		newest []byte
		sizes  []int64 // by witness: the last size it cosigned
	}
}

// request is what one caller wants appended.
type request struct {
	leaves [][]byte
	// journal: the leaves are of the changes after+1 … upTo.
	journal     bool
	after, upTo registry.Revision
	answer      chan error // capacity 1
}

// batch is one append as it was made, to be made again.
type batch struct {
	before, after State
	leaves        [][]byte
}

// New makes a Log over a store; it appends while Run runs.
func New(store Store, cfg Config) (*Log, error) {
	if cfg.Signer == nil || cfg.Verifier == nil || cfg.Signer.KeyHash() != cfg.Verifier.KeyHash() || cfg.Signer.Name() != cfg.Verifier.Name() {
		return nil, errors.New("translog: a signer and the verifier of the same key are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.WitnessEvery <= 0 {
		cfg.WitnessEvery = time.Second
	}
	l := &Log{store: store, cfg: cfg, requests: make(chan *request), stopped: make(chan struct{})}
	l.cosigned.sizes = make([]int64, len(cfg.Witnesses))
	return l, nil
}

// Origin is the log's name, in every checkpoint.
func (l *Log) Origin() string { return l.cfg.Signer.Name() }

// Run appends what is asked for, until ctx ends. Call it once.
func (l *Log) Run(ctx context.Context) error {
	defer close(l.stopped)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { l.keepState(ctx) })
	if len(l.cfg.Witnesses) > 0 {
		wg.Go(func() { l.askWitnesses(ctx) })
	}
	if err := l.refresh(ctx); err != nil { // tried again with the first append
		l.cfg.Log.WarnContext(ctx, "audit log not read yet", "err", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case r := <-l.requests:
			group := l.gather(r)
			actx, acancel := context.WithTimeout(context.WithoutCancel(ctx), appendTimeout)
			l.appendGroup(actx, group)
			acancel()
		}
	}
}

func (l *Log) gather(first *request) []*request {
	group := append(make([]*request, 0, 8), first)
	leaves := len(first.leaves)
	for len(group) < batchRequestsMax && leaves < batchLeavesMax {
		select {
		case r := <-l.requests:
			group = append(group, r)
			leaves += len(r.leaves)
		default:
			return group
		}
	}
	return group
}

// Append adds leaves; they are stored, and in the signed tree, when it returns
// nil. registry.ErrNotDurable when they are, on fewer replicas than asked for.
func (l *Log) Append(ctx context.Context, leaves ...Leaf) error {
	r := &request{answer: make(chan error, 1)}
	for i := range leaves {
		if leaves[i].At == 0 {
			leaves[i].At = registry.At(l.cfg.Now())
		}
		b, err := leaves[i].Encode()
		if err != nil {
			return err
		}
		r.leaves = append(r.leaves, b)
	}
	if err := l.submit(ctx, r); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	return nil
}

// Journaled implements registry.Journal.
func (l *Log) Journaled(ctx context.Context) (registry.Revision, error) {
	st, err := l.store.State(ctx)
	if err != nil {
		return 0, fmt.Errorf("audit log: %w", err)
	}
	return st.Revision, nil
}

// Record implements registry.Journal.
func (l *Log) Record(ctx context.Context, after registry.Revision, changes []*registry.Change) error {
	if len(changes) == 0 {
		return nil
	}
	r := &request{journal: true, after: after, upTo: changes[len(changes)-1].Revision, answer: make(chan error, 1)}
	if first := changes[0]; first.Revision > after+1 {
		kind := KindGap
		if after == 0 {
			kind = KindBegin
		}
		b, err := (&Leaf{At: first.At, Kind: kind, Revision: first.Revision - 1}).Encode()
		if err != nil {
			return err
		}
		r.leaves = append(r.leaves, b)
	}
	for _, c := range changes {
		leaf := changeLeaf(c)
		b, err := leaf.Encode()
		if err != nil {
			return err
		}
		r.leaves = append(r.leaves, b)
	}
	if err := l.submit(ctx, r); err != nil {
		return fmt.Errorf("audit log, revision %d: %w", r.upTo, err)
	}
	return nil
}

func (l *Log) submit(ctx context.Context, r *request) error {
	wait := time.NewTimer(acceptTimeout)
	defer wait.Stop()
	select {
	case l.requests <- r:
	case <-l.stopped:
		return fmt.Errorf("%w: this control plane is stopping", registry.ErrUnavailable)
	case <-wait.C:
		return fmt.Errorf("%w: busy", registry.ErrUnavailable)
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-r.answer
}

// appendGroup appends the group's leaves in one step and answers everybody. To
// catch up takes longer than to append, so another control plane that appends
// without a break may win for long: this one goes on until ctx ends.
func (l *Log) appendGroup(ctx context.Context, group []*request) {
	left, err := l.tryAppend(ctx, group, false)
	for pause := time.Millisecond; errors.Is(err, registry.ErrConflict) && len(left) > 0; pause = min(2*pause, conflictPauseMax) {
		group = left
		if err = l.refresh(ctx); err != nil {
			break
		}
		if left, err = l.tryAppend(ctx, group, true); !errors.Is(err, registry.ErrConflict) {
			break
		}
		select {
		case <-ctx.Done():
			err = fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
		case <-time.After(mathrand.N(pause)):
		}
	}
	group = left
	for _, r := range group {
		r.answer <- err
	}
}

// tryAppend answers the requests that the present state rules out, and appends
// the others; it returns those that are still to be answered, with the outcome.
// What rules one out may be of yesterday until the state is fresh.
func (l *Log) tryAppend(ctx context.Context, group []*request, fresh bool) (left []*request, err error) {
	if !l.loaded {
		if err := l.refresh(ctx); err != nil {
			return group, err
		}
	}
	next := l.at
	var leaves [][]byte
	for _, r := range group {
		if r.journal {
			if r.after != next.Revision && !fresh {
				return group, registry.ErrConflict
			}
			if r.after != next.Revision {
				r.answer <- fmt.Errorf("%w: the last change with a leaf is %d", registry.ErrConflict, next.Revision)
				continue
			}
			next.Revision = r.upTo
		}
		leaves = append(leaves, r.leaves...)
		left = append(left, r)
	}
	if len(leaves) == 0 {
		return left, nil
	}
	hashes, edge, err := l.grow(ctx, &next, leaves)
	if err != nil {
		return left, err
	}
	err = l.offer(ctx, l.at, next, leaves, hashes)
	if err == nil || errors.Is(err, registry.ErrNotDurable) {
		l.accept(next, edge, leaves, err == nil)
	}
	return left, err
}

// offer appends, and finds out what became of it when the store goes silent.
func (l *Log) offer(ctx context.Context, at, next State, leaves [][]byte, hashes []tlog.Hash) error {
	pause := 5 * time.Millisecond
	for {
		err := l.store.Append(ctx, at, next, leaves, hashes)
		if !errors.Is(err, registry.ErrUncertain) {
			return err
		}
		// The same append again: a store that has it already says so.
		l.cfg.Log.WarnContext(ctx, "audit append's outcome unknown, asking again", "size", next.Size, "err", err)
		select {
		case <-ctx.Done():
			l.loaded = false
			return err
		case <-time.After(pause):
			pause = min(2*pause, 500*time.Millisecond)
		}
	}
}

// accept makes next the present state.
func (l *Log) accept(next State, edge map[int64]tlog.Hash, leaves [][]byte, durable bool) {
	l.tail = append(l.tail, batch{before: l.at, after: next, leaves: leaves})
	if len(l.tail) > tailBatchesMax {
		l.tail = l.tail[1:]
	}
	l.at, l.edge = next, edge
	if next.Size > l.high.Size {
		l.high = next
	}
	if durable {
		l.served.Store(&next)
	}
}

// grow computes the tree with the leaves: next's size, root and checkpoint, the
// hashes to store, and the new edge.
func (l *Log) grow(ctx context.Context, next *State, leaves [][]byte) ([]tlog.Hash, map[int64]tlog.Hash, error) {
	base := tlog.StoredHashCount(l.at.Size)
	var fresh []tlog.Hash
	read := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		return l.readHashes(ctx, indexes, base, fresh)
	})
	n := l.at.Size
	for _, leaf := range leaves {
		hs, err := tlog.StoredHashes(n, leaf, read)
		if err != nil {
			return nil, nil, err
		}
		fresh = append(fresh, hs...)
		n++
	}
	edge := map[int64]tlog.Hash{}
	root, err := tlog.TreeHash(n, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hs, err := l.readHashes(ctx, indexes, base, fresh)
		for i, h := range hs {
			edge[indexes[i]] = h
		}
		return hs, err
	}))
	if err != nil {
		return nil, nil, err
	}
	next.Size, next.Root, next.Append = n, root, rand.Text()
	next.Checkpoint, err = l.sign(n, root)
	return fresh, edge, err
}

// readHashes reads from the hashes being stored, the edge, then the store.
func (l *Log) readHashes(ctx context.Context, indexes []int64, base int64, fresh []tlog.Hash) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	var missing []int64
	var places []int
	for i, x := range indexes {
		if x >= base && x-base < int64(len(fresh)) {
			out[i] = fresh[x-base]
		} else if h, ok := l.edge[x]; ok {
			out[i] = h
		} else {
			missing, places = append(missing, x), append(places, i)
		}
	}
	if len(missing) == 0 {
		return out, nil
	}
	got, err := l.store.Hashes(ctx, missing)
	if err != nil {
		return nil, err
	}
	for i, h := range got {
		out[places[i]] = h
	}
	return out, nil
}

func (l *Log) sign(size int64, root tlog.Hash) ([]byte, error) {
	c := log.Checkpoint{Origin: l.Origin(), Size: uint64(size), Hash: root[:]}
	return note.Sign(&note.Note{Text: string(c.Marshal())}, l.cfg.Signer)
}
