package registry

import (
	"cmp"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// What the index tells of the suspensions in force is what looking at each would,
// after any number of changes.
func TestSuspensionsInForceAreFoundAsAScanWouldFindThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		at := Time(1_800_000_000_000)
		all := map[string]*Suspension{}
		b := newCasebook(nil)
		rev := Revision(0)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			bld := NewBuilder(b.View, 0)
			var c Change
			for range rapid.IntRange(0, 40).Draw(t, "suspensions") {
				s := &Suspension{ID: fmt.Sprintf("SU-%d", rapid.IntRange(1, 60).Draw(t, "id")), Subject: SubjectRef{Kind: KindProduct, ID: "FP-1001"}}
				s.ImposedAt = at + Time(rapid.IntRange(-100, 0).Draw(t, "imposed"))
				s.Starts = s.ImposedAt + Time(max(rapid.IntRange(-100, 130).Draw(t, "starts"), 0))
				if rapid.Bool().Draw(t, "ends") {
					s.Expires = s.Starts + 1 + Time(rapid.IntRange(0, 150).Draw(t, "for"))
				}
				if rapid.IntRange(0, 3).Draw(t, "lifted") == 0 {
					s.LiftedAt = at
				}
				all[s.ID] = s
				rev++
				bld.insert(&Entry[Suspension]{ID: s.ID, Revision: rev, Value: *s})
				c.Puts = append(c.Puts, Record{Kind: KindSuspension, ID: s.ID})
			}
			v, err := bld.View(rev, 1)
			if err != nil {
				t.Fatal(err)
			}
			b = b.fork()
			b.index(&c, b.View, v)
			b.View = v
		}
		var want, ending []*Suspension
		until := at + Time(rapid.IntRange(1, 100).Draw(t, "until"))
		for _, s := range all {
			if s.Active(at) {
				want = append(want, s)
				if s.Expires != 0 && s.Expires < until {
					ending = append(ending, s)
				}
			}
		}
		if n := b.InForce(at); n != len(want) {
			t.Fatalf("%d in force, want %d", n, len(want))
		}
		slices.SortFunc(want, func(a, b *Suspension) int {
			return -cmp.Or(cmp.Compare(a.ImposedAt, b.ImposedAt), cmp.Compare(a.ID, b.ID))
		})
		slices.SortFunc(ending, func(a, b *Suspension) int { return cmp.Or(cmp.Compare(a.Expires, b.Expires), cmp.Compare(a.ID, b.ID)) })
		most := rapid.IntRange(1, 8).Draw(t, "max")
		if got, want := idsOf(b.LatestInForce(at, most)), idsOf(want[:min(most, len(want))]); got != want {
			t.Fatalf("the latest: %s, want %s", got, want)
		}
		first, total := b.Ending(at, until, most)
		if got, want := idsOf(first), idsOf(ending[:min(most, len(ending))]); got != want || total != len(ending) {
			t.Fatalf("ending: %s of %d, want %s of %d", got, total, want, len(ending))
		}
	})
}

func idsOf(all []*Suspension) (ids string) {
	for _, s := range all {
		ids += s.ID + " "
	}
	return ids
}
