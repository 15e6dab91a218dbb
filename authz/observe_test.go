package authz

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/anomaly"
)

func TestNetworkIsAsCoarseAsItSays(t *testing.T) {
	same := [][]string{
		{"192.0.2.1", "192.0.2.254", "::ffff:192.0.2.7"},
		{"192.0.3.1"},
		{"2001:db8:1::1", "2001:db8:1:ffff::2"},
		{"2001:db8:2::1"},
	}
	seen := map[[6]byte]int{}
	for i, group := range same {
		for _, peer := range group {
			n := network(peer)
			if n == [6]byte{} {
				t.Errorf("%s is in no network", peer)
			}
			if j, ok := seen[n]; ok && j != i {
				t.Errorf("%s is in the network of %v", peer, same[j])
			}
			seen[n] = i
		}
	}
	if len(seen) != len(same) {
		t.Errorf("%d networks, want %d", len(seen), len(same))
	}
	for _, none := range []string{"", "unix", "/run/envoy.sock", "300.1.1.1"} {
		if n := network(none); n != [6]byte{} {
			t.Errorf("%q is in network %x", none, n)
		}
	}
}

// Every reason counts as something, and what says who calls counts as that.
func TestEveryReasonHasItsOutcome(t *testing.T) {
	want := map[anomaly.Outcome][]Reason{
		anomaly.Allowed:         {OK},
		anomaly.RefusedIdentity: {TokenMissing, TokenSignatureInvalid, ClientUnknown, ProductMismatch, RequestAmbiguous, SubscriptionNotNominated, CredentialBlocked},
		anomaly.RefusedVersion:  {VersionNotRegistered, VersionUnsupported, VersionBlocked},
		anomaly.RefusedPilot:    {PVTClientNotNamed},
		anomaly.RefusedLimit:    {RateLimited, QuotaExhausted, ClientFanoutExhausted, AnomalyThrottled},
		anomaly.RefusedOther:    {RegisterStale, ServiceUnknown, ProductSuspended, AnomalySuspended},
	}
	for o, reasons := range want {
		for _, r := range reasons {
			if got := outcome(r); got != o {
				t.Errorf("%v counts as %v, want %v", r, got, o)
			}
		}
	}
}

func TestRecordsAreCountedOnce(t *testing.T) {
	ids := NewIDs()
	d := sampleDecision(ids)
	sink := &memorySink{fail: errors.New("away")}
	var counted []anomaly.Observation
	o := &Observed{Next: sink, Observe: func(b []anomaly.Observation) { counted = append(counted, b...) }}
	w := writer{x: NewRecorder("s-1", newHasher(t)), hashes: map[hashKey]Hash{}, routes: map[route]string{}}
	record := func(d *Decision) Record {
		return w.record(&pending{id: d.ID, reason: d.Reason, app: d.App, product: d.Product, service: d.Service, client: d.ClientABN, ssid: d.SSID, network: network("192.0.2.9")})
	}
	first := []Record{record(d)}
	for range 3 {
		if err := o.Write(context.Background(), first); err == nil {
			t.Fatal("the next sink's error is lost")
		}
	}
	sink.set(nil)
	second := []Record{record(sampleDecision(ids))}
	for _, b := range [][]Record{first, second} {
		if err := o.Write(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	if len(counted) != 2 || sink.count() != 2 {
		t.Fatalf("%d counted and %d kept, want 2 and 2", len(counted), sink.count())
	}
	got := counted[0]
	if got.Product != "FP-1003" || got.ClientApp != "fp-1003-prod" || got.Verb != anomaly.Read || got.Outcome != anomaly.RefusedOther || got.Decision != d.ID.Hash() {
		t.Errorf("counted %+v", got)
	}
	none := anomaly.Hash{}
	if got.Source == none || got.Client == none || got.Subscription == none || got.Source == got.Client {
		t.Errorf("hashes %x %x %x", got.Source, got.Client, got.Subscription)
	}
	if d := cmp.Diff(counted[0].Source, counted[1].Source); d != "" {
		t.Errorf("one network has two hashes: %s", d)
	}
}

// X11: whatever the scorer says, be it mad, late or poisoned, decisions are the
// same, and cost no allocation more.
func TestNoScoreChangesADecision(t *testing.T) {
	now := time.Now()
	boards := map[string]*anomaly.Board{"none": nil, "empty": {}}
	for name, v := range map[string]float64{"NaN": math.NaN(), "infinite": math.Inf(1), "negative": -1e300, "huge": 1e300, "alarming": 12} {
		b := &anomaly.Board{}
		var marks []anomaly.Mark
		for _, id := range []string{"FP-1001", "FP-1003", "fp-1001-prod", "fp-1003-prod"} {
			marks = append(marks, anomaly.Mark{Subject: anomaly.Subject{Kind: anomaly.Product, ID: id}, Surprise: v, Until: now.Add(time.Hour)},
				anomaly.Mark{Subject: anomaly.Subject{Kind: anomaly.ClientApp, ID: id}, Surprise: v, Until: now.Add(time.Hour)})
		}
		b.Post(marks)
		boards[name] = b
	}
	for name, b := range boards {
		x := &Decider{Strays: b}
		d := sampleDecision(NewIDs())
		d.Reason = OK
		x.advise(d, now)
		if d.Reason != OK {
			t.Errorf("%s: decided %v", name, d.Reason)
		}
		if d.Surprise < 0 || math.IsNaN(d.Surprise) || math.IsInf(d.Surprise, 0) {
			t.Errorf("%s: the decision carries %v", name, d.Surprise)
		}
		if name == "alarming" && d.Surprise != 12 {
			t.Errorf("an alarm is not carried: %v", d.Surprise)
		}
		if n := testing.AllocsPerRun(100, func() { x.advise(d, now) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

// The IDs a sidecar gives at a low rate differ in their time alone, at a high
// one in their counter too: neither may meet.
func TestDecisionsSpreadOverTheirHashes(t *testing.T) {
	ids := NewIDs()
	at := time.UnixMilli(1_800_000_000_000)
	seen, shards := map[uint64]bool{}, map[uint64]int{}
	for i := range 20_000 {
		h := ids.Next(at.Add(time.Duration(i/4) * time.Millisecond)).Hash()
		seen[h] = true
		shards[h%64]++
	}
	if len(seen) != 20_000 {
		t.Errorf("20,000 decisions have %d hashes", len(seen))
	}
	for s, n := range shards {
		if n > 2*20_000/64 {
			t.Errorf("shard %d has %d of 20,000", s, n)
		}
	}
	if len(shards) != 64 {
		t.Errorf("%d of 64 shards are used", len(shards))
	}
}
