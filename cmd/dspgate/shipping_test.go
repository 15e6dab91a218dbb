package main

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/collector/pdata/pcommon"
	"go.opentelemetry.io/collector/pdata/plog"
	"go.opentelemetry.io/collector/pdata/plog/plogotlp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/accesslog"
	"github.com/dspgate/dspgate/internal/identifier"
	"github.com/dspgate/dspgate/registry"
)

// gatherer takes OTLP logs as a collector does, with the collector's own packages.
type gatherer struct {
	mu      sync.Mutex
	records []plog.LogRecord
	tokens  []string
}

func (g *gatherer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	in := plogotlp.NewExportRequest()
	if err == nil {
		err = in.UnmarshalProto(body)
	}
	if err != nil || r.URL.Path != "/v1/logs" || r.Method != http.MethodPost {
		http.Error(w, "no logs", http.StatusBadRequest)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.tokens = append(g.tokens, r.Header.Get("Authorization"))
	for _, resource := range in.Logs().ResourceLogs().All() {
		for _, scope := range resource.ScopeLogs().All() {
			for _, x := range scope.LogRecords().All() {
				g.records = append(g.records, x)
			}
		}
	}
	out, err := plogotlp.NewExportResponse().MarshalProto()
	if err != nil {
		http.Error(w, "no answer", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(out)
}

type nowhere struct{}

func (nowhere) Write(context.Context, []authz.Record) error { return nil }

const someTFN = "220 115 957"

// A real receiver gets every decision and call once, and no tax file number,
// whatever field one got into.
func TestLogsAreShippedWithoutTFNs(t *testing.T) {
	g := &gatherer{}
	srv := httptest.NewServer(g)
	defer srv.Close()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("let-me-in\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := newShipping(t.Context(), shippingConfig{OTLP: srv.URL + "/v1/logs", TokenFile: token}, "sidecar-1", prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := authz.Record{ID: authz.NewIDs().Next(time.Now()), At: registry.At(time.Now()), Reason: authz.QuotaExhausted, Revision: 7, SubjectHash: authz.Hash{1, 2}}
	texts := 0
	for i, v := 0, reflect.ValueOf(&r).Elem(); i < v.NumField(); i++ {
		if f := v.Field(i); f.Kind() == reflect.String {
			f.SetString("x/" + someTFN + "/" + strings.ReplaceAll(someTFN, " ", ""))
			texts++
		}
	}
	sink := s.sink(nowhere{})
	for range 2 { // offered again: shipped once
		if err := sink.Write(t.Context(), []authz.Record{r}); err != nil {
			t.Fatal(err)
		}
	}
	s.Consume(&accesslog.Entry{Decision: r.ID, Reason: authz.OK, Service: "x/" + someTFN, Status: 200, Start: time.Now(), ResponseBytes: 9, Reached: true})
	s.Consume(&accesslog.Entry{Decision: r.ID, Reason: authz.OK, Alive: true, Start: time.Now()}) // goes on: no log record
	s.close()

	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.records) != 2 || g.records[0].EventName() != "dspgate.decision" || g.records[1].EventName() != "dspgate.call" {
		t.Fatalf("%d records", len(g.records))
	}
	masked := 0
	for _, x := range g.records {
		if identifier.HoldsTFN(x.Body().AsString()) {
			t.Errorf("body %q", x.Body().AsString())
		}
		x.Attributes().Range(func(key string, v pcommon.Value) bool {
			if identifier.HoldsTFN(v.AsString()) {
				t.Errorf("%s of %s holds a tax file number", key, x.EventName())
			}
			if strings.Contains(v.AsString(), "*** *** ***") {
				masked++
			}
			return true
		})
	}
	if masked != texts+1 {
		t.Errorf("%d texts were shipped masked, of %d and the call's service: a new field must be shipped, or left out here on purpose", masked, texts)
	}
	if id, _ := g.records[0].Attributes().Get("dspgate.decision.id"); id.AsString() != r.ID.String() {
		t.Errorf("decision %q, want %s", id.AsString(), r.ID)
	}
	if g.tokens[0] != "Bearer let-me-in" {
		t.Errorf("token %q", g.tokens[0])
	}
}

// What finds no room in the queue is counted, and the receiver gets the rest.
func TestRecordsDroppedOnTheirWayAreCounted(t *testing.T) {
	g, release := &gatherer{}, make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		g.ServeHTTP(w, r)
	}))
	defer srv.Close()
	reg := prometheus.NewRegistry()
	s, err := newShipping(t.Context(), shippingConfig{OTLP: srv.URL + "/v1/logs", Queue: 4}, "sidecar-1", reg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ids := authz.NewIDs()
	for range 100 {
		s.Consume(&accesslog.Entry{Decision: ids.Next(time.Now()), Reason: authz.OK, Service: "abr.lookup", Status: 200, Start: time.Now()})
	}
	counted := func(name string) float64 {
		all, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range all {
			if f.GetName() == name {
				return f.GetMetric()[0].GetCounter().GetValue()
			}
		}
		return -1
	}
	if n := counted("logs_dropped_total"); n != 96 {
		t.Errorf("%v dropped of 100, with room for 4", n)
	}
	close(release)
	s.close()
	if shipped, failed := counted("logs_shipped_total"), counted("logs_unshipped_total"); shipped+failed > 4 {
		t.Errorf("%v shipped, %v not", shipped, failed)
	}
}

func TestShippingIsRefusedInPlainText(t *testing.T) {
	for _, address := range []string{"http://collector.example:4318/v1/logs", "collector:4318", "https://user:pw@collector.example", "ftp://127.0.0.1/x"} {
		if _, err := newShipping(t.Context(), shippingConfig{OTLP: address}, "s", prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s is accepted", address)
		}
	}
	if s, err := newShipping(t.Context(), shippingConfig{}, "s", prometheus.NewRegistry(), nil); s != nil || err != nil {
		t.Errorf("%v, %v for nothing configured", s, err)
	}
}
