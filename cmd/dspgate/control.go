package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/anomaly/redisfleet"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/authz/redisrecord"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/control/probe"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/ratelimit/redisshare"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/people"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/sample"
)

// controlConfig is the file of `dspgate control`.
type controlConfig struct {
	// ID names this control plane in the writer's claim and in the log: stable
	// over restarts, different on each. Needed.
	ID string `yaml:"id"`
	// Listen is the address of the API. It speaks plain HTTP: put TLS before it
	// where it is not on loopback. Default 127.0.0.1:8080.
	Listen string `yaml:"listen"`
	// Debug is the address of /metrics, /healthz and /readyz. Default 127.0.0.1:9102.
	Debug string `yaml:"debug"`
	// Redis is where the register is.
	Redis redisstore.Config `yaml:"redis"`
	// RegisterKeyFile holds the key of the register's MACs, the same for every
	// control plane and sidecar: at least 32 bytes. Needed.
	RegisterKeyFile string `yaml:"register_key_file"`
	// TokensFile lists the programs that may call, by the SHA-256 of their token. Needed.
	TokensFile string `yaml:"tokens_file"`
	// StateDir keeps the highest revision seen, so that a control plane started
	// again refuses an emptied or older store. Needed.
	StateDir string `yaml:"state_dir"`
	// ClaimTTL is how long another control plane waits before it takes over from
	// one that went silent. Default 5s.
	ClaimTTL time.Duration `yaml:"claim_ttl"`
	// Drain is how long a wait for a suspension goes on after the last sidecar
	// acknowledged it or lapsed. It must be at least the longest validity of the
	// sidecars' stamps and the largest skew of the upstreams, or a stamp from before
	// may still be accepted. Default 60ms, which is the sum of their defaults; 0
	// promises nothing of what is under way, and says so of every service.
	Drain time.Duration `yaml:"drain"`
	// LeaseMax is the longest serving lease any sidecar is configured with: for so
	// long after a failover of Redis, a sidecar that joined just before it may serve
	// without being on the roll, and a suspension is answered as not complete.
	// Default 60s.
	LeaseMax time.Duration `yaml:"lease_max"`
	// AuditEvery is how often every record in Redis is held against the register
	// in memory; what was changed by hand is an alarm. 0 never does. Default 15s.
	AuditEvery time.Duration `yaml:"audit_every"`
	// Audit is the log of every change and every reading of personal data.
	Audit auditConfig `yaml:"audit"`
	// EvidenceDir is the folder that keeps the evidence handed in, outside Redis.
	// Several control planes must share one. Default: evidence, in state_dir.
	EvidenceDir string `yaml:"evidence_dir"`
	// FrameworkDir holds further versions of the framework's rules, as YAML files
	// such as catalogue-2027.1.yaml, laid over the built-in ones. Default: none.
	FrameworkDir string `yaml:"framework_dir"`
	// Framework answers the questions that the framework leaves open.
	Framework certification.Open `yaml:"framework"`
	// Casework is how registrations and certifications are worked on.
	Casework caseworkConfig `yaml:"casework"`
	// ChecksEvery is how often the declared endpoint of each live product is checked
	// by machine. 0 never does. Default 24h.
	ChecksEvery time.Duration `yaml:"checks_every"`
	// ChecksAllow are networks, such as 10.1.0.0/16, that the automated checks of
	// declared addresses may reach although they are not public. Default: none.
	ChecksAllow []netip.Prefix `yaml:"checks_allow"`
	// SignIn is how people sign in to the console.
	SignIn signInConfig `yaml:"sign_in"`
	// Incidents is how incidents are worked on; Outbox how messages leave.
	Incidents incidentsConfig `yaml:"incidents"`
	Outbox    outboxConfig    `yaml:"outbox"`
	// Watch holds every caller against its own past.
	Watch watchConfig `yaml:"watch"`
	// SampleRegister fills an empty register with fictional entities. For the demo.
	SampleRegister bool `yaml:"sample_register"`
	// SamplePolicies enters policies to begin with, in shadow, where there are none.
	SamplePolicies bool `yaml:"sample_policies"`
	// SampleLimits limits the sample register's services as well, as the tier
	// standard.
	SampleLimits bool `yaml:"sample_limits"`
	// SampleCredentials is a folder of certificates to enter as the sample
	// entities' machine credentials, each named ABN.pem.
	SampleCredentials string `yaml:"sample_credentials"`
}

// controlGCPercent is by how much the heap may grow between two collections.
// 100,000 products with their casework are 250 MB.
const controlGCPercent = 50

// drainMax is all that validity and skew can add up to.
const drainMax = admission.ValidityMax + admission.SkewMax

func defaultControlConfig() controlConfig {
	return controlConfig{Listen: "127.0.0.1:8080", Debug: "127.0.0.1:9102", ClaimTTL: 5 * time.Second, AuditEvery: 15 * time.Second, Drain: admission.DefaultValidity + admission.DefaultSkew, Framework: certification.OpenDefaults(), ChecksEvery: 24 * time.Hour}
}

func newControlCmd(_ *globals) *cobra.Command {
	var file string
	var sets []string
	cmd := &cobra.Command{
		Use:   "control",
		Short: "Run a control plane",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := defaultControlConfig()
			if err := config.Load(file, &cfg, os.Environ(), sets); err != nil {
				return usageError("%v", err)
			}
			if os.Getenv("GOGC") == "" { // most of what is held is held for long: half the usual headroom is enough
				debug.SetGCPercent(controlGCPercent)
			}
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			return runControl(ctx, cfg, newLogger(os.Stderr))
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "configuration file (YAML)")
	cmd.Flags().StringArrayVar(&sets, "set", nil, "key.path=value laid over the file; may be repeated")
	return cmd
}

// runControl runs a control plane until the context is done.
func runControl(ctx context.Context, cfg controlConfig, log *slog.Logger) error {
	if cfg.ID == "" || cfg.RegisterKeyFile == "" || cfg.TokensFile == "" || cfg.StateDir == "" {
		return usageError("the configuration needs id, register_key_file, tokens_file and state_dir")
	}
	if cfg.Drain < 0 || cfg.Drain > drainMax {
		return usageError("drain: %v is not between 0 and %v", cfg.Drain, drainMax)
	}
	log = log.With("control", cfg.ID)
	reg := newMetrics()
	seal, err := readSealer(cfg.RegisterKeyFile)
	if err != nil {
		return err
	}
	tokens, err := control.LoadTokens(cfg.TokensFile, log)
	if err != nil {
		return err
	}
	store, err := redisstore.Open(ctx, cfg.Redis, log)
	if err != nil {
		return err
	}
	defer store.Close()
	records, err := redisstore.Dial(cfg.Redis)
	if err != nil {
		return err
	}
	defer records.Close()

	alarms := countAlarms(reg, log)
	mirror := registry.NewMirror(store, seal, registry.MirrorConfig{
		ID: cfg.ID, Observer: true, StateFile: filepath.Join(cfg.StateDir, cfg.ID+".state"), Log: log,
		OnAlarm: alarms,
	})
	if err := registerMirrorMetrics(reg, mirror); err != nil {
		return err
	}
	audit, err := openAudit(cfg, store, reg, log)
	if err != nil {
		return err
	}
	ledger, writer := plantRegister(store, registry.RegisterConfig{Holder: cfg.ID, ClaimTTL: cfg.ClaimTTL, Drain: cfg.Drain, LeaseMax: cfg.LeaseMax, Log: log})
	if audit != nil {
		writer.Journal = audit
	}
	writer.Cases = slices.Concat(writer.Cases, assurance.CaseTypes(), people.Types(), incident.CaseTypes(), casework.Types(), policy.CaseTypes())
	register := registry.NewRegister(ledger, mirror, seal, writer)
	if err := registerRollMetrics(reg, register); err != nil {
		return err
	}
	fleet := redisfleet.New(records, redisfleet.Options{BaselinesMax: int64(max(cfg.Watch.Subjects, roomMost))})
	var usage *redisfleet.Usage
	if !cfg.Watch.Off {
		usage = redisfleet.NewUsage(fleet, register.Writing, log)
	}
	ready := func() error {
		if _, err := register.View(); err != nil {
			return err
		}
		if !register.Writing() {
			return errors.New("another control plane is the writer")
		}
		return nil
	}
	seeded := make(chan struct{})
	readyNow := func() error {
		select {
		case <-seeded:
			return ready()
		default:
			return errors.New("the register is not loaded yet")
		}
	}
	desk, evidence, err := openAssurance(cfg, register, usage)
	if err != nil {
		return err
	}
	kept := redisrecord.New(records, redisrecord.Options{})
	found := decisions(kept)
	work, err := openCasework(cfg, register, desk, found, log)
	if err != nil {
		return err
	}
	incidents, err := openIncidents(cfg.Incidents, cfg.Framework, register, desk)
	if err != nil {
		return err
	}
	policing, err := openPolicies(cfg.Watch, register, incidents, fleet, usage, reg, log)
	if err != nil {
		return err
	}
	post, err := openOutbox(cfg.Outbox, register, log)
	if err != nil {
		return err
	}
	hub := live.NewHub()
	prober := probe.New(probe.Config{Allow: cfg.ChecksAllow})
	api, err := control.New(control.Config{
		Register: register, Assurance: desk, Casework: work, Incidents: incidents, Policies: policing.desk, Signals: policing.signals(), Prober: prober, Live: hub,
		Decisions: found, Uses: limitUses(redisshare.New(records, redisshare.Options{}), kept), Changes: store.Changes, Audit: audit, Auth: tokens, Log: log, Metrics: reg, Version: version(), Drain: cfg.Drain,
		Ready: func(context.Context) error { return readyNow() },
	})
	if err != nil {
		return err
	}
	front, err := openConsole(cfg, api, register, audit, records, log)
	if err != nil {
		return err
	}
	ln, err := listen(cfg.Listen)
	if err != nil {
		return err
	}
	debug, err := listen(cfg.Debug)
	if err != nil {
		ln.Close()
		return err
	}

	// The API ends first, then the writer, then the mirror, so that no command is
	// cut off between its commit and its answer.
	g, gctx := errgroup.WithContext(ctx)
	inner, cancelInner := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return mirror.Run(inner) })
	last, cancelLast := context.WithCancel(context.WithoutCancel(ctx)) // the writer's last changes still get their leaves
	if audit != nil {
		g.Go(func() error { return audit.Run(last) })
	}
	g.Go(func() error {
		defer cancelLast()
		return register.Run(inner)
	})
	g.Go(func() error { auditStore(inner, mirror, cfg.AuditEvery, alarms, log); return nil })
	g.Go(func() error { checkStore(inner, store, alarms, log); return nil })
	g.Go(func() error { _ = post.Run(inner); return nil })
	checks := probe.Scheduler{Register: register, Desk: desk, Prober: prober, Every: cfg.ChecksEvery, Log: log}
	g.Go(func() error { checks.Run(gctx); return nil })
	g.Go(func() error { sweepEvidence(inner, register, evidence, log); return nil })
	g.Go(func() error { register.RunTimers(inner, timers(incidents, work, desk)); return nil })
	g.Go(func() error { work.RunChecks(inner); return nil })
	g.Go(func() error { return serveDebug(inner, debug, reg, readyNow, log) })
	g.Go(func() error {
		err := seed(gctx, register, ready, cfg, log)
		if err == nil && cfg.SamplePolicies && gctx.Err() == nil {
			_, err = policing.desk.Begin(gctx, registry.Actor{Name: "sample register", Permissions: registry.PermOperator}, policy.Starters(), registry.Meta{Reason: "the demo's first start"})
		}
		if err == nil {
			close(seeded)
		}
		return err
	})
	policing.run(inner, g)
	if usage != nil {
		g.Go(func() error { usage.Run(inner); return nil })
	}
	feed := control.Feed{Hub: hub, Register: register, Changes: store.Changes, Tail: kept.Tail, Signals: policing.signals().Latest, Log: log}
	g.Go(func() error { feed.Run(inner); return nil })
	srv := control.NewHTTPServer(front, log)
	srv.RegisterOnShutdown(hub.Close)
	g.Go(func() error {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("control plane API: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		defer cancelInner()
		shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := srv.Shutdown(shut); err != nil {
			log.WarnContext(ctx, "calls cut off at the end", "err", err)
			return srv.Close()
		}
		return nil
	})
	log.InfoContext(ctx, "control plane listening", "address", ln.Addr().String(), "debug", debug.Addr().String())
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// auditStore holds the store against the mirror from time to time. What stays
// wrong in the same way is told once; so is its end.
func auditStore(ctx context.Context, mirror *registry.Mirror, every time.Duration, alarm func(registry.Alarm), log *slog.Logger) {
	if every <= 0 {
		return
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var told string
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		a, err := mirror.Audit(ctx)
		if err != nil {
			continue // the mirror itself tells of a store that does not answer
		}
		found := ""
		if !a.OK() {
			found = fmt.Sprint(a.Wrong, a.Missing)
		}
		switch {
		case found == told:
		case a.OK():
			log.InfoContext(ctx, "records in the store are right again")
		default:
			log.ErrorContext(ctx, "records in the store were changed by somebody else", "wrong", a.Wrong, "missing", a.Missing)
			alarm(registry.Alarm{Kind: registry.AlarmTampered, What: "records", Err: registry.ErrTampered})
		}
		told = found
	}
}

// storeCheckEvery is how often the store is asked how it keeps things.
const storeCheckEvery = 5 * time.Second

// checkStore tells of a store that may forget by now: it was fit when we opened
// it, but settings change, and after a failover it is another one.
func checkStore(ctx context.Context, store *redisstore.Store, alarm func(registry.Alarm), log *slog.Logger) {
	tick := time.NewTicker(storeCheckEvery)
	defer tick.Stop()
	told := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := store.Check(ctx)
		found := ""
		switch {
		case errors.Is(err, redisstore.ErrEviction), errors.Is(err, redisstore.ErrForgetful):
			found = err.Error()
		case err != nil:
			continue // the mirror itself tells of a store that does not answer
		}
		switch found {
		case told:
		case "":
			log.InfoContext(ctx, "the store keeps what it is given again")
		default:
			log.ErrorContext(ctx, "THE STORE MAY FORGET SUSPENSIONS: set maxmemory-policy noeviction, appendonly yes and appendfsync always", "err", err)
			alarm(registry.Alarm{Kind: registry.AlarmForgetful, What: "store", Err: err})
		}
		told = found
	}
}

// decisions finds decision records for the API.
func decisions(s *redisrecord.Store) control.Decisions {
	return control.Decisions{
		Find: s.Find, Each: s.Each, Tail: s.Tail,
		Denials: func(ctx context.Context, products []string, holder registry.ABN, limit int) ([]authz.Record, error) {
			return s.Recent(ctx, redisrecord.Filter{Products: products, Holder: holder}, limit)
		},
	}
}

// seed waits until the register can be written and fills an empty one, when
// the configuration asks for it.
func seed(ctx context.Context, register *registry.Register, ready func() error, cfg controlConfig, log *slog.Logger) error {
	if !cfg.SampleRegister {
		return nil
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ready() != nil {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	view, err := register.View()
	if err != nil || view.Revision > 0 {
		return err
	}
	records := sample.Records(time.Now())
	if cfg.SampleLimits {
		records = append(records, sample.Limits()...)
	}
	if cfg.SampleCredentials != "" {
		more, err := sampleCredentials(cfg.SampleCredentials)
		if err != nil {
			return err
		}
		records = append(records, more...)
	}
	actor := registry.Actor{Name: "sample register", Permissions: registry.PermRegistrar | registry.PermAssessor | registry.PermOperator}
	rev, err := register.Import(ctx, actor, records, registry.Meta{Reason: "the demo's first start"})
	if err != nil {
		return fmt.Errorf("sample register: %w", err)
	}
	log.InfoContext(ctx, "sample register entered", "records", len(records), "revision", rev)
	return nil
}

// sampleCredentials makes a machine credential of each ABN.pem in a folder.
func sampleCredentials(dir string) ([]any, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, err
	}
	var out []any
	for _, p := range paths {
		cert, err := readCertificate(p)
		if err != nil {
			return nil, err
		}
		abn, err := registry.ParseABN(cert.Subject.SerialNumber)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		out = append(out, registry.Credential{
			Thumbprint: x5tS256(cert), ABN: abn, NotAfter: registry.At(cert.NotAfter), Name: cert.Subject.CommonName,
		})
	}
	return out, nil
}

func readSealer(path string) (*registry.Sealer, error) {
	key, err := config.ReadSecret(path)
	if err != nil {
		return nil, err
	}
	return registry.NewSealer(key)
}

// countAlarms counts what a mirror found wrong with its store; the mirror logs it.
func countAlarms(reg prometheus.Registerer, _ *slog.Logger) func(registry.Alarm) {
	alarms := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "register_alarms_total", Help: "What the mirror found wrong with its store, by kind=[tampered|rewound|shrunk|digest-mismatch|gap|undecodable|forgetful].",
	}, []string{"kind"})
	reg.MustRegister(alarms)
	for _, k := range registry.AlarmKinds() {
		alarms.WithLabelValues(k.String())
	}
	return func(a registry.Alarm) { alarms.WithLabelValues(a.Kind.String()).Inc() }
}
