package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry"
)

var (
	start  = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	limits = Limits{Stamp: 60 * time.Millisecond, Exposure: 4 * time.Second, SidecarsOf: map[int][]string{0: {"sidecar-1", "sidecar-2"}, 1: {"sidecar-3"}}}
)

func at(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }

// until names the same instant for every rating of a lease.
func until(long, short int) map[registry.Risk]registry.Time {
	return map[registry.Risk]registry.Time{1: registry.At(at(long)), 2: registry.At(at(long)), 3: registry.At(at(short)), 4: registry.At(at(short))}
}

func acked(id string) registry.SidecarState {
	return registry.SidecarState{ID: id, State: registry.Acknowledged}
}

func pendingUntil(id string, long, short int) registry.SidecarState {
	return registry.SidecarState{ID: id, State: registry.Pending, Until: until(long, short)}
}

// whole is a suspension that returned at 1000 as complete.
func whole() Suspension {
	return Suspension{ID: "SU-1", Product: "FP-1", Called: at(900), Returned: at(1000), Complete: true,
		Sidecars: []registry.SidecarState{acked("sidecar-1"), acked("sidecar-2"), acked("sidecar-3")}}
}

// partly is one that named sidecar-3 as pending until 3000 (ratings 1–2) and 2000.
func partly() Suspension {
	s := whole()
	s.Complete = false
	s.Sidecars = []registry.SidecarState{acked("sidecar-1"), acked("sidecar-2"), pendingUntil("sidecar-3", 3000, 2000)}
	return s
}

func with(s Suspension, f func(*Suspension)) Suspension { f(&s); return s }

func request(sent, done, envoy, risk int) Request {
	return Request{Product: "FP-1", Risk: registry.Risk(risk), Envoy: envoy, Sent: at(sent), Done: at(done), Status: 200, Decision: "D"}
}

func arrival(ms, risk int, decision string) Arrival {
	return Arrival{Product: "FP-1", Risk: registry.Risk(risk), At: at(ms), Decision: decision}
}

// TestJudge plants a breach of each promise, and beside each the history that
// is nearest to it and breaks none.
func TestJudgeFlagsEveryBreachAndNothingElse(t *testing.T) {
	lifted := func(ms int) Suspension { return with(whole(), func(s *Suspension) { s.LiftCalled = at(ms) }) }
	for name, c := range map[string]struct {
		h    History
		want []string
	}{
		"nothing happened": {h: History{Suspensions: []Suspension{whole()}}},
		"P1: allowed after the return": {
			h:    History{Suspensions: []Suspension{whole()}, Requests: []Request{request(1001, 1002, 0, 1)}},
			want: []string{"P1"},
		},
		"sent before the return":          {h: History{Suspensions: []Suspension{whole()}, Requests: []Request{request(999, 1500, 0, 1)}}},
		"another product":                 {h: History{Suspensions: []Suspension{with(whole(), func(s *Suspension) { s.Product = "FP-2" })}, Requests: []Request{request(1001, 1002, 0, 1)}}},
		"denied after the return":         {h: History{Suspensions: []Suspension{whole()}, Requests: []Request{{Product: "FP-1", Sent: at(1001), Done: at(1002), Status: 403}}}},
		"answered after a lift was asked": {h: History{Suspensions: []Suspension{lifted(2000)}, Requests: []Request{request(1999, 2001, 0, 1)}}},
		"P1: answered before a lift was asked": {
			h:    History{Suspensions: []Suspension{lifted(2000)}, Requests: []Request{request(1998, 1999, 0, 1)}},
			want: []string{"P1"},
		},
		"P2: at the upstream after the return, sent before it": {
			h:    History{Suspensions: []Suspension{whole()}, Requests: []Request{request(990, 1010, 0, 1)}, Arrivals: []Arrival{arrival(1005, 1, "D")}},
			want: []string{"P2"},
		},
		"at the upstream before the return": {h: History{Suspensions: []Suspension{whole()}, Arrivals: []Arrival{arrival(1000, 1, "D")}}},
		"at the upstream after a lift was asked": {
			h: History{Suspensions: []Suspension{lifted(2000)}, Arrivals: []Arrival{arrival(2000, 1, "D")}},
		},
		"allowed while named as pending": {
			h: History{Suspensions: []Suspension{partly()}, Requests: []Request{request(3000, 3010, 1, 1), request(2000, 2010, 1, 3)},
				Arrivals: []Arrival{arrival(3060, 1, "D"), arrival(2060, 3, "D")}},
		},
		"P3: allowed after the instant named, long lease": {
			h:    History{Suspensions: []Suspension{partly()}, Requests: []Request{request(3002, 3010, 1, 1)}},
			want: []string{"P3"},
		},
		"P3: allowed after the instant named, short lease": {
			h:    History{Suspensions: []Suspension{partly()}, Requests: []Request{request(2002, 2010, 1, 3)}},
			want: []string{"P3"},
		},
		"P3: allowed by a sidecar that is not named": {
			h:    History{Suspensions: []Suspension{partly()}, Requests: []Request{request(1500, 1510, 0, 1)}},
			want: []string{"P3"},
		},
		"P3: at the upstream later than a stamp after the instant named": {
			h:    History{Suspensions: []Suspension{partly()}, Requests: []Request{request(2990, 3100, 1, 1)}, Arrivals: []Arrival{arrival(3062, 1, "D")}},
			want: []string{"P3"},
		},
		"P3: at the upstream through an Envoy nobody knows, after every instant named": {
			h:    History{Suspensions: []Suspension{partly()}, Arrivals: []Arrival{arrival(3062, 1, "other")}},
			want: []string{"P3"},
		},
		"who is unknown may be anywhere": {
			h: History{Suspensions: []Suspension{with(partly(), func(s *Suspension) {
				s.Sidecars = []registry.SidecarState{acked("sidecar-1"), pendingUntil(registry.UnknownSidecars, 3000, 3000)}
			})}, Requests: []Request{request(2999, 3010, 0, 3)}},
		},
		"P3: nobody is named": {
			h:    History{Suspensions: []Suspension{with(partly(), func(s *Suspension) { s.Sidecars = nil })}},
			want: []string{"P3"},
		},
		"P3: no instant is named": {
			h:    History{Suspensions: []Suspension{with(partly(), func(s *Suspension) { delete(s.Sidecars[2].Until, 4) })}},
			want: []string{"P3"},
		},
		"P3: an instant beyond any lease": {
			h:    History{Suspensions: []Suspension{with(partly(), func(s *Suspension) { s.Sidecars[2].Until[1] = registry.At(at(5001)) })}},
			want: []string{"P3"},
		},
		"lost":         {h: History{Finals: []Final{{Suspension: "SU-1", What: "allowed"}}}, want: []string{"lost"}},
		"in force":     {h: History{Finals: []Final{{Suspension: "SU-1", Denied: true}}}},
		"never healed": {h: History{Ends: []string{"sidecar-1"}}, want: []string{"end"}},
	} {
		var got []string
		for _, v := range Judge(&c.h, limits) {
			got = append(got, v.Promise)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestScheduleIsOfItsSeedAndStaysInItsTime(t *testing.T) {
	const length = 5 * time.Second
	kinds := map[string]bool{}
	waits, outlasts := 0, 0
	for seed := range uint64(200) {
		all := schedule(seed, length, true)
		if diff := cmp.Diff(all, schedule(seed, length, true)); diff != "" {
			t.Fatalf("seed %d is not the same twice:\n%s", seed, diff)
		}
		if len(all) == 0 {
			t.Errorf("seed %d: nothing goes wrong", seed)
		}
		over, ambushed := map[string]time.Duration{}, map[string]bool{}
		var last time.Duration
		for _, f := range all {
			kinds[f.Kind] = true
			if f.On != "" {
				waits++
				if ambushed[f.Target] || f.At > ambushMax {
					t.Errorf("seed %d: %v comes twice or late", seed, f)
				}
				ambushed[f.Target] = true
				if f.Kind != pause && f.Kind != kill && f.For > leaseLong {
					outlasts++
				}
				continue
			}
			if f.At < last {
				t.Errorf("seed %d: %v is out of order", seed, f)
			}
			last = f.At
			if f.At+f.For > length {
				t.Errorf("seed %d: %v ends after the trial", seed, f)
			}
			if ambushed[f.Target] || f.Kind != failover && f.At < over[f.Target] {
				t.Errorf("seed %d: %v while something else is done to it", seed, f)
			}
			over[f.Target] = f.At + f.For
		}
		for _, f := range schedule(seed, length, false) {
			if f.Kind == failover || f.Target == "primary" {
				t.Errorf("seed %d: %v without failovers", seed, f)
			}
		}
	}
	if waits < 200 || outlasts < 60 {
		t.Errorf("of 200 seeds' faults only %d wait for a suspension, and %d of them outlast a lease", waits, outlasts)
	}
	if len(kinds) != 10 {
		t.Errorf("200 seeds have only faults of %v", kinds)
	}
}
