package probe

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/assurance/evidencedir"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// keeper is a control plane's register with its desk.
func keeper(t *testing.T) (*registry.Register, *assurance.Desk) {
	t.Helper()
	store := registrytest.NewMemory()
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "one", Observer: true})
	reg := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", ClaimTTL: time.Second, Cases: slices.Concat(assurance.CaseTypes(), casework.Types())})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = m.Run(ctx); done <- struct{}{} }()
	go func() { _ = reg.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, err := reg.Casebook(); err == nil && reg.Writing() {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the register never took commands")
		}
	}
	if _, err := reg.Import(ctx, sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
		t.Fatal(err)
	}
	rules, err := certification.Default(certification.OpenDefaults())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := evidencedir.Open(filepath.Join(t.TempDir(), "evidence"))
	if err != nil {
		t.Fatal(err)
	}
	return reg, assurance.NewDesk(assurance.Config{Register: reg, Rules: rules, Files: dir})
}

// Declared endpoints are checked again and again; a report is filed when what is
// found changes, and a fail makes a finding.
func TestEndpointsAreCheckedContinuously(t *testing.T) {
	ca := newAuthority(t)
	good := ca.issue(t, time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))
	var old atomic.Bool
	text := fmt.Sprintf(goodText, time.Now().AddDate(0, 6, 0).UTC().Format(time.RFC3339))
	s := serve(t, &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := &tls.Config{Certificates: []tls.Certificate{good}}
		if old.Load() {
			c.MaxVersion = tls.VersionTLS12
		}
		return c, nil
	}, Certificates: []tls.Certificate{good}}, wellKnown(text).(*http.ServeMux))

	reg, desk := keeper(t)
	if _, err := reg.Do(t.Context(), Actor(), "test", "", func(tx *registry.Tx) error {
		return registry.PutCase(tx, "FP-1001", casework.Certification{Product: "FP-1001", Owner: sample.Wattlebird, Answers: map[string]certification.Answer{"OSF-EIT.2": {Values: []string{s.URL}}}})
	}); err != nil {
		t.Fatal(err)
	}
	sched := &Scheduler{Register: reg, Desk: desk, Prober: New(Config{Allow: loopback, Roots: ca.pool, Timeout: slow}), Every: time.Nanosecond, Log: slog.New(slog.DiscardHandler), checked: map[string]registry.Time{}}
	newest := func() *assurance.Report {
		t.Helper()
		book, err := reg.Casebook()
		if err != nil {
			t.Fatal(err)
		}
		r, err := assurance.NewestReport(book, "FP-1001")
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	sched.round(t.Context())
	first := newest()
	if first == nil || first.By != Actor().Name || outcomes(first.Results)[checkTLS] != "pass" || len(first.Findings) != 0 {
		t.Fatalf("%+v", first)
	}
	sched.round(t.Context())
	if again := newest(); again.ID != first.ID {
		t.Errorf("filed again though nothing changed: %+v", again)
	}
	old.Store(true)
	sched.round(t.Context())
	worse := newest()
	if worse.ID == first.ID || outcomes(worse.Results)[checkTLS] != "fail" || len(worse.Findings) != 1 {
		t.Fatalf("%+v", worse)
	}
	f, err := desk.Finding(Actor(), worse.Findings[0])
	if err != nil || f.Body.Requirement != "OSF-EIT" || f.Body.Report != worse.ID {
		t.Errorf("%+v, %v", f, err)
	}
	// Not asked again before it is due.
	sched.Every = 24 * time.Hour
	old.Store(false)
	sched.round(t.Context())
	if newest().ID != worse.ID {
		t.Error("checked before it was due")
	}
}
