package registry_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// What is on the list is found, and nothing else; the list comes back whole.
func TestTheListOfProtectedClients(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		// Few first bytes, so that parts get long.
		hash := rapid.Custom(func(t *rapid.T) (h registry.ClientHash) {
			copy(h[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "hash"))
			h[0] &= 3
			return h
		})
		all := rapid.SliceOfN(hash, 0, 60).Draw(t, "listed")
		slices.SortFunc(all, func(a, b registry.ClientHash) int { return bytes.Compare(a[:], b[:]) })
		all = slices.Compact(all)
		parts := map[string]registry.Protected{}
		for _, h := range all {
			id := fmt.Sprintf("%02x", h[0])
			parts[id] = registry.Protected{ID: id, Hashes: append(parts[id].Hashes, h[:]...)}
		}
		var records []any
		for _, p := range parts {
			records = append(records, p)
		}
		v := registrytest.View(outer, 1, records...)
		if got := v.ProtectedClients(); !slices.Equal(got, all) {
			t.Fatalf("%d came back of %d", len(got), len(all))
		}
		for _, h := range append(slices.Clone(all), rapid.SliceOf(hash).Draw(t, "asked")...) {
			if want := slices.Contains(all, h) && h != (registry.ClientHash{}); v.IsProtected(h) != want {
				t.Fatalf("%x: want %v", h, want)
			}
		}
	})
}

// A part of the list that could not be looked up in is no record: a mirror
// refuses it, and with it the change, instead of passing somebody over.
func TestAPartOfTheListThatIsNoneIsRefused(t *testing.T) {
	a, b := bytes.Repeat([]byte{7}, 16), bytes.Repeat([]byte{7, 8}, 8)
	for name, p := range map[string]registry.Protected{
		"half a hash":    {ID: "07", Hashes: a[:15]},
		"out of order":   {ID: "07", Hashes: slices.Concat(b, a)},
		"one twice":      {ID: "07", Hashes: slices.Concat(a, a)},
		"another's":      {ID: "08", Hashes: a},
		"no hexadecimal": {ID: "7", Hashes: a},
	} {
		rec := registrytest.Record(p)
		registrytest.Sealer(t).Seal(&rec, 1)
		if err := registry.NewBuilder(nil, 0).Put(&rec); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}
