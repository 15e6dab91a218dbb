package translogtest

import (
	"crypto/rand"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
)

// Grown is the append that adds leaves to a tree.
func Grown(t testing.TB, at translog.State, old []tlog.Hash, leaves ...string) (next translog.State, data [][]byte, fresh []tlog.Hash) {
	t.Helper()
	all := append([]tlog.Hash{}, old...)
	read := tlog.HashReaderFunc(func(indexes []int64) (out []tlog.Hash, err error) {
		for _, x := range indexes {
			out = append(out, all[x])
		}
		return out, nil
	})
	next = at
	for _, l := range leaves {
		hs, err := tlog.StoredHashes(next.Size, []byte(l), read)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, hs...)
		data = append(data, []byte(l))
		next.Size++
	}
	root, err := tlog.TreeHash(next.Size, read)
	if err != nil {
		t.Fatal(err)
	}
	next.Root, next.Append, next.Checkpoint = root, rand.Text(), fmt.Appendf(nil, "checkpoint of %d\n", next.Size)
	return next, data, all[len(old):]
}

// Run holds a store against the contract of translog.Store.
func Run(t *testing.T, open func(t *testing.T) translog.Store) {
	t.Run("grows", func(t *testing.T) { grows(t, open(t)) })
	t.Run("refuses another tree", func(t *testing.T) { refuses(t, open(t)) })
	t.Run("reads only what is there", func(t *testing.T) { reads(t, open(t)) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func grows(t *testing.T, s translog.Store) {
	ctx := t.Context()
	at, err := s.State(ctx)
	must(t, err)
	if at.Size != 0 || at.Revision != 0 || len(at.Checkpoint) != 0 {
		t.Fatalf("an empty store says %+v", at)
	}
	var hashes []tlog.Hash
	var all [][]byte
	for i, n := range []int{1, 2, 5, 1, 100, 1} {
		var leaves []string
		for j := range n {
			leaves = append(leaves, fmt.Sprintf("leaf %d of %d \x00\xff", j, i))
		}
		next, data, fresh := Grown(t, at, hashes, leaves...)
		next.Revision = registry.Revision(i * 10)
		must(t, s.Append(ctx, at, next, data, fresh))
		must(t, s.Append(ctx, at, next, data, fresh)) // heard no answer, asked again
		got, err := s.State(ctx)
		must(t, err)
		if diff := cmp.Diff(next, got); diff != "" {
			t.Fatal(diff)
		}
		at, hashes, all = next, append(hashes, fresh...), append(all, data...)
	}
	leaves, err := s.Leaves(ctx, 0, 1000)
	must(t, err)
	if diff := cmp.Diff(all, leaves); diff != "" {
		t.Error(diff)
	}
	some, err := s.Leaves(ctx, 3, 4)
	must(t, err)
	if diff := cmp.Diff(all[3:7], some); diff != "" {
		t.Error(diff)
	}
	var indexes []int64
	for i := range hashes {
		indexes = append(indexes, int64(i))
	}
	got, err := s.Hashes(ctx, indexes)
	must(t, err)
	if diff := cmp.Diff(hashes, got); diff != "" {
		t.Error(diff)
	}
}

func refuses(t *testing.T, s translog.Store) {
	ctx := t.Context()
	one, data1, fresh1 := Grown(t, translog.State{}, nil, "a")
	must(t, s.Append(ctx, translog.State{}, one, data1, fresh1))
	other, data2, fresh2 := Grown(t, translog.State{}, nil, "b")
	if err := s.Append(ctx, translog.State{}, other, data2, fresh2); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("a second tree on the empty one: %v", err)
	}
	next, data3, fresh3 := Grown(t, other, fresh2, "c")
	if err := s.Append(ctx, other, next, data3, fresh3); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("an append to another tree of the same size: %v", err)
	}
	wrong := one
	wrong.Revision = 7
	if err := s.Append(ctx, wrong, next, data3, fresh3); !errors.Is(err, registry.ErrConflict) {
		t.Errorf("an append after another revision: %v", err)
	}
	got, err := s.State(ctx)
	must(t, err)
	if diff := cmp.Diff(one, got); diff != "" {
		t.Error(diff)
	}
}

func reads(t *testing.T, s translog.Store) {
	ctx := t.Context()
	leaves, err := s.Leaves(ctx, 5, 10)
	if err != nil || len(leaves) != 0 {
		t.Errorf("leaves beyond the end: %q, %v", leaves, err)
	}
	if h, err := s.Hashes(ctx, []int64{3}); err == nil {
		t.Errorf("a hash beyond the end: %v", h)
	}
}
