// Package translogtest is an audit log's store in memory, with faults to
// order, and the suite that every store passes.
package translogtest

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
)

// Memory is a translog.Store in memory, for any number of goroutines.
type Memory struct {
	mu     sync.Mutex
	kept   Contents
	fail   error // of the next Append
	after  bool  // the append happens all the same
	Trips  int   // appends made; read it when nobody appends
	shorts bool
}

// Contents is all that a store holds.
type Contents struct {
	State  translog.State
	Leaves [][]byte
	Hashes []tlog.Hash
}

func (c Contents) clone() Contents {
	c.Leaves, c.Hashes = slices.Clone(c.Leaves), slices.Clone(c.Hashes)
	return c
}

// Contents copies what the store holds.
func (m *Memory) Contents() Contents {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept.clone()
}

// Put replaces what the store holds: a backup, a replica that lagged, tampering.
func (m *Memory) Put(c Contents) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept = c.clone()
}

// FailNext makes the next Append fail; happens tells whether it is done all the same.
func (m *Memory) FailNext(err error, happens bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.after = err, happens
}

// Short makes appends report registry.ErrNotDurable, having appended.
func (m *Memory) Short(short bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.shorts = short
}

// State implements translog.Store.
func (m *Memory) State(ctx context.Context) (translog.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept.State, ctx.Err()
}

// Append implements translog.Store.
func (m *Memory) Append(ctx context.Context, at, next translog.State, leaves [][]byte, hashes []tlog.Hash) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", registry.ErrUncertain, err)
	}
	err := m.fail
	m.fail = nil
	if err != nil && !m.after {
		return err
	}
	switch {
	case m.kept.State.Same(next): // asked again
	case !m.kept.State.Same(at):
		return fmt.Errorf("%w: size %d", registry.ErrConflict, m.kept.State.Size)
	default:
		if int64(len(m.kept.Hashes)) != tlog.StoredHashCount(at.Size) {
			return fmt.Errorf("%w: hashes are missing", registry.ErrTampered)
		}
		m.kept.State = next
		m.kept.Leaves = append(m.kept.Leaves, leaves...)
		m.kept.Hashes = append(m.kept.Hashes, hashes...)
		m.Trips++
	}
	if err == nil && m.shorts {
		err = registry.ErrNotDurable
	}
	return err
}

// Hashes implements translog.Store.
func (m *Memory) Hashes(ctx context.Context, indexes []int64) ([]tlog.Hash, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if x >= int64(len(m.kept.Hashes)) {
			return nil, fmt.Errorf("%w: stored hash %d is missing", registry.ErrTampered, x)
		}
		out[i] = m.kept.Hashes[x]
	}
	return out, ctx.Err()
}

// Leaves implements translog.Store.
func (m *Memory) Leaves(ctx context.Context, from int64, most int) ([][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := int64(len(m.kept.Leaves))
	if from >= n {
		return nil, ctx.Err()
	}
	return slices.Clone(m.kept.Leaves[from:min(from+int64(most), n)]), ctx.Err()
}
