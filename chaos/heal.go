package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/registry"
)

// heal lets everything run again, and waits until it works: a control plane
// writes, and every sidecar has what it has.
func (t *trial) heal(ctx context.Context) {
	for _, p := range t.world.Processes() {
		p.Resume()
		if !p.Running() { // every fault is over, and who was killed was started again
			// With no Redis to be reached a start fails, and is for a supervisor to try again.
			if tail := p.Tail(); crashed(tail) {
				t.end("%s ended by itself: %s", p.Name, tail)
			}
			t.say("%s is started again", p.Name)
			if err := p.Restart(); err != nil {
				t.end("%v", err)
			}
		}
	}
	for _, n := range append(append([]*world.Node{}, t.world.Controls...), t.world.Sidecars...) {
		for _, l := range n.Links {
			if err := l.Heal(ctx); err != nil {
				t.say("%v", err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, t.o.healWithin())
	defer cancel()
	name, err := t.world.Reconcile(ctx)
	if name != "" {
		t.say("%s had another primary than the others, and was told", name)
	}
	if err != nil {
		t.end("not healed: %v", err)
		return
	}
	for _, n := range t.world.Sidecars {
		if err := n.Await(ctx, world.GetOK(n.Debug+"/readyz")); err != nil {
			t.end("not healed: %v", err)
			return
		}
	}
	if err := t.world.Controls[0].Await(ctx, t.caughtUp); err != nil {
		t.end("not healed: %v", err)
	}
}

// crashed tells whether a log ends as that of a Go program, Envoy or Redis that
// died of a fault of its own.
func crashed(tail string) bool {
	return slices.ContainsFunc([]string{"panic: ", "fatal error: ", "Caught ", "REDIS BUG REPORT"}, func(s string) bool { return strings.Contains(tail, s) })
}

// caughtUp is nil when a control plane says that every sidecar that serves
// holds the newest revision, with its digest.
func (t *trial) caughtUp(ctx context.Context) error {
	var all struct {
		Data []registry.SidecarStatus `json:"data"`
	}
	if err := t.get(ctx, "/v1/sidecars?limit=100", &all); err != nil {
		return err
	}
	serving := map[string]bool{}
	for _, s := range all.Data {
		if s.LongLeftMS <= 0 {
			continue
		}
		if s.Lag != 0 || s.DigestOK != nil && !*s.DigestOK {
			return fmt.Errorf("%s is %d revisions behind", s.ID, s.Lag)
		}
		serving[s.ID] = true
	}
	if len(serving) != len(t.world.Sidecars) {
		return fmt.Errorf("%d sidecars serve", len(serving))
	}
	return nil
}

func (t *trial) get(ctx context.Context, path string, answer any) (err error) {
	for _, n := range t.world.Controls {
		if err = t.getFrom(ctx, n.URL+path, answer); err == nil {
			return nil
		}
	}
	return err
}

func (t *trial) getFrom(ctx context.Context, address string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+t.world.Operator)
	resp, err := t.operators.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %d", address, resp.StatusCode)
	}
	return json.NewDecoder(http.MaxBytesReader(nil, resp.Body, 1<<20)).Decode(answer)
}

// finals looks whether every suspension that nobody lifted is in force: by the
// control plane's word, and by calls through both Envoys.
func (t *trial) finals(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.o.healWithin())
	defer cancel()
	t.mu.Lock()
	all := append([]Suspension{}, t.history.Suspensions...)
	t.mu.Unlock()
	for _, s := range all {
		if !s.LiftCalled.IsZero() {
			continue
		}
		t.final(t.finalWord(ctx, &s))
		for e := range t.world.Envoys {
			f := Final{Suspension: s.ID + " of " + s.Product, Envoy: e, Denied: true}
			// As often as every sidecar of the Envoy has its turn.
			for range 2 * len(t.world.SidecarsOf(e)) {
				r := t.settledRequest(ctx, call{s.Product, "/registry/v1/abns/65000000101", 1}, e)
				// One that refuses everything is not well, which is told elsewhere, and lost nothing.
				if r.Status != http.StatusServiceUnavailable && r.Status != 0 && (r.Status != http.StatusForbidden || r.Code != "product-suspended") {
					f.Denied, f.What = false, fmt.Sprintf("Envoy %d answers %d %s", e+1, r.Status, r.Code)
				}
			}
			t.final(f)
		}
	}
}

// finalWord is what the control plane says of a suspension in the end, asked until
// it answers.
func (t *trial) finalWord(ctx context.Context, s *Suspension) Final {
	f := Final{Suspension: s.ID + " of " + s.Product, Envoy: -1}
	for {
		var got struct {
			Data struct {
				Active bool `json:"active"`
			} `json:"data"`
		}
		err := t.get(ctx, "/v1/suspensions/"+s.ID, &got)
		if err == nil {
			if f.Denied = got.Data.Active; !f.Denied {
				f.What = "the control plane says that it is not active"
			}
			return f
		}
		if wait(ctx, 100*time.Millisecond); ctx.Err() != nil {
			f.What = err.Error()
			return f
		}
	}
}

// settledRequest asks again while an Envoy that was hurt gets well.
func (t *trial) settledRequest(ctx context.Context, c call, envoy int) (r Request) {
	for range 50 {
		if r = t.request(ctx, c, envoy); r.Status != 0 && r.Status != http.StatusServiceUnavailable {
			return r
		}
		if wait(ctx, 100*time.Millisecond); ctx.Err() != nil {
			return r
		}
	}
	return r
}

func (t *trial) final(f Final) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history.Finals = append(t.history.Finals, f)
}

// readArrivals reads what the upstream wrote: what it refused did not arrive.
func (t *trial) readArrivals() error {
	b, err := t.newLines(t.world.Arrivals)
	if err != nil {
		return err
	}
	risk := risks()
	for line := range bytes.Lines(b) {
		var a struct {
			VerifiedAt time.Time `json:"verified_at"`
			Decision   string    `json:"decision_id"`
			Product    string    `json:"product_id"`
			Service    string    `json:"service"`
			Refused    string    `json:"refused"`
		}
		if err := json.Unmarshal(line, &a); err != nil {
			return fmt.Errorf("arrival %.200q: %w", line, err)
		}
		if a.Refused != "" {
			continue
		}
		if a.VerifiedAt.IsZero() {
			return fmt.Errorf("decision %s arrived and no stamp was verified", a.Decision)
		}
		// The verdict counts: the process may be stopped before it has written it.
		t.history.Arrivals = append(t.history.Arrivals, Arrival{a.Product, risk[a.Service], a.VerifiedAt, a.Decision})
	}
	return nil
}

func (t *trial) count() stats {
	s := stats{
		requests: len(t.history.Requests), arrivals: len(t.history.Arrivals), suspensions: len(t.history.Suspensions),
		faults: t.hurt, failovers: t.newFailovers(),
	}
	for i := range t.history.Requests {
		if t.history.Requests[i].Status == http.StatusOK {
			s.allowed++
		}
	}
	for i := range t.history.Suspensions {
		x := &t.history.Suspensions[i]
		if x.Complete {
			s.complete++
			if slices.ContainsFunc(x.Sidecars, func(c registry.SidecarState) bool { return c.State == registry.Lapsed }) {
				s.lapsed++
			}
		}
		if !x.LiftCalled.IsZero() {
			s.lifts++
		}
	}
	return s
}

// answers counts what clients were told.
func (t *trial) answers() map[string]int {
	all := map[string]int{}
	for _, r := range t.history.Requests {
		all[fmt.Sprintf("%d %s", r.Status, r.Code)]++
	}
	return all
}

// save keeps the logs and the history of a trial; the logs begin with the
// processes, which may have been through earlier trials.
func (t *trial) save(found []Violation) (to string, err error) {
	to = filepath.Join(t.o.keep, fmt.Sprintf("seed-%d", t.seed))
	if err := os.RemoveAll(to); err != nil {
		return to, err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return to, err
	}
	logs, err := t.logs()
	if err != nil {
		return to, err
	}
	for _, l := range logs {
		b, rerr := os.ReadFile(l)
		if rerr == nil {
			rerr = os.WriteFile(filepath.Join(to, filepath.Base(l)), b, 0o644)
		}
		err = errors.Join(err, rerr)
	}
	history, herr := json.MarshalIndent(&t.history, "", " ")
	var text strings.Builder
	for _, v := range found {
		fmt.Fprintf(&text, "%s: %s\n", v.Promise, v.What)
	}
	fmt.Fprintf(&text, "\nseed %d, begun %s\n%s\n%s\nanswers: %v\n", t.seed, t.began.UTC().Format(time.RFC3339Nano), describe(t.faults), t.log.String(), t.answers())
	return to, errors.Join(err, herr,
		os.WriteFile(filepath.Join(to, "history.json"), history, 0o644),
		os.WriteFile(filepath.Join(to, "trial.txt"), []byte(text.String()), 0o644))
}
