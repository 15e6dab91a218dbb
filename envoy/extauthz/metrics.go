package extauthz

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/authz"
)

// Metrics is Stats for Prometheus. Counting is one addition to a counter of a
// shard picked at random, so that two processors rarely meet on one cache line.
// Every label comes from the closed set of reasons.
type Metrics struct {
	shards [metricShards]metricShard

	decisions, malformed, panics, seconds *prometheus.Desc
}

const (
	metricShards = 8 // a power of two
	// One call in timedEvery enters the histogram; its count is multiplied back.
	timedEvery = 8
)

// latencyBounds are upper bounds of the histogram; the decision itself is about
// a microsecond, and anything past a millisecond was waiting for a processor.
var latencyBounds = [...]time.Duration{
	1 * time.Microsecond, 2 * time.Microsecond, 5 * time.Microsecond,
	10 * time.Microsecond, 20 * time.Microsecond, 50 * time.Microsecond,
	100 * time.Microsecond, 200 * time.Microsecond, 500 * time.Microsecond,
	1 * time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond,
}

type metricShard struct {
	reasons   [authz.NReasons]atomic.Uint64
	malformed atomic.Uint64
	panics    atomic.Uint64
	buckets   [len(latencyBounds) + 1]atomic.Uint64
	nanos     atomic.Uint64
	_         [64]byte
}

// NewMetrics makes Metrics and registers it.
func NewMetrics(reg prometheus.Registerer) (*Metrics, error) {
	m := &Metrics{
		decisions: prometheus.NewDesc("authz_decisions_total",
			"Decisions by reason=[ok|the contract's codes, such as product-suspended].", []string{"reason"}, nil),
		malformed: prometheus.NewDesc("authz_malformed_total", "Calls refused because they were no CheckRequest.", nil, nil),
		panics:    prometheus.NewDesc("authz_panics_total", "Calls refused because deciding them panicked.", nil, nil),
		seconds: prometheus.NewDesc("authz_check_seconds",
			fmt.Sprintf("Time to decode, decide and encode, of one call in %d.", timedEvery), nil, nil),
	}
	if err := reg.Register(m); err != nil {
		return nil, fmt.Errorf("register authorization metrics: %w", err)
	}
	return m, nil
}

// Decided implements Stats.
func (m *Metrics) Decided(reason authz.Reason, elapsed time.Duration) {
	x := rand.Uint32()
	s := &m.shards[x%metricShards]
	s.reasons[reason].Add(1)
	if x/metricShards%timedEvery != 0 {
		return
	}
	i := 0
	for i < len(latencyBounds) && elapsed > latencyBounds[i] {
		i++
	}
	s.buckets[i].Add(1)
	s.nanos.Add(uint64(elapsed))
}

// Malformed implements Stats.
func (m *Metrics) Malformed() { m.shards[0].malformed.Add(1) }

// Panicked implements Stats, and GRPCOptions.Panicked.
func (m *Metrics) Panicked() { m.shards[0].panics.Add(1) }

// Count is how many decisions had a reason so far.
func (m *Metrics) Count(reason authz.Reason) uint64 {
	return m.sum(func(s *metricShard) *atomic.Uint64 { return &s.reasons[reason] })
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.decisions
	ch <- m.malformed
	ch <- m.panics
	ch <- m.seconds
}

// Collect implements prometheus.Collector. Every reason is there from the
// start, so that a rate over its first occurrence is no gap.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	for r := range authz.NReasons {
		ch <- prometheus.MustNewConstMetric(m.decisions, prometheus.CounterValue, float64(m.Count(r)), r.String())
	}
	ch <- prometheus.MustNewConstMetric(m.malformed, prometheus.CounterValue,
		float64(m.sum(func(s *metricShard) *atomic.Uint64 { return &s.malformed })))
	ch <- prometheus.MustNewConstMetric(m.panics, prometheus.CounterValue,
		float64(m.sum(func(s *metricShard) *atomic.Uint64 { return &s.panics })))
	buckets := make(map[float64]uint64, len(latencyBounds))
	var count uint64
	for i := range len(latencyBounds) + 1 {
		count += timedEvery * m.sum(func(s *metricShard) *atomic.Uint64 { return &s.buckets[i] })
		if i < len(latencyBounds) {
			buckets[latencyBounds[i].Seconds()] = count
		}
	}
	nanos := timedEvery * m.sum(func(s *metricShard) *atomic.Uint64 { return &s.nanos })
	ch <- prometheus.MustNewConstHistogram(m.seconds, count, time.Duration(nanos).Seconds(), buckets)
}

func (m *Metrics) sum(of func(*metricShard) *atomic.Uint64) (n uint64) {
	for i := range m.shards {
		n += of(&m.shards[i]).Load()
	}
	return n
}
