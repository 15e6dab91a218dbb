package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	"go.opentelemetry.io/otel/sdk/resource"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/otellog"
	"github.com/dspgate/dspgate/envoy/accesslog"
)

// shippingConfig is where decisions and finished calls are shipped to as
// OpenTelemetry logs. Nothing in it touches a decision.
type shippingConfig struct {
	// OTLP is the address that takes them, OTLP over HTTP, such as
	// https://collector.example:4318/v1/logs; plain http for this machine only.
	// Default "": nothing is shipped.
	OTLP string `yaml:"otlp"`
	// TokenFile holds a bearer token for it. Default "": none.
	TokenFile string `yaml:"token_file"`
	// Queue is how many records may wait; beyond it they are dropped. Default 8192.
	Queue int `yaml:"queue"`
}

// shipping is a sidecar's part; a nil one ships nothing.
type shipping struct {
	provider *sdklog.LoggerProvider
	logger   log.Logger
}

// newShipping makes it, nil when it is off.
func newShipping(ctx context.Context, cfg shippingConfig, sidecar string, reg prometheus.Registerer, logs *slog.Logger) (*shipping, error) {
	x := &countedExporter{log: logs}
	err := registerAll(reg,
		counter("logs_shipped_total", "Log records shipped.", func() float64 { return float64(x.shipped.Load()) }),
		counter("logs_unshipped_total", "Log records that the receiver did not take.", func() float64 { return float64(x.failed.Load()) }),
		counter("logs_dropped_total", "Log records dropped because too many waited to be shipped.", func() float64 { return float64(x.dropped.Load()) }),
	)
	if err != nil || cfg.OTLP == "" {
		return nil, err
	}
	u, err := url.Parse(cfg.OTLP)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopbackHost(u.Hostname())) {
		return nil, usageError("shipping.otlp: not an https address, or an http one of this machine")
	}
	o := []otlploghttp.Option{otlploghttp.WithEndpointURL(cfg.OTLP), otlploghttp.WithTimeout(5 * time.Second)}
	if cfg.TokenFile != "" {
		b, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return nil, usageError("shipping.token_file %s: %v", cfg.TokenFile, pathCause(err))
		}
		o = append(o, otlploghttp.WithHeaders(map[string]string{"Authorization": "Bearer " + strings.TrimSpace(string(b))}))
	}
	next, err := otlploghttp.New(ctx, o...)
	if err != nil {
		return nil, fmt.Errorf("shipping.otlp: %w", err)
	}
	x.Exporter = next
	room := cmp.Or(cfg.Queue, 8192)
	p := sdklog.NewLoggerProvider(
		sdklog.WithResource(resource.NewSchemaless(attribute.String("service.name", "dspgate"), attribute.String("service.instance.id", sidecar))),
		sdklog.WithProcessor(roomFor{sdklog.NewBatchProcessor(x, sdklog.WithMaxQueueSize(room), sdklog.WithExportInterval(time.Second)), x, int64(room)}),
	)
	return &shipping{provider: p, logger: p.Logger("github.com/dspgate/dspgate")}, nil
}

func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// sink also ships what goes to next.
func (s *shipping) sink(next authz.Sink) authz.Sink {
	if s == nil {
		return next
	}
	return &otellog.Decisions{Next: next, Logger: s.logger}
}

// consumers hear of access-log entries.
func (s *shipping) consumers() []accesslog.Consumer {
	if s == nil {
		return nil
	}
	return []accesslog.Consumer{s}
}

// Consume implements accesslog.Consumer.
func (s *shipping) Consume(e *accesslog.Entry) {
	if e.Alive {
		return
	}
	otellog.Ship(context.Background(), s.logger, &otellog.Call{
		Decision: e.Decision, Reason: e.Reason, Service: e.Service, Start: e.Start, Duration: e.Duration, Status: e.Status,
		BytesIn: e.RequestBytes, BytesOut: e.ResponseBytes, ReachedAUpstream: e.Reached,
	})
}

// close ships what waits, for at most three seconds.
func (s *shipping) close() {
	if s == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	_ = s.provider.Shutdown(ctx) // what is lost is counted
}

// countedExporter counts, and says once that shipping fails or works again.
type countedExporter struct {
	sdklog.Exporter
	log             *slog.Logger
	shipped, failed atomic.Uint64
	dropped         atomic.Uint64
	waiting         atomic.Int64 // in the queue, or being exported
	failing         atomic.Bool
}

// roomFor lets as many records wait as the queue holds, and counts the others:
// the queue itself would overwrite the oldest and tell nobody.
type roomFor struct {
	sdklog.Processor
	x    *countedExporter
	most int64
}

// OnEmit implements sdklog.Processor.
func (r roomFor) OnEmit(ctx context.Context, record *sdklog.Record) error {
	if r.x.waiting.Add(1) > r.most {
		r.x.waiting.Add(-1)
		r.x.dropped.Add(1)
		return nil
	}
	return r.Processor.OnEmit(ctx, record)
}

// Export implements sdklog.Exporter.
func (x *countedExporter) Export(ctx context.Context, records []sdklog.Record) error {
	err := x.Exporter.Export(ctx, records)
	x.waiting.Add(-int64(len(records)))
	if err == nil {
		x.shipped.Add(uint64(len(records)))
		if x.failing.Swap(false) {
			x.log.InfoContext(ctx, "logs are shipped again")
		}
		return nil
	}
	x.failed.Add(uint64(len(records)))
	if !x.failing.Swap(true) {
		x.log.WarnContext(ctx, "logs are not shipped; decisions go on", "err", err)
	}
	return nil // told, and nobody else has to hear of it
}
