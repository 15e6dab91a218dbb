package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/registry"
)

// The serving leases and the pace of a trial.
const (
	leaseShort = time.Second
	leaseLong  = 3 * time.Second
	claimTTL   = 1500 * time.Millisecond
	healWithin = 25 * time.Second
)

// trial is one world, one schedule of faults, and what was seen meanwhile.
type trial struct {
	seed  uint64
	dir   string
	world *world.World

	tokens    map[string]string // of each product
	clients   http.Client
	operators http.Client
	began     time.Time

	mu      sync.Mutex // guards what follows
	history History
	log     bytes.Buffer
	stats   stats
}

// stats is what a trial did, for the summary.
type stats struct {
	requests, allowed, arrivals, suspensions, complete, lifts, faults, failovers int
}

func (s *stats) add(o stats) {
	s.requests += o.requests
	s.allowed += o.allowed
	s.arrivals += o.arrivals
	s.suspensions += o.suspensions
	s.complete += o.complete
	s.lifts += o.lifts
	s.faults += o.faults
	s.failovers += o.failovers
}

// settings are those of a whole run.
type settings struct {
	dspgate   string
	length    time.Duration // of the faults
	failovers bool
	keep      string // folder where a failing trial's logs go
	always    bool   // any trial's
}

// runTrial makes a world, lets the faults of a seed happen to it under traffic,
// heals it, and judges what was seen. A failing trial's folder is kept, and named
// in what is returned.
func runTrial(ctx context.Context, seed uint64, o settings) (found []Violation, did stats, kept string, err error) {
	// A short path: sockets stand in it.
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return nil, did, "", err
	}
	defer os.RemoveAll(dir)
	t := &trial{seed: seed, dir: dir, tokens: map[string]string{}, began: time.Now()}
	t.clients.Transport = &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.operators.Transport = &http.Transport{DisableKeepAlives: true}
	defer t.clients.CloseIdleConnections()
	faults := schedule(seed, o.length, o.failovers)

	start, cancel := context.WithTimeout(ctx, time.Minute)
	t.world, err = world.New(start, world.Options{
		Dir: dir, Dspgate: o.dspgate, Replicas: 2, Controls: 2, EnvoyOf: []int{0, 0, 1},
		Short: leaseShort, Long: leaseLong, ClaimTTL: claimTTL, WithLinks: true,
	})
	cancel()
	defer t.world.Close()
	if err == nil {
		err = t.run(ctx, faults, o)
	}
	t.world.Close()
	if err == nil {
		err = t.readArrivals()
	}
	if err == nil {
		found = Judge(&t.history, t.limits())
	}
	if (err != nil || len(found) > 0 || o.always) && ctx.Err() == nil {
		kept = filepath.Join(o.keep, fmt.Sprintf("seed-%d", seed))
		err = errors.Join(err, t.save(kept, faults, found))
	}
	t.count(faults)
	return found, t.stats, kept, err
}

func (t *trial) limits() Limits {
	l := Limits{
		Stamp: admission.DefaultValidity + admission.DefaultSkew,
		// The lease, its margin, and what may pass between the poll and the answer.
		Exposure:   leaseLong*101/100 + time.Second,
		SidecarsOf: map[int][]string{},
	}
	for i := range t.world.Envoys {
		l.SidecarsOf[i] = t.world.SidecarsOf(i)
	}
	return l
}

func (t *trial) say(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(&t.log, "%6d ms %s\n", time.Since(t.began).Milliseconds(), fmt.Sprintf(format, args...))
}

// run is the trial itself.
func (t *trial) run(ctx context.Context, faults []Fault, o settings) error {
	for _, p := range products() {
		claims := map[string]map[string]any{
			"FP-1001": {"abn": "65000000101", "software_id": "0000123400", "client_abn": "56000001313"},
			"FP-1003": {"abn": "31000000202", "software_id": "0000300001", "client_abn": "56000001313"},
		}[p]
		token, err := t.world.Token(strings.ToLower(p)+"-prod", claims)
		if err != nil {
			return err
		}
		t.tokens[p] = token
		if r := t.request(ctx, call{p, "/lodgments/v1/activity-statements/AS-1", 3}, 0); r.Status != 200 {
			return fmt.Errorf("%s is not let through at the start: %d %s", p, r.Status, r.Code)
		}
	}
	t.say("all is up")
	t.began = time.Now()
	sending, stopSending := context.WithCancel(ctx)
	defer stopSending()
	operating, stopOperating := context.WithTimeout(ctx, o.length)
	defer stopOperating()
	var senders, operators, breakers sync.WaitGroup
	for _, c := range traffic() {
		for e := range t.world.Envoys {
			senders.Go(func() { t.requests(sending, c, e, 40*time.Millisecond) })
		}
	}
	for i, p := range products() {
		rng := rand.New(rand.NewPCG(t.seed, uint64(i)))
		operators.Go(func() { t.operate(operating, p, rng) })
	}
	for _, f := range faults {
		breakers.Go(func() { t.fault(ctx, f) })
	}
	breakers.Wait()
	operators.Wait()
	t.say("healing")
	t.heal(ctx)
	t.finals(ctx)
	stopSending()
	senders.Wait()
	return ctx.Err()
}

// fault does one fault, and undoes it.
func (t *trial) fault(ctx context.Context, f Fault) {
	wait := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	wait(f.At)
	t.say("%s %s for %v", f.Kind, f.Target, f.For)
	switch f.Kind {
	case failover:
		n, _ := strconv.Atoi(strings.TrimPrefix(f.Target, "sentinel-"))
		if err := t.world.Failover(ctx, n-1); err != nil {
			t.say("failover: %v", err)
		}
		return
	case pause, kill:
		p := t.process(ctx, f.Target)
		if p == nil {
			t.say("no primary to %s", f.Kind)
			return
		}
		if f.Kind == pause {
			p.Pause()
			wait(f.For)
			p.Resume()
			return
		}
		p.Kill()
		wait(f.For)
		if err := p.Restart(); err != nil {
			t.end("%v", err)
		}
		return
	}
	links := t.links(f.Target)
	for _, l := range links {
		if err := l.Break(f.Kind, f.Delay); err != nil {
			t.say("%v", err)
		}
	}
	wait(f.For)
	for _, l := range links {
		if err := l.Heal(ctx); err != nil {
			t.say("%v", err)
		}
	}
	t.say("%s of %s is over", f.Kind, f.Target)
}

func (t *trial) process(ctx context.Context, name string) *world.Process {
	if name == "primary" {
		if p := t.world.Primary(ctx); p != nil {
			return p.Process
		}
		return nil
	}
	for _, p := range t.world.Processes() {
		if p.Name == name {
			return p
		}
	}
	return nil
}

func (t *trial) links(client string) []*world.Link {
	for _, n := range append(append([]*world.Node{}, t.world.Controls...), t.world.Sidecars...) {
		if n.Name == client {
			return n.Links
		}
	}
	return nil
}

func (t *trial) end(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.history.Ends = append(t.history.Ends, fmt.Sprintf(format, args...))
}

// heal lets everything run again, and waits until it works: a control plane
// writes, and every sidecar has what it has.
func (t *trial) heal(ctx context.Context) {
	for _, p := range t.world.Processes() {
		p.Resume()
		if !p.Running() {
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
	ctx, cancel := context.WithTimeout(ctx, healWithin)
	defer cancel()
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
	t.mu.Lock()
	all := append([]Suspension{}, t.history.Suspensions...)
	t.mu.Unlock()
	for _, s := range all {
		if !s.LiftCalled.IsZero() {
			continue
		}
		var got struct {
			Data struct {
				Active bool `json:"active"`
			} `json:"data"`
		}
		f := Final{Suspension: s.ID + " of " + s.Product, Envoy: -1}
		if err := t.get(ctx, "/v1/suspensions/"+s.ID, &got); err != nil {
			f.What = err.Error()
		} else if f.Denied = got.Data.Active; !f.Denied {
			f.What = "the control plane says that it is not active"
		}
		t.final(f)
		for e := range t.world.Envoys {
			f := Final{Suspension: s.ID + " of " + s.Product, Envoy: e, Denied: true}
			// As often as every sidecar of the Envoy has its turn.
			for range 2 * len(t.world.SidecarsOf(e)) {
				r := t.settledRequest(ctx, call{s.Product, "/registry/v1/abns/65000000101", 1}, e)
				// One that refuses everything is not well, which is told elsewhere, and lost nothing.
				if r.Status != http.StatusServiceUnavailable && (r.Status != http.StatusForbidden || r.Code != "product-suspended") {
					f.Denied, f.What = false, fmt.Sprintf("Envoy %d answers %d %s", e+1, r.Status, r.Code)
				}
			}
			t.final(f)
		}
	}
}

// settledRequest asks again while an Envoy that was hurt gets well.
func (t *trial) settledRequest(ctx context.Context, c call, envoy int) (r Request) {
	for range 50 {
		if r = t.request(ctx, c, envoy); r.Status != 0 && r.Status != http.StatusServiceUnavailable || ctx.Err() != nil {
			return r
		}
		time.Sleep(100 * time.Millisecond)
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
	f, err := os.Open(t.world.Arrivals)
	if err != nil {
		return err
	}
	defer f.Close()
	risk := risks()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var a struct {
			At         time.Time `json:"at"`
			VerifiedAt time.Time `json:"verified_at"`
			Decision   string    `json:"decision_id"`
			Product    string    `json:"product_id"`
			Service    string    `json:"service"`
			Refused    string    `json:"refused"`
		}
		if err := json.Unmarshal(lines.Bytes(), &a); err != nil {
			return fmt.Errorf("arrival %.200q: %w", lines.Bytes(), err)
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

func (t *trial) count(faults []Fault) {
	s := stats{requests: len(t.history.Requests), arrivals: len(t.history.Arrivals), suspensions: len(t.history.Suspensions), faults: len(faults)}
	for _, r := range t.history.Requests {
		if r.Status == 200 {
			s.allowed++
		}
	}
	for _, x := range t.history.Suspensions {
		if x.Complete {
			s.complete++
		}
		if !x.LiftCalled.IsZero() {
			s.lifts++
		}
	}
	for i := range 3 {
		b, err := os.ReadFile(filepath.Join(t.dir, fmt.Sprintf("sentinel-%d.log", i+1)))
		if err == nil {
			s.failovers = max(s.failovers, bytes.Count(b, []byte("+switch-master")))
		}
	}
	t.stats = s
}

// answers counts what clients were told.
func (t *trial) answers() map[string]int {
	all := map[string]int{}
	for _, r := range t.history.Requests {
		all[fmt.Sprintf("%d %s", r.Status, r.Code)]++
	}
	return all
}

// save keeps the logs and the history of a failing trial.
func (t *trial) save(to string, faults []Fault, found []Violation) error {
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	logs, err := filepath.Glob(filepath.Join(t.dir, "*.log"))
	if err != nil {
		return err
	}
	for _, l := range append(logs, t.world.Arrivals) {
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
	fmt.Fprintf(&text, "\nseed %d\n%s\n%s\nanswers: %v\n", t.seed, describe(faults), t.log.String(), t.answers())
	return errors.Join(err, herr,
		os.WriteFile(filepath.Join(to, "history.json"), history, 0o644),
		os.WriteFile(filepath.Join(to, "trial.txt"), []byte(text.String()), 0o644))
}
