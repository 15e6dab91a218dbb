package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"time"
	_ "time/tzdata" // the zones of off-hours, also where the system has none

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/anomaly/redisfleet"
	"github.com/dspgate/dspgate/envoy/accesslog"
	"github.com/dspgate/dspgate/registry"
)

// watchingConfig is how a sidecar counts what callers do. Nothing in it touches
// a decision.
type watchingConfig struct {
	// Off counts nothing and hears of nobody.
	Off bool `yaml:"off"`
	// Every is how often the counts are reported. Default 10s.
	Every time.Duration `yaml:"every"`
	// Subjects is how many products, client apps, subscriptions and networks are
	// told apart between two reports, 0.4 to 4 KiB each. Default 8192.
	Subjects int `yaml:"subjects"`
	// Zone is where off-hours are told by. Default Australia/Sydney.
	Zone string `yaml:"zone"`
	// ProtectedFile lists the protected clients by their keyed hash, as decision
	// records show it (client_hash, subject_hash): one a line, 32 hexadecimal
	// digits; what follows a # is a comment. It is read again every minute, and
	// counts beside the list of the control plane. Default "": none.
	ProtectedFile string `yaml:"protected_file"`
}

// watchConfig is how a control plane watches callers.
type watchConfig struct {
	// Off watches nobody.
	Off bool `yaml:"off"`
	// Subjects is how many have a past at once: each product, client app, subscription
	// and network that calls is one. They take 4 to 75 KiB each in memory, 37 in the
	// mean (make bench-watch), and 1 to 60 KiB in Redis; some 400 and 300 of one who
	// deals with tens of thousands of people. When there is no room, those that have
	// not called for an hour make some, and lose their past
	// (anomaly_subjects_forgotten_total); where there are none such, who comes is not
	// watched (anomaly_subjects_refused_total). Both are warned of in the log.
	// Default: as many as the register has products, client apps and subscriptions,
	// and a third more for networks; 4096 at least, and 16384, some 600 MB if all of
	// them call, at most.
	Subjects int `yaml:"subjects"`
	// Tell is the greatest tail probability that is told as a signal. Default 0.001.
	Tell float64 `yaml:"tell"`
	// Hold is how long a subject's mark stands. Default 15m.
	Hold time.Duration `yaml:"hold"`
	// Zone is where the hours of the day and the week are counted. Default
	// Australia/Sydney.
	Zone string `yaml:"zone"`
	// SubjectKeyFile is the sidecars' subject key. With it policies find the
	// subscription that a signal is about and may stop it alone; without, a person
	// is asked. Who holds it can find out whether a given person was asked about.
	SubjectKeyFile string `yaml:"subject_key_file"`
	// ShadowLeast is for how long a version of a policy must have been in shadow
	// before two people may have it enforced. Default 24h.
	ShadowLeast time.Duration `yaml:"shadow_least"`
}

const defaultZone = "Australia/Sydney"

func zoneOf(name string) (*time.Location, error) {
	z, err := time.LoadLocation(cmp.Or(name, defaultZone))
	if err != nil {
		return nil, usageError("zone %q: no such time zone; use one like %s", name, defaultZone)
	}
	return z, nil
}

// watching is a sidecar's part: it counts off the request path.
type watching struct {
	cfg       watchingConfig
	collector *anomaly.Collector
	reporter  *anomaly.Reporter
	fleet     *redisfleet.Fleet
	log       *slog.Logger

	// Of the goroutine that runs: the protected clients of the file and of the
	// register, as of a revision.
	ofFile, ofRegister []anomaly.Hash
	register           interface{ View() *registry.View }
	revision           registry.Revision
}

// watchCallers makes the sidecar's part, nil when it is off. It needs s.records.
func (s *sidecar) watchCallers() (*watching, error) {
	cfg := s.cfg.Watching
	if cfg.Off {
		return nil, nil
	}
	zone, err := zoneOf(cfg.Zone)
	if err != nil {
		return nil, err
	}
	w := &watching{cfg: cfg, log: s.log, register: s.mirror, fleet: redisfleet.New(s.records, redisfleet.Options{}), collector: anomaly.NewCollector(anomaly.CollectorConfig{Subjects: cfg.Subjects, Zone: zone})}
	if err := w.protect(); err != nil {
		return nil, usageError("%v", err)
	}
	w.reporter = &anomaly.Reporter{
		Collector: w.collector, Board: &anomaly.Board{}, Link: w.fleet,
		Sidecar: s.cfg.ID, Every: cfg.Every, Log: s.log,
	}
	return w, registerAll(s.metrics,
		counter("anomaly_report_failures_total", "Reports to the fleet's watcher, and looks at its marks, that failed.", func() float64 { return float64(w.reporter.Failures()) }),
		counter("anomaly_uncounted_total", "Calls not counted for want of room.", func() float64 { return float64(w.collector.Lost()) }),
		counter("anomaly_unmatched_total", "Access-log entries whose decision was not known any more.", func() float64 { return float64(w.collector.Unmatched()) }),
	)
}

// board is where decisions look; nil when watching is off.
func (w *watching) board() *anomaly.Board {
	if w == nil {
		return nil
	}
	return w.reporter.Board
}

// Consume implements accesslog.Consumer.
func (w *watching) Consume(e *accesslog.Entry) {
	if f, ok := e.Finished(); ok {
		w.collector.Finish(f)
	}
}

// consumers are who hears of access-log entries beside the joiner.
func (w *watching) consumers() []accesslog.Consumer {
	if w == nil {
		return nil
	}
	return []accesslog.Consumer{w}
}

// run reports until ctx ends.
func (w *watching) run(ctx context.Context) {
	done := make(chan struct{})
	go func() { defer close(done); w.reporter.Run(ctx) }()
	file, listed := time.NewTicker(time.Minute), time.NewTicker(protectedEvery)
	defer file.Stop()
	defer listed.Stop()
	for told := ""; ; {
		var err error
		select {
		case <-ctx.Done():
			<-done
			return
		case <-file.C:
			err = w.protect()
		case <-listed.C:
			w.protectRegister(ctx)
			continue
		}
		text := ""
		if err != nil && ctx.Err() == nil {
			if text = err.Error(); text != told {
				w.log.ErrorContext(ctx, "protected clients not read, those from before stay", "err", err)
			}
		}
		told = text
	}
}

// protectedEvery is how often it is looked whether the register's list changed.
const protectedEvery = 500 * time.Millisecond

// protectRegister takes over the register's list, when it has changed.
func (w *watching) protectRegister(ctx context.Context) {
	view := w.register.View()
	if view == nil || view.ProtectedRevision() == w.revision {
		return
	}
	w.revision = view.ProtectedRevision()
	all := view.ProtectedClients()
	w.ofRegister = make([]anomaly.Hash, len(all))
	for i := range all {
		w.ofRegister[i] = anomaly.Hash(all[i])
	}
	w.collector.Protect(slices.Concat(w.ofFile, w.ofRegister))
	w.log.InfoContext(ctx, "protected clients read", "revision", uint64(w.revision), "clients", len(all))
}

// protect reads the protected clients.
func (w *watching) protect() error {
	if w.cfg.ProtectedFile == "" {
		return nil
	}
	b, err := os.ReadFile(w.cfg.ProtectedFile)
	if err != nil {
		var path *fs.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		return fmt.Errorf("protected_file %s: %w", w.cfg.ProtectedFile, err)
	}
	hashes, err := anomaly.ParseHashes(bytes.NewReader(b))
	if err != nil {
		return fmt.Errorf("protected_file %s: %w", w.cfg.ProtectedFile, err)
	}
	w.ofFile = hashes
	w.collector.Protect(slices.Concat(w.ofFile, w.ofRegister))
	return nil
}

// The room for subjects that follows the register.
const (
	roomLeast = 4096
	roomMost  = 16384
)

// watchRoom is for how many subjects the watcher has room: what is configured, or
// else as many as the register has that may call.
func watchRoom(configured int, casebook func() (*registry.Casebook, error)) func() int {
	return func() int {
		if configured != 0 {
			return configured
		}
		book, err := casebook()
		if err != nil {
			return roomLeast
		}
		all := 0
		for _, kind := range []string{"product", "client-app", "subscription"} {
			_, n := book.Find(registry.Query{Kind: kind})
			all += n
		}
		return roomOf(all)
	}
}

// roomOf is the room when so many of the register may call: a quarter of it may be
// networks.
func roomOf(all int) int { return min(max(all+(all+2)/3, roomLeast), roomMost) }

// newWatch makes the control plane's part, nil when it is off.
func newWatch(cfg watchConfig, fleet *redisfleet.Fleet, register *registry.Register, usage *redisfleet.Usage, engine *policy.Engine, reg prometheus.Registerer, log *slog.Logger) (*redisfleet.Watch, error) {
	if cfg.Off {
		return nil, nil
	}
	zone, err := zoneOf(cfg.Zone)
	if err != nil {
		return nil, err
	}
	if cfg.Subjects < 0 {
		return nil, usageError("watch.subjects: %d is below nothing", cfg.Subjects)
	}
	if cfg.Tell < 0 || cfg.Tell > 0.1 {
		return nil, usageError("watch.tell: %v is not a probability up to 0.1", cfg.Tell)
	}
	told := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "anomaly_signals_total",
		Help: "Signals told of callers, by signal=[requests|identity-refused|…|protected-client] and subject=[product|client-app|subscription|network].",
	}, []string{"signal", "subject"})
	for _, name := range anomaly.SignalNames() { // from nothing: a rule over what is not there never fires
		if n, ok := anomaly.ParseSignalName(name); ok && n.Alarm() {
			for _, k := range []anomaly.Kind{anomaly.Product, anomaly.ClientApp, anomaly.Subscription} {
				told.WithLabelValues(name, k.String())
			}
		}
	}
	w := redisfleet.NewWatch(redisfleet.WatchConfig{
		Fleet: fleet, Room: watchRoom(cfg.Subjects, register.Casebook), Lead: register.Writing, Log: log,
		Watcher: anomaly.WatcherConfig{Subjects: cfg.Subjects, Tell: cfg.Tell, Hold: cfg.Hold, Zone: zone},
		Tell: func(ctx context.Context, s anomaly.Signal) {
			told.WithLabelValues(s.Name.String(), s.Subject.Kind.String()).Inc()
			if s.Subject.Kind == anomaly.Product {
				usage.Signal(s.Subject.ID)
			}
			log.InfoContext(ctx, "a caller strays from its past", "subject", s.Subject.Kind.String(), "id", s.Subject.ID, "signal", s.Name.String(),
				"value", s.Value, "p", s.P, "newcomer", s.Newcomer, "text", s.Text())
			engine.Tell(ctx, s)
		},
	})
	return w, registerAll(reg, told,
		gauge("anomaly_watching", "1 in the control plane that watches callers.", func() float64 {
			if w.Counts().Watching {
				return 1
			}
			return 0
		}),
		gauge("anomaly_subjects", "Callers that have a past here.", func() float64 { return float64(w.Counts().Subjects) }),
		gauge("anomaly_subjects_room", "For how many callers there is room.", func() float64 { return float64(w.Counts().Room) }),
		counter("anomaly_subjects_forgotten_total", "Callers that lost their past to make room for others.", func() float64 { return float64(w.Counts().Forgotten) }),
		counter("anomaly_subjects_refused_total", "Counts of callers that nobody looked at, because there was no room.", func() float64 { return float64(w.Counts().Refused) }),
		gauge("anomaly_sidecars", "Sidecars that reported lately.", func() float64 { return float64(w.Counts().Sidecars) }),
		counter("anomaly_reports_malformed_total", "Reports that did not read.", func() float64 { return float64(w.Counts().Malformed) }),
		counter("anomaly_watch_errors_total", "Exchanges of the watcher with Redis that failed.", func() float64 { return float64(w.Counts().Errors) }),
		counter("anomaly_watch_panics_total", "Times the watcher fell over and began anew; decisions go on.", func() float64 { return float64(w.Counts().Panics) }),
	)
}
