package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/authz/redisrecord"
	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/jwksfetch"
	"github.com/dspgate/dspgate/envoy/accesslog"
	"github.com/dspgate/dspgate/envoy/extauthz"
	"github.com/dspgate/dspgate/envoy/extproc"
	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/internal/rawio"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/redisshare"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

func newSidecarCmd(g *globals) *cobra.Command {
	var file string
	var sets []string
	cmd := &cobra.Command{
		Use:   "sidecar",
		Short: "Run a sidecar, list those on the roll, or print an Envoy bootstrap",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := defaultSidecarConfig()
			if err := config.Load(file, &cfg, os.Environ(), sets); err != nil {
				return usageError("%v", err)
			}
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			return runSidecar(ctx, cfg, newLogger(os.Stderr))
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	cmd.Flags().StringArrayVar(&sets, "set", nil, "key.path=value laid over the file; may be repeated")
	cmd.AddCommand(newSidecarListCmd(g), newSidecarBootstrapCmd())
	return cmd
}

// sidecar is one running sidecar; its parts in the order they were made.
type sidecar struct {
	cfg     sidecarConfig
	log     *slog.Logger
	metrics *prometheus.Registry
	store   *redisstore.Store
	records redis.UniversalClient // of decision records: apart, so that they never hold up the register
	shares  redis.UniversalClient // of limits: apart for the same reason
	lock    *os.File              // of this sidecar's ID; nil when another process has it
	limiter *ratelimit.Limiter
	holds   *authz.Holds
	mirror  *registry.Mirror
	keys    []*jwksfetch.Source
	// stampKeys sign admissions; nil when none are signed.
	stampKeys *admission.KeyFile
	recorder  *authz.Recorder
	joiner    *accesslog.Joiner
	discover  *xds.Server
	health    *extauthz.Health
	check     *extauthz.Server
	grpc      *grpc.Server
	streams   *extproc.Streams
	watching  *watching // nil when it is off
	shipping  *shipping // nil when it is off
	// said is what the health service says by now: Envoy chooses between several
	// sidecars by that, so that nobody is told "ready" before it.
	said atomic.Bool
}

// runSidecar runs a sidecar until the context is done, and then lets go in the
// order that keeps the promise: it stops answering, and only then leaves the
// roll.
func runSidecar(ctx context.Context, cfg sidecarConfig, log *slog.Logger) error {
	if cfg.ID == "" || cfg.Listen == "" || cfg.RegisterKeyFile == "" || cfg.SubjectKeyFile == "" || cfg.StateDir == "" {
		return usageError("the configuration needs id, listen, register_key_file, subject_key_file and state_dir")
	}
	if cfg.Processors > 0 {
		runtime.GOMAXPROCS(cfg.Processors)
	}
	s := &sidecar{cfg: cfg, log: log.With("sidecar", cfg.ID), metrics: newMetrics()}
	// Serving ends at the end of ctx; what it rests on ends after it.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	if err := s.build(inner); err != nil {
		return err
	}
	defer s.store.Close()
	defer s.records.Close()
	defer s.shares.Close()
	ln, err := listen(cfg.Listen)
	if err != nil {
		return err
	}
	debugLn, err := listen(cfg.Debug)
	if err != nil {
		ln.Close()
		return err
	}
	var authzLn net.Listener
	if cfg.ListenAuthz != "" {
		if authzLn, err = listen(cfg.ListenAuthz); err != nil {
			ln.Close()
			debugLn.Close()
			return err
		}
	}
	s.log.InfoContext(ctx, "sidecar listening", "address", ln.Addr().String(), "debug", debugLn.Addr().String())
	if err := s.serve(ctx, inner, cancel, ln, authzLn, debugLn); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// build makes every part; nothing runs yet.
func (s *sidecar) build(ctx context.Context) error {
	cfg := &s.cfg
	seal, err := readSealer(cfg.RegisterKeyFile)
	if err != nil {
		return err
	}
	subjectKey, err := config.ReadSecret(cfg.SubjectKeyFile)
	if err != nil {
		return err
	}
	subjects, err := authz.NewSubjectHasher(subjectKey)
	if err != nil {
		return err
	}
	verifier, err := s.verifier()
	if err != nil {
		return err
	}
	if err := errors.Join(registerKeyMetrics(s.metrics, s.keys), registerTokenMetrics(s.metrics, verifier)); err != nil {
		return err
	}
	if s.store, err = redisstore.Open(ctx, cfg.Redis, s.log); err != nil {
		return err
	}
	if s.records, err = redisstore.Dial(cfg.Redis); err != nil {
		return err
	}
	if s.shares, err = redisstore.Dial(cfg.Redis); err != nil {
		return err
	}
	incarnation := make([]byte, 8)
	rand.Read(incarnation) // never fails: it ends the process instead
	follow, mirror := plantMirror(s.store, registry.MirrorConfig{
		ID: cfg.ID, Incarnation: hex.EncodeToString(incarnation),
		Short: cfg.Lease.Short, Long: cfg.Lease.Long, Poll: cfg.Lease.Poll,
		StateFile:   filepath.Join(cfg.StateDir, cfg.ID+".state"),
		TightMemory: true, Log: s.log, OnAlarm: countAlarms(s.metrics, s.log),
	})
	s.mirror = registry.NewMirror(follow, seal, mirror)
	if err := registerMirrorMetrics(s.metrics, s.mirror); err != nil {
		return err
	}
	s.recorder = authz.NewRecorder(cfg.ID, subjects)
	if err := registerRecorderMetrics(s.metrics, s.recorder); err != nil {
		return err
	}
	if s.joiner, err = accesslog.NewJoiner(accesslog.JoinerConfig{Log: s.log, Metrics: s.metrics}); err != nil {
		return err
	}
	stats, err := extauthz.NewMetrics(s.metrics)
	if err != nil {
		return err
	}
	var metadataID string
	if len(cfg.Envoy.Sidecars) > 1 {
		metadataID = cfg.ID // each gets the access log of its own decisions
	}
	stamps, err := s.stamps()
	if err != nil {
		return err
	}
	decider := &authz.Decider{
		Register: s.mirror, Tokens: verifier, Certificates: token.NewThumbprints(4096), IDs: authz.NewIDs(),
		Hosts: cfg.Envoy.Hosts, Subjects: subjects, Now: time.Now, Elapsed: registry.NewBootClock(),
	}
	if err := s.watchStreams(decider); err != nil {
		return err
	}
	if err := s.buildLimits(decider, redisshare.New(s.shares, redisshare.Options{})); err != nil {
		return err
	}
	if s.shipping, err = newShipping(context.Background(), cfg.Shipping, cfg.ID, s.metrics, s.log); err != nil {
		return err
	}
	if s.watching, err = s.watchCallers(); err != nil {
		return err
	}
	decider.Strays = s.watching.board()
	s.check, err = extauthz.New(extauthz.Options{
		Decider:  decider,
		Recorder: recorders{s.recorder, s.joiner, s.holds}, Stats: stats, Log: s.log,
		Sidecar: metadataID, Ready: func() bool { return s.ready() == nil },
		ProblemBase: cfg.ProblemBase, ForwardAuthorization: cfg.Envoy.ForwardAuthorization, Admission: stamps,
	})
	if err != nil {
		return err
	}
	cfg.Envoy.ProblemBase = cfg.ProblemBase
	cfg.Envoy.Admission = stamps != nil
	xdsStats, err := newXDSMetrics(s.metrics)
	if err != nil {
		return err
	}
	if s.discover, err = xds.NewServer(ctx, cfg.Envoy, s.log, xdsStats); err != nil {
		return usageError("%v", err)
	}
	s.grpc = extauthz.NewGRPCServer(extauthz.GRPCOptions{Panicked: stats.Panicked, Log: s.log})
	s.check.Register(s.grpc)
	s.discover.Register(s.grpc)
	extproc.NewServer(s.streams, cmp.Or(cfg.ProblemBase, extauthz.DefaultProblemBase)).Register(s.grpc)
	accesslog.NewServer(accesslog.ServerConfig{Joiner: s.joiner, Consumers: slices.Concat(s.watching.consumers(), s.shipping.consumers(), []accesslog.Consumer{heldCalls{s.holds}}), Log: s.log}).Register(s.grpc)
	s.health = extauthz.RegisterHealth(s.grpc)
	return nil
}

// recorders hands a decision to the record queue, to the access-log joiner and
// to what holds concurrency limits.
type recorders struct {
	queue  *authz.Recorder
	joiner *accesslog.Joiner
	holds  *authz.Holds
}

func (r recorders) Record(d *authz.Decision) {
	r.holds.Keep(d)
	r.queue.Record(d)
	if d.Allowed() {
		r.joiner.Allowed(d.ID, d.At)
	}
}

// sink is where decision records go: to be counted, and to be kept.
func (s *sidecar) sink() authz.Sink {
	kept := redisrecord.New(s.records, redisrecord.Options{Keep: s.cfg.RecordsKeep})
	shipped := s.shipping.sink(kept)
	if s.watching == nil {
		return shipped
	}
	return &authz.Observed{Next: shipped, Observe: s.watching.collector.Observe}
}

// stamps signs admissions; nil when that is not configured.
func (s *sidecar) stamps() (*admission.Signer, error) {
	cfg := s.cfg.Admission
	if cfg.KeyFile == "" {
		if cfg.Validity != 0 || s.cfg.Envoy.Admission {
			return nil, usageError("admission needs a key_file")
		}
		return nil, nil
	}
	var err error
	if s.stampKeys, err = admission.OpenKeys(cfg.KeyFile); err != nil {
		return nil, err
	}
	signer, err := admission.NewSigner(s.stampKeys, cfg.Validity)
	if err != nil {
		return nil, usageError("%v", err)
	}
	return signer, nil
}

// followKeys looks at the admission keys every second. Keys that cannot be read
// change nothing; the first such reading is logged.
func (s *sidecar) followKeys(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		changed, err := s.stampKeys.Reload()
		if err != nil && !failing {
			s.log.ErrorContext(ctx, "admission keys not read, those from before stay", "err", err)
		}
		if failing = err != nil; changed {
			s.log.InfoContext(ctx, "admission keys changed", "ids", s.stampKeys.Keys().IDs())
		}
	}
}

func (s *sidecar) verifier() (*token.Verifier, error) {
	var cfg token.Config
	for _, i := range s.cfg.Issuers {
		keys, err := jwksfetch.New(jwksfetch.Config{
			File: i.JWKSFile, URL: i.JWKSURL, Algorithms: i.Algorithms, Refresh: i.JWKSRefresh, MaxStale: i.JWKSMaxStale,
			CAFile: i.CAFile, AllowHTTPLoopback: i.AllowHTTPLoopback, Log: s.log.With("issuer", i.Issuer),
		})
		if err != nil {
			return nil, usageError("issuer %s: %v", i.Issuer, err)
		}
		s.keys = append(s.keys, keys)
		cfg.Issuers = append(cfg.Issuers, token.Issuer{
			Issuer: i.Issuer, Audiences: i.Audiences, Algorithms: i.Algorithms, MaxLifetime: i.MaxLifetime, Skew: i.Skew, ExpirySkew: i.ExpirySkew,
			Keys: keys, Subjects: i.Subjects,
			Names: token.ClaimNames{ClientID: i.Claims.ClientID, ABN: i.Claims.ABN, SoftwareID: i.Claims.SoftwareID, ClientABN: i.Claims.ClientABN},
		})
	}
	v, err := token.New(cfg)
	if err != nil {
		return nil, usageError("%v", err)
	}
	return v, nil
}

// ready is nil when the register is loaded and fresh and there are keys.
func (s *sidecar) ready() error {
	if !s.mirror.Ready() {
		return errors.New("the register is not loaded or not fresh")
	}
	if !s.limiter.Ready() {
		return errors.New("no part of the limits is held yet")
	}
	now := time.Now()
	for i, k := range s.keys {
		if k.Keys(now) == nil {
			return fmt.Errorf("no keys of issuer %s", s.cfg.Issuers[i].Issuer)
		}
	}
	return nil
}

// readyToAll is ready, and that the health service says so too.
func (s *sidecar) readyToAll() error {
	if err := s.ready(); err != nil {
		return err
	}
	if !s.said.Load() {
		return errors.New("the health service does not say so yet")
	}
	return nil
}

// serve runs everything. ctx ends the answering; inner, cancelled after that,
// ends what the answering rests on.
func (s *sidecar) serve(ctx, inner context.Context, cancelInner context.CancelFunc, ln, authzLn, debugLn net.Listener) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.mirror.Run(inner) })
	for _, k := range s.keys {
		g.Go(func() error { return k.Run(inner) })
	}
	g.Go(func() error {
		s.recorder.Run(inner, s.sink())
		s.shipping.close() // the last records went through it
		return nil
	})
	if s.watching != nil {
		g.Go(func() error { s.watching.run(inner); return nil })
	}
	g.Go(func() error { return s.joiner.Run(inner) })
	g.Go(func() error { return s.runLimits(inner) })
	g.Go(func() error { s.streams.Run(gctx); return nil })
	if s.stampKeys != nil {
		g.Go(func() error { s.followKeys(inner); return nil })
	}
	g.Go(func() error { s.configureEnvoy(inner); return nil })
	g.Go(func() error { s.watch(inner); return nil })
	g.Go(func() error { return serveDebug(inner, debugLn, s.metrics, s.readyToAll, s.log) })
	g.Go(func() error {
		if err := s.grpc.Serve(rawio.Listener(ln)); err != nil {
			return fmt.Errorf("gRPC: %w", err)
		}
		return nil
	})
	answered := make(chan struct{}) // closed when no decision is given on authzLn any more
	if authzLn == nil {
		close(answered)
	} else {
		g.Go(func() error { defer close(answered); return s.check.Serve(gctx, authzLn) })
	}
	g.Go(func() error {
		<-gctx.Done()
		defer cancelInner()
		s.health.SetReady(false)
		<-answered
		// Nobody could end them from here on, so they end now: drained, they would
		// be let go unwatched.
		s.streams.Close(inner)
		// Calls under way are answered; discovery and log streams never end by
		// themselves and are cut.
		done := make(chan struct{})
		go func() { s.grpc.GracefulStop(); close(done) }()
		select {
		case <-done:
		case <-time.After(500 * time.Millisecond):
			s.grpc.Stop()
			<-done
		}
		s.log.InfoContext(inner, "sidecar answers no more")
		return nil
	})
	return g.Wait()
}

// configureEnvoy hands every new View to discovery.
func (s *sidecar) configureEnvoy(ctx context.Context) {
	for {
		changed := s.mirror.Changed()
		if v := s.mirror.View(); v != nil && len(v.Services()) > 0 {
			_ = s.discover.Update(ctx, v) // it logs, counts, and keeps the last good one
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// watch keeps the health service in step with readiness, and the collector's
// headroom in step with what is held.
func (s *sidecar) watch(ctx context.Context) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var ready bool
	var records uint64
	for {
		if now := s.ready() == nil; now != ready {
			ready = now
			s.health.SetReady(ready)
			s.said.Store(ready)
			s.log.InfoContext(ctx, "readiness changed", "ready", ready)
		}
		if st := s.mirror.Status(); st.Loaded && (st.Records > records+records/8 || records == 0) {
			records = max(st.Records, 1)
			s.tuneCollector()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// tuneCollector lets a fixed amount of garbage gather, whatever is held: by
// percentage, a hundred thousand products would double.
func (s *sidecar) tuneCollector() {
	if s.cfg.HeapHeadroomMiB <= 0 {
		return
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	debug.SetGCPercent(int(min(800, max(25, uint64(s.cfg.HeapHeadroomMiB)<<20*100/max(m.HeapAlloc, 1<<20)))))
}
