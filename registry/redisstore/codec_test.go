package redisstore

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
)

func sampleChange() registry.Change {
	return registry.Change{
		Revision: 7, Epoch: 2, At: 1_800_000_000_000, Actor: "op", Command: "suspend", Reason: "finding",
		Digest: registry.Digest{1, 1<<64 - 1}, MAC: registry.MAC{1, 2, 3},
		Puts: []registry.Record{
			{Kind: registry.KindProduct, ID: "FP-1", Revision: 7, Data: []byte(`{"id":"FP-1"}`), MAC: registry.MAC{9}},
			{Kind: registry.KindDenial, ID: "kid:https://i/:x", Revision: 7, Data: []byte(`{}`)},
		},
	}
}

// FuzzDecodeChange: what is accepted encodes to the very same bytes, and what
// was encoded is accepted: one change has one form.
func FuzzDecodeChange(f *testing.F) {
	c := sampleChange()
	f.Add(encodeChange(&c))
	c.Puts = nil
	f.Add(encodeChange(&c))
	c.CaseSum.Count, c.Cases = 1, []registry.CaseRecord{{Kind: "application", ID: "AP-1"}}
	f.Add(encodeChange(&c))
	f.Add("C1")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := decodeChange(s)
		if err != nil {
			return
		}
		if again := encodeChange(&c); again != s {
			t.Errorf("%q decodes, and encodes to %q", s, again)
		}
	})
}

// FuzzDecodeRecord: what is accepted encodes to the very same bytes under the same key.
func FuzzDecodeRecord(f *testing.F) {
	c := sampleChange()
	f.Add(c.Puts[0].Key(), encodeRecord(&c.Puts[0]))
	f.Add("denial/a/b", "")
	f.Fuzz(func(t *testing.T, key, s string) {
		var r registry.Record
		if decodeRecord(key, s, &r) != nil {
			return
		}
		if r.Key() != key || encodeRecord(&r) != s {
			t.Errorf("%q %q decodes to %+v", key, s, r)
		}
	})
}

// FuzzDecodeMember: no entry of the roll, however foreign, gives a lease of
// negative length, which would count a live sidecar as lapsed.
func FuzzDecodeMember(f *testing.F) {
	f.Add("1800000000000 7 " + encodeMember(&registry.Ack{Incarnation: "x", Short: time.Second, Long: time.Minute}))
	f.Add("1 -1 - 00 -1 -1")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := decodeMember("x id", s)
		if err == nil && (m.Short < 0 || m.Long < 0 || m.PolledAt < 0) {
			t.Errorf("%q decodes to %+v", s, m)
		}
	})
}

func TestStoredFormsComeBackWhole(t *testing.T) {
	c := sampleChange()
	got, err := decodeChange(encodeChange(&c))
	if d := cmp.Diff(c, got); d != "" || err != nil {
		t.Errorf("change: %v -want +got:\n%s", err, d)
	}
	h := registry.Head{Revision: 1, Epoch: 2, Records: 3, Digest: registry.Digest{4, 5}, MAC: registry.MAC{6}}
	if got, err := decodeHead(encodeHead(&h)); err != nil || got != h {
		t.Errorf("head: %+v, %v; want %+v", got, err, h)
	}
	s := encodeChange(&c)
	for n := range len(s) {
		if _, err := decodeChange(s[:n]); err == nil {
			t.Errorf("a change cut at %d of %d bytes was accepted", n, len(s))
		}
	}
}

// FuzzDecodePush: whatever is published, changes come out without a gap or not
// at all, and each as it went in.
func FuzzDecodePush(f *testing.F) {
	c := sampleChange()
	one := encodeChange(&c)
	c.Revision++
	two := encodeChange(&c)
	f.Add(fmt.Sprintf("8\n%d:%s%d:%s", len(one), one, len(two), two))
	f.Add(fmt.Sprintf("8\n%d:%s%d:%s", len(two), two, len(one), one))
	f.Add("8\n")
	f.Add("8\n4294967295:C1")
	f.Fuzz(func(t *testing.T, s string) {
		for i, c := range decodePush(s) {
			if b := encodeChange(&c); !strings.Contains(s, fmt.Sprintf("%d:%s", len(b), b)) {
				t.Errorf("change %d of %q is not in it", i, s)
			}
		}
	})
}

func TestStoredFormsOfCaseworkComeBackWhole(t *testing.T) {
	c := sampleChange()
	c.CaseSum = registry.CaseSum{Count: 3, Digest: registry.Digest{7, 8}}
	c.Cases = []registry.CaseRecord{
		{Kind: "application", ID: "AP-1", Revision: 7, MAC: registry.MAC{4}, Data: []byte(`{}`)},
		{Kind: "finding", ID: "FN-1", Revision: 7, MAC: registry.MAC{5}},
	}
	got, err := decodeChange(encodeChange(&c))
	c.Cases[0].Data = nil // the log has names only
	if d := cmp.Diff(c, got); d != "" || err != nil {
		t.Errorf("change: %v -want +got:\n%s", err, d)
	}
	h := registry.Head{Revision: 1, Epoch: 2, Records: 3, CaseSum: c.CaseSum}
	if got, err := decodeHead(encodeHead(&h)); err != nil || got != h {
		t.Errorf("head: %+v, %v; want %+v", got, err, h)
	}
	s := encodeChange(&c)
	for n := range len(s) {
		if _, err := decodeChange(s[:n]); err == nil {
			t.Errorf("a change cut at %d of %d bytes was accepted", n, len(s))
		}
	}
	stored := encodeCase(&registry.CaseRecord{Kind: "finding", ID: "FN/1", Revision: 9, MAC: registry.MAC{1}, Data: []byte(`{"a":1}`)})
	x, err := decodeCase("finding/FN/1", stored)
	if d := cmp.Diff(registry.CaseRecord{Kind: "finding", ID: "FN/1", Revision: 9, MAC: registry.MAC{1}, Data: []byte(`{"a":1}`)}, x); d != "" || err != nil {
		t.Errorf("case: %v -want +got:\n%s", err, d)
	}
	for _, key := range []string{"", "finding", "finding/", "Finding/1", "/1"} {
		if _, err := decodeCase(key, stored); err == nil {
			t.Errorf("the key %q was accepted", key)
		}
	}
}
