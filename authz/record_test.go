package authz

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
)

// memorySink keeps records; while fail is set it refuses them.
type memorySink struct {
	mu    sync.Mutex
	fail  error
	kept  []Record
	sizes []int
	offer int
}

func (s *memorySink) Write(_ context.Context, batch []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offer++
	if s.fail != nil {
		return s.fail
	}
	s.kept = append(s.kept, batch...)
	s.sizes = append(s.sizes, len(batch))
	return nil
}

func (s *memorySink) set(err error) {
	s.mu.Lock()
	s.fail = err
	s.mu.Unlock()
}

func (s *memorySink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept)
}

func newHasher(t testing.TB) *SubjectHasher {
	t.Helper()
	h, err := NewSubjectHasher([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// start runs a Recorder until stop is called, which waits for it.
func start(t *testing.T, sink Sink) (x *Recorder, stop func()) {
	t.Helper()
	x = NewRecorder("s-1", newHasher(t))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); x.Run(ctx, sink) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return x, stop
}

func sampleDecision(ids *IDs) *Decision {
	now := time.Now()
	return &Decision{
		ID: ids.Next(now), At: now, Reason: ProductSuspended, Revision: 77,
		App:        &registry.ClientApp{ClientID: "fp-1003-prod", ProductID: "FP-1003"},
		Product:    &registry.Product{ID: "FP-1003"},
		Service:    &registry.Service{Key: "receipts.get", Method: "GET", Template: "/lodgments/v1/receipts/{id}"},
		Suspension: &registry.Suspension{ID: "SU-70"},
		Holder:     31000000202, ClientABN: 56000001313, SSID: "0000300001", Version: "7.1", Environment: registry.PROD,
	}
}

func TestRecordKeepsWhatExplainsAndNothingPersonal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sink memorySink
		x, stop := start(t, &sink)
		d := sampleDecision(NewIDs())
		x.Record(d)
		stop()
		h := newHasher(t)
		want := []Record{{
			ID: d.ID, At: registry.At(d.At), Reason: ProductSuspended, Revision: 77, Environment: registry.PROD,
			Service: "receipts.get", Route: "GET /lodgments/v1/receipts/{id}", ProductID: "FP-1003", Version: "7.1",
			ClientID: "fp-1003-prod", Holder: 31000000202, Suspension: "SU-70", Sidecar: "s-1",
			ClientHash: h.Sum("client_abn", "56000001313"), SSIDHash: h.Sum("software_id", "0000300001"),
		}}
		if diff := cmp.Diff(want, sink.kept); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		b, err := json.Marshal(sink.kept[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"56000001313", "0000300001"} {
			if strings.Contains(string(b), secret) {
				t.Errorf("%s is in %s", secret, b)
			}
		}
		var back Record
		if err := json.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want[0], back); diff != "" {
			t.Errorf("JSON does not come back (-want +got):\n%s", diff)
		}
	})
}

func TestRecordsWaitNoLongerThanTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sink memorySink
		x, _ := start(t, &sink)
		ids := NewIDs()
		for range 3 {
			x.Record(sampleDecision(ids))
		}
		time.Sleep(RecordDelay)
		synctest.Wait()
		if n := sink.count(); n != 3 || len(sink.sizes) != 1 {
			t.Errorf("%d records in batches %v after the delay", n, sink.sizes)
		}
	})
}

func TestFullBatchesDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sink memorySink
		x, _ := start(t, &sink)
		ids := NewIDs()
		for range 10 * RecordBatch { // fewer than the queue holds
			x.Record(sampleDecision(ids))
		}
		synctest.Wait() // the clock stands still
		if n := sink.count(); n < 9*RecordBatch {
			t.Errorf("%d records written before any time passed", n)
		}
		for _, n := range sink.sizes {
			if n != RecordBatch {
				t.Errorf("a batch of %d", n)
			}
		}
	})
}

func TestSinkAwayNeverBlocksAndIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := memorySink{fail: errors.New("away")}
		x, stop := start(t, &sink)
		ids := NewIDs()
		const total = 3 * recordQueue
		for range total { // would hang here: nothing takes them
			x.Record(sampleDecision(ids))
		}
		time.Sleep(10 * time.Second)
		if x.Dropped() == 0 || x.Written() != 0 {
			t.Errorf("dropped %d, written %d while the sink was away", x.Dropped(), x.Written())
		}
		sink.set(nil)
		time.Sleep(5 * time.Second)
		x.Record(sampleDecision(ids))
		stop()
		if got := x.Written() + x.Dropped(); got != total+1 {
			t.Errorf("written %d and dropped %d of %d: some are unaccounted for", x.Written(), x.Dropped(), total+1)
		}
		if n := uint64(sink.count()); n != x.Written() || n < recordQueue/2 {
			t.Errorf("the sink has %d, written says %d", n, x.Written())
		}
		seen := map[DecisionID]bool{}
		for _, r := range sink.kept {
			if seen[r.ID] {
				t.Fatalf("%s was written twice", r.ID)
			}
			seen[r.ID] = true
		}
	})
}

func TestTooLateIsDroppedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := memorySink{fail: errors.New("away")}
		x, stop := start(t, &sink)
		x.Record(sampleDecision(NewIDs()))
		time.Sleep(RecordLateMax + 5*time.Second)
		if x.Dropped() != 1 {
			t.Errorf("dropped %d", x.Dropped())
		}
		offers := sink.offer
		time.Sleep(time.Minute)
		if sink.offer != offers {
			t.Error("a dropped batch is still offered")
		}
		stop()
	})
}

func TestShutdownWithTheSinkAwayEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := memorySink{fail: errors.New("away")}
		x, stop := start(t, &sink)
		ids := NewIDs()
		for range 1000 {
			x.Record(sampleDecision(ids))
		}
		time.Sleep(time.Second)
		before := time.Now()
		stop()
		if took := time.Since(before); took > recordDrainMax+time.Second {
			t.Errorf("took %v", took)
		}
		if x.Dropped() != 1000 {
			t.Errorf("dropped %d of 1000", x.Dropped())
		}
	})
}

func TestManyCallersLoseNothingUncounted(t *testing.T) {
	var sink memorySink
	x, stop := start(t, &sink)
	ids := NewIDs()
	const callers, each = 8, 10_000
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range each {
				x.Record(sampleDecision(ids))
			}
		})
	}
	wg.Wait()
	stop()
	if x.Written()+x.Dropped() != callers*each || x.Written() != uint64(len(sink.kept)) {
		t.Errorf("written %d, dropped %d, kept %d of %d", x.Written(), x.Dropped(), len(sink.kept), callers*each)
	}
	for _, r := range sink.kept {
		if r.ProductID != "FP-1003" || r.Suspension != "SU-70" || r.ID.IsZero() {
			t.Fatalf("a torn record: %+v", r)
		}
	}
}

func TestHashesOfManyClientsAreBounded(t *testing.T) {
	w := writer{x: NewRecorder("s-1", newHasher(t)), hashes: map[hashKey]Hash{}}
	for i := range registry.ABN(10 * hashesMax) {
		w.record(&pending{client: 10_000_000_000 + i})
	}
	if len(w.hashes) > hashesMax {
		t.Errorf("%d hashes held", len(w.hashes))
	}
}

func TestQueueLetsGoOfOldViews(t *testing.T) {
	x := NewRecorder("s-1", newHasher(t))
	x.Record(sampleDecision(NewIDs()))
	var p pending
	for i := range x.shards {
		for x.shards[i].pop(&p) {
		}
		for k := range x.shards[i].slots {
			if x.shards[i].slots[k].product != nil {
				t.Error("an emptied slot still points into a View")
			}
		}
	}
	if p.product == nil {
		t.Error("nothing was queued")
	}
}

func TestRecordDoesNotAllocate(t *testing.T) {
	x := NewRecorder("s-1", newHasher(t))
	d := sampleDecision(NewIDs())
	if n := testing.AllocsPerRun(1000, func() { x.Record(d) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRecord(b *testing.B) {
	x := NewRecorder("s-1", newHasher(b))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); x.Run(ctx, discard{}) }()
	d := sampleDecision(NewIDs())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			x.Record(d)
		}
	})
	b.ReportMetric(float64(x.Dropped())/float64(b.N), "dropped/op")
	cancel()
	<-done
}

type discard struct{}

func (discard) Write(context.Context, []Record) error { return nil }
