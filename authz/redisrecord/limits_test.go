package redisrecord

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

func TestEachReadsEveryRecordOfAWindowOnce(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{Key: "t"})
	ids := authz.NewIDs()
	began := time.Now().Add(-time.Minute).Truncate(time.Second)
	want := map[authz.DecisionID]bool{}
	for i := range 70 { // more entries than a page
		var batch []authz.Record
		for k := range 3 {
			at := began.Add(time.Duration(i*3+k) * 100 * time.Millisecond)
			batch = append(batch, authz.Record{ID: ids.Next(at), At: registry.At(at), ProductID: "FP-1003"})
			if second := at.Sub(began); second >= 2*time.Second && second < 15*time.Second {
				want[batch[k].ID] = true
			}
		}
		if err := s.Write(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	got := map[authz.DecisionID]bool{}
	if err := s.Each(t.Context(), began.Add(2*time.Second), began.Add(15*time.Second), func(r *authz.Record) bool {
		if got[r.ID] {
			t.Errorf("%s came twice", r.ID)
		}
		got[r.ID] = true
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" || len(want) != 130 {
		t.Errorf("want %d, got %d", len(want), len(got))
	}
	n := 0
	if err := s.Each(t.Context(), began, began.Add(time.Hour), func(*authz.Record) bool { n++; return n < 5 }); err != nil || n != 5 {
		t.Errorf("stopped after %d: %v", n, err)
	}
}

func TestRefusalsOfLimitsAddUpByAccountAndDay(t *testing.T) {
	_, rdb := startRedis(t)
	s := New(rdb, Options{Key: "t"})
	ids := authz.NewIDs()
	at := time.Now()
	record := func(at time.Time, limit, shadow string) authz.Record {
		return authz.Record{ID: ids.Next(at), At: registry.At(at), ProductID: "FP-1003", Limit: limit, Shadow: shadow}
	}
	const day, rate = "product:FP-1003:day", "product:FP-1003:rate"
	for range 2 {
		if err := s.Write(t.Context(), []authz.Record{
			record(at, day, ""), record(at, day, rate), record(at, "", rate), record(at, "", ""), record(at.Add(-48*time.Hour), day, ""),
		}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.LimitCounts(t.Context(), at, []string{rate, "product:FP-1003:none", day})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]LimitCount{{Shadow: 4}, {}, {Refused: 4}}, got); diff != "" {
		t.Error(diff)
	}
	if got, err := s.LimitCounts(t.Context(), at, nil); err != nil || len(got) != 0 {
		t.Errorf("of no account: %v, %v", got, err)
	}
	if ttl := rdb.TTL(t.Context(), s.limitsKey(LimitDay(at))).Val(); ttl <= 0 || ttl > limitCountsKeep {
		t.Errorf("kept for %v", ttl)
	}
}
