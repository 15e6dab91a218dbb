package live

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
)

var (
	operator = registry.Actor{Name: "operator", Permissions: registry.PermOperator}
	clerk    = registry.Actor{Name: "registrar", Permissions: registry.PermRegistrar}
	dev      = registry.Actor{Name: "dev", Permissions: registry.PermDeveloper, Entity: 65000000101}
	other    = registry.Actor{Name: "other", Permissions: registry.PermDeveloper, Entity: 31000000202}
	nobody   = registry.Actor{Name: "newcomer"}
)

func event(text string) Event {
	return Event{Topic: Incident, Text: text, Data: json.RawMessage(`{"all":1}`), Staff: registry.PermOperator,
		OwnText: "own " + text, OwnData: json.RawMessage(`{"own":1}`), Owners: []registry.ABN{dev.Entity}}
}

func listen(t testing.TB, h *Hub, a registry.Actor, after string, topics ...Topic) *Listener {
	t.Helper()
	l, err := h.Listen(a, topics, after)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func texts(events []Shown) (out []string) {
	for _, e := range events {
		out = append(out, e.Text)
	}
	return out
}

// TestWhoSeesWhat: staff by permission, an entity its own words of its own
// events, and nobody else anything, in the stream and in the ring alike.
func TestWhoSeesWhat(t *testing.T) {
	h := NewHub()
	want := map[*Listener][]string{
		listen(t, h, operator, ""): {"a", "b"}, listen(t, h, operator, "", Signal): {"b"}, listen(t, h, clerk, ""): {"b"},
		listen(t, h, dev, ""): {"own a"}, listen(t, h, other, ""): nil, listen(t, h, nobody, ""): nil,
	}
	h.Publish(event("a"))
	h.Publish(Event{Topic: Signal, Text: "b", Data: json.RawMessage(`{}`), Owners: []registry.ABN{dev.Entity}})
	for l, w := range want {
		_, got, _ := l.Take()
		if !slices.Equal(texts(got), w) {
			t.Errorf("%s hears %v, want %v", l.actor.Name, texts(got), w)
		}
		late := h.Latest(l.actor, l.topics, 10)
		slices.Reverse(late)
		if diff := cmp.Diff(got, late, cmp.Transformer("none", func(s []Shown) []string { return texts(s) })); diff != "" {
			t.Errorf("%s: latest differ: %s", l.actor.Name, diff)
		}
	}
}

// TestSlowListenerIsToldHowMany, and holds nobody up.
func TestSlowListenerIsToldHowMany(t *testing.T) {
	h := NewHub()
	slow, quick := listen(t, h, dev, ""), listen(t, h, dev, "")
	for i := range queueMax + 40 {
		h.Publish(event(fmt.Sprint(i)))
		h.Publish(Event{Topic: Sidecar, Text: "not theirs", Data: json.RawMessage(`{}`)})
		if _, got, gap := quick.Take(); len(got) != 1 || gap != nil {
			t.Fatalf("quick one got %d at %d", len(got), i)
		}
	}
	_, got, gap := slow.Take()
	if len(got) != queueMax || gap == nil || *gap.Missed != 40 || gap.Reason != "slow" {
		t.Fatalf("%d events, gap %+v", len(got), gap)
	}
	h.Publish(event("next"))
	if _, got, gap := slow.Take(); len(got) != 1 || gap != nil {
		t.Errorf("after the gap: %v %v", texts(got), gap)
	}
}

// TestResume is a property: whatever was heard last, what comes next is exactly
// what followed it and may be seen, or a gap says that something is missing.
func TestResume(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := NewHub()
		var ids []string
		n := rapid.IntRange(1, ringMax+50).Draw(t, "events")
		for i := range n {
			e := event(fmt.Sprint(i))
			if i%3 == 2 {
				e.Owners = nil // another's
			}
			h.Publish(e)
			ids = append(ids, h.id(h.last))
		}
		from := rapid.IntRange(0, n-1).Draw(t, "heard")
		l, err := h.Listen(dev, nil, ids[from])
		if err != nil {
			t.Fatal(err)
		}
		gap, got, after := l.Take()
		var want []string
		for i := max(from+1, n-ringMax); i < n; i++ {
			if i%3 != 2 {
				want = append(want, fmt.Sprint("own ", i))
			}
		}
		if !slices.Equal(texts(got), want) || after != nil || (gap != nil) != (from+1 < n-ringMax) {
			t.Fatalf("after %d of %d: %d events, want %d, gap %v", from, n, len(got), len(want), gap)
		}
	})
}

// TestForeignID: an ID of another process, or made up, is a gap and no failure.
func TestForeignID(t *testing.T) {
	h := NewHub()
	h.Publish(event("a"))
	for _, id := range []string{NewHub().id(1), "0", "zz", "00000000000000000000000000000000"} {
		l := listen(t, h, operator, id)
		select {
		case <-l.Wake():
		default:
			t.Error("not woken")
		}
		if gap, got, _ := l.Take(); gap == nil || gap.Reason != "restarted" || len(got) != 1 {
			t.Errorf("%s: %v %v", id, gap, texts(got))
		}
	}
	if a, b := h.id(1), h.id(2); a[:8] == b[:8] {
		t.Errorf("IDs tell their order: %s %s", a, b)
	}
}

func TestBounds(t *testing.T) {
	h := NewHub()
	var all []*Listener
	for i := range PerActor {
		all = append(all, listen(t, h, operator, ""))
		_ = i
	}
	if _, err := h.Listen(operator, nil, ""); err != ErrFull {
		t.Errorf("one more of the same: %v", err)
	}
	for i := range Listeners - PerActor {
		all = append(all, listen(t, h, registry.Actor{Name: fmt.Sprint(i), Permissions: registry.PermOperator}, ""))
	}
	if _, err := h.Listen(dev, nil, ""); err != ErrFull {
		t.Errorf("one more: %v", err)
	}
	all[0].Stop()
	listen(t, h, dev, "")
	h.Close()
	<-all[1].Over()
	if _, err := h.Listen(dev, nil, ""); err != ErrFull {
		t.Errorf("after the end: %v", err)
	}
	all[1].Stop() // as its owner does
}

// TestWatched: the feed goes on for a while after the last listener went.
func TestWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub()
		if h.Watched() {
			t.Error("watched by nobody")
		}
		l := listen(t, h, operator, "")
		time.Sleep(time.Hour)
		l.Stop()
		if !h.Watched() {
			t.Error("given up at once")
		}
		time.Sleep(lingers)
		if h.Watched() {
			t.Error("never given up")
		}
	})
}
