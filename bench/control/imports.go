package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/registry"
)

// abn makes the nth ABN by choosing its check digits (domain model §6).
func abn(n int) registry.ABN {
	for check := 10; check < 100; check++ {
		a, err := registry.ParseABN(fmt.Sprintf("%02d%09d", check, 200_000_000+n))
		if err == nil {
			return a
		}
	}
	panic("bench: no check digits for an ABN")
}

// words make names that a search tells apart.
var words = strings.Fields("ledger payroll super invoice stock tax lodge books agent wages till estate farm clinic trade " +
	"banksia wattle quoll bilby numbat kelpie curlew galah brolga dingo emu taipan possum heron ibis osprey")

func wordOf(n int) string {
	w := words[n%len(words)]
	return strings.ToUpper(w[:1]) + w[1:]
}

func productName(i int) string { return wordOf(i) + " " + wordOf(i/7+3) + " " + strconv.Itoa(i) }

// writeRegister writes the file to import: every product was whitelisted for
// three services and has two versions, as the agency's own register has them.
func writeRegister(path string, o options) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	fmt.Fprintln(w, "product_id,name,owner_abn,owner_name,contact,roles,chain,scenario,versions,whitelisted,services,records,offshore")
	for i := range o.products {
		e := 1 + i%o.entities
		fmt.Fprintf(w, "BN-%06d,%s,%s,%s %s Pty Ltd,dev@entity-%d.example,D SP,,%d,5.%d 4.8,yes,abr.lookup payevnt.0004.submit as.0004.submit,%d,no\n",
			i, productName(i), abn(e), wordOf(e), wordOf(e/5+11), e, 1+i%3, i%9, 10*(i%5000))
	}
	return errors.Join(w.Flush(), f.Close())
}

// runImport runs `dspgate import` as a registrar does; the counts come back.
func (s *site) runImport(file string, args ...string) (took time.Duration, told string, err error) {
	cmd := s.command(append([]string{"import", file}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	began := time.Now()
	err = cmd.Run()
	took, told = time.Since(began), strings.TrimSpace(out.String())
	if err != nil {
		err = fmt.Errorf("dspgate import: %w: %.2000s", err, told)
	}
	return took, told, err
}

// peakRSS watches a process's resident memory until stop is called.
func peakRSS(pid int) (stop func() float64) {
	done, peak := make(chan struct{}), 0.0
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if now, err := rss(pid); err == nil {
				peak = max(peak, now)
			}
			select {
			case <-done:
				return
			case <-tick.C:
			}
		}
	})
	return func() float64 { close(done); wg.Wait(); return peak }
}

// rss is the resident memory of a process in MB (10⁶ bytes).
func rss(pid int) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.Fields(v)[0], 64)
			return kib * 1024 / 1e6, err
		}
	}
	return 0, errors.New("/proc/PID/status has no VmRSS")
}

// total counts what a listing holds.
func (s *site) total(ctx context.Context, path string) (int, error) {
	b, err := s.program(registrarName).get(ctx, s.planes[0].url+path)
	if err != nil {
		return 0, err
	}
	var env struct {
		Meta struct {
			Total int `json:"total_items"`
		} `json:"_meta"`
	}
	err = json.Unmarshal(b, &env)
	return env.Meta.Total, err
}

// sampleProducts and sampleEntities are in the register before the import.
const (
	sampleProducts = 12
	sampleEntities = 9
)

// whole tells whether the register holds the file, all of it and nothing twice.
func (s *site) whole(ctx context.Context, o options) error {
	for path, want := range map[string]int{"/v1/products?limit=1&state=Interim": o.products, "/v1/client-apps?limit=1&owner=" + abn(1).String(): (o.products-1)/o.entities + 1} {
		got, err := s.total(ctx, path)
		if err != nil {
			return err
		}
		if got < want || got > want+sampleProducts {
			return fmt.Errorf("%s counts %d after the import, want %d", path, got, want)
		}
	}
	got, err := s.total(ctx, "/v1/certifications?limit=1")
	if err == nil && (got < o.products || got > o.products+sampleProducts) {
		err = fmt.Errorf("%d certifications after the import, want %d", got, o.products)
	}
	return err
}

// importAll measures the import: dry, real, and again.
func importAll(ctx context.Context, s *site, file string, o options, rep *report.Report) error {
	pid := s.planes[0].PID()
	var err error
	if rep.Figures["rss_empty_mb"], err = rss(pid); err != nil {
		return err
	}
	peak := peakRSS(pid)
	dry, told, err := s.runImport(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "dry run in %v: %s\n", dry.Round(time.Millisecond), told)
	if n, err := s.total(ctx, "/v1/products?limit=1"); err != nil || n > sampleProducts {
		return fmt.Errorf("%d products after a dry run (%w)", n, err)
	}
	real, told, err := s.runImport(file, "--enter")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "import in %v: %s\n", real.Round(time.Millisecond), told)
	if err := s.whole(ctx, o); err != nil {
		return err
	}
	again, told, err := s.runImport(file, "--enter")
	if err != nil {
		return err
	}
	if !strings.Contains(told, fmt.Sprintf("%d unchanged", o.products)) {
		return fmt.Errorf("imported again it changed something: %s", told)
	}
	rep.Figures["import_rss_mb"] = peak()
	rep.Figures["import_dry_seconds"], rep.Figures["import_seconds"], rep.Figures["import_again_seconds"] = dry.Seconds(), real.Seconds(), again.Seconds()
	fmt.Fprintf(os.Stderr, "again in %v; peak %.0f MB\n", again.Round(time.Millisecond), rep.Figures["import_rss_mb"])
	return nil
}

// importKilled imports into a site of its own, kills the control plane in the
// middle, starts it again, and finds the import go on and nothing missing.
func importKilled(ctx context.Context, dir, file string, o options, rep *report.Report) error {
	s, err := newSite(ctx, filepath.Join(dir, "killed"), o)
	if err != nil {
		return err
	}
	defer s.close()
	type outcome struct {
		took time.Duration
		told string
		err  error
	}
	done := make(chan outcome, 1)
	go func() {
		took, told, err := s.runImport(file, "--enter")
		done <- outcome{took, told, err}
	}()
	for {
		n, err := s.total(ctx, "/v1/products?limit=1")
		if err != nil {
			return err
		}
		if n > o.products/2 {
			rep.Figures["killed_at_products"] = float64(n)
			break
		}
		select {
		case r := <-done:
			return fmt.Errorf("the import ended before it was half done: %s %w", r.told, r.err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	p := s.planes[0]
	p.Kill()
	began := time.Now()
	if err := p.Restart(); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, p, true); err != nil {
		return err
	}
	rep.Figures["restart_seconds"] = time.Since(began).Seconds()
	r := <-done
	if r.err != nil {
		return r.err
	}
	if err := s.whole(ctx, o); err != nil {
		return err
	}
	rep.Figures["import_killed_seconds"] = r.took.Seconds()
	fmt.Fprintf(os.Stderr, "killed at %.0f products, ready again after %.1f s, whole after %v: %s\n",
		rep.Figures["killed_at_products"], rep.Figures["restart_seconds"], r.took.Round(time.Millisecond), r.told)
	return nil
}
