package redisrecord

import (
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// TestTail reads what comes after a place, and goes on from the end of a flood.
func TestTail(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{Key: "t"})
	ids := authz.NewIDs()
	write := func(n int) {
		for range n {
			at := time.Now()
			if err := s.Write(t.Context(), []authz.Record{{ID: ids.Next(at), At: registry.At(at), ProductID: "FP-1003"}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	tail := func(after string) (next string, n int, skipped bool) {
		next, skipped, err := s.Tail(t.Context(), after, func(*authz.Record) { n++ })
		if err != nil {
			t.Fatal(err)
		}
		return next, n, skipped
	}
	place, n, skipped := tail("")
	if place == "" || n != 0 || skipped {
		t.Fatalf("an empty stream: %q %d %v", place, n, skipped)
	}
	write(3)
	for i, want := range []int{3, 0} {
		if place, n, skipped = tail(place); n != want || skipped {
			t.Errorf("reading %d: %d records, skipped %v", i, n, skipped)
		}
	}
	write(tailEntries)
	if place, n, skipped = tail(place); n != tailEntries || skipped {
		t.Errorf("exactly as many as are read at once: %d, skipped %v", n, skipped)
	}
	write(tailEntries + 5)
	if place, n, skipped = tail(place); n != tailEntries || !skipped {
		t.Errorf("a flood: %d, skipped %v", n, skipped)
	}
	write(1)
	if _, n, skipped = tail(place); n != 1 || skipped {
		t.Errorf("after the flood: %d, skipped %v", n, skipped)
	}
	if end, _, _ := tail(""); end == place {
		t.Error("the end is not the end")
	}
}
