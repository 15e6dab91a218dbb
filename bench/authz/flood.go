package main

import (
	"context"
	"fmt"
	"math"

	"github.com/dspgate/dspgate/bench/report"
)

// flood compares calls that a limit refuses with calls that pass, on the
// sidecar's side and over as many connections, in turns (pass, refuse, refuse,
// pass). Costs are processor time of Envoy and the sidecar; what an upstream
// takes for a call that passes comes on top. Refused calls are tried again at
// once, as no good client would.
func flood(ctx context.Context, s *side, rep *report.Report, o options) error {
	var both, envoy, sidecar, rate, refused, passed []float64
	for round := range o.rounds {
		var got [2][]result
		for _, i := range [4]int{1, 0, 0, 1} { // 0 is what is refused
			requests, name := s.world.requests, "passed"
			if i == 0 {
				requests, name = s.world.refused, "refused"
			}
			r, err := s.measure(ctx, requests, o.slice/2)
			if err != nil {
				return fmt.Errorf("flood, round %d, %s: %w", round+1, name, err)
			}
			// One a second passes; a second call that was lent to the sidecar may.
			if i == 0 && float64(r.requests-r.errors) > 10+2*r.took.Seconds() {
				return fmt.Errorf("flood, round %d: only %d of %d were refused", round+1, r.errors, r.requests)
			}
			got[i] = append(got[i], r)
			rep.Row(map[string]any{
				"round": round + 1, "authorizer": name, "requests": r.requests, "errors": r.errors,
				"requests_per_s": math.Round(r.rate()), "p50_ms": ms(r.p50), "p99_ms": ms(r.p99), "cpu_us": r.cpu, "envoy_cpu_us": r.envoy,
			})
		}
		all := func(r result) float64 { return r.cpu + r.envoy }
		both = append(both, ratio(got, all))
		envoy = append(envoy, ratio(got, func(r result) float64 { return r.envoy }))
		sidecar = append(sidecar, ratio(got, func(r result) float64 { return r.cpu }))
		rate = append(rate, ratio(got, func(r result) float64 { return r.rate() }))
		refused, passed = append(refused, all(got[0][0]), all(got[0][1])), append(passed, all(got[1][0]), all(got[1][1]))
	}
	f := rep.Figures
	f["refused_cpu_ratio"], f["refused_envoy_cpu_ratio"], f["refused_sidecar_cpu_ratio"] = median(both), median(envoy), median(sidecar)
	f["refused_throughput_ratio"], f["refused_cpu_us"], f["passed_cpu_us"] = median(rate), median(refused), median(passed)
	return nil
}
