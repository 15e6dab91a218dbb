package main

import (
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// TestMomentsAsPeopleWriteThem: dates, now and how long ago; never the time to come by
// a duration, which reads like its opposite.
func TestMomentsAsPeopleWriteThem(t *testing.T) {
	day := registry.At(time.Date(2027, 6, 30, 0, 0, 0, 0, time.UTC))
	for text, want := range map[string]registry.Time{
		"": 0, "2027-06-30": day, "2027-06-30T10:00:00+10:00": day,
	} {
		if got, err := parseMoment(text); err != nil || got != want {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
	}
	for text, ago := range map[string]time.Duration{"now": 0, "-90m": 90 * time.Minute, "-24h": 24 * time.Hour} {
		before := registry.At(time.Now().Add(-ago))
		got, err := parseMoment(text)
		if after := registry.At(time.Now().Add(-ago)); err != nil || got < before || got > after {
			t.Errorf("%q: %v %v, want from %v to %v", text, got, err, before, after)
		}
	}
	for _, text := range []string{"yesterday", "90m", "30/6/2027", "2027-13-01", "now ", "-"} {
		if got, err := parseMoment(text); err == nil {
			t.Errorf("%q is read as %v", text, got)
		}
	}
}
