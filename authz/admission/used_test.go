package admission

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// What is remembered of stamps used is bounded; beyond it calls are refused,
// until those that took the room are over.
func TestMemoryOfStampsIsBounded(t *testing.T) {
	u := newUsed(time.Second)
	u.most = 100
	now := time.UnixMilli(1_795_300_000_000)
	id := func(n int) string { return fmt.Sprintf("%026d", n) }
	for n := range 100 {
		if err := u.note(id(n), now); err != nil {
			t.Fatal(err)
		}
	}
	if err := u.note(id(100), now); !errors.Is(err, ErrBusy) {
		t.Errorf("beyond the bound: %v", err)
	}
	if err := u.note(id(5), now.Add(999*time.Millisecond)); !errors.Is(err, ErrReplayed) {
		t.Errorf("one of them again: %v", err)
	}
	if err := u.note(id(100), now.Add(time.Second)); err != nil {
		t.Errorf("in the next generation: %v", err)
	}
	if err := u.note(id(5), now.Add(1999*time.Millisecond)); !errors.Is(err, ErrReplayed) {
		t.Errorf("one of the last generation: %v", err)
	}
	if err := u.note(id(5), now.Add(4*time.Second)); err != nil || len(u.now)+len(u.old) > 2 {
		t.Errorf("after a pause: %v, %d and %d remembered", err, len(u.now), len(u.old))
	}
	if u.note(id(7), now.Add(-time.Hour)) != nil || !errors.Is(u.note(id(7), now.Add(-time.Hour)), ErrReplayed) {
		t.Error("a clock that stepped back is not followed")
	}
	if verifierMost := newUsed(time.Second).most; verifierMost > 1<<20 {
		t.Errorf("%d are remembered in a generation", verifierMost)
	}
}
