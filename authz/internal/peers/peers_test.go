package peers

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestNeverMoreThanRateAndBurst: in every window.
func TestNeverMoreThanRateAndBurst(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rate, burst := rapid.IntRange(1, 50).Draw(t, "rate"), rapid.IntRange(1, 20).Draw(t, "burst")
		b := New(float64(rate), burst, 64)
		var now time.Duration // as a monotonic clock has it
		var taken []time.Duration
		for range rapid.IntRange(1, 200).Draw(t, "calls") {
			now += time.Duration(rapid.IntRange(0, 200).Draw(t, "ms")) * time.Millisecond
			if b.Take("192.0.2.1", b.start.Add(now)) {
				taken = append(taken, now)
			}
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				window := taken[j] - taken[i]
				if n, most := j-i+1, float64(rate)*window.Seconds()+float64(burst); float64(n) > most+1e-6 {
					t.Fatalf("%d in %v, at most %v", n, window, most)
				}
			}
		}
	})
}

func TestAClockThatJumpsGivesNothing(t *testing.T) {
	b := New(1, 5, 64)
	at := b.start.Add(time.Hour)
	for range 5 {
		if !b.Take("192.0.2.1", at) {
			t.Fatal("refused within the burst")
		}
	}
	// Back, and forward again to where it was: at most what the time since then
	// is good for, and never more than the burst.
	for _, jump := range []time.Duration{0, -time.Millisecond, -time.Minute, -time.Hour} {
		if b.Take("192.0.2.1", at.Add(jump)) {
			t.Errorf("a jump of %v gave a call", jump)
		}
	}
}

func TestNetworksAreApartAndHostsOfOneAreNot(t *testing.T) {
	b := New(1, 1, 1024)
	for _, c := range []struct {
		peer string
		want bool
	}{
		{"192.0.2.1", true}, {"192.0.2.1", false}, {"192.0.2.2", true}, {"::ffff:192.0.2.2", false},
		{"2001:db8::1", true}, {"2001:db8::2", false}, {"2001:db8:0:1::1", true}, {"not an address", true}, {"", false},
	} {
		if got := b.Take(c.peer, b.start); got != c.want {
			t.Errorf("%q: %t, want %t", c.peer, got, c.want)
		}
	}
}

func TestTheTableStaysAsItWas(t *testing.T) {
	b := New(1, 1, 1024)
	for i := range 100_000 {
		b.Take(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), b.start)
	}
	if len(b.sets) != 1024/ways {
		t.Errorf("%d sets", len(b.sets))
	}
	if n := testing.AllocsPerRun(100, func() { b.Take("192.0.2.1", b.start) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
