package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
)

// The index of the public register finds what looking at every text finds.
func TestTheWordIndexFindsWhatAScanFinds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.SampledFrom([]string{"tax", "taxi", "payroll", "pay", "Ledger", "ü", "5.0", "FP-1001", "&", ""})
		var x wordIndex
		var texts []string
		for i := range rapid.IntRange(0, 150).Draw(t, "texts") {
			a, b := word.Draw(t, "a")+" "+word.Draw(t, "b"), word.Draw(t, "c")
			texts = append(texts, a+" "+b)
			x.add(i, a, b)
		}
		x.finish(len(texts))
		var words []string
		for len(words) == 0 {
			registry.Words(word.Draw(t, "asked")+" "+word.Draw(t, "more"), func(w string) { words = append(words, w) })
		}
		var want []int
		for i, text := range texts {
			if hasWords(text, words) {
				want = append(want, i)
			}
		}
		got := x.find(words)
		if !slices.Equal(got.cut(0, len(texts)), want) || got.count() != len(want) {
			t.Fatalf("%v of %v: %v, want %v", words, texts, got.cut(0, len(texts)), want)
		}
		skip, most := rapid.IntRange(0, 10).Draw(t, "skip"), rapid.IntRange(1, 10).Draw(t, "most")
		from := min(skip, len(want))
		if page := got.cut(skip, most); !slices.Equal(page, want[from:min(from+most, len(want))]) {
			t.Fatalf("from %d at most %d: %v of %v", skip, most, page, want)
		}
	})
}

func BenchmarkPublicList(b *testing.B) {
	v := registry.NewBuilder(nil, 0)
	for i := range 100_000 {
		data := fmt.Sprintf(`{"id":"FP-%06d","name":"%s %d","owner":"65000000101","certification":{"state":"Whitelisted"}}`, i, strings.Repeat("Payroll ", i%3), i)
		if err := v.Put(&registry.Record{Kind: registry.KindProduct, ID: fmt.Sprintf("FP-%06d", i), Revision: 1, Data: []byte(data)}); err != nil {
			b.Fatal(err)
		}
	}
	view, err := v.View(1, 1)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		newPublicList(view, time.Now())
	}
}
