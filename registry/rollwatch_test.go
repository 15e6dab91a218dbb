package registry

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestTheRollIsReadWhenAllHaveAcknowledged: not at each acknowledgement, and at
// the latest when rollPoll is over.
func TestTheRollIsReadWhenAllHaveAcknowledged(t *testing.T) {
	const rest = 4 * time.Millisecond
	for name, tc := range map[string]struct {
		behind, wakes int
		wanted        bool
		want          time.Duration
	}{
		"all of them":               {behind: 3, wakes: 3, want: 0},
		"one is lost":               {behind: 3, wakes: 2, want: rollPoll},
		"nobody was behind":         {behind: 0, wakes: 1, want: rest},
		"somebody begins to wait":   {behind: 3, wakes: 1, wanted: true, want: rest},
		"nothing is heard":          {behind: 3, want: rollPoll},
		"nothing, nobody is behind": {behind: 0, want: rollPoll},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := &Register{roll: newRollWatch()}
				wakes := make(chan struct{}, 8)
				for range tc.wakes {
					wakes <- struct{}{}
				}
				if tc.wanted {
					r.roll.wanted <- struct{}{}
				}
				began := time.Now()
				r.untilRead(t.Context(), rest, tc.behind, wakes)
				if took := time.Since(began); took != tc.want {
					t.Errorf("read after %v, want %v", took, tc.want)
				}
			})
		})
	}
}

func TestBehindAreThoseThatMayServeAndDoNotHoldTheHead(t *testing.T) {
	reading := rollReading{head: 9, members: []sighting{
		{Member: Member{Revision: 9}},
		{Member: Member{Revision: 8}},
		{Member: Member{Revision: 8}, lapsed: true},
		{Member: Member{Revision: 8}, gone: true},
	}}
	if n := reading.behind(); n != 1 {
		t.Errorf("%d behind, want 1", n)
	}
}
