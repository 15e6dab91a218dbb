package world

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// Sentinels' pace: long enough that a busy machine is not taken for a dead
// primary, short enough for several failovers in a trial.
const (
	masterName      = "register"
	sentinelDown    = 700 * time.Millisecond
	sentinelTimeout = 2500 * time.Millisecond
)

func sentinelOptions() map[string]int64 {
	return map[string]int64{
		"down-after-milliseconds": sentinelDown.Milliseconds(), "failover-timeout": sentinelTimeout.Milliseconds(), "parallel-syncs": 2,
	}
}

// startSentinels starts three that watch a primary; two must agree. Each is told
// of the replicas and of the others, whom it would find only after seconds.
func startSentinels(ctx context.Context, dir string, primary *Server, replicas []*Server) ([]*Server, error) {
	const n = 3
	var at [n]*place
	var id [n]string
	for i := range n {
		var err error
		if at[i], err = hold(); err != nil {
			return nil, err
		}
		id[i] = randomHex()[:40]
	}
	all := make([]*Server, n)
	var g errgroup.Group
	for i := range n {
		name := fmt.Sprintf("sentinel-%d", i+1)
		data := filepath.Join(dir, name)
		conf := filepath.Join(data, "sentinel.conf")
		var b strings.Builder
		fmt.Fprintf(&b, "port %s\nbind 127.0.0.1\ndir %s\nsentinel myid %s\nsentinel monitor %s 127.0.0.1 %d 2\n", at[i].port(), data, id[i], masterName, primary.Port)
		for option, value := range sentinelOptions() {
			fmt.Fprintf(&b, "sentinel %s %s %d\n", option, masterName, value)
		}
		for _, r := range replicas {
			fmt.Fprintf(&b, "sentinel known-replica %s 127.0.0.1 %d\n", masterName, r.Port)
		}
		for j := range n {
			if j != i {
				fmt.Fprintf(&b, "sentinel known-sentinel %s 127.0.0.1 %s %s\n", masterName, at[j].port(), id[j])
			}
		}
		if err := errors.Join(os.MkdirAll(data, 0o700), os.WriteFile(conf, []byte(b.String()), 0o600)); err != nil {
			return nil, err
		}
		g.Go(func() (err error) {
			all[i], err = startServer(ctx, dir, name, at[i], []string{conf, "--sentinel"})
			return err
		})
	}
	err := g.Wait()
	return slices.DeleteFunc(all, func(s *Server) bool { return s == nil }), err
}

// watching is nil when a Sentinel knows the other two and all replicas.
func (w *World) watching(ctx context.Context, s *Server) error {
	for what, want := range map[string]int{"sentinels": 2, "replicas": w.o.Replicas} {
		got, err := s.Do(ctx, "SENTINEL", what, masterName)
		if list, ok := got.([]any); err != nil || !ok || len(list) != want {
			return fmt.Errorf("it does not know %d %s yet (%w)", want, what, err)
		}
	}
	return nil
}

// Primary finds the Redis that most Sentinels call the primary; nil when they
// do not agree on one.
func (w *World) Primary(ctx context.Context) *Server {
	p, _ := w.vote(ctx)
	return p
}

// vote is Primary with the Sentinels that say something else.
func (w *World) vote(ctx context.Context) (primary *Server, others []*Server) {
	if len(w.Sentinels) == 0 {
		return w.Redis[0], nil
	}
	votes := make([]string, len(w.Sentinels))
	count := map[string]int{}
	for i, s := range w.Sentinels {
		got, err := s.Do(ctx, "SENTINEL", "get-master-addr-by-name", masterName)
		if list, ok := got.([]any); err == nil && ok && len(list) == 2 {
			votes[i] = fmt.Sprint(list[1])
			count[votes[i]]++
		}
	}
	for _, r := range w.Redis {
		if count[strconv.Itoa(r.Port)] >= 2 {
			primary = r
		}
	}
	for i, s := range w.Sentinels {
		if primary != nil && votes[i] != strconv.Itoa(primary.Port) {
			others = append(others, s)
		}
	}
	return primary, others
}

// sentinelsAgreeIn is how long a failover under way may take, and word of it.
const sentinelsAgreeIn = 8 * time.Second

// Reconcile waits until all Sentinels name the same primary, and sets right, as
// a person would, one that stays alone with its word: it is named.
//
// A Sentinel that leads a failover and hears meanwhile of a later one, back to
// the old primary, takes over that one's epoch and not its outcome: no later word
// of the same epoch changes its mind (Redis 7.0.15, sentinelProcessHelloMessage).
func (w *World) Reconcile(ctx context.Context) (name string, err error) {
	for began := time.Now(); ; {
		primary, others := w.vote(ctx)
		switch {
		case primary != nil && len(others) == 0:
			return name, nil
		case primary != nil && time.Since(began) > sentinelsAgreeIn:
			began = time.Now()
			s := others[0]
			name = s.Name
			if _, err := s.Do(ctx, "SENTINEL", "REMOVE", masterName); err != nil {
				return name, err
			}
			if _, err := s.Do(ctx, "SENTINEL", "MONITOR", masterName, "127.0.0.1", primary.Port, 2); err != nil {
				return name, err
			}
			for option, value := range sentinelOptions() {
				if _, err := s.Do(ctx, "SENTINEL", "SET", masterName, option, value); err != nil {
					return name, err
				}
			}
		}
		select {
		case <-ctx.Done():
			return name, fmt.Errorf("the Sentinels do not agree: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Failover asks a Sentinel to promote a replica.
func (w *World) Failover(ctx context.Context, sentinel int) error {
	_, err := w.Sentinels[sentinel].Do(ctx, "SENTINEL", "FAILOVER", masterName)
	return err
}
