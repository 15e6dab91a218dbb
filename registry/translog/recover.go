package translog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
)

// refresh takes over the store's state: at the start, and after somebody else
// appended or the store lost its end. What the store says must be signed, and
// extend everything this log has signed or seen.
func (l *Log) refresh(ctx context.Context) error {
	st, err := l.store.State(ctx)
	if err != nil {
		return err
	}
	if err := l.adopt(ctx, st); err != nil {
		if errors.Is(err, ErrForked) && !l.told {
			l.told = true
			l.cfg.Log.ErrorContext(ctx, "audit log forked or tampered with", "err", err)
			if l.cfg.OnForked != nil {
				l.cfg.OnForked(err)
			}
		}
		return err
	}
	l.told = false
	return nil
}

func (l *Log) adopt(ctx context.Context, st State) error {
	known, err := l.known()
	if err != nil {
		return err
	}
	if st.Size > 0 {
		tree, err := OpenCheckpoint(st.Checkpoint, l.cfg.Verifier)
		if err != nil {
			return fmt.Errorf("%w: the stored checkpoint: %w", ErrForked, err)
		}
		if tree.N != st.Size || tree.Hash != st.Root {
			return fmt.Errorf("%w: the stored checkpoint is of another tree", ErrForked)
		}
	}
	if st.Size < known.Size {
		return l.giveBack(ctx, st, known)
	}
	if err := l.extends(ctx, known, st); err != nil {
		return err
	}
	edge := map[int64]tlog.Hash{}
	root, err := tlog.TreeHash(st.Size, tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		hs, err := l.store.Hashes(ctx, indexes)
		for i, h := range hs {
			edge[indexes[i]] = h
		}
		return hs, err
	}))
	if err != nil {
		return err
	}
	if st.Size > 0 && root != st.Root {
		return fmt.Errorf("%w: the stored hashes do not make the signed root", ErrForked)
	}
	if !st.Same(l.at) {
		l.tail = nil
	}
	l.at, l.high, l.edge, l.loaded = st, st, edge, true
	l.served.Store(&st)
	return nil
}

// extends checks that a store's tree extends a known one, by a consistency proof.
func (l *Log) extends(ctx context.Context, known, st State) error {
	if known.Size == 0 {
		return nil
	}
	r := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) { return l.store.Hashes(ctx, indexes) })
	p, err := tlog.ProveTree(st.Size, known.Size, r)
	if err != nil {
		return err
	}
	if err := tlog.CheckTree(p, st.Size, st.Root, known.Size, known.Root); err != nil {
		return fmt.Errorf("%w: it has %d leaves now and is no extension of the %d seen before", ErrForked, st.Size, known.Size)
	}
	return nil
}

// known is the largest tree signed or seen, in this life or, by the state file, before.
func (l *Log) known() (State, error) {
	if l.high.Size > 0 || l.cfg.StateFile == "" {
		return l.high, nil
	}
	b, err := os.ReadFile(l.cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return l.high, nil
	}
	if err != nil {
		return State{}, err
	}
	var checkpoint string
	if err := json.Unmarshal(b, &checkpoint); err != nil {
		return State{}, fmt.Errorf("%s: %w", l.cfg.StateFile, err)
	}
	tree, err := OpenCheckpoint([]byte(checkpoint), l.cfg.Verifier)
	if err != nil {
		return State{}, fmt.Errorf("%s: %w", l.cfg.StateFile, err)
	}
	return State{Size: tree.N, Root: tree.Hash}, nil
}

// giveBack appends again what a store that failed over has lost: the same
// leaves at the same places, which the trees' roots make sure of.
func (l *Log) giveBack(ctx context.Context, st, known State) error {
	i := slices.IndexFunc(l.tail, func(b batch) bool { return b.before.Same(st) })
	if i < 0 {
		return fmt.Errorf("%w: it has %d leaves and had %d; restore Redis from its append-only file, a replica or a backup", ErrForked, st.Size, known.Size)
	}
	lost := slices.Clone(l.tail[i:])
	l.at, l.edge, l.loaded = st, nil, false
	for _, b := range lost {
		next := b.after
		hashes, edge, err := l.grow(ctx, &next, b.leaves)
		if err == nil && next.Root != b.after.Root {
			err = fmt.Errorf("%w: the leaves held here do not lead to the root that was signed", ErrForked)
		}
		if err == nil {
			if err = l.offer(ctx, l.at, next, b.leaves, hashes); errors.Is(err, registry.ErrNotDurable) {
				err = nil // given back, and perhaps lost again: then again
			}
		}
		if err != nil {
			return err
		}
		l.at, l.edge = next, edge
	}
	l.loaded = true
	now := l.at
	l.served.Store(&now)
	l.cfg.Log.WarnContext(ctx, "given back what the audit log had lost", "from", st.Size, "to", l.at.Size)
	return nil
}

// keepState writes the newest durable checkpoint to the state file, at most once a second.
func (l *Log) keepState(ctx context.Context) {
	if l.cfg.StateFile == "" {
		return
	}
	tick := time.NewTicker(stateEvery)
	defer tick.Stop()
	var written int64
	for done := false; !done; {
		select {
		case <-ctx.Done():
			done = true
		case <-tick.C:
		}
		st := l.served.Load()
		if st == nil || st.Size <= written {
			continue
		}
		if err := writeState(l.cfg.StateFile, st.Checkpoint); err != nil {
			l.cfg.Log.WarnContext(ctx, "audit checkpoint not kept", "err", err)
			continue
		}
		written = st.Size
	}
}

func writeState(path string, checkpoint []byte) error {
	b, err := json.Marshal(string(checkpoint))
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, werr := f.Write(append(b, '\n'))
	if err := errors.Join(werr, f.Close()); err != nil {
		os.Remove(f.Name())
		return err
	}
	return os.Rename(f.Name(), path)
}
