package translog

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/transparency-dev/formats/log"

	"github.com/dspgate/dspgate/registry"
)

// entriesMax is how many leaves are read at once.
const entriesMax = 1000

// Entry is a leaf and its place.
type Entry struct {
	Index int64
	Leaf  []byte // its JSON, as hashed
}

// Hash is the leaf's hash in the tree (RFC 6962 §2.1).
func (e *Entry) Hash() tlog.Hash { return tlog.RecordHash(e.Leaf) }

// OpenCheckpoint reads a signed checkpoint; it must be of the verifier's log.
func OpenCheckpoint(signed []byte, v note.Verifier) (tree tlog.Tree, err error) {
	c, _, _, err := log.ParseCheckpoint(signed, v.Name(), v)
	if err != nil {
		return tree, err
	}
	if c.Size > 1<<62 || len(c.Hash) != tlog.HashSize {
		return tree, fmt.Errorf("%w: no tree has %d leaves and a root of %d bytes", registry.ErrInvalid, c.Size, len(c.Hash))
	}
	return tlog.Tree{N: int64(c.Size), Hash: tlog.Hash(c.Hash)}, nil
}

// State is the newest state that is durable; ErrUnavailable until the log was read.
func (l *Log) State() (State, error) {
	st := l.served.Load()
	if st == nil {
		return State{}, fmt.Errorf("%w: the audit log is not read yet", registry.ErrUnavailable)
	}
	return *st, nil
}

// Checkpoint is the newest signed checkpoint; that of the empty log is signed anew.
func (l *Log) Checkpoint() ([]byte, State, error) {
	st, err := l.State()
	if err != nil {
		return nil, st, err
	}
	if st.Size == 0 {
		st.Root = emptyRoot()
		st.Checkpoint, err = l.sign(0, st.Root)
	}
	return st.Checkpoint, st, err
}

func emptyRoot() tlog.Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic("translog: the empty tree has no hash: " + err.Error())
	}
	return h
}

// Entries reads the leaves from an index on, as far as the newest checkpoint
// reaches, at most 1,000.
func (l *Log) Entries(ctx context.Context, from int64, most int) ([]Entry, error) {
	st, err := l.State()
	if err != nil {
		return nil, err
	}
	n := min(st.Size-from, int64(most), entriesMax)
	if n <= 0 {
		return nil, nil
	}
	leaves, err := l.store.Leaves(ctx, from, int(n))
	if err != nil {
		return nil, err
	}
	if int64(len(leaves)) != n {
		return nil, fmt.Errorf("audit log: %w: leaves from %d on are missing", registry.ErrTampered, from+int64(len(leaves)))
	}
	out := make([]Entry, n)
	for i := range leaves {
		out[i] = Entry{from + int64(i), leaves[i]}
	}
	return out, nil
}

// ProveLeaf proves that the leaf at an index is in the tree of the newest
// checkpoint. A leaf that was changed in the store cannot be proved:
// registry.ErrTampered.
func (l *Log) ProveLeaf(ctx context.Context, index int64) (Entry, tlog.RecordProof, State, error) {
	st, err := l.State()
	if err != nil {
		return Entry{}, nil, st, err
	}
	if index < 0 || index >= st.Size {
		return Entry{}, nil, st, fmt.Errorf("%w: the log has %d entries", registry.ErrNotFound, st.Size)
	}
	entries, err := l.Entries(ctx, index, 1)
	if err != nil {
		return Entry{}, nil, st, err
	}
	p, err := tlog.ProveRecord(st.Size, index, l.reader(ctx))
	if err != nil {
		return Entry{}, nil, st, err
	}
	if err := tlog.CheckRecord(p, st.Size, st.Root, index, entries[0].Hash()); err != nil {
		return Entry{}, nil, st, fmt.Errorf("audit log: %w: entry %d is not the one that was signed", registry.ErrTampered, index)
	}
	return entries[0], p, st, nil
}

// ProveTree proves that the newest checkpoint extends the log as it was with
// size leaves.
func (l *Log) ProveTree(ctx context.Context, size int64) (tlog.TreeProof, State, error) {
	st, err := l.State()
	if err != nil {
		return nil, st, err
	}
	if size < 1 || size > st.Size {
		return nil, st, fmt.Errorf("%w: the log has %d entries", registry.ErrNotFound, st.Size)
	}
	p, err := l.proveTree(ctx, st, size)
	return p, st, err
}

func (l *Log) proveTree(ctx context.Context, st State, size int64) (tlog.TreeProof, error) {
	r := l.reader(ctx)
	p, err := tlog.ProveTree(st.Size, size, r)
	if err != nil {
		return nil, err
	}
	old, err := tlog.TreeHash(size, r)
	if err != nil {
		return nil, err
	}
	if err := tlog.CheckTree(p, st.Size, st.Root, size, old); err != nil {
		return nil, fmt.Errorf("audit log: %w: the stored hashes do not lead to what was signed", registry.ErrTampered)
	}
	return p, nil
}

func (l *Log) reader(ctx context.Context) tlog.HashReader {
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) { return l.store.Hashes(ctx, indexes) })
}
