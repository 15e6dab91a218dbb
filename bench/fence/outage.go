package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
)

// An outage is shorter than the short lease less the time between two polls:
// that long every sidecar may go on whatever the moment at which it began.
const (
	outageShort = 2 * time.Second
	outageLong  = time.Minute
	outageFor   = 1300 * time.Millisecond
	outageEvery = 2500 * time.Microsecond // one call
)

// outages stops Redis again and again under a real sidecar and Envoy, and
// compares the calls made meanwhile with those made just before.
func (b *bench) outages(ctx context.Context, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	w, err := world.New(ctx, world.Options{
		Dir: dir, Dspgate: b.o.dspgate, Controls: 1, EnvoyOf: []int{0}, Short: outageShort, Long: outageLong, ClaimTTL: 5 * time.Second,
	})
	if err != nil {
		w.Close() // what had started by then
		return err
	}
	defer w.Close()
	c := &caller{url: w.Envoys[0].URL}
	c.http.Transport = &http.Transport{MaxIdleConnsPerHost: 256, DisableCompression: true}
	if c.token, err = w.Token("fp-1003-prod", map[string]any{"abn": "31000000202", "software_id": "0000300001", "client_abn": "56000001313"}); err != nil {
		return err
	}
	if _, errs := c.load(ctx, time.Second); errs > 0 { // warms it up
		return fmt.Errorf("outage: %d of the first calls failed", errs)
	}
	var with, without []time.Duration
	errs, ordinary := 0, 0
	for i := range b.o.outages {
		took, n := c.load(ctx, outageFor)
		without, ordinary = append(without, took...), ordinary+n
		w.Redis[0].Pause()
		took, n = c.load(ctx, outageFor)
		w.Redis[0].Resume()
		with, errs = append(with, took...), errs+n
		if err := ctx.Err(); err != nil {
			return err
		}
		time.Sleep(outageShort) // its next polls have been answered
		fmt.Fprintf(os.Stderr, "outage %d: %d calls, %d errors\n", i+1, len(took), n)
	}
	for _, side := range []struct {
		what string
		took []time.Duration
	}{{"calls, Redis there", without}, {"calls, Redis away", with}} {
		b.rep.Row(map[string]any{"turn": "", "what": side.what, "n": len(side.took), "p50_ms": ms(percentile(side.took, 50)), "p99_ms": ms(percentile(side.took, 99)), "redis_write_ms": ""})
	}
	f := b.rep.Figures
	f["outages"], f["outage_calls"] = float64(b.o.outages), float64(len(with))
	f["outage_errors"], f["ordinary_errors"] = float64(errs), float64(ordinary)
	f["outage_p50_ratio"] = percentile(with, 50).Seconds() / percentile(without, 50).Seconds()
	f["outage_p99_ratio"] = percentile(with, 99).Seconds() / percentile(without, 99).Seconds()
	return nil
}

// caller calls a service of each lease in turn.
type caller struct {
	url, token string
	http       http.Client
}

// load calls at a steady rate, whether or not earlier calls are answered.
func (c *caller) load(ctx context.Context, length time.Duration) (took []time.Duration, errs int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	tick := time.NewTicker(outageEvery)
	defer tick.Stop()
	paths := []string{"/registry/v1/abns/65000000101", "/lodgments/v1/activity-statements/AS-1"}
	began := time.Now()
	for n := 0; time.Since(began) < length && ctx.Err() == nil; n++ {
		<-tick.C
		wg.Go(func() {
			at := time.Now()
			err := c.call(ctx, paths[n%len(paths)])
			d := time.Since(at)
			mu.Lock()
			defer mu.Unlock()
			if took = append(took, d); err != nil {
				errs++
			}
		})
	}
	wg.Wait()
	return slices.Clip(took), errs
}

func (c *caller) call(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.url+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
