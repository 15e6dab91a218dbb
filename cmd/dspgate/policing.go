package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/anomaly/redisfleet"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// policing is the control plane's part: who strays, and what is done about it.
type policing struct {
	fleet  *redisfleet.Fleet
	desk   *policy.Desk
	engine *policy.Engine
	watch  *redisfleet.Watch // nil when it is off
	usage  *redisfleet.Usage
	names  *policy.Names
}

func openPolicies(cfg watchConfig, register *registry.Register, incidents *incident.Desk, fleet *redisfleet.Fleet, usage *redisfleet.Usage, reg prometheus.Registerer, log *slog.Logger) (*policing, error) {
	if cfg.ShadowLeast < 0 {
		return nil, usageError("watch.shadow_least: %v is below nothing", cfg.ShadowLeast)
	}
	p := &policing{fleet: fleet, usage: usage, desk: &policy.Desk{Register: register, Incidents: incidents, ShadowLeast: cmp.Or(cfg.ShadowLeast, 24*time.Hour)}}
	var err error
	if p.names, err = openNames(cfg.SubjectKeyFile); err != nil {
		return nil, err
	}
	p.engine = &policy.Engine{Desk: p.desk, Share: p.share, Keep: keepSignals(fleet, register, p.names), Names: p.names, Log: log}
	if p.watch, err = newWatch(cfg, fleet, register, usage, p.engine, reg, log); err != nil {
		return nil, err
	}
	return p, registerAll(reg, &policyMetrics{p: p},
		counter("anomaly_signals_dropped_total", "Signals that no policy saw, because there were too many at once.", func() float64 { return float64(p.engine.Counts().Dropped) }),
		counter("anomaly_signals_unkept_total", "Signals not kept, so that no policy can be tried on them.", func() float64 { return float64(p.engine.Counts().Unkept) }),
		counter("policy_alarms_overflow_total", "Matches of policies that found more than 100 subjects in an hour.", func() float64 { return float64(p.engine.Counts().Overflow) }),
		counter("policy_failures_total", "Alarms that could not be entered, and policies that could not be read.", func() float64 { return float64(p.engine.Counts().Failed) }),
		counter("policy_panics_total", "Times a policy fell over on a signal; decisions and the watcher go on.", func() float64 { return float64(p.engine.Counts().Panics) }),
	)
}

// keepSignals keeps what the watcher told where those who ask find it, by product.
func keepSignals(fleet *redisfleet.Fleet, register *registry.Register, names *policy.Names) func(context.Context, []anomaly.Signal) error {
	return func(ctx context.Context, signals []anomaly.Signal) error {
		return fleet.KeepSignals(ctx, signals, func(s anomaly.Subject) string {
			v, err := register.View()
			if err != nil {
				return "" // kept all the same, among all
			}
			return names.FactsOf(v, s).Product
		})
	}
}

// openNames finds subscriptions by their hashes; none without the key.
func openNames(keyFile string) (*policy.Names, error) {
	if keyFile == "" {
		return nil, nil
	}
	key, err := config.ReadSecret(keyFile)
	if err != nil {
		return nil, fmt.Errorf("watch.subject_key_file: %w", err)
	}
	hasher, err := authz.NewSubjectHasher(key)
	if err != nil {
		return nil, fmt.Errorf("watch.subject_key_file: %w", err)
	}
	return policy.NewNames(hasher.Sum), nil
}

// share is a product's share of the traffic, where this process watches.
func (p *policing) share(product string) float64 {
	if p.watch == nil {
		return -1
	}
	return p.watch.Share(product)
}

// signals are what the API shows of them.
func (p *policing) signals() control.Signals {
	return control.Signals{Latest: p.fleet.LatestSignals, Of: p.fleet.ProductSignals, Each: p.fleet.EachSignal, Share: p.share, Names: p.names, Fields: p.usage.Fields}
}

// run watches, and acts, until ctx ends.
func (p *policing) run(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { p.engine.Run(ctx); return nil })
	if p.watch != nil {
		g.Go(func() error { p.watch.Run(ctx); return nil })
	}
}

// policyMetrics show what policies did and how well. The label policy is one of
// at most 50 names that staff gave; no caller makes one.
type policyMetrics struct {
	p *policing

	mu      sync.Mutex
	effects []policy.Effect
	at      time.Time
}

const policyEffectsEvery = 30 * time.Second

func policyDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"policy"}, labels...), nil)
}

// policyDescs are made anew for each use: there is no package state.
func policyDescs() (alarms, judged, precision, detect, contain *prometheus.Desc) {
	return policyDesc("policy_alarms_total", "Alarms entered by this process, by policy, mode=[shadow|enforced] and outcome=[would|observed|throttled|restricted|suspended|already|asked].", "mode", "outcome"),
		policyDesc("policy_alarms", "Alarms of a policy there are, by mode=[shadow|enforced] and state=[open|confirmed|dismissed].", "mode", "state"),
		policyDesc("policy_precision", "Share of the alarms judged by people that were confirmed, by mode=[shadow|enforced].", "mode"),
		policyDesc("policy_seconds_to_detect", "Median time from the beginning to the alarm, of those confirmed, by mode=[shadow|enforced].", "mode"),
		policyDesc("policy_seconds_to_contain", "Median time from the beginning to the measure, of those confirmed, by mode=[shadow|enforced].", "mode")
}

// Describe implements prometheus.Collector.
func (m *policyMetrics) Describe(ch chan<- *prometheus.Desc) {
	a, b, c, d, e := policyDescs()
	for _, x := range []*prometheus.Desc{a, b, c, d, e} {
		ch <- x
	}
}

// Collect implements prometheus.Collector.
func (m *policyMetrics) Collect(ch chan<- prometheus.Metric) {
	alarms, states, precision, detect, contain := policyDescs()
	for k, n := range m.p.engine.Counts().Entered {
		mode := "enforced"
		if k.Shadow {
			mode = "shadow"
		}
		ch <- prometheus.MustNewConstMetric(alarms, prometheus.CounterValue, float64(n), k.Policy, mode, string(k.Outcome))
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	for _, e := range m.read() {
		for mode, t := range map[string]*policy.Tally{"enforced": &e.Enforced, "shadow": &e.Shadow} {
			gauge(states, float64(t.Open), e.Policy, mode, "open")
			gauge(states, float64(t.Confirmed), e.Policy, mode, "confirmed")
			gauge(states, float64(t.Dismissed), e.Policy, mode, "dismissed")
			if t.Precision != nil {
				gauge(precision, *t.Precision, e.Policy, mode)
			}
			if t.ToDetect != nil {
				gauge(detect, t.ToDetect.Median, e.Policy, mode)
			}
			if t.ToContain != nil {
				gauge(contain, t.ToContain.Median, e.Policy, mode)
			}
		}
	}
}

// read measures the policies, not more often than every half minute.
func (m *policyMetrics) read() []policy.Effect {
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Since(m.at) < policyEffectsEvery {
		return m.effects
	}
	book, err := m.p.desk.Register.Casebook()
	if err != nil {
		return m.effects
	}
	m.at, m.effects = time.Now(), nil
	for id := range book.All(registry.Query{Kind: "policy"}) {
		if e, err := policy.EffectOf(book, id); err == nil {
			m.effects = append(m.effects, e)
		}
	}
	return m.effects
}
