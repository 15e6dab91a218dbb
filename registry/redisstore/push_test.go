package redisstore_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

func TestAWakeUpCarriesTheChanges(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	w := registrytest.NewWriter(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}))
	wake := s.Wake(t.Context())
	woken := func() {
		t.Helper()
		select {
		case <-wake:
		case <-time.After(20 * time.Second):
			t.Fatal("no wake-up")
		}
	}
	woken() // subscribed
	w.Put(product("FP-1", "a"))
	woken()
	w.Put(product("FP-1", "b"))
	woken()
	want, err := s.Changes(t.Context(), 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, s.Pushed(0)); diff != "" {
		t.Errorf("pushed (-want +got):\n%s", diff)
	}
	if got := s.Pushed(0); len(got) != 0 {
		t.Errorf("%d changes came twice", len(got))
	}

	// What the follower has is left out; after a gap there is nothing.
	w.Put(product("FP-1", "c"))
	woken()
	w.Put(product("FP-1", "d"))
	woken()
	if got := s.Pushed(3); len(got) != 1 || got[0].Revision != 4 {
		t.Errorf("after revision 3: %d changes", len(got))
	}
	w.Put(product("FP-1", "e"))
	woken()
	if got := s.Pushed(3); len(got) != 0 {
		t.Errorf("%d changes in spite of a gap", len(got))
	}

	// One too large for everybody's buffers only wakes, and so does nonsense.
	w.Put(product("FP-2", strings.Repeat("x", 300<<10)))
	woken()
	for _, message := range []string{"", "7", "7\n", "7\n5:C1", "7\nx:", "7\n99999999999999999999:", "7\n3:C1x"} {
		srv.Must("PUBLISH", "{dspgate}:wake", message)
		woken()
	}
	if got := s.Pushed(5); len(got) != 0 {
		t.Errorf("pushed: %d changes", len(got))
	}
	if got := headOf(t, s); got.Revision != registry.Revision(6) {
		t.Errorf("the head is %d", got.Revision)
	}
}

func TestARedisThatMayBeReplacedPushesNothing(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}, Replicas: 1})
	wake := s.Wake(t.Context())
	w := registrytest.NewWriter(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}))
	for range 2 { // subscribed, and told
		select {
		case <-wake:
		case <-time.After(20 * time.Second):
			t.Fatal("no wake-up")
		}
		if w.View.Revision == 0 {
			w.Put(product("FP-1", "a"))
		}
	}
	if got := s.Pushed(0); len(got) != 0 {
		t.Errorf("%d changes of a primary that may be deposed", len(got))
	}
}
