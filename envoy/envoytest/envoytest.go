// Package envoytest starts a real Envoy for one test.
package envoytest

import (
	"context"
	"testing"
	"time"

	"github.com/dspgate/dspgate/envoy/runner"
	"github.com/dspgate/dspgate/envoy/xds"
)

// Options says what Envoy to start.
type Options struct {
	// ADS is the address of the discovery service: "unix:/path" or "host:port".
	ADS string
	// MaxConnections is as in xds.BootstrapConfig.
	MaxConnections uint32
	// Concurrency is the number of worker threads. Default 1.
	Concurrency int
	// LogLevel is as in runner.Options.
	LogLevel string
}

// Envoy is ready to take calls and ends with its test.
type Envoy struct {
	*runner.Process
	Ingress    string // "127.0.0.1:port" of the plain listener
	IngressTLS string // of the TLS listener; "" when there is none
}

// Start starts an Envoy and waits until it serves; the test fails if it does
// not within 20 s. On failure the end of its log is shown.
func Start(t testing.TB, o Options) *Envoy {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if o.Concurrency == 0 {
		o.Concurrency = 1
	}
	p, err := runner.Start(ctx, runner.Options{
		Dir:         t.TempDir(),
		Bootstrap:   xds.BootstrapConfig{NodeID: t.Name(), Sidecars: []string{o.ADS}, MaxConnections: o.MaxConnections},
		Concurrency: o.Concurrency,
		LogLevel:    o.LogLevel,
	})
	if err != nil {
		t.Fatalf("start envoy: %v", err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("envoy's log:\n%s", p.LogTail(8000))
		}
	})
	if err := p.Ready(ctx); err != nil {
		t.Fatalf("%v\n%s", err, p.LogTail(8000))
	}
	e := &Envoy{Process: p}
	listeners, err := p.Listeners(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e.Ingress, e.IngressTLS = listeners[xds.ListenerPlain], listeners[xds.ListenerTLS]
	return e
}
