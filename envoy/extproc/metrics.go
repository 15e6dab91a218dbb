package extproc

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/authz"
)

type metrics struct {
	ended     [authz.NReasons]prometheus.Counter // by us; OK: by the caller or the upstream
	refused   prometheus.Counter
	malformed prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, open func() int) (*metrics, error) {
	ended := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "authz_streams_ended_total",
		Help: "Streams that ended, by reason=[ok: of themselves|the contract's codes, such as product-suspended: ended by this sidecar].",
	}, []string{"reason"})
	m := &metrics{
		refused:   prometheus.NewCounter(prometheus.CounterOpts{Name: "authz_streams_refused_total", Help: "Streams refused because their product, or this sidecar, had as many open as it may."}),
		malformed: prometheus.NewCounter(prometheus.CounterOpts{Name: "authz_streams_malformed_total", Help: "Side streams refused because they brought no grant: requests that were not admitted by a sidecar of this version."}),
	}
	for r := range authz.NReasons {
		m.ended[r] = ended.WithLabelValues(r.String())
	}
	if reg == nil {
		return m, nil
	}
	now := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "authz_streams_open", Help: "Streams open, each with a side stream to this sidecar."},
		func() float64 { return float64(open()) })
	if err := errors.Join(reg.Register(ended), reg.Register(m.refused), reg.Register(m.malformed), reg.Register(now)); err != nil {
		return nil, fmt.Errorf("register stream metrics: %w", err)
	}
	return m, nil
}
