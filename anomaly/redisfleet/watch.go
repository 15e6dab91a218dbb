package redisfleet

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/anomaly"
)

// WatchConfig is what Watch needs. The zero value of a field that has a default
// takes it.
type WatchConfig struct {
	Fleet   *Fleet
	Watcher anomaly.WatcherConfig
	// Room is for how many subjects there is room now; it is asked each second.
	// Nil: what Watcher says.
	Room func() int
	// Lead tells whether this process is the one that watches: of several control
	// planes, the writer. It is asked once a second.
	Lead func() bool
	// Tell hears of every signal, and must not block for long.
	Tell func(ctx context.Context, s anomaly.Signal)
	// KeepEvery is how often some baselines are kept; each of a subject that goes
	// on calling is then kept about every half hour. Default 30s.
	KeepEvery time.Duration
	Log       *slog.Logger
}

// keepAtOnce is how many baselines are kept at a time.
const keepAtOnce = 128

// Watch is the fleet's watcher in one process.
type Watch struct {
	cfg       WatchConfig
	signals   atomic.Uint64
	malformed atomic.Uint64
	errors    atomic.Uint64
	panics    atomic.Uint64
	current   atomic.Pointer[anomaly.Watcher]
	// refused and forgotten are those of the watchers before the current one.
	refused, forgotten atomic.Uint64
}

// NewWatch makes a Watch.
func NewWatch(cfg WatchConfig) *Watch {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Tell == nil {
		cfg.Tell = func(context.Context, anomaly.Signal) {}
	}
	cfg.KeepEvery = cmp.Or(cfg.KeepEvery, 30*time.Second)
	return &Watch{cfg: cfg}
}

// Counts are what a Watch has seen.
type Counts struct {
	anomaly.Stats
	Watching  bool
	Signals   uint64 // told
	Malformed uint64 // reports that were none
	Errors    uint64 // exchanges with Redis that failed
	Panics    uint64 // times the watcher fell over and began anew
}

// Counts counts.
func (w *Watch) Counts() Counts {
	c := Counts{Signals: w.signals.Load(), Malformed: w.malformed.Load(), Errors: w.errors.Load(), Panics: w.panics.Load()}
	if x := w.current.Load(); x != nil {
		c.Watching, c.Stats = true, x.Stats()
	}
	c.Refused += w.refused.Load()
	c.Forgotten += w.forgotten.Load()
	return c
}

// Share is a product's share of the calls of about the last day, in percent;
// negative where this process does not know.
func (w *Watch) Share(product string) float64 {
	if x := w.current.Load(); x != nil {
		return x.Share(product)
	}
	return -1
}

// Run watches whenever this process leads, until ctx ends. A watcher that falls
// over is begun anew from the baselines kept: no decision ever waits for it.
func (w *Watch) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if !w.cfg.Lead() {
			sleep(ctx, time.Second)
			continue
		}
		if err := w.lead(ctx); err != nil && ctx.Err() == nil {
			w.errors.Add(1)
			w.cfg.Log.WarnContext(ctx, "watching callers stopped; it begins anew", "err", err)
			sleep(ctx, time.Second)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// lead watches until this process leads no more.
func (w *Watch) lead(ctx context.Context) (err error) {
	defer func() {
		if x := w.current.Swap(nil); x != nil {
			st := x.Stats()
			w.refused.Add(st.Refused)
			w.forgotten.Add(st.Forgotten)
		}
		if p := recover(); p != nil {
			w.panics.Add(1)
			err = fmt.Errorf("the watcher fell over: %v", p)
		}
	}()
	watcher := anomaly.NewWatcher(w.cfg.Watcher)
	full := fullness{log: w.cfg.Log}
	w.resize(watcher)
	at, err := w.cfg.Fleet.Start(ctx)
	if err != nil {
		return err
	}
	if err := w.restore(ctx, watcher); err != nil {
		return err
	}
	marks, err := w.cfg.Fleet.Marks(ctx)
	if err != nil { // the next Post puts something that reads in their place
		w.errors.Add(1)
		w.cfg.Log.WarnContext(ctx, "marks posted before are not taken over", "err", err)
	}
	watcher.Inherit(marks)
	w.current.Store(watcher)
	kept := time.Now()
	var posted time.Time // the marks
	for ctx.Err() == nil && w.cfg.Lead() {
		reports, next, malformed, err := w.cfg.Fleet.Follow(ctx, at, time.Second)
		if err != nil {
			w.errors.Add(1)
			w.cfg.Log.WarnContext(ctx, "reports of the sidecars out of reach", "err", err)
			sleep(ctx, time.Second)
			continue
		}
		at = next
		w.malformed.Add(uint64(malformed))
		for i := range reports {
			watcher.Merge(&reports[i])
		}
		now := time.Now()
		signals := watcher.Tick(now)
		w.resize(watcher)
		full.look(ctx, watcher.Stats(), now)
		if len(signals) > 0 || now.Sub(posted) > 20*time.Second {
			if err := w.cfg.Fleet.Post(ctx, watcher.Marks(now)); err != nil {
				w.errors.Add(1)
				w.cfg.Log.WarnContext(ctx, "marks not posted", "err", err)
			} else {
				posted = now
			}
		}
		for _, s := range signals {
			w.signals.Add(1)
			w.cfg.Tell(ctx, s)
		}
		if now.Sub(kept) >= w.cfg.KeepEvery {
			kept = now
			w.keep(ctx, watcher, keepAtOnce)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	w.keep(last, watcher, 1<<20)
	return nil
}

func (w *Watch) resize(watcher *anomaly.Watcher) {
	if w.cfg.Room != nil {
		watcher.Resize(w.cfg.Room())
	}
}

// fullness warns, once an hour at most, when there is no room for more subjects.
type fullness struct {
	log  *slog.Logger
	last anomaly.Stats
	told time.Time
}

func (f *fullness) look(ctx context.Context, st anomaly.Stats, now time.Time) {
	if st.Refused == f.last.Refused && st.Forgotten == f.last.Forgotten || now.Sub(f.told) < time.Hour {
		return
	}
	f.log.WarnContext(ctx, "more callers than the watcher has room for: raise watch.subjects, or find who comes under so many names",
		"room", st.Room, "subjects", st.Subjects, "forgotten", st.Forgotten-f.last.Forgotten, "not_looked_at", st.Refused-f.last.Refused)
	f.last, f.told = st, now
}

func (w *Watch) restore(ctx context.Context, watcher *anomaly.Watcher) error {
	restored, refused := 0, 0
	now := time.Now()
	err := w.cfg.Fleet.Baselines(ctx, func(s anomaly.Subject, b []byte) {
		if err := watcher.Restore(s, b, now); err != nil {
			refused++
			w.cfg.Log.WarnContext(ctx, "a baseline was refused; its subject begins as a newcomer", "kind", s.Kind.String(), "err", err)
			return
		}
		restored++
	})
	if err != nil {
		return err
	}
	all, err := w.cfg.Fleet.All(ctx)
	if err != nil {
		return err
	}
	if len(all) > 0 {
		if err := watcher.RestoreFleet(all); err != nil {
			w.cfg.Log.WarnContext(ctx, "what newcomers are held against was refused; it is learnt anew", "err", err)
		}
	}
	w.cfg.Log.InfoContext(ctx, "watching callers", "baselines", restored, "refused", refused)
	return nil
}

func (w *Watch) keep(ctx context.Context, watcher *anomaly.Watcher, n int) {
	wanted := map[anomaly.Subject]bool{}
	err := watcher.Baselines(n, func(s anomaly.Subject, b []byte) error {
		wanted[s] = true
		return w.cfg.Fleet.Keep(ctx, s, b)
	})
	if err == nil {
		var all []byte
		if all, err = watcher.Fleet(); err == nil {
			err = w.cfg.Fleet.KeepAll(ctx, all)
		}
	}
	if err == nil {
		err = w.cfg.Fleet.Prune(ctx, func(s anomaly.Subject) bool { return wanted[s] || watcher.Holds(s) })
	}
	if err != nil {
		w.errors.Add(1)
		w.cfg.Log.WarnContext(ctx, "baselines not kept", "err", err)
	}
}
