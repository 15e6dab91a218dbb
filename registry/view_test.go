package registry

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"
)

// sealed makes a record at a revision.
func sealed(t testing.TB, kind Kind, id string, revision Revision, value any) *Record {
	t.Helper()
	s := testSealer(t)
	r := benchRecord(t, s, kind, id, value)
	s.Seal(&r, revision)
	return &r
}

func build(t testing.TB, v *View, revision Revision, records ...*Record) *View {
	t.Helper()
	b := NewBuilder(v, 0)
	for _, r := range records {
		if err := b.Put(r); err != nil {
			t.Fatal(err)
		}
	}
	next, err := b.View(revision, 1)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

func TestBuilderRefusesARecordUnderAnotherID(t *testing.T) {
	for _, r := range []*Record{
		sealed(t, KindProduct, "FP-2", 1, Product{ID: "FP-1"}),
		sealed(t, KindProduct, "", 1, Product{}),
		sealed(t, KindEntity, "73000000606", 1, Entity{ABN: 65000000101}),
		sealed(t, KindClientApp, "a", 1, ClientApp{ClientID: "b"}),
		sealed(t, KindSuspension, "SU-1", 1, Suspension{ID: "SU-2"}),
		sealed(t, KindService, "a", 1, Service{Key: "b"}),
		sealed(t, KindVersion, "FP-1@1", 1, Version{}),
		sealed(t, KindLimit, "product:FP-1:day", 1, Limit{ID: "product:FP-1:day", Subject: SubjectRef{KindProduct, "FP-2"}, Name: "day"}),
		{Kind: 99, ID: "x", Data: []byte("{}")},
		{Kind: KindProduct, ID: "FP-1", Data: []byte(`{"id":"FP-1","certification":{"state":"Unheard"}}`)},
	} {
		b := NewBuilder(nil, 0)
		if err := b.Put(r); err == nil {
			t.Errorf("%s taken: %s", r.Key(), r.Data)
		}
		if b.v.Records != 0 || b.v.Digest != (Digest{}) {
			t.Errorf("%s refused and counted", r.Key())
		}
	}
}

func TestAnOlderRecordIsPassedOver(t *testing.T) {
	v := build(t, nil, 5, sealed(t, KindProduct, "FP-1", 5, Product{ID: "FP-1", Name: "new"}))
	next := build(t, v, 6, sealed(t, KindProduct, "FP-1", 4, Product{ID: "FP-1", Name: "old"}))
	if next.Product("FP-1").Name != "new" || next.Digest != v.Digest || next.Records != 1 {
		t.Errorf("%+v", next.Product("FP-1"))
	}
}

// TestOneChangeSharesStructure counts what one change among many products
// copies: it must not grow with the register.
func TestOneChangeSharesStructure(t *testing.T) {
	s := testSealer(t)
	var records []*Record
	for _, r := range benchRecords(t, s, 5000) {
		records = append(records, &r)
	}
	v := build(t, nil, 1, records...)
	next := build(t, v, 2, sealed(t, KindProduct, "FP-000042", 2, Product{ID: "FP-000042", Name: "changed"}),
		sealed(t, KindSuspension, "SU-2", 2, Suspension{ID: "SU-2", Subject: SubjectRef{KindProduct, "FP-000042"}, Starts: 1}))
	n := differ(&v.entities, &next.entities) + differ(&v.products, &next.products) + differ(&v.apps, &next.apps) +
		differ(&v.suspensions, &next.suspensions) + differ(&v.suspended[KindProduct], &next.suspended[KindProduct])
	if n > 3 {
		t.Errorf("%d shards differ after a change of 2 records", n)
	}
	if v.entities.shards != next.entities.shards || v.apps.shards != next.apps.shards {
		t.Error("tables that nothing touched were copied")
	}
	if v.Product("FP-000042").Name == "changed" || v.Suspended(KindProduct, "FP-000042", 9) != nil {
		t.Error("the View before sees the change")
	}
	if next.Product("FP-000042").Name != "changed" || next.Suspended(KindProduct, "FP-000042", 9) == nil {
		t.Error("the View after does not see the change")
	}
}

func differ[T any](a, b *table[T]) (n int) {
	var none [nShards]*shard[T]
	x, y := a.shards, b.shards
	if x == nil {
		x = &none
	}
	if y == nil {
		y = &none
	}
	for i := range x {
		if x[i] != y[i] {
			n++
		}
	}
	return n
}

func TestLookupsDoNotAllocate(t *testing.T) {
	s := testSealer(t)
	var records []*Record
	for _, r := range benchRecords(t, s, 100) {
		records = append(records, &r)
	}
	issuer := "https://issuer.example"
	records = append(records,
		sealed(t, KindSuspension, "SU-1", 2, Suspension{ID: "SU-1", Subject: SubjectRef{KindVersion, "FP-000001@1.0"}, Starts: 1}),
		sealed(t, KindSuspension, "SU-2", 2, Suspension{ID: "SU-2", Subject: SubjectRef{KindEntity, "65000000101"}, Starts: 1, Expires: 2}),
		sealed(t, KindSubscription, "0000123400", 2, Subscription{SSID: "0000123400", ProductID: "FP-000001", ClientABN: 56000001313, Nominated: true}),
		sealed(t, KindDenial, DenialID("kid", issuer, "k1"), 2, Denial{ID: DenialID("kid", issuer, "k1"), What: "kid", Issuer: issuer, Value: "k1"}),
		sealed(t, KindService, "as", 2, Service{Key: "as", Method: "GET", Template: "/as/{id}", Risk: 3}))
	v := build(t, nil, 2, records...)
	q := StandingQuery{App: v.ClientApp("fp-000001-prod"), Environment: PROD, Version: "2.0", Holder: 65000000101, Thumbprint: "t", SSID: "0000123400", Service: v.Service("as")}
	found := 0
	n := testing.AllocsPerRun(100, func() {
		found = 0
		for _, ok := range []bool{
			v.Entity(65000000101) != nil, v.Product("FP-000001") != nil, v.ClientApp("fp-000001-prod") != nil, v.Subscription("0000123400") != nil,
			v.Nominated("FP-000001", 56000001313) == "0000123400", v.Denied("kid", issuer, "k1", 5), v.Standing(&q, 1772323200000).Code == Good,
		} {
			if ok {
				found++
			}
		}
	})
	if n != 0 || found != 7 {
		t.Errorf("%v allocations, %d of 7 found", n, found)
	}
}

// TestSuspendedAgreesWithASearch compares the index with a search through all
// suspensions, over every order of imposing, changing and lifting.
func TestSuspendedAgreesWithASearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var v *View
		all := map[string]Suspension{}
		s, err := NewSealer(make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		for rev := range Revision(rapid.IntRange(1, 25).Draw(t, "changes")) {
			small := rapid.IntRange(0, 6)
			x := Suspension{
				ID:      fmt.Sprint("SU-", rapid.IntRange(0, 7).Draw(t, "id")),
				Subject: SubjectRef{rapid.SampledFrom([]Kind{KindProduct, KindEntity}).Draw(t, "kind"), fmt.Sprint(rapid.IntRange(0, 1).Draw(t, "subject"))},
				Starts:  Time(small.Draw(t, "starts")), Expires: Time(small.Draw(t, "expires")), Emergency: rapid.Bool().Draw(t, "emergency"),
			}
			if rapid.IntRange(0, 3).Draw(t, "lifted") == 0 {
				x.LiftedAt = 1
			}
			all[x.ID] = x
			b := NewBuilder(v, 0)
			data, err := json.Marshal(x)
			if err != nil {
				t.Fatal(err)
			}
			r := Record{Kind: KindSuspension, ID: x.ID, Data: data}
			s.Seal(&r, rev+1)
			if err := b.Put(&r); err != nil {
				t.Fatal(err)
			}
			if v, err = b.View(rev+1, 1); err != nil {
				t.Fatal(err)
			}
		}
		for _, kind := range []Kind{KindProduct, KindEntity, KindService} {
			for subject := range 2 {
				for at := range Time(8) {
					active, emergency := false, false
					for x := range maps.Values(all) {
						if x.Subject == (SubjectRef{kind, fmt.Sprint(subject)}) && x.Active(at) {
							active, emergency = true, emergency || x.Emergency
						}
					}
					got := v.Suspended(kind, fmt.Sprint(subject), at)
					if (got != nil) != active || got != nil && (got.Emergency != emergency || !got.Active(at) || *got != all[got.ID]) {
						t.Fatalf("%s %d at %d: %+v, want active %t emergency %t", kind, subject, at, got, active, emergency)
					}
				}
			}
		}
	})
}

func TestASubscriptionThatMovesIsNominatedWhereItIs(t *testing.T) {
	sub := Subscription{SSID: "0000123400", ProductID: "FP-1", ClientABN: 56000001313, Nominated: true}
	v := build(t, nil, 1, sealed(t, KindSubscription, sub.SSID, 1, sub))
	sub.ProductID = "FP-2"
	v = build(t, v, 2, sealed(t, KindSubscription, sub.SSID, 2, sub))
	if v.Nominated("FP-1", sub.ClientABN) != "" || v.Nominated("FP-2", sub.ClientABN) != sub.SSID {
		t.Error("nominated where it was, not where it is")
	}
	if e := v.clientSubs.get("FP-1 56000001313"); len(e.Value) != 0 {
		t.Errorf("the index keeps %v", e.Value)
	}
	sub.Nominated = false
	v = build(t, v, 3, sealed(t, KindSubscription, sub.SSID, 3, sub))
	if v.Nominated("FP-2", sub.ClientABN) != "" {
		t.Error("nominated after it was withdrawn")
	}
}

func TestDenied(t *testing.T) {
	issuer := "https://issuer.example"
	d := Denial{ID: DenialID("jti", issuer, "a"), What: "jti", Issuer: issuer, Value: "a", Expires: 100}
	v := build(t, nil, 1, sealed(t, KindDenial, d.ID, 1, d))
	for _, c := range []struct {
		what, issuer, value string
		at                  Time
		want                bool
	}{
		{"jti", issuer, "a", 99, true}, {"jti", issuer, "a", 100, false}, {"kid", issuer, "a", 99, false},
		{"jti", "other", "a", 99, false}, {"jti", issuer, "", 99, false}, {"jti", issuer, "b", 99, false},
	} {
		if got := v.Denied(c.what, c.issuer, c.value, c.at); got != c.want {
			t.Errorf("%s %s %q at %d: %t", c.what, c.issuer, c.value, c.at, got)
		}
	}
}

func TestRecountFindsAViewThatIsNotWhole(t *testing.T) {
	v := build(t, nil, 1, sealed(t, KindProduct, "FP-1", 1, Product{ID: "FP-1"}), sealed(t, KindNotice, "N-1", 1, Notice{ID: "N-1"}),
		sealed(t, KindLimit, "product:FP-1:day", 1, Limit{ID: "product:FP-1:day", Subject: SubjectRef{KindProduct, "FP-1"}, Name: "day"}))
	if err := recount(v); err != nil {
		t.Fatal(err)
	}
	v.products.get("FP-1").MAC[0]++
	if err := recount(v); err == nil {
		t.Error("a record whose MAC changed in memory was not found")
	}
}

func TestSealerBindsWhatItSeals(t *testing.T) {
	s := testSealer(t)
	r := Record{Kind: KindProduct, ID: "FP-1", Data: []byte("{}")}
	s.Seal(&r, 7)
	if !s.Genuine(&r) {
		t.Fatal("not genuine as sealed")
	}
	for name, change := range map[string]func(*Record){
		"kind": func(r *Record) { r.Kind = KindEntity }, "id": func(r *Record) { r.ID = "FP-2" },
		"revision": func(r *Record) { r.Revision++ }, "data": func(r *Record) { r.Data = []byte("[]") },
		"id into data": func(r *Record) { r.ID, r.Data = "FP-1{", []byte("}") }, "mac": func(r *Record) { r.MAC[15]++ },
	} {
		c := r
		if change(&c); s.Genuine(&c) {
			t.Errorf("genuine with another %s", name)
		}
	}
	if _, err := NewSealer(make([]byte, 31)); err == nil {
		t.Error("a short key was taken")
	}
	other, err := NewSealer(make([]byte, 32))
	if err != nil || other.Genuine(&r) {
		t.Errorf("genuine under another key, %v", err)
	}
}

func BenchmarkOneChange(b *testing.B) {
	s := testSealer(b)
	var records []*Record
	for _, r := range benchRecords(b, s, benchProducts) {
		records = append(records, &r)
	}
	v := build(b, nil, 1, records...)
	p := benchProduct(42)
	rev := Revision(1)
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		rev++
		r := sealed(b, KindProduct, p.ID, rev, p)
		b.StartTimer()
		next := NewBuilder(v, 0)
		if err := next.Put(r); err != nil {
			b.Fatal(err)
		}
		var err error
		if v, err = next.View(rev, 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkStanding(b *testing.B) {
	s := testSealer(b)
	var records []*Record
	for _, r := range benchRecords(b, s, benchProducts) {
		records = append(records, &r)
	}
	v := build(b, nil, 1, records...)
	var ids [1024]string
	for i := range ids {
		ids[i] = fmt.Sprintf("fp-%06d-prod", i*97)
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i++
		q := StandingQuery{App: v.ClientApp(ids[i%len(ids)]), Environment: PROD, Version: "2.0", Holder: 65000000101}
		if v.Standing(&q, 1767225600000).Product == nil {
			b.Fatal("no product")
		}
	}
}

func BenchmarkBootClock(b *testing.B) {
	now := NewBootClock()
	for b.Loop() {
		now()
	}
}
