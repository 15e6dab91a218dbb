package redisshare_test

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	rl "github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/redisshare"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
)

// Distinct subjects beyond those counted exactly are estimated: two sidecars see
// 6,000 between them, many of them both and many of them often, of which 200 are
// counted exactly. What they are told is new must be within three standard errors
// of what is, and nothing they said twice, because an answer was lost, may be
// counted by nobody.
func TestManySubjectsAreEstimated(t *testing.T) {
	const exact, all, each = 200, 6000, 4000
	server := redistest.Start(t, "--appendfsync", "no")
	rdb, err := redisstore.Dial(redisstore.Config{Addrs: []string{server.Addr}, Timeout: 30 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	pool := redisshare.New(rdb, redisshare.Options{SubjectsExact: exact})
	tenures, beats := [2]uint64{}, [2]uint64{1, 1}
	for i := range tenures {
		rep, err := pool.Sync(t.Context(), &rl.Request{Seat: string(rune('a' + i)), Beat: 1})
		if err != nil {
			t.Fatal(err)
		}
		tenures[i] = rep.Tenure
	}
	// say sends subjects of a sidecar, and counts those that were new.
	say := func(sidecar int, from, to, again int) (fresh int) {
		it := rl.Item{ID: "people", Period: "2026-03-10", Kind: rl.DistinctDay, Version: 1, Total: rl.Share{Cap: 100_000 * rl.Micro}, Again: again}
		for s := from; s < to; s++ {
			var h [16]byte
			binary.BigEndian.PutUint64(h[:], uint64(s)*0x9e3779b97f4a7c15)
			it.Subjects = append(it.Subjects, h)
		}
		beats[sidecar]++
		rep, err := pool.Sync(t.Context(), &rl.Request{Seat: string(rune('a' + sidecar)), Tenure: tenures[sidecar], Beat: beats[sidecar], Items: []rl.Item{it}})
		if err != nil {
			t.Fatal(err)
		}
		for _, known := range rep.Items[0].Known {
			if !known {
				fresh++
			}
		}
		return fresh
	}
	fresh := 0
	for from := 0; from < each; from += 500 {
		fresh += say(0, from, from+500, 0)
		fresh += say(1, all-each+from, all-each+from+500, 0) // the last 4,000: half of them are the other's too
		fresh += say(1, all-each+from, all-each+from+500, 0) // which it has forgotten
	}
	if off := math.Abs(float64(fresh-all)) / all; off > 3*0.0081 {
		t.Errorf("%d of %d subjects were new: %.1f %% off", fresh, all, 100*off)
	}
	if n := rdb.HLen(t.Context(), "dspgate:{limits}:s:people@2026-03-10").Val(); n > exact+1 {
		t.Errorf("%d subjects are kept", n)
	}
	if lost := say(0, all, all+100, 0); lost == 0 {
		t.Fatal("nothing was new of a hundred that were")
	}
	if again := say(0, all, all+100, 100); again != 100 {
		t.Errorf("of a hundred sent again %d keep their token, want all: the first answer may have been lost", again)
	}
}
