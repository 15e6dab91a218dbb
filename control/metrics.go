package control

import (
	"fmt"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
}

// newMetrics registers the API's metrics; with no Registerer they only count.
func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "control_requests_total",
			Help: "Requests by method=[GET|HEAD|POST|PUT|DELETE|PATCH|OPTIONS|other], route=[a path template of the API|none] and code=[the HTTP status].",
		}, []string{"method", "route", "code"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "control_request_seconds", Help: "How long requests took, waiting for sidecars included.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.seconds} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("control metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) observe(c *call, status int, took time.Duration) {
	m.requests.WithLabelValues(knownMethod(c.r.Method), c.routeName(), strconv.Itoa(status)).Inc()
	m.seconds.Observe(took.Seconds())
}
