package main

import (
	"testing"

	"github.com/dspgate/dspgate/anomaly/redisfleet"
	"github.com/dspgate/dspgate/registry/certification"
)

// What the sidecars saw of a product's calls counts in its risk, each part of it
// shown; what they saw too little of stays unknown.
func TestWhatSidecarsSeeCountsInTheRisk(t *testing.T) {
	rules, err := certification.Default(certification.OpenDefaults())
	if err != nil {
		t.Fatal(err)
	}
	points := func(sum redisfleet.Used) map[string]int {
		in := certification.RiskInputs{}
		usedInputs(in, &sum)
		p, err := rules.Risk.Profile(in)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]int{}
		for _, c := range p.Contributions {
			if c.Value != nil {
				out[c.Input] = c.Points
			}
		}
		return out
	}
	for _, c := range []struct {
		name string
		sum  redisfleet.Used
		want map[string]int
	}{
		{"hardly any calls", redisfleet.Used{Requests: 99, Failed: 99}, map[string]int{"unknown_versions": 0, "signals": 0}},
		{"an ordinary product", redisfleet.Used{Requests: 1000, Failed: 10, Invalid: 20, Reads: 400, Lodges: 500, OffHours: 100}, map[string]int{
			"unknown_versions": 0, "signals": 0, "error_percent": 0, "validation_failure_percent": 0, "off_hours_percent": 0, "read_lodge_ratio": 0}},
		{"one to look at", redisfleet.Used{Requests: 1000, Failed: 300, Invalid: 200, Reads: 700, OffHours: 600, OddVersions: 3, Signals: 7}, map[string]int{
			"unknown_versions": 2, "signals": 5, "error_percent": 6, "validation_failure_percent": 4, "off_hours_percent": 5, "read_lodge_ratio": 8}},
	} {
		got := points(c.sum)
		for name, want := range c.want {
			if n, ok := got[name]; !ok || n != want {
				t.Errorf("%s: %s is worth %d (known %v), want %d", c.name, name, n, ok, want)
			}
		}
		if len(got) != len(c.want) {
			t.Errorf("%s: known are %v", c.name, got)
		}
	}
}
