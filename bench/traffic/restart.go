package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/dspgate/dspgate/anomaly"
)

// restart is one of the watcher: another control plane takes over with the
// baselines there are.
type restart struct {
	at int64
	// killed: what was kept last is what there is; otherwise it ends in order, and
	// keeps all.
	killed bool
}

const (
	// restartDays is how many days pass between two restarts, on the mean.
	restartDays = 5
	// keepEvery seconds the watcher hands over keepAtOnce baselines, as it does in
	// the control plane; here only in the last keptBefore seconds before it is killed.
	keepEvery, keepAtOnce, keptBefore = 30, 128, 1800
)

func newRestarts(r *rand.Rand, begin int64, days int) (out []restart) {
	for at := begin; ; {
		at += 7200 + int64(restartDays*86400*r.ExpFloat64())
		at -= at % 60
		if at >= begin+int64(days)*86400 {
			return out
		}
		out = append(out, restart{at, len(out)%2 == 0})
	}
}

// restart does what is due at an instant.
func (x *run) restart(now int64) {
	if len(x.restarts) == 0 {
		return
	}
	next := x.restarts[0]
	switch due := next.at - keptBefore; {
	case next.killed && now == due, !next.killed && now == next.at:
		x.keep(1 << 20)
	case next.killed && now > due:
		for range 60 / keepEvery {
			x.keep(keepAtOnce)
		}
	}
	if now < next.at {
		return
	}
	x.restarts = x.restarts[1:]
	x.out.Restarts++
	at := time.Unix(now, 0)
	marks := x.watcher.Marks(at)
	x.out.Refused += x.watcher.Stats().Refused
	x.watcher = x.newWatcher()
	for s, b := range x.kept {
		if err := x.watcher.Restore(s, b, at); err != nil {
			panic(fmt.Sprintf("a baseline that was kept does not read: %v", err))
		}
	}
	if x.keptAll != nil {
		if err := x.watcher.RestoreFleet(x.keptAll); err != nil {
			panic(err)
		}
	}
	x.watcher.Inherit(marks)
}

// keep has the watcher hand over what it has learnt of some.
func (x *run) keep(n int) {
	if x.kept == nil {
		x.kept = map[anomaly.Subject][]byte{}
	}
	err := x.watcher.Baselines(n, func(s anomaly.Subject, b []byte) error {
		x.kept[s] = b
		return nil
	})
	if err != nil {
		panic(err) // nothing here fails
	}
	if x.keptAll, err = x.watcher.Fleet(); err != nil {
		panic(err)
	}
}
