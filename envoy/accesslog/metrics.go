package accesslog

import "github.com/prometheus/client_golang/prometheus"

// collector shows a Joiner's counters to Prometheus. They are read when asked
// for, so that counting costs the same with and without it.
type collector struct{ j *Joiner }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("accesslog_"+name, help, labels, nil)
}

// metrics makes the descriptions; they are few and asked for seldom.
func metrics() (forwarded, notForwarded, alarms, untracked, excused, refused, malformed, open *prometheus.Desc) {
	return desc("forwarded_total", "ALLOWs that reached an upstream."),
		desc("not_forwarded_total", "ALLOWs that did not, by cause=[downstream-disconnect|upstream-connect-failure|upstream-overflow|timeout|protocol-error|refused-by-envoy|admission-expired|no-route|log-lost|other].", "cause"),
		desc("alarms_total", "Requests that reached an upstream without exactly one ALLOW, by cause=[no-decision|unknown-decision|denied-forwarded]. Anything but 0 is a bypass.", "cause"),
		desc("untracked_total", "ALLOWs there was no room to remember."),
		desc("excused_total", "Forwarded requests whose ALLOW is no longer known: from before a restart, or older than lost_after."),
		desc("refused_total", "Entries of requests that were refused."),
		desc("malformed_total", "Access log messages that did not decode."),
		desc("open", "ALLOWs waiting for their entry.")
}

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	a, b, d, e, f, g, h, i := metrics()
	for _, x := range []*prometheus.Desc{a, b, d, e, f, g, h, i} {
		ch <- x
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	forwarded, notForwarded, alarms, untracked, excused, refused, malformed, open := metrics()
	n := c.j.Counts()
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	count(forwarded, n.Forwarded)
	for cause, v := range n.NotForwarded {
		count(notForwarded, v, cause)
	}
	for cause, v := range n.Alarms {
		count(alarms, v, cause)
	}
	count(untracked, n.Untracked)
	count(excused, n.Excused)
	count(refused, n.Refused)
	count(malformed, n.Malformed)
	ch <- prometheus.MustNewConstMetric(open, prometheus.GaugeValue, float64(n.Open))
}
