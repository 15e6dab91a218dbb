package main

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/jwksfetch"
	"github.com/dspgate/dspgate/registry"
)

// Metrics of the parts that know nothing of Prometheus. Every label value is
// out of a closed set; none names a product, a client or a path.

func gauge(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, f)
}

func counter(name, help string, f func() float64) prometheus.Collector {
	return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help}, f)
}

func registerAll(reg prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return err
		}
	}
	return nil
}

func registerMirrorMetrics(reg prometheus.Registerer, m *registry.Mirror) error {
	return registerAll(reg,
		gauge("register_revision", "Revision of the register held.", func() float64 { return float64(m.Status().Revision) }),
		gauge("register_lag_revisions", "How many revisions the store's head is ahead.", func() float64 {
			st := m.Status()
			return max(0, float64(st.Store)-float64(st.Revision))
		}),
		gauge("register_records", "Records held.", func() float64 { return float64(m.Status().Records) }),
		gauge("register_lease_short_seconds", "What is left of the serving lease for risk ratings 3 and 4; negative when it has lapsed.",
			func() float64 { return m.Status().ShortLeft.Seconds() }),
		gauge("register_lease_long_seconds", "What is left of the serving lease for risk ratings 1 and 2; negative when it has lapsed.",
			func() float64 { return m.Status().LongLeft.Seconds() }),
		counter("register_polls_total", "Polls of the register's log.", func() float64 { return float64(m.Status().Polls) }),
		counter("register_poll_errors_total", "Polls that failed.", func() float64 { return float64(m.Status().PollErrors) }),
		counter("register_loads_total", "Snapshots loaded whole.", func() float64 { return float64(m.Status().Loads) }),
		gauge("register_load_seconds", "How long the last load of a snapshot took.", func() float64 { return m.Status().LoadTime.Seconds() }),
	)
}

// registerRollMetrics shows how the sidecars stand as this control plane sees them.
func registerRollMetrics(reg prometheus.Registerer, r *registry.Register) error {
	stat := func(of func(registry.RollStats) float64) func() float64 {
		return func() float64 { return of(r.RollStats()) }
	}
	return registerAll(reg,
		gauge("roll_sidecars", "Sidecars on the roll that may serve.", stat(func(s registry.RollStats) float64 { return float64(s.Sidecars) })),
		gauge("roll_sidecars_lapsed", "Sidecars on the roll that were silent for longer than their leases.", stat(func(s registry.RollStats) float64 { return float64(s.Lapsed) })),
		gauge("roll_lag_revisions_max", "How many revisions the sidecar furthest behind is behind.", stat(func(s registry.RollStats) float64 { return float64(s.LagMax) })),
		gauge("roll_in_doubt", "1 while a sidecar may serve that nobody knows of: the store changed hands less than a lease ago.", stat(func(s registry.RollStats) float64 {
			if s.InDoubt {
				return 1
			}
			return 0
		})),
		counter("roll_lapses_total", "Sidecars that lapsed.", stat(func(s registry.RollStats) float64 { return float64(s.Lapses) })),
		counter("roll_returns_total", "Lapsed sidecars that came back.", stat(func(s registry.RollStats) float64 { return float64(s.Returns) })),
		counter("roll_errors_total", "Readings of the roll that failed.", stat(func(s registry.RollStats) float64 { return float64(s.Errors) })),
		counter("register_tenures_total", "Times the store changed hands, was started anew or lost its end.", stat(func(s registry.RollStats) float64 { return float64(s.Tenures) })),
		counter("register_superseded_total", "Times a sidecar, or the writer, held what the store did not, and the writer went past it.", stat(func(s registry.RollStats) float64 { return float64(s.Superseded) })),
		counter("register_reasserted_changes_total", "Changes that the store had lost and was given again.", stat(func(s registry.RollStats) float64 { return float64(s.Reasserts) })),
	)
}

func registerRecorderMetrics(reg prometheus.Registerer, r *authz.Recorder) error {
	return registerAll(reg,
		counter("authz_records_written_total", "Decision records written.", func() float64 { return float64(r.Written()) }),
		counter("authz_records_dropped_total", "Decision records lost: the queue was full, or the store away for too long.",
			func() float64 { return float64(r.Dropped()) }),
	)
}

// registerKeyMetrics shows how the issuers' key sets stand, all issuers together:
// a key set that is refused or grows stale is told before tokens are.
func registerKeyMetrics(reg prometheus.Registerer, sources []*jwksfetch.Source) error {
	sum := func(of func(jwksfetch.Status) float64) func() float64 {
		return func() (n float64) {
			for _, s := range sources {
				n += of(s.Status())
			}
			return n
		}
	}
	return registerAll(reg,
		gauge("jwks_keys", "Keys of the issuers that tokens are verified with.", sum(func(s jwksfetch.Status) float64 { return float64(s.Keys) })),
		gauge("jwks_keys_refused", "Keys of the issuers' last good sets that were left out: weak, unfit or not for signatures.",
			sum(func(s jwksfetch.Status) float64 { return float64(s.Skipped) })),
		gauge("jwks_failing", "Issuers whose last look at their keys failed: the last good set is in use, or none.", sum(func(s jwksfetch.Status) float64 {
			if s.Err != nil {
				return 1
			}
			return 0
		})),
		counter("jwks_fetches_total", "Looks at the issuers' keys.", sum(func(s jwksfetch.Status) float64 { return float64(s.Fetches) })),
	)
}

// registerTokenMetrics counts what verifying costs.
func registerTokenMetrics(reg prometheus.Registerer, v *token.Verifier) error {
	return registerAll(reg,
		counter("token_signatures_total", "Signatures computed: tokens that were in no cache.", func() float64 { return float64(v.Stats().Signatures) }),
		counter("token_throttled_total", "Tokens refused unseen because their peer had sent too many with bad signatures.",
			func() float64 { return float64(v.Stats().Throttled) }),
		gauge("token_cached", "Verified tokens in the cache.", func() float64 { return float64(v.Stats().Cached) }),
	)
}

// xdsMetrics counts what discovery does.
type xdsMetrics struct{ pushed, refused, rejected prometheus.Counter }

func newXDSMetrics(reg prometheus.Registerer) (*xdsMetrics, error) {
	snapshots := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "envoy_configurations_total",
		Help: "Configurations for Envoy by outcome=[pushed|refused|rejected]: refused broke a rule of ours and was not sent, rejected is Envoy's NACK.",
	}, []string{"outcome"})
	return &xdsMetrics{
		snapshots.WithLabelValues("pushed"), snapshots.WithLabelValues("refused"), snapshots.WithLabelValues("rejected"),
	}, reg.Register(snapshots)
}

func (m *xdsMetrics) Pushed()   { m.pushed.Inc() }
func (m *xdsMetrics) Refused()  { m.refused.Inc() }
func (m *xdsMetrics) Rejected() { m.rejected.Inc() }
