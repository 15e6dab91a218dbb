package registry

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// TestTableIsAMapThatKeepsItsPast compares tables with plain maps, those
// published earlier too.
func TestTableIsAMapThatKeepsItsPast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type version struct {
			table table[int]
			model map[string]int
		}
		past := []version{{model: map[string]int{}}}
		ids := rapid.SampledFrom([]int{3, 50, 5000}).Draw(t, "ids")
		for range rapid.IntRange(1, 8).Draw(t, "versions") {
			last := past[len(past)-1]
			next := version{last.table, maps.Clone(last.model)}
			var o owned
			for range rapid.IntRange(0, 300).Draw(t, "puts") {
				id := fmt.Sprint("id", rapid.IntRange(0, ids).Draw(t, "id"))
				v := rapid.Int().Draw(t, "value")
				old := next.table.put(&Entry[int]{ID: id, Value: v}, &o)
				was, had := next.model[id]
				if had != (old != nil) || had && old.Value != was {
					t.Fatalf("put %s returned %v, there was %v", id, old, was)
				}
				next.model[id] = v
			}
			past = append(past, next)
		}
		for i, p := range past {
			if p.table.n != len(p.model) {
				t.Fatalf("version %d counts %d of %d", i, p.table.n, len(p.model))
			}
			for id, v := range p.model {
				if e := p.table.get(id); e == nil || e.Value != v {
					t.Fatalf("version %d has %v for %s, want %d", i, e, id, v)
				}
			}
			if e := p.table.get("absent"); e != nil {
				t.Fatalf("version %d has %v", i, e)
			}
			seen := map[string]int{}
			p.table.each(func(e *Entry[int]) bool { seen[e.ID] = e.Value; return true })
			if !maps.Equal(seen, p.model) {
				t.Fatalf("version %d visits %v, want %v", i, seen, p.model)
			}
		}
	})
}

func TestTableVisitStops(t *testing.T) {
	var tab table[int]
	var o owned
	for i := range 100 {
		tab.put(&Entry[int]{ID: fmt.Sprint(i)}, &o)
	}
	n := 0
	tab.each(func(*Entry[int]) bool { n++; return n < 5 })
	if n != 5 {
		t.Errorf("visited %d", n)
	}
}

// TestShardsStayHalfEmptyEnough: a full shard would make a lookup of an absent ID endless.
func TestShardsStayHalfEmptyEnough(t *testing.T) {
	var tab table[int]
	for i := range 20_000 {
		var o owned // a builder of its own each
		tab.put(&Entry[int]{ID: fmt.Sprint(i % 9000)}, &o)
	}
	for _, s := range tab.shards {
		if s != nil && s.n*4 > len(s.slots)*3 {
			t.Fatalf("%d of %d slots taken", s.n, len(s.slots))
		}
	}
}
