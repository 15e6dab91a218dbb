package registrytest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

func testRoll(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	for i := range 20 {
		for rev := range registry.Revision(2) {
			ack := registry.Ack{ID: fmt.Sprint("sidecar ", i), Incarnation: fmt.Sprint(i), Revision: rev, Short: time.Duration(i + 1), Long: time.Hour}
			if _, err := s.Follow(t.Context(), ack, 1); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := roll(t, s)
	want(t, "members", len(got), 20)
	for i := range 20 {
		id := fmt.Sprint("sidecar ", i)
		want(t, id, got[fmt.Sprint(id, "/", i)], registry.Member{ID: id, Incarnation: fmt.Sprint(i), Revision: 1, Short: time.Duration(i + 1), Long: time.Hour})
	}
}

func testLeave(t *testing.T, s Store) {
	follow := func(id, incarnation string) {
		t.Helper()
		if _, err := s.Follow(t.Context(), registry.Ack{ID: id, Incarnation: incarnation}, 1); err != nil {
			t.Fatal(err)
		}
	}
	leave := func(id, incarnation string) {
		t.Helper()
		if err := s.Leave(t.Context(), id, incarnation); err != nil {
			t.Fatal(err)
		}
	}
	follow("a", "1")
	follow("b", "1")
	follow("b", "2") // started anew beside a first that is paused
	leave("a", "1")
	got := roll(t, s)
	want(t, "members, two of them incarnations of one", len(got), 2)
	leave("b", "1") // the old one ends after the new one began
	leave("c", "1") // never was there
	got = roll(t, s)
	want(t, "members", len(got), 1)
	want(t, "the one that replaced it", got["b/2"].Incarnation, "2")
}

func testRemember(t *testing.T, s Store) {
	ctx := t.Context()
	if got, err := s.Replayed(ctx, "key"); err != nil || got.Answer != nil || len(got.Steps) > 0 {
		t.Errorf("new key: %+v, %v", got, err)
	}
	for key, data := range map[string]string{"key": "{\"a\":1}\x00\xff", "key2": "", "k:e y/{}": strings.Repeat("x", 1<<16)} {
		if err := s.Remember(ctx, key, []byte(data)); err != nil {
			t.Fatal(err)
		}
		kept, err := s.Replayed(ctx, key)
		got := kept.Answer
		if err != nil || got == nil || string(got) != data {
			t.Errorf("%q: %d bytes, nil %t, %v; want %d bytes", key, len(got), got == nil, err, len(data))
		}
	}
	if got, err := s.Replayed(ctx, "key3"); err != nil || got.Answer != nil {
		t.Errorf("another key: %+v, %v", got, err)
	}
}

func testChanges(t *testing.T, s Store) {
	w := NewWriter(t, s)
	for i := range 10 {
		w.Put(product("FP-1", fmt.Sprint(i)))
	}
	for _, c := range []struct {
		after registry.Revision
		max   int
		want  []registry.Revision
	}{{0, 3, []registry.Revision{1, 2, 3}}, {8, 10, []registry.Revision{9, 10}}, {10, 10, nil}, {99, 10, nil}} {
		var got []registry.Revision
		for _, x := range changes(t, s, c.after, c.max) {
			if x.MAC != w.sealer.Change(&x) {
				t.Errorf("change %d does not verify", x.Revision)
			}
			got = append(got, x.Revision)
		}
		want(t, fmt.Sprintf("after %d at most %d", c.after, c.max), got, c.want)
	}
}

func testWake(t *testing.T, s Store) {
	w := NewWriter(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wakes := s.Wake(ctx)
	deaf := s.Wake(ctx) // nobody reads it
	// Wake-ups may be lost, above all before a subscription stands: commit until one comes.
	deadline := time.After(patience)
	for i := 0; ; i++ {
		w.Put(product("FP-1", fmt.Sprint(i)))
		select {
		case _, ok := <-wakes:
			if !ok {
				t.Fatal("the wake-ups ended")
			}
		case <-time.After(20 * time.Millisecond):
			continue
		case <-deadline:
			t.Fatal("no wake-up")
		}
		break
	}
	for i := range 50 {
		w.Put(product("FP-2", fmt.Sprint(i)))
	}
	_ = deaf
}

func testCancelled(t *testing.T, s Store) {
	w := NewWriter(t, s)
	w.Put(product("FP-1", "a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Snapshot(ctx, func(*registry.Record) error { return nil }); err == nil {
		t.Error("snapshot succeeded")
	}
	if _, err := s.Follow(ctx, registry.Ack{ID: "x"}, 1); err == nil {
		t.Error("follow succeeded")
	}
	c, h, _ := w.Change(product("FP-2", "b"))
	if err := s.Commit(ctx, w.Epoch, w.View.Mark(), c, h); err == nil {
		t.Error("commit succeeded")
	}
}
