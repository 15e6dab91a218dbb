package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"time"
)

// benchProducts is how many products the load benchmark has, of two versions,
// one client app and three entitlements each.
const benchProducts = 100_000

func testSealer(t testing.TB) *Sealer {
	t.Helper()
	s, err := NewSealer([]byte("a register key for tests, 32 bytes or more"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func benchRecord(t testing.TB, s *Sealer, kind Kind, id string, value any) Record {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	r := Record{Kind: kind, ID: id, Data: data}
	s.Seal(&r, 1)
	return r
}

func benchProduct(i int) Product {
	services := []string{"abr.lookup", "receipts.get", "payevnt.0004.submit", "as.0004.submit", "as.0004.get", "ldglst.0002.list"}
	at := At(time.Date(2026, 1, 1+i%300, 0, 0, 0, 0, time.UTC))
	p := Product{
		ID: fmt.Sprintf("FP-%06d", i), Name: fmt.Sprintf("Product number %d", i), Owner: 65000000101, Updated: at, Scenario: 2, Category: "A",
		Certification: Certification{State: CertWhitelisted, ValidFrom: at, ValidUntil: at + 365*86_400_000},
		Versions: []Version{
			{Version: "1.0", Released: at, SupportUntil: at + 400*86_400_000 + Time(i)},
			{Version: "2.0", Released: at + 1000},
		},
	}
	for k := range 3 {
		p.Entitlements = append(p.Entitlements, Entitlement{Service: services[(i+k)%len(services)], Environment: PROD, Stage: StagePROD})
	}
	return p
}

func benchRecords(t testing.TB, s *Sealer, n int) []Record {
	t.Helper()
	all := make([]Record, 0, 2*n+1)
	all = append(all, benchRecord(t, s, KindEntity, "65000000101", Entity{ABN: 65000000101, Name: "Wattlebird", State: EntityRegistered}))
	for i := range n {
		p := benchProduct(i)
		all = append(all, benchRecord(t, s, KindProduct, p.ID, p))
		a := ClientApp{ClientID: fmt.Sprintf("fp-%06d-prod", i), ProductID: p.ID, Environment: PROD, Updated: p.Updated}
		all = append(all, benchRecord(t, s, KindClientApp, a.ClientID, a))
	}
	return all
}

// benchLog serves one snapshot, reusing its buffer as a store does.
type benchLog struct {
	records []Record
	head    Head
}

func (l *benchLog) Snapshot(_ context.Context, put func(*Record) error) (Head, error) {
	var buf []byte
	for i := range l.records {
		r := l.records[i]
		buf = append(buf[:0], r.Data...)
		r.Data = buf
		if err := put(&r); err != nil {
			return Head{}, err
		}
	}
	return l.head, nil
}

func (l *benchLog) Follow(context.Context, Ack, int) (Poll, error) { return Poll{Head: l.head}, nil }

func (l *benchLog) Leave(context.Context, string, string) error { return nil }

func (l *benchLog) Wake(context.Context) <-chan struct{} { return nil }

func newBenchLog(t testing.TB, s *Sealer, records []Record) *benchLog {
	t.Helper()
	l := &benchLog{records: records}
	for i := range records {
		l.head.Digest = l.head.Digest.Add(records[i].MAC)
	}
	l.head.Revision, l.head.Epoch, l.head.Records = 1, 1, uint64(len(records))
	l.head.MAC = s.Head(&l.head)
	return l
}

func BenchmarkLoad(b *testing.B) {
	s := testSealer(b)
	l := newBenchLog(b, s, benchRecords(b, s, benchProducts))
	m := NewMirror(l, s, MirrorConfig{ID: "bench"})
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var v *View
	for b.Loop() {
		var err error
		if v, err = m.load(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB-live")
	b.ReportMetric(float64(after.HeapObjects-before.HeapObjects)/1e3, "kobjects")
	runtime.KeepAlive(v)
	runtime.KeepAlive(l)
}

// BenchmarkApplyBurst is what one sidecar does of a burst of suspensions: 256
// changes, verified, decoded and put into a View.
func BenchmarkApplyBurst(b *testing.B) {
	s := testSealer(b)
	l := newBenchLog(b, s, benchRecords(b, s, 1000))
	m := NewMirror(l, s, MirrorConfig{ID: "bench"})
	held, err := m.load(b.Context(), nil)
	if err != nil {
		b.Fatal(err)
	}
	changes := make([]Change, 256)
	tip := held
	for i := range changes {
		x := wholeSuspension()
		x.ID, x.Subject.ID, x.LiftedAt, x.LiftedBy, x.LiftReason = fmt.Sprintf("SU-%d", tip.Revision+1), fmt.Sprintf("FP-%06d", i), 0, "", ""
		rec := benchRecord(b, s, KindSuspension, x.ID, x)
		s.Seal(&rec, tip.Revision+1)
		next := NewBuilder(tip, 0)
		if err := next.Put(&rec); err != nil {
			b.Fatal(err)
		}
		if tip, err = next.View(rec.Revision, 1); err != nil {
			b.Fatal(err)
		}
		changes[i] = Change{Revision: rec.Revision, Epoch: 1, Command: "suspend", Actor: x.ImposedBy, Puts: []Record{rec}, Digest: tip.Digest}
		changes[i].MAC = s.Change(&changes[i])
	}
	b.ReportAllocs()
	for b.Loop() {
		if v, err := m.apply(held, changes, 0); err != nil || v.Revision != tip.Revision {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(changes)), "ns/change")
}
