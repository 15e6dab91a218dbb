package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

// follower is one process that stands for a sidecar: it runs the production
// Mirror over redisstore as a sidecar does, or, when told to, nothing but the
// bare round trip that is the floor. It is told over its standard input, one
// line each, and answers with one line each:
//
//	mirror SHORT LONG   follow the register          → ready
//	floor               the bare round trip instead  → ready
//	acks                what it acknowledged since   → acks violations revision@unix_ns…
//	watch PRODUCT       look all the time whether PRODUCT would be admitted → ready
//	admitted            when it last would have been → admitted long_unix_ns short_unix_ns
type follower struct {
	id    string
	seal  *registry.Sealer
	store *redisstore.Store
	rdb   *redis.Client // of the floor

	stop    context.CancelFunc // ends what runs now
	running sync.WaitGroup
	mirror  *registry.Mirror
	acks    ackLog
	watched watch
}

func runFollower(id, addr, keyFile string, in io.Reader, out io.Writer) error {
	// As in a sidecar: one processor, and a heap so small that collecting by
	// percentage would be collecting all the time.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(800)
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return err
	}
	f := &follower{id: id, stop: func() {}}
	f.watched.begun = make(chan struct{}, 1)
	if f.seal, err = registry.NewSealer(key); err != nil {
		return err
	}
	ctx := context.Background()
	if f.store, err = redisstore.Open(ctx, redisstore.Config{Addrs: []string{addr}}, nil); err != nil {
		return err
	}
	defer f.store.Close()
	f.rdb = redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, Protocol: 2, DisableIdentity: true, ReadTimeout: -1})
	defer f.rdb.Close()
	defer func() { f.stop(); f.running.Wait() }()
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer, err := f.do(ctx, strings.Fields(lines.Text()))
		if err != nil {
			return fmt.Errorf("%s: %w", lines.Text(), err)
		}
		if _, err := fmt.Fprintln(out, answer); err != nil {
			return err
		}
	}
	return nil
}

func (f *follower) do(ctx context.Context, words []string) (string, error) {
	if len(words) == 0 {
		return "", fmt.Errorf("empty line")
	}
	switch words[0] {
	case "mirror":
		if len(words) != 3 {
			return "", fmt.Errorf("mirror SHORT LONG")
		}
		short, err := time.ParseDuration(words[1])
		if err != nil {
			return "", err
		}
		long, err := time.ParseDuration(words[2])
		if err != nil {
			return "", err
		}
		return "ready", f.follow(ctx, short, long)
	case "floor":
		return "ready", f.floor(ctx)
	case "acks":
		return f.acks.tell(), nil
	case "watch":
		if len(words) != 2 {
			return "", fmt.Errorf("watch PRODUCT")
		}
		f.watched.product.Store(&words[1])
		f.watched.long.Store(0)
		f.watched.short.Store(0)
		select {
		case f.watched.begun <- struct{}{}:
		default:
		}
		return "ready", nil
	case "admitted":
		return fmt.Sprintf("admitted %d %d", f.watched.long.Load(), f.watched.short.Load()), nil
	}
	return "", fmt.Errorf("unknown command")
}

// begin ends what runs and gives a context for what runs next.
func (f *follower) begin(ctx context.Context) context.Context {
	f.stop()
	f.running.Wait()
	ctx, f.stop = context.WithCancel(ctx)
	return ctx
}

// follow runs a Mirror, and waits until it is on the roll and fresh.
func (f *follower) follow(ctx context.Context, short, long time.Duration) error {
	run := f.begin(ctx)
	incarnation := make([]byte, 8)
	rand.Read(incarnation) // never fails: it ends the process instead
	f.acks.Log = f.store
	f.mirror = registry.NewMirror(&f.acks, f.seal, registry.MirrorConfig{
		ID: f.id, Incarnation: hex.EncodeToString(incarnation), Short: short, Long: long,
	})
	f.acks.mirror = f.mirror
	mirror := f.mirror
	f.running.Go(func() { _ = mirror.Run(run) }) // it has no state file to fail on
	f.running.Go(func() { f.watched.run(run, mirror) })
	for deadline := time.Now().Add(time.Minute); !f.mirror.Ready(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready: %s", f.mirror.Status().LastError)
		}
	}
	return nil
}

// ackLog is the store with a note of each acknowledgement: when it was sent,
// and whether what it says is held was served by then, which is what makes it
// one.
type ackLog struct {
	registry.Log
	mirror *registry.Mirror

	mu         sync.Mutex
	revision   registry.Revision
	sent       []ack
	violations int
}

type ack struct {
	revision registry.Revision
	at       int64 // Unix ns
}

func (l *ackLog) Follow(ctx context.Context, a registry.Ack, most int) (registry.Poll, error) {
	l.mu.Lock()
	if !a.Observer && a.Revision != l.revision { // an observer does not serve yet
		l.revision = a.Revision
		l.sent = append(l.sent, ack{a.Revision, time.Now().UnixNano()})
		if v := l.mirror.View(); v == nil || v.Revision < a.Revision {
			l.violations++
		}
	}
	l.mu.Unlock()
	return l.Log.Follow(ctx, a, most)
}

// Pushed implements registry.Pusher, as the store does.
func (l *ackLog) Pushed(after registry.Revision) []registry.Change {
	return l.Log.(registry.Pusher).Pushed(after)
}

func (l *ackLog) tell() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "acks %d", l.violations)
	for _, a := range l.sent {
		fmt.Fprintf(&b, " %d@%d", a.revision, a.at)
	}
	l.sent = l.sent[:0]
	return b.String()
}

// watch looks all the time whether a product would be admitted for services of
// the long and the short lease, and keeps the last instant at which it would.
type watch struct {
	begun       chan struct{} // capacity 1
	product     atomic.Pointer[string]
	long, short atomic.Int64 // Unix ns
}

func (w *watch) run(ctx context.Context, m *registry.Mirror) {
	select {
	case <-ctx.Done():
		return
	case <-w.begun:
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		// As the decision does: the clocks, then the View, then the lease.
		at, now := time.Now(), m.Now()
		if s := m.Served(); s != nil && s.View.Suspended(registry.KindProduct, *w.product.Load(), registry.At(at)) == nil {
			if s.Fresh(1, now) {
				w.long.Store(at.UnixNano())
			}
			if s.Fresh(4, now) {
				w.short.Store(at.UnixNano())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// The floor's two streams: what goes out to every follower, and what comes back.
const (
	floorOut  = "floor:out"
	floorBack = "floor:back"
	// floorBlock is how long a read blocks: a context does not end it.
	floorBlock = 500 * time.Millisecond
)

// floor is the least that any such round trip does: a blocking read of the
// stream, and one write back that says how far it has come.
func (f *follower) floor(ctx context.Context) error {
	run := f.begin(ctx)
	f.mirror = nil
	last, err := f.rdb.XRevRangeN(run, floorOut, "+", "-", 1).Result()
	if err != nil {
		return err
	}
	from := "0"
	if len(last) > 0 {
		from = last[0].ID
	}
	f.running.Go(func() {
		for run.Err() == nil {
			got, err := f.rdb.XRead(run, &redis.XReadArgs{Streams: []string{floorOut, from}, Count: 1024, Block: floorBlock}).Result()
			if err != nil {
				continue // nothing new, as a rule
			}
			all := got[0].Messages
			from = all[len(all)-1].ID
			if n, ok := all[len(all)-1].Values["n"].(string); ok {
				_ = f.rdb.XAdd(run, &redis.XAddArgs{Stream: floorBack, Values: []string{"id", f.id, "n", n}}).Err() // missed: the run times out and says so
			}
		}
	})
	return nil
}

func parseAcks(line string) (violations int, all []ack, err error) {
	words := strings.Fields(line)
	if len(words) < 2 || words[0] != "acks" {
		return 0, nil, fmt.Errorf("not acks: %.80q", line)
	}
	if violations, err = strconv.Atoi(words[1]); err != nil {
		return 0, nil, err
	}
	for _, w := range words[2:] {
		var a ack
		if _, err := fmt.Sscanf(w, "%d@%d", &a.revision, &a.at); err != nil {
			return 0, nil, err
		}
		all = append(all, a)
	}
	return violations, all, nil
}
