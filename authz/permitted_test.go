package authz_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// protected are records of a list with these hashes.
func protected(hashes ...[16]byte) (out []any) {
	slices.SortFunc(hashes, func(a, b [16]byte) int { return bytes.Compare(a[:], b[:]) })
	parts := map[byte][]byte{}
	for _, h := range hashes {
		parts[h[0]] = append(parts[h[0]], h[:]...)
	}
	for first, all := range parts {
		out = append(out, registry.Protected{ID: fmt.Sprintf("%02x", first), Hashes: all})
	}
	return out
}

// A screen refuses the calls about protected clients and people, wherever the
// service finds them, of the products and ratings it names; and no others. It
// costs no allocation.
func TestCallsAboutProtectedClientsAreRefused(t *testing.T) {
	hasher, err := authz.NewSubjectHasher(bytes.Repeat([]byte("s"), 32))
	if err != nil {
		t.Fatal(err)
	}
	const tfn = "220115957"
	list := protected(hasher.Sum("tfn", tfn), hasher.Sum("client_abn", possum))
	with := func(s ...registry.Screen) *bench {
		b := newBench(t, func(records []any) []any {
			records = append(records, list...)
			for _, x := range s {
				records = append(records, x)
			}
			return records
		})
		b.served.LongUntil, b.served.ShortUntil = 1<<62, 1<<62
		return b
	}
	calls := map[string]struct {
		call
		risk registry.Risk
	}{
		"the client":         {call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: possum}, 1},
		"a person in a path": {call{client: "fp-1003-prod", abn: kookaburra, path: "/individuals/v1/" + tfn + "/prefill"}, 4},
		"a person in a body": {call{client: "fp-1003-prod", abn: kookaburra, method: "POST", path: "/super/v1/member-verifications",
			edit: func(r *authz.Request) { r.Body = []byte(`{"tfn":"` + tfn + `"}`) }}, 4},
	}
	others := map[string]call{
		"nobody":         {client: "fp-1003-prod", abn: kookaburra},
		"another person": {client: "fp-1003-prod", abn: kookaburra, path: "/individuals/v1/123456782/prefill"},
		"another body": {client: "fp-1003-prod", abn: kookaburra, method: "POST", path: "/super/v1/member-verifications",
			edit: func(r *authz.Request) { r.Body = []byte(`{"tfn":"123456782"}`) }},
	}
	for name, x := range map[string]struct {
		screens []registry.Screen
		holds   func(registry.Risk) bool
	}{
		"all":                {[]registry.Screen{{ID: "a"}}, func(registry.Risk) bool { return true }},
		"this product":       {[]registry.Screen{{ID: "a", Products: []string{"FP-1003"}}}, func(registry.Risk) bool { return true }},
		"high ratings":       {[]registry.Screen{{ID: "a", MinRisk: 3}}, func(r registry.Risk) bool { return r >= 3 }},
		"the second":         {[]registry.Screen{{ID: "a", Products: []string{"FP-1001"}}, {ID: "b"}}, func(registry.Risk) bool { return true }},
		"none":               {nil, func(registry.Risk) bool { return false }},
		"another product":    {[]registry.Screen{{ID: "a", Products: []string{"FP-1001"}}}, func(registry.Risk) bool { return false }},
		"all but this":       {[]registry.Screen{{ID: "a", Except: []string{"FP-1003"}}}, func(registry.Risk) bool { return false }},
		"one that was ended": {[]registry.Screen{{ID: "a", Removed: 1}}, func(registry.Risk) bool { return false }},
	} {
		b := with(x.screens...)
		for of, c := range calls {
			want := authz.OK
			if x.holds(c.risk) {
				want = authz.ClientNotPermitted
			}
			var d authz.Decision
			r := b.request(c.call)
			if b.x.Decide(r, &d); d.Reason != want {
				t.Errorf("screen for %s, call about %s: %s, want %s", name, of, d.Reason, want)
			}
			if of == "a person in a body" || raceEnabled {
				continue // reading JSON allocates, and so do pools under the race detector
			}
			if n := testing.AllocsPerRun(100, func() { b.x.Decide(r, &d) }); n != 0 {
				t.Errorf("screen for %s, call about %s: %v allocations", name, of, n)
			}
		}
		for of, c := range others {
			if d := b.decide(c); d.Reason != authz.OK {
				t.Errorf("screen for %s, call about %s: %s", name, of, d.Reason)
			}
		}
	}
}
