package redisstore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// The model: an app is free, being stopped, stopped, or being freed. A command
// and its wait are two operations, where it was asked for and where it was
// answered as complete; in between a sidecar may answer either way, and outside
// only one. That is what a suspension with a wait promises, no more and no less.
type (
	fenceState uint8
	fenceInput struct {
		app   int
		op    string // stop, stopped, free, freed, check
		where string
	}
)

const (
	appFree fenceState = iota
	appStopping
	appStopped
	appFreeing
)

var fenceModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byApp := map[int][]porcupine.Operation{}
		for _, op := range history {
			app := op.Input.(fenceInput).app
			byApp[app] = append(byApp[app], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byApp {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return appFree },
	Step: func(state, input, output any) (bool, any) {
		s, in := state.(fenceState), input.(fenceInput)
		next := map[string][2]fenceState{
			"stop": {appFree, appStopping}, "stopped": {appStopping, appStopped},
			"free": {appStopped, appFreeing}, "freed": {appFreeing, appFree},
		}
		if step, ok := next[in.op]; ok {
			return s == step[0], step[1]
		}
		denied := output.(bool)
		return s == appStopping || s == appFreeing || denied == (s == appStopped), s
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v → %v", input, output) },
}

func TestHistoriesOverARealRedisKeepTheFence(t *testing.T) {
	srv := redistest.Start(t)
	cfg := redisstore.Config{Addrs: []string{srv.Addr}, Timeout: time.Second}
	planes := []*registry.Register{startRegister(t, open(t, cfg), "a")}
	until(t, "the first writes", writing(planes[0]))
	const apps, rounds = 4, 6
	withApps(t, planes[0], apps)
	planes = append(planes, startRegister(t, open(t, cfg), "b"))
	var sidecars []*registry.Mirror
	for i := range 3 {
		m := registry.NewMirror(open(t, cfg), registrytest.Sealer(t), registry.MirrorConfig{
			ID: fmt.Sprint("s", i), Incarnation: "1", Short: 5 * time.Second, Long: 10 * time.Second, Poll: 50 * time.Millisecond,
		})
		run(t, m.Run)
		until(t, "a sidecar is fresh", m.Ready)
		sidecars = append(sidecars, m)
	}

	began := time.Now()
	var mu sync.Mutex
	var history []porcupine.Operation
	record := func(client int, in fenceInput, call time.Time, out any) {
		op := porcupine.Operation{ClientId: client, Input: in, Output: out, Call: call.Sub(began).Nanoseconds(), Return: time.Since(began).Nanoseconds()}
		mu.Lock()
		history = append(history, op)
		mu.Unlock()
	}
	ctx, cancel := context.WithCancel(t.Context())
	var checks, commands sync.WaitGroup
	for i, m := range sidecars {
		checks.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			for ctx.Err() == nil {
				time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
				app := rnd.IntN(apps)
				call := time.Now()
				s := m.Served()
				if !s.Fresh(4, m.Now()) {
					continue // it refuses whatever it holds
				}
				denied := s.View.Suspended(registry.KindClientApp, fmt.Sprintf("app-%d", app), registry.At(time.Now())) != nil
				record(100+i, fenceInput{app, "check", fmt.Sprint("s", i)}, call, denied)
			}
		})
	}
	// again asks the control planes in turn until one says that it is done, everywhere.
	again := func(n int, what string, ask func(*registry.Register) (registry.Result[registry.Suspension], error)) string {
		for try := 0; ; try++ {
			r := planes[(n+try)%2]
			res, err := ask(r)
			if err == nil {
				if e, err := r.Await(ctx, res.Revision, time.Second); err == nil && e.Complete {
					return res.Entry.ID
				}
			}
			if time.Since(began) > time.Minute {
				t.Errorf("never done: %s: %v", what, err)
				return ""
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	second := registry.Actor{Name: "second", Permissions: registry.PermOperator}
	for app := range apps {
		commands.Go(func() {
			for n := range rounds {
				now := time.Now()
				record(app, fenceInput{app, "stop", ""}, now, nil)
				id := again(n+app, "stop", func(r *registry.Register) (registry.Result[registry.Suspension], error) {
					return r.Suspend(ctx, operator, suspendApp(app))
				})
				record(app, fenceInput{app, "stopped", id}, time.Now(), nil)
				time.Sleep(20 * time.Millisecond)
				now = time.Now()
				record(app, fenceInput{app, "free", id}, now, nil)
				again(n, "free", func(r *registry.Register) (registry.Result[registry.Suspension], error) {
					return r.LiftSuspension(ctx, second, id, registry.Meta{})
				})
				record(app, fenceInput{app, "freed", id}, time.Now(), nil)
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
	commands.Go(func() {
		time.Sleep(100 * time.Millisecond)
		srv.Restart()
	})
	commands.Wait()
	cancel()
	checks.Wait()
	denied := 0
	for _, op := range history {
		if out, ok := op.Output.(bool); ok && out {
			denied++
		}
	}
	if denied < 20 || len(history)-denied < 100 {
		t.Errorf("of %d operations %d were denials: too few to prove anything", len(history), denied)
	}
	if result := porcupine.CheckOperationsTimeout(fenceModel, history, 30*time.Second); result != porcupine.Ok {
		t.Errorf("a history of %d operations: %v", len(history), result)
	}
	// And the checker does see a sidecar that served on.
	forged := append(history[:len(history):len(history)], porcupine.Operation{
		ClientId: 999, Input: fenceInput{0, "check", "forged"}, Output: true, Call: time.Since(began).Nanoseconds(), Return: time.Since(began).Nanoseconds() + 1,
	})
	if result := porcupine.CheckOperationsTimeout(fenceModel, forged, 30*time.Second); result != porcupine.Illegal {
		t.Errorf("a denial of what is free was taken: %v", result)
	}
}
