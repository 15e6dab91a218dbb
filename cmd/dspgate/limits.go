package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/accesslog"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

type limitsConfig struct {
	// AddressRate is how many requests a second one source address (an IPv6 /64)
	// may make, counted before its token is looked at; one more is refused with
	// 429. Choose it above what the largest gateway in front sends. Default 0: as
	// many as come.
	AddressRate float64 `yaml:"address_rate"`
	// AddressBurst is how many of them at once. Default twice the rate.
	AddressBurst int `yaml:"address_burst"`
	// Addresses is of how many addresses the counts are kept, 16 bytes each.
	// Default 65536.
	Addresses int `yaml:"addresses"`
}

func (c limitsConfig) addresses() (*authz.Addresses, error) {
	switch {
	case c.AddressRate == 0 && c.AddressBurst == 0:
		return nil, nil
	case c.AddressRate <= 0 || c.AddressRate > ratelimit.RateMax:
		return nil, usageError("limits.address_rate: %v is not more than 0 and at most %v a second", c.AddressRate, ratelimit.RateMax)
	case c.AddressBurst < 0 || c.AddressBurst > ratelimit.AmountMax:
		return nil, usageError("limits.address_burst: %d is not from 1 to %v", c.AddressBurst, ratelimit.AmountMax)
	case c.Addresses < 0 || c.Addresses > 1<<24:
		return nil, usageError("limits.addresses: %d is not from 1 to %d", c.Addresses, 1<<24)
	}
	if c.AddressBurst == 0 {
		c.AddressBurst = max(1, int(2*c.AddressRate))
	}
	if c.Addresses == 0 {
		c.Addresses = 65536
	}
	return authz.NewAddresses(c.AddressRate, c.AddressBurst, c.Addresses), nil
}

// lockID takes the lock of this sidecar's name in its state folder, for as long
// as the process lives: who has it knows that whoever had the name before has
// ended, and takes over what that one held at once instead of waiting for its
// lease to lapse. Without it, it waits.
//
// The lock is gone with the file: keep it open. nil means that another process
// has it.
func lockID(dir, id string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, id+".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock of this sidecar's ID: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, nil
	}
	return nil, fmt.Errorf("lock of this sidecar's ID: %w", err)
}

// heldCalls lets go of what a call occupied of concurrency limits when the
// access log says that it ended.
type heldCalls struct{ holds *authz.Holds }

func (h heldCalls) Consume(e *accesslog.Entry) {
	switch {
	case e.Decision.IsZero() || e.Reason != authz.OK:
	case e.Alive:
		h.holds.Alive(e.Decision, e.Start.Add(e.Duration))
	default:
		h.holds.Ended(e.Decision)
	}
}

// buildLimits makes what calls pay by.
func (s *sidecar) buildLimits(decider *authz.Decider, pool ratelimit.Pool) error {
	var err error
	if decider.Addresses, err = s.cfg.Limits.addresses(); err != nil {
		return err
	}
	if s.lock, err = lockID(s.cfg.StateDir, s.cfg.ID); err != nil {
		return err
	}
	s.limiter, err = ratelimit.New(ratelimit.Options{ID: s.cfg.ID, Alone: s.lock != nil, Pool: pool, Elapsed: decider.Elapsed, Now: decider.Now, Log: s.log})
	if err != nil {
		return err
	}
	s.holds = authz.NewHolds()
	decider.Limits = authz.NewLimits(s.limiter)
	return registerLimitMetrics(s.metrics, s.limiter, decider.Limits, s.holds)
}

// registerLimitMetrics shows how limits stand; no label names a subject.
func registerLimitMetrics(reg prometheus.Registerer, limiter *ratelimit.Limiter, limits *authz.Limits, holds *authz.Holds) error {
	return registerAll(reg, limitCollector{limits},
		gauge("limits_degraded", "1 while the store is away and this sidecar spends its last share of every limit.", func() float64 {
			if limiter.Status().Degraded {
				return 1
			}
			return 0
		}),
		gauge("limits_heard_seconds", "Since the last request to the pool of shares that was answered was sent.", func() float64 { return limiter.Status().Heard.Seconds() }),
		gauge("limits_parts", "Among how many sidecars the standing parts of every limit are shared out; 0 until this one has its own.", func() float64 { return float64(limiter.Status().Parts) }),
		gauge("limits_accounts", "Limits in use here.", func() float64 { return float64(limiter.Status().Accounts) }),
		counter("limits_pool_calls_total", "Requests to the pool of shares.", func() float64 { return float64(limiter.Status().Calls) }),
		gauge("limits_calls_held", "Calls under way that occupy concurrency limits.", func() float64 { return float64(holds.Len()) }),
	)
}

// limitCollector counts refusals by limits.
type limitCollector struct{ limits *authz.Limits }

var (
	limitRefusedDesc = prometheus.NewDesc("limits_refused_total",
		"Calls that a limit refused, or a shadow limit would have, by kind=[rate|concurrency|quota|clients] and mode=[enforced|shadow].", []string{"kind", "mode"}, nil)
	limitUnpayableDesc = prometheus.NewDesc("limits_unpayable_total",
		"Calls refused because more limits applied than one call can pay.", nil, nil)
)

func (c limitCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- limitRefusedDesc
	ch <- limitUnpayableDesc
}

func (c limitCollector) Collect(ch chan<- prometheus.Metric) {
	counts := c.limits.Counts()
	add := func(by map[registry.LimitKind]uint64, mode string) {
		for kind, n := range by {
			ch <- prometheus.MustNewConstMetric(limitRefusedDesc, prometheus.CounterValue, float64(n), kind.String(), mode)
		}
	}
	add(counts.Refused, "enforced")
	add(counts.Shadow, "shadow")
	ch <- prometheus.MustNewConstMetric(limitUnpayableDesc, prometheus.CounterValue, float64(counts.Unpayable))
}

// runLimits runs what limits rest on until ctx ends.
func (s *sidecar) runLimits(ctx context.Context) error {
	done := make(chan struct{})
	go func() { defer close(done); s.holds.Run(ctx) }()
	err := s.limiter.Run(ctx)
	<-done
	return err
}
