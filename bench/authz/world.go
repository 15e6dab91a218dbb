package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/issue"
	"github.com/dspgate/dspgate/authz/token/jwksfetch"
	"github.com/dspgate/dspgate/bench/report"
	"github.com/dspgate/dspgate/bench/seed"
	"github.com/dspgate/dspgate/envoy/runner"
	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

const (
	issuer   = "https://issuer.bench.example"
	audience = "https://gateway.bench.example"
)

// world is what both sides share: the register, the tokens, the upstream.
type world struct {
	dir    string
	redis  string // socket
	view   *registry.View
	filled time.Duration
	tokens []string
	// requests is one ready-made request per connection, refused one that floods
	// for as many.
	requests, refused [][]byte

	up       *engine
	subjects *authz.SubjectHasher
	a, b     place

	admission bool
}

// place is where one side's sockets are. The two paths have one length.
type place struct{ dir, authz, socket, ads, debug string }

func newPlace(dir, name string) (place, error) {
	p := place{dir: filepath.Join(dir, name)}
	p.authz, p.socket = filepath.Join(p.dir, "authz.sock"), filepath.Join(p.dir, "grpc.sock")
	p.ads, p.debug = filepath.Join(p.dir, "ads.sock"), filepath.Join(p.dir, "debug.sock")
	return p, os.Mkdir(p.dir, 0o700)
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// newWorld makes keys and tokens, fills the register and starts the upstream.
func newWorld(ctx context.Context, dir, redisSocket string, o options) (*world, error) {
	w := &world{dir: dir, redis: redisSocket, admission: o.admission}
	var err error
	if w.a, err = newPlace(dir, "a"); err != nil {
		return nil, err
	}
	if w.b, err = newPlace(dir, "b"); err != nil {
		return nil, err
	}
	for _, name := range []string{"register.key", "subject.key", "admission.key"} {
		key := make([]byte, 32)
		rand.Read(key)
		if err := os.WriteFile(w.path(name), []byte(hex.EncodeToString(key)), 0o600); err != nil {
			return nil, err
		}
	}
	key, err := config.ReadSecret(w.path("register.key"))
	if err != nil {
		return nil, err
	}
	seal, err := registry.NewSealer(key)
	if err != nil {
		return nil, err
	}
	if key, err = config.ReadSecret(w.path("subject.key")); err != nil {
		return nil, err
	}
	if w.subjects, err = authz.NewSubjectHasher(key); err != nil {
		return nil, err
	}
	store, err := redisstore.Open(ctx, redisstore.Config{Addrs: []string{redisSocket}}, nil)
	if err != nil {
		return nil, err
	}
	defer store.Close()
	all, callers, err := records(o.products, o.connections+1, o.quotas)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if w.view, err = seed.Fill(ctx, store, seal, all); err != nil {
		return nil, err
	}
	w.filled = time.Since(begin)
	if err := w.mint(callers); err != nil {
		return nil, err
	}
	w.up, err = newEngine()
	return w, err
}

// mint makes a token, and with it a request, for each caller.
func (w *world) mint(callers []caller) error {
	signer, err := issue.Generate("bench", "ES256")
	if err != nil {
		return err
	}
	jwks, err := issue.JWKS(signer)
	if err != nil {
		return err
	}
	if err := os.WriteFile(w.path("jwks.json"), jwks, 0o600); err != nil {
		return err
	}
	now := time.Now()
	for i, c := range callers {
		t, err := signer.Sign(nil, map[string]any{
			"iss": issuer, "aud": audience, "sub": c.clientID, "client_id": c.clientID, "jti": fmt.Sprintf("bench-%d", i),
			"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
			"abn": c.owner.String(), "software_id": c.ssid, "client_abn": c.client.String(),
		})
		if err != nil {
			return err
		}
		w.tokens = append(w.tokens, t)
		w.requests = append(w.requests, fmt.Appendf(nil, "GET /registry/v1/abns/%s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"+
			"X-Product-Id: %s\r\nX-Product-Version: 5.0\r\nX-Software-Id: %s\r\nUser-Agent: payroll/5.0 (bench)\r\nAccept: application/json\r\n"+
			"Accept-Encoding: gzip\r\nAccept-Language: en-AU\r\nX-Correlation-Id: 7e0fd1c2-9a34-4a2b-8f6e-0d1c2b3a4f5e\r\n\r\n",
			c.client, t, c.productID, c.ssid))
	}
	last := len(callers) - 1
	w.refused = slices.Repeat(w.requests[last:], last)
	w.tokens, w.requests = w.tokens[:last], w.requests[:last]
	return nil
}

// envoyConfig is the configuration of a side's Envoy. Only the path of the
// authorizer's socket differs.
func (w *world) envoyConfig(p place) xds.Config {
	return xds.Config{
		Ingress:  "127.0.0.1:0",
		Hosts:    map[string]registry.Environment{"127.0.0.1": registry.PROD},
		Upstream: xds.Upstream{Address: w.up.addr},
		Sidecars: []xds.Sidecar{{Authz: "unix:" + p.authz, AccessLog: "unix:" + p.socket}},
		// With every processor busy the default of 100 ms would now and then refuse.
		AuthzTimeout: time.Second,
		Admission:    w.admission,
	}
}

// startSidecar starts the real thing several times, and leaves the last one
// running.
func (w *world) startSidecar(ctx context.Context, rep *report.Report, o options) (*process, error) {
	bin, err := filepath.Abs(o.dspgate)
	if err != nil {
		return nil, err
	}
	file := w.path("sidecar.yaml") // JSON is YAML
	env := w.envoyConfig(w.a)
	conf := map[string]any{
		"id": "bench-1", "listen": "unix:" + w.a.socket, "debug": "unix:" + w.a.debug, "state_dir": w.a.dir, "processors": o.processors,
		"register_key_file": w.path("register.key"), "subject_key_file": w.path("subject.key"),
		"redis": map[string]any{"addrs": []string{w.redis}},
		// Far above what is measured: it is looked at, and refuses nothing.
		"limits":  map[string]any{"address_rate": 500_000, "address_burst": 1_000_000},
		"issuers": []any{map[string]any{"issuer": issuer, "jwks_file": w.path("jwks.json"), "audiences": []string{audience}, "algorithms": []string{"ES256"}}},
		"envoy": map[string]any{
			"ingress": env.Ingress, "hosts": map[string]string{"127.0.0.1": "PROD"}, "upstream": map[string]any{"address": env.Upstream.Address},
			"sidecars": []any{map[string]any{"authz": env.Sidecars[0].Authz, "access_log": env.Sidecars[0].AccessLog}}, "authz_timeout": env.AuthzTimeout.String(),
		},
	}
	if o.admission {
		conf["admission"] = map[string]any{"key_file": w.path("admission.key"), "validity": time.Second.String()}
	}
	if o.frames {
		conf["listen_authz"] = "unix:" + w.a.authz
	} else if err := os.Symlink(w.a.socket, w.a.authz); err != nil { // so that Envoy is told the same
		return nil, err
	}
	cfg, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, cfg, 0o600); err != nil {
		return nil, err
	}
	var took, mem []float64
	for i := 0; ; i++ {
		begin := time.Now()
		p, err := start(w.dir, "sidecar", bin, "sidecar", "--config", file)
		if err != nil {
			return nil, err
		}
		if err := p.await(ctx, "the sidecar", func() bool {
			status, _, err := get(ctx, w.a.debug, "/readyz")
			return err == nil && status == 200
		}); err != nil {
			p.stop()
			return nil, err
		}
		took = append(took, time.Since(begin).Seconds())
		now, _, err := rss(p.pid())
		if err != nil {
			p.stop()
			return nil, err
		}
		mem = append(mem, now)
		if i == o.starts-1 {
			// From the start of the process until it says it is ready: loading,
			// verifying every record, and everything else.
			rep.Figures["load_seconds"], rep.Figures["rss_loaded_mb"] = median(took), median(mem)
			return p, nil
		}
		p.stop()
	}
}

// startNoop starts the yardstick, and a discovery server here, because it has none.
func (w *world) startNoop(ctx context.Context, o options) (*process, *grpc.Server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	p, err := start(w.dir, "noop", self, "noop", w.b.authz, w.b.socket, strconv.FormatBool(o.admission))
	if err != nil {
		return nil, nil, err
	}
	fail := func(err error) (*process, *grpc.Server, error) {
		p.stop()
		return nil, nil, err
	}
	if err := p.await(ctx, "the no-op", func() bool { _, err := os.Stat(w.b.socket); return err == nil }); err != nil {
		return fail(err)
	}
	ads, err := xds.NewServer(ctx, w.envoyConfig(w.b), slog.New(slog.DiscardHandler), nil)
	if err != nil {
		return fail(err)
	}
	if err := ads.Update(ctx, w.view); err != nil {
		return fail(err)
	}
	ln, err := net.Listen("unix", w.b.ads)
	if err != nil {
		return fail(err)
	}
	s := grpc.NewServer()
	ads.Register(s)
	go func() { _ = s.Serve(ln) }() // until Stop
	return p, s, nil
}

func (w *world) envoy(ctx context.Context, name, ads string, o options) (*runner.Process, error) {
	dir := w.path("envoy-" + name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	p, err := runner.Start(ctx, runner.Options{Dir: dir, Bootstrap: xds.BootstrapConfig{Sidecars: []string{ads}}, Concurrency: o.workers})
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	if err := p.Ready(within); err != nil {
		p.Kill()
		return nil, fmt.Errorf("%w: %s", err, p.LogTail(1000))
	}
	return p, nil
}

var errDiffer = errors.New("the two Envoys are not configured alike")

// sameConfiguration compares what the two Envoys run, less what tells them
// apart: the folder of the sockets, versions and times of loading.
func sameConfiguration(ctx context.Context, w *world, a, b *runner.Process) error {
	dump := func(p *runner.Process, where place) (any, error) {
		page, err := p.Get(ctx, "/config_dump")
		if err != nil {
			return nil, err
		}
		var v map[string]any
		if err := json.Unmarshal([]byte(strings.ReplaceAll(page, where.dir, "SIDE")), &v); err != nil {
			return nil, err
		}
		configs, _ := v["configs"].([]any)
		configs = slices.DeleteFunc(configs, func(c any) bool {
			m, _ := c.(map[string]any)
			t, _ := m["@type"].(string)
			return strings.HasSuffix(t, ".BootstrapConfigDump") || strings.HasSuffix(t, ".EcdsConfigDump")
		})
		if len(configs) < 3 {
			return nil, errors.New("config_dump holds too little")
		}
		return normal(configs), nil
	}
	x, err := dump(a, w.a)
	if err != nil {
		return err
	}
	y, err := dump(b, w.b)
	if err != nil {
		return err
	}
	if !reflect.DeepEqual(x, y) {
		bx, _ := json.Marshal(x)
		by, _ := json.Marshal(y)
		at := 0
		for at < min(len(bx), len(by)) && bx[at] == by[at] {
			at++
		}
		around := func(s []byte) string { return string(s[max(0, at-200):min(len(s), at+200)]) }
		return fmt.Errorf("%w:\n%s\n%s", errDiffer, around(bx), around(by))
	}
	return nil
}

func normal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range []string{"last_updated", "version_info"} {
			delete(v, k)
		}
		// The bootstrap's own cluster, whose socket is another's business here.
		if c, ok := v["static_clusters"]; ok && c != nil {
			delete(v, "static_clusters")
		}
		for k := range v {
			v[k] = normal(v[k])
		}
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
		// Envoy keeps these in hash maps.
		slices.SortFunc(v, func(x, y any) int {
			bx, _ := json.Marshal(x)
			by, _ := json.Marshal(y)
			return cmp.Compare(string(bx), string(by))
		})
	}
	return v
}

// always serves one View for ever.
type always struct{ served *registry.Served }

func (a always) Served() *registry.Served { return a.served }

// decideInProcess counts the allocations of Decide on the allow path, over all
// callers, and its time.
func decideInProcess(w *world) (allocs, ns float64, err error) {
	doc, err := os.ReadFile(w.path("jwks.json"))
	if err != nil {
		return 0, 0, err
	}
	keys, skipped, err := jwksfetch.Parse(doc, []string{"ES256"})
	if err = errors.Join(append(skipped, err)...); err != nil {
		return 0, 0, err
	}
	verifier, err := token.New(token.Config{Issuers: []token.Issuer{{
		Issuer: issuer, Audiences: []string{audience}, Algorithms: []string{"ES256"}, Keys: keys,
	}}})
	if err != nil {
		return 0, 0, err
	}
	far := registry.BootTime() + time.Hour
	d := &authz.Decider{
		Register: always{&registry.Served{View: w.view, ShortUntil: far, LongUntil: far}}, Tokens: verifier,
		Certificates: token.NewThumbprints(16), IDs: authz.NewIDs(), Subjects: w.subjects,
		Hosts: map[string]registry.Environment{"127.0.0.1": registry.PROD}, Now: time.Now, Elapsed: registry.NewBootClock(),
		Limits: authz.NewLimits(ratelimit.Solo()), Addresses: authz.NewAddresses(1e6, 1_000_000, 65536),
	}
	holds := authz.NewHolds()
	reqs := make([]authz.Request, len(w.tokens))
	for i, t := range w.tokens {
		reqs[i] = authz.Request{
			Method: "GET", Target: "/registry/v1/abns/65000000101", Host: "127.0.0.1", Scheme: "http", Peer: "127.0.0.1",
			Authorization: "Bearer " + t, Authorizations: 1, ClaimProductVersion: "5.0",
		}
	}
	var dec authz.Decision
	for i := range reqs { // fills the token cache
		if d.Decide(&reqs[i], &dec); !dec.Allowed() {
			return 0, 0, fmt.Errorf("caller %d is denied: %s", i, dec.Reason)
		}
		if dec.Plan == nil || len(dec.Plan.Items) < len(benchLimits(false)) {
			return 0, 0, fmt.Errorf("caller %d has not every limit to pay", i)
		}
		dec.Spent.Hold().Release()
	}
	i := 0
	one := func() {
		d.Decide(&reqs[i%len(reqs)], &dec)
		holds.Keep(&dec)
		holds.Ended(dec.ID)
		i++
	}
	allocs = testing.AllocsPerRun(10_000, one)
	const n = 200_000
	begin := time.Now()
	for range n {
		one()
	}
	return allocs, float64(time.Since(begin).Nanoseconds()) / n, nil
}
