package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// However the conditions are met – beside one another, looked up one by one, or
// straight from the index – a search finds what looking at every product would.
func TestProductsAreFoundAsAScanWouldFindThem(t *testing.T) {
	names := []string{"ban", "bank", "banksia", "tax", "taxi", "teal", "bank tax", "Tax, the tax"}
	rapid.Check(t, func(t *rapid.T) {
		bld := NewBuilder(nil, 0)
		all := map[string]Product{}
		for i := range rapid.IntRange(0, 300).Draw(t, "products") {
			p := Product{ID: fmt.Sprintf("P%d-%03d", i%3, i), Owner: 65000000101, Certification: Certification{State: CertState(i % 4)}}
			for range rapid.IntRange(1, 3).Draw(t, "words") {
				p.Name += " " + rapid.SampledFrom(names).Draw(t, "name")
			}
			all[p.ID] = p
			bld.insert(&Entry[Product]{ID: p.ID, Revision: 1, Value: p})
		}
		v, err := bld.View(1, 1)
		if err != nil {
			t.Fatal(err)
		}
		b := newCasebook(nil)
		b.indexAll(v)
		b.View = v
		var where []Where
		words := rapid.SliceOfN(rapid.SampledFrom([]string{"b", "ban", "bank", "banksia", "ta", "tax", "taxi", "t", "p", "p1", "0", "nothing"}), 0, 3).Draw(t, "asked")
		for _, w := range words {
			where = append(where, Where{"word", w})
		}
		state := CertState(rapid.IntRange(0, 3).Draw(t, "state"))
		byState := rapid.Bool().Draw(t, "by state")
		if byState {
			where = append(where, Where{"certification", state.String()})
		}
		var want []string
		for id, p := range all {
			if (!byState || p.Certification.State == state) && !slices.ContainsFunc(words, func(w string) bool { return !hasWord(p.Name+" "+p.ID, w) }) {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		found, total := b.Find(Query{Kind: "product", Where: where, Limit: 1000})
		if total != len(want) {
			t.Fatalf("%v: %d, want %d", where, total, len(want))
		}
		offset, limit := rapid.IntRange(0, 40).Draw(t, "offset"), rapid.IntRange(1, 40).Draw(t, "limit")
		page, again := b.Find(Query{Kind: "product", Where: where, Offset: offset, Limit: limit})
		if from := min(offset, total); again != total || !slices.Equal(page, found[from:min(from+limit, total)]) {
			t.Fatalf("%v: the page at %d is %v of %v", where, offset, page, found)
		}
		if len(words) == 0 && !slices.IsSorted(found) {
			t.Fatalf("%v: not in their order: %v", where, found)
		}
		slices.Sort(found)
		if !slices.Equal(found, want) {
			t.Fatalf("%v: %v, want %v", where, found, want)
		}
		ranged, n := b.Find(Query{Kind: "product", Where: append([]Where{{"owner", ""}}, where...), From: "6", To: "7", Limit: 1000})
		slices.Sort(ranged)
		if n != len(want) || !slices.Equal(ranged, want) {
			t.Fatalf("%v over a range: %v, want %v", where, ranged, want)
		}
		for i, id := range want {
			if next := b.After("product", id, 2); i+1 < len(want) && len(where) == 0 && next[0] != want[i+1] {
				t.Fatalf("after %s: %v, want %s", id, next, want[i+1])
			}
		}
	})
}

func BenchmarkFindTwoWords(b *testing.B) {
	bld := NewBuilder(nil, 0)
	words := strings.Fields("ledger payroll super invoice stock tax lodge books agent wages till estate farm clinic trade banksia")
	for i := range 100_000 {
		p := Product{ID: fmt.Sprintf("BN-%06d", i), Owner: 65000000101, Name: words[i%16] + " " + words[(i/7+3)%16]}
		bld.insert(&Entry[Product]{ID: p.ID, Revision: 1, Value: p})
	}
	v, err := bld.View(1, 1)
	if err != nil {
		b.Fatal(err)
	}
	book := newCasebook(nil)
	book.indexAll(v)
	book.View = v
	q := Query{Kind: "product", Where: []Where{{"word", "banksia"}, {"word", "tax"}}, Limit: 10}
	for b.Loop() {
		book.found.root = nil // as if the index had changed
		if _, n := book.Find(q); n == 0 {
			b.Fatal("found none")
		}
	}
}
