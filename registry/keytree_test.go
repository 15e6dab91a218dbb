package registry

import (
	"fmt"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is put in and taken out, a tree and every fork of it say what a
// sorted list says, and a fork changes nothing of its source.
func TestAKeyTreeIsASortedSet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.OneOf(
			rapid.StringOfN(rapid.RuneFrom([]rune("ab\x00")), 0, 6, -1),
			rapid.Map(rapid.IntRange(0, 2000), func(n int) string { return fmt.Sprintf("\x01\x02word\x00BN-%06d", n) }),
			rapid.StringOfN(rapid.RuneFrom([]rune("xy")), 120, 300, -1),
		)
		type state struct {
			tree keyTree
			want []string
		}
		s := state{tree: newKeyTree()}
		var before []state
		for range rapid.IntRange(1, 12).Draw(t, "turns") {
			before = append(before, s)
			s = state{s.tree.fork(), slices.Clone(s.want)}
			if rapid.Bool().Draw(t, "run") { // many neighbours at once, so that leaves are split, emptied and joined
				from, n, out := rapid.IntRange(0, 3000).Draw(t, "from"), rapid.IntRange(0, 900).Draw(t, "n"), rapid.Bool().Draw(t, "out")
				for i := range n {
					s.want = change(&s.tree, s.want, fmt.Sprintf("\x01\x02word\x00BN-%06d", from+i*7%n), out)
				}
			}
			for range rapid.IntRange(0, 40).Draw(t, "changes") {
				s.want = change(&s.tree, s.want, key.Draw(t, "key"), rapid.Bool().Draw(t, "remove"))
			}
		}
		for _, s := range append(before, s) {
			holds(t, s.tree, s.want, key.Draw(t, "asked"))
		}
	})
}

func change(t *keyTree, list []string, key string, remove bool) []string {
	i, there := slices.BinarySearch(list, key)
	switch {
	case remove:
		t.remove(key)
		if there {
			list = slices.Delete(list, i, i+1)
		}
	default:
		t.insert(key)
		if !there {
			list = slices.Insert(list, i, key)
		}
	}
	return list
}

func holds(t *rapid.T, tree keyTree, want []string, asked string) {
	if tree.len() != len(want) {
		t.Fatalf("%d keys, want %d", tree.len(), len(want))
	}
	var got []string
	for c := tree.from(""); c.next(); {
		got = append(got, string(c.key))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	for _, key := range []string{asked, asked + "\xff", ""} {
		i, there := slices.BinarySearch(want, key)
		if tree.has(key) != there || tree.rank(key) != i {
			t.Fatalf("%q: there %t, rank %d; want %t, %d", key, tree.has(key), tree.rank(key), there, i)
		}
		got = nil
		for c := tree.from(key); c.next(); {
			got = append(got, string(c.key))
		}
		if !slices.Equal(got, want[i:]) && len(got)+len(want[i:]) > 0 {
			t.Fatalf("from %q: %q, want %q", key, got, want[i:])
		}
	}
	for rank := 0; rank <= len(want); rank += 1 + len(want)/20 {
		c := tree.at(rank)
		if c.next() != (rank < len(want)) || rank < len(want) && string(c.key) != want[rank] {
			t.Fatalf("at %d: %q", rank, c.key)
		}
	}
}

// A hundred thousand keys take about a megabyte, where a tree of strings takes six.
func TestAKeyTreeIsSmall(t *testing.T) {
	const n = 100_000
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tree := newKeyTree()
	for i := range n {
		tree.insert(fmt.Sprintf("\x01\x02banksia\x00BN-%06d", i*7919%n))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := float64(after.HeapAlloc-before.HeapAlloc) / n; each > 16 {
		t.Errorf("%.1f bytes a key", each)
	}
	if tree.len() != n {
		t.Error(tree.len())
	}
}

func BenchmarkKeyTreeInsert(b *testing.B) {
	tree := newKeyTree()
	for i := range b.N {
		if i%500 == 0 {
			tree = tree.fork()
		}
		tree.insert(fmt.Sprintf("\x01\x02banksia\x00BN-%07d", i*7919%(1<<20)))
	}
}
