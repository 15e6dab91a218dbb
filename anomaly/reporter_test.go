package anomaly

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// link is a Link that can be cut.
type link struct {
	mu    sync.Mutex
	cut   bool
	sent  []Report
	marks []Mark
}

var errCut = errors.New("cut")

func (l *link) set(cut bool) { l.mu.Lock(); l.cut = cut; l.mu.Unlock() }

func (l *link) Send(_ context.Context, r *Report) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return errCut
	}
	var got Report
	if err := got.UnmarshalBinary(r.AppendBinary(nil)); err != nil {
		return err
	}
	l.sent = append(l.sent, got)
	return nil
}

func (l *link) Marks(context.Context) ([]Mark, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cut {
		return nil, errCut
	}
	return l.marks, nil
}

func (l *link) calls() (n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.sent {
		for _, s := range r.Subjects {
			if s.Subject.Kind == Product {
				n += s.Tally.Count[Requests]
			}
		}
	}
	return n
}

func TestNoCountIsLostWhileTheLinkIsCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &link{}
		l.marks = []Mark{{Subject{Product, "FP-1"}, 4, time.Now().Add(time.Minute)}}
		r := &Reporter{Collector: NewCollector(CollectorConfig{}), Board: &Board{}, Link: l, Sidecar: "a"}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		var made uint64
		for second := range 100 {
			l.set(second >= 30 && second < 60)
			for range 5 {
				made++
				r.Collector.Observe([]Observation{{Decision: made, At: time.Now().Unix(), Product: "FP-1", Service: "s"}})
			}
			time.Sleep(time.Second)
			if second == 20 && r.Board.Surprise(Product, "FP-1", time.Now()) != 4 {
				t.Error("the mark is not on the board")
			}
			if second == 50 && r.Failures() == 0 {
				t.Error("no failure is counted while the link is cut")
			}
		}
		if got := r.Board.Surprise(Product, "FP-1", time.Now()); got != 0 {
			t.Errorf("a mark that is over says %v", got)
		}
		cancel()
		<-done
		if got := l.calls(); got != made {
			t.Errorf("%d calls reported, %d made", got, made)
		}
	})
}

func TestCollectorIsBounded(t *testing.T) {
	c := NewCollector(CollectorConfig{Subjects: 40, Open: 100})
	for i := range 5000 {
		c.Observe([]Observation{{Decision: uint64(i), Outcome: RefusedIdentity, Source: hashOf("n", i)}})
	}
	for i := range 5000 {
		c.Observe([]Observation{{Decision: uint64(i), Product: "FP-1", ClientApp: "a", Subscription: hashOf("s", i)}})
	}
	if n := len(c.open) + len(c.before); n > 100 {
		t.Errorf("%d calls wait for their access-log entry, at most 100", n)
	}
	taken := c.Take()
	byKind := map[Kind]int{}
	for _, s := range taken {
		byKind[s.Subject.Kind]++
	}
	if len(taken) != 40 || byKind[Network] != 10 || byKind[Product] != 1 {
		t.Errorf("%d subjects, by kind %v: want 40, of them 10 networks", len(taken), byKind)
	}
	if c.Lost() == 0 {
		t.Error("what there was no room for is not counted")
	}
	for i := range 2 * earlyMax {
		c.Finish(Finished{Decision: uint64(1e9 + i)})
	}
	if len(c.early) > earlyMax {
		t.Errorf("%d access-log entries wait for a decision", len(c.early))
	}
}

func TestEntriesAreCountedForWhoCalled(t *testing.T) {
	c := NewCollector(CollectorConfig{})
	call := func(n uint64) []Observation {
		return []Observation{{Decision: n, Product: "FP-1", Service: "s", Verb: Read}}
	}
	c.Observe(call(1))
	c.Finish(Finished{Decision: 1, Status: 404, BytesOut: 3000})
	c.Finish(Finished{Decision: 2, Status: 503}) // its record is yet to come
	c.Observe(call(2))
	c.Observe(call(3))
	c.Finish(Finished{Decision: 3, Status: 0})
	c.Finish(Finished{Decision: 3, Status: 500}) // told twice, counted once
	c.Finish(Finished{Decision: 4})
	got := c.Take()[0].Tally.Count
	if got[Requests] != 3 || got[Invalid] != 1 || got[Failed] != 2 || got[Kilobytes] != 2 {
		t.Errorf("counted %v", got)
	}
	c.Take()
	if n := c.Unmatched(); n != 2 {
		t.Errorf("%d entries unmatched, want 2", n)
	}
}

func TestOffHours(t *testing.T) {
	zone, err := time.LoadLocation("Australia/Sydney")
	if err != nil {
		t.Fatal(err)
	}
	c := NewCollector(CollectorConfig{Zone: zone})
	for _, day := range []struct {
		at  string
		off bool
	}{
		{"2026-11-20T10:00:00+11:00", false}, {"2026-11-20T23:00:00+11:00", true}, {"2026-11-20T05:59:00+11:00", true},
		{"2026-11-21T12:00:00+11:00", true}, {"2026-11-23T12:00:00+11:00", false},
	} {
		at, err := time.Parse(time.RFC3339, day.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.off(at.Unix()); got != day.off {
			t.Errorf("%s: off hours %v, want %v", day.at, got, day.off)
		}
	}
}
