package authz

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestIDsRiseAndKeepTheirTime(t *testing.T) {
	g := NewIDs()
	at := time.UnixMilli(1_795_312_800_123)
	last := g.Next(at)
	for i, step := range []time.Duration{0, 0, time.Millisecond, 0, -time.Hour, 0, time.Second} {
		at = at.Add(step)
		id := g.Next(at)
		if id.String() <= last.String() {
			t.Errorf("step %d: %s after %s", i, id, last)
		}
		if step > 0 && i < 4 && !id.Time().Equal(at) {
			t.Errorf("step %d: time %v of %v", i, id.Time(), at)
		}
		last = id
	}
}

func TestIDsOfManyCallersAreUnique(t *testing.T) {
	g := NewIDs()
	const callers, each = 8, 5000
	ids := make([][]DecisionID, callers)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for range each {
				ids[c] = append(ids[c], g.Next(time.UnixMilli(1)))
			}
		})
	}
	wg.Wait()
	seen := map[DecisionID]bool{}
	for _, of := range ids {
		for i, id := range of {
			if seen[id] || i > 0 && id.String() <= of[i-1].String() {
				t.Fatalf("%s twice, or not after the one before", id)
			}
			seen[id] = true
		}
	}
}

func TestProcessesDoNotShareIDs(t *testing.T) {
	at := time.UnixMilli(1)
	if a, b := NewIDs().Next(at), NewIDs().Next(at); a == b {
		t.Errorf("two generators made %s", a)
	}
}

func TestDecisionIDRoundTrip(t *testing.T) {
	g := NewIDs()
	rapid.Check(t, func(t *rapid.T) {
		at := time.UnixMilli(rapid.Int64Range(0, 1<<44-2).Draw(t, "ms"))
		g.last.Store(0)
		id := g.Next(at)
		got, err := ParseDecisionID(id.String())
		if err != nil || got != id || !got.Time().Equal(at) {
			t.Fatalf("%s at %v: %v %v %v", id, at, got, got.Time(), err)
		}
	})
}

func TestParseDecisionIDIsStrict(t *testing.T) {
	good := "01KASDFGHJ0123456789ABCDEF"
	if _, err := ParseDecisionID(good); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{
		"", good[:25], good + "0", strings.ToLower(good), "8" + good[1:], "I" + good[1:],
		good[:25] + "O", good[:25] + "U", good[:25] + "L", good[:25] + "-", good[:25] + "\x00", good[:24] + "é",
	} {
		if _, err := ParseDecisionID(s); !errors.Is(err, ErrDecisionID) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	g, at := NewIDs(), time.Now()
	if n := testing.AllocsPerRun(100, func() { g.Next(at) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkNextID(b *testing.B) {
	g, at := NewIDs(), time.Now()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			g.Next(at)
		}
	})
}
