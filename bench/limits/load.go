package main

import (
	"math/rand/v2"
	"time"
)

// spec is one run.
type spec struct {
	Workload string        `json:"workload"`
	Load     float64       `json:"load"` // offered, in parts of the limit
	Rate     float64       `json:"rate"`
	Burst    int64         `json:"burst"`
	Sidecars int           `json:"sidecars"`
	Seed     uint64        `json:"seed"`
	For      time.Duration `json:"for"`
	KillAt   time.Duration `json:"kill_at"` // from the beginning
	OutageAt time.Duration `json:"outage_at"`
	Outage   time.Duration `json:"outage"`

	begin time.Duration // CLOCK_BOOTTIME
}

// arrivals calls f with each arrival of a run, in order: when, counted from the
// beginning, and at which sidecar. It is the same for every design.
func (s *spec) arrivals(f func(at time.Duration, sidecar int)) {
	r := rand.New(rand.NewPCG(s.Seed, 7))
	weights := make([]float64, s.Sidecars)
	for at := time.Duration(0); ; {
		at += time.Duration(r.ExpFloat64() / (s.Rate * s.Load) * 1e9)
		if at >= s.For {
			return
		}
		var sum float64
		for i := range weights {
			weights[i] = s.weight(i, at.Seconds())
			sum += weights[i]
		}
		x, w := r.Float64()*sum, 0
		for ; w < s.Sidecars-1 && x > weights[w]; w++ {
			x -= weights[w]
		}
		f(at, w)
	}
}

// weight is how much of the load a sidecar gets, relative to the others.
func (s *spec) weight(sidecar int, seconds float64) float64 {
	switch s.Workload {
	case "zipf": // the second gets half of what the first does, the third a third
		return 1 / float64(sidecar+1)
	case "shifting": // nine tenths go to three of the sidecars, others every eight seconds
		if (3*int(seconds/8)+sidecar)%s.Sidecars < 3 {
			return 1
		}
		return 0.05
	case "bursty": // half and more goes to two of the sidecars, others every 200 ms
		if (int(seconds/0.2)*7+sidecar)%s.Sidecars < 2 {
			return 4
		}
	}
	return 0.25
}
