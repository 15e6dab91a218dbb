// Package world starts everything dspgate consists of as real processes on one
// machine, for chaos trials and benchmarks: Redis with replicas and Sentinels,
// control planes, sidecars, Envoys, and the sample upstream that verifies
// stamps. Each may be stopped, killed and started again on its own, and the ways
// from control planes and sidecars to Redis may be made slow or cut.
//
// Everything listens on 127.0.0.1 or on Unix sockets in the world's folder, and
// ends when the world is closed or the program that made it dies.
package world

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"
	"golang.org/x/sync/errgroup"

	"github.com/dspgate/dspgate/authz/token/issue"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/envoy/runner"
	"github.com/dspgate/dspgate/envoy/xds"
)

// Options say how large the world is.
type Options struct {
	Dir       string // must exist; short, for the sockets in it
	Dspgate   string // the binary
	Replicas  int    // of Redis; with any, three Sentinels watch
	Controls  int
	EnvoyOf   []int // for each sidecar, which Envoy asks it
	Short     time.Duration
	Long      time.Duration // the serving leases
	ClaimTTL  time.Duration
	WithLinks bool     // control planes and sidecars reach Redis by links
	Env       []string // beside this program's own, of every process of dspgate
}

// Node is a process of dspgate or an Envoy, with where it is reached.
type Node struct {
	*Process
	URL   string  // a control plane's API, an Envoy's ingress
	Debug string  // of metrics and readiness
	Links []*Link // to each Redis, when the world has links
}

// World is the running whole.
type World struct {
	Redis     []*Server // the first began as the primary
	Sentinels []*Server
	Controls  []*Node
	Sidecars  []*Node
	Envoys    []*Node
	Upstream  *Process
	Arrivals  string // file of the upstream's arrivals, a JSON line each

	// Tokens of two operators: who imposes a suspension may not lift it.
	Operator, Operator2 string

	o       Options
	links   *Links
	fronts  []*front
	signer  *issue.Signer
	held    []*place // all there ever were
	ingress []*place // of the Envoys, which take them late
}

const (
	issuerName = "https://issuer.chaos.example"
	audience   = "https://api.agency.example"
)

// New starts a world and waits until every part is ready. Close it also after
// an error.
func New(ctx context.Context, o Options) (w *World, err error) {
	w = &World{o: o}
	if w.links, err = NewLinks(); err != nil {
		return w, err
	}
	if err := w.secrets(); err != nil {
		return w, err
	}
	if err := w.startRedis(ctx); err != nil {
		return w, err
	}
	if err := w.startUpstream(ctx); err != nil {
		return w, err
	}
	if err := w.startControls(ctx); err != nil {
		return w, err
	}
	if err := w.startSidecars(ctx); err != nil {
		return w, err
	}
	return w, w.startEnvoys(ctx)
}

// Close ends every process.
func (w *World) Close() {
	var wg sync.WaitGroup
	for _, p := range w.Processes() {
		wg.Go(p.Kill)
	}
	wg.Wait()
	for _, s := range append(w.Redis, w.Sentinels...) {
		s.Close()
	}
	for _, f := range w.fronts {
		f.close()
	}
	if w.links != nil {
		w.links.Close()
	}
	for _, p := range w.held {
		_ = p.free() // as a rule it is free by now
	}
}

func (w *World) hold() (*place, error) {
	p, err := hold()
	if err == nil {
		w.held = append(w.held, p)
	}
	return p, err
}

// Processes are all processes there are.
func (w *World) Processes() (all []*Process) {
	for _, s := range append(append([]*Server{}, w.Redis...), w.Sentinels...) {
		all = append(all, s.Process)
	}
	for _, n := range append(append(append([]*Node{}, w.Controls...), w.Sidecars...), w.Envoys...) {
		if n.Process != nil { // not started yet
			all = append(all, n.Process)
		}
	}
	if w.Upstream != nil {
		all = append(all, w.Upstream)
	}
	return all
}

func (w *World) path(name string) string { return filepath.Join(w.o.Dir, name) }

func randomHex() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails: it ends the process instead
	return hex.EncodeToString(b)
}

func (w *World) secrets() (err error) {
	if w.signer, err = issue.Generate("chaos", "ES256"); err != nil {
		return err
	}
	jwks, err := issue.JWKS(w.signer)
	if err != nil {
		return err
	}
	var tokens control.TokenFile
	for name, to := range map[string]*string{"operator@agency.example": &w.Operator, "operator2@agency.example": &w.Operator2} {
		*to = randomHex()
		tokens.Tokens = append(tokens.Tokens, control.TokenEntry{Name: name, Permissions: []string{"operator", "registrar"}, SHA256: control.HashToken(*to)})
	}
	file, err := yaml.Marshal(&tokens)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"jwks.json": jwks, "tokens.yaml": file,
		"register.key": []byte(randomHex()), "subject.key": []byte(randomHex()), "admission.keys": []byte(randomHex() + "\n"),
	} {
		if err := os.WriteFile(w.path(name), b, 0o600); err != nil {
			return err
		}
	}
	return os.MkdirAll(w.path("state"), 0o700)
}

// Token makes an access token of a client app, good for an hour.
func (w *World) Token(clientID string, claims map[string]any) (string, error) {
	now := time.Now()
	all := map[string]any{
		"iss": issuerName, "aud": audience, "sub": clientID, "client_id": clientID, "jti": randomHex(),
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	}
	for k, v := range claims {
		all[k] = v
	}
	return w.signer.Sign(nil, all)
}

func (w *World) startRedis(ctx context.Context) error {
	// A primary that has lost its replicas stops taking writes after two seconds;
	// what it took meanwhile is what a failover loses.
	var settings []string
	if w.o.Replicas > 0 {
		settings = []string{"--min-replicas-to-write", "1", "--min-replicas-max-lag", "2", "--repl-timeout", "5", "--repl-ping-replica-period", "1"}
	}
	at, err := hold()
	if err != nil {
		return err
	}
	w.Redis = make([]*Server, 1+w.o.Replicas)
	var g errgroup.Group
	g.Go(func() (err error) {
		w.Redis[0], err = startRedis(ctx, w.o.Dir, "redis-1", at, append(slices.Clone(settings), "--min-replicas-to-write", "0")...)
		return err
	})
	for i := range w.o.Replicas {
		g.Go(func() (err error) {
			w.Redis[i+1], err = StartRedis(ctx, w.o.Dir, fmt.Sprintf("redis-%d", i+2), append(slices.Clone(settings), "--replicaof", "127.0.0.1 "+at.port())...)
			return err
		})
	}
	err = g.Wait()
	w.Redis = slices.DeleteFunc(w.Redis, func(s *Server) bool { return s == nil })
	if err != nil || w.o.Replicas == 0 {
		return err
	}
	primary := w.Redis[0]
	if w.Sentinels, err = startSentinels(ctx, w.o.Dir, primary, w.Redis[1:]); err != nil {
		return err
	}
	if err := primary.Await(ctx, func(ctx context.Context) error {
		if _, err := primary.Do(ctx, "SET", "probe", "1"); err != nil {
			return err
		}
		if n, err := primary.Do(ctx, "WAIT", w.o.Replicas, 200); err != nil || n != int64(w.o.Replicas) {
			return fmt.Errorf("%v replicas in step (%w)", n, err)
		}
		return nil
	}); err != nil {
		return err
	}
	if _, err := primary.Do(ctx, "CONFIG", "SET", "min-replicas-to-write", "1"); err != nil {
		return err
	}
	for _, s := range w.Sentinels {
		if err := s.Await(ctx, func(ctx context.Context) error { return w.watching(ctx, s) }); err != nil {
			return err
		}
	}
	return nil
}

// redisConfig is the redis section of one client, with the links it has.
func (w *World) redisConfig(client string) (map[string]any, []*Link, error) {
	cfg := map[string]any{"timeout": "1s"}
	ports := map[string]string{}
	var links []*Link
	addrs := make([]string, len(w.Redis))
	for i, r := range w.Redis {
		addrs[i] = r.Addr
		if !w.o.WithLinks {
			continue
		}
		l, err := w.links.Add(client+" to "+r.Name, r.Addr)
		if err != nil {
			return nil, nil, err
		}
		links, addrs[i] = append(links, l), l.Addr()
		ports[strconv.Itoa(r.Port)] = port(l.Addr())
	}
	if len(w.Sentinels) == 0 {
		cfg["addrs"] = addrs
		return cfg, links, nil
	}
	cfg["master"], cfg["replicas"], cfg["replica_timeout"] = masterName, 1, "500ms"
	var sentinels []string
	var fronts []*front
	for _, s := range w.Sentinels {
		f, err := startFront(s.Addr)
		if err != nil {
			return nil, nil, err
		}
		ports[strconv.Itoa(s.Port)] = port(f.addr())
		fronts, sentinels = append(fronts, f), append(sentinels, f.addr())
	}
	for _, f := range fronts {
		f.serve(ports)
	}
	w.fronts = append(w.fronts, fronts...)
	cfg["addrs"] = sentinels
	return cfg, links, nil
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

func (w *World) startUpstream(ctx context.Context) (err error) {
	at, err := w.hold()
	if err != nil {
		return err
	}
	addr := at.addr
	if err := at.free(); err != nil {
		return err
	}
	w.Arrivals = w.path("arrivals.jsonl")
	if w.Upstream, err = w.start("upstream", "upstream", "--listen", addr, "--arrivals", w.Arrivals, "--admission-keys", w.path("admission.keys")); err != nil {
		return err
	}
	return w.Upstream.Await(ctx, func(ctx context.Context) error {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// startNode writes a configuration and starts `dspgate COMMAND` with it. YAML
// holds JSON.
func (w *World) startNode(command, id string, cfg map[string]any) (*Process, error) {
	b, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	path := w.path(id + ".yaml")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return nil, err
	}
	return w.start(id, command, "--config", path)
}

// start starts a process of dspgate.
func (w *World) start(name string, args ...string) (*Process, error) {
	p := newProcess(w.o.Dir, name, w.o.Dspgate, args...)
	p.env = w.o.Env
	return p, p.Restart()
}

func (w *World) startControls(ctx context.Context) error {
	for i := range w.o.Controls {
		id := fmt.Sprintf("control-%d", i+1)
		redis, links, err := w.redisConfig(id)
		if err != nil {
			return err
		}
		api, err := w.hold()
		if err != nil {
			return err
		}
		debug, err := w.hold()
		if err != nil {
			return err
		}
		if err := errors.Join(api.free(), debug.free()); err != nil {
			return err
		}
		p, err := w.startNode("control", id, map[string]any{
			"id": id, "listen": api.addr, "debug": debug.addr, "redis": redis, "register_key_file": w.path("register.key"),
			"tokens_file": w.path("tokens.yaml"), "state_dir": w.path("state"), "claim_ttl": w.o.ClaimTTL.String(),
			"lease_max": w.o.Long.String(), "sample_register": i == 0,
		})
		if err != nil {
			return err
		}
		n := &Node{p, "http://" + api.addr, "http://" + debug.addr, links}
		w.Controls = append(w.Controls, n)
		if i == 0 { // the writer, so that it enters the sample register
			if err := p.Await(ctx, GetOK(n.Debug+"/readyz")); err != nil {
				return err
			}
		}
	}
	for _, n := range w.Controls {
		if err := n.Await(ctx, GetOK(n.Debug+"/healthz")); err != nil {
			return err
		}
	}
	return nil
}

func (w *World) socket(id string) string { return w.path(id + ".sock") }

func sidecarID(i int) string { return fmt.Sprintf("sidecar-%d", i+1) }

// SidecarsOf are the IDs of an Envoy's sidecars.
func (w *World) SidecarsOf(envoy int) (ids []string) {
	for i, e := range w.o.EnvoyOf {
		if e == envoy {
			ids = append(ids, sidecarID(i))
		}
	}
	return ids
}

func (w *World) startSidecars(ctx context.Context) error {
	_, envoys := w.o.envoys()
	for range envoys {
		at, err := w.hold()
		if err != nil {
			return err
		}
		w.ingress = append(w.ingress, at)
		w.Envoys = append(w.Envoys, &Node{URL: "http://" + at.addr})
	}
	for i, e := range w.o.EnvoyOf {
		id := sidecarID(i)
		redis, links, err := w.redisConfig(id)
		if err != nil {
			return err
		}
		debug, err := w.hold()
		if err == nil {
			err = debug.free()
		}
		if err != nil {
			return err
		}
		var authorizers []map[string]any
		for _, s := range w.SidecarsOf(e) {
			authorizers = append(authorizers, map[string]any{"id": s, "authz": "unix:" + w.socket(s+"-authz"), "access_log": "unix:" + w.socket(s)})
		}
		p, err := w.startNode("sidecar", id, map[string]any{
			"id": id, "listen": "unix:" + w.socket(id), "listen_authz": "unix:" + w.socket(id+"-authz"), "debug": debug.addr, "redis": redis,
			"register_key_file": w.path("register.key"), "subject_key_file": w.path("subject.key"), "state_dir": w.path("state"),
			"lease": map[string]any{"short": w.o.Short.String(), "long": w.o.Long.String()},
			"issuers": []map[string]any{{
				"issuer": issuerName, "jwks_file": w.path("jwks.json"), "audiences": []string{audience}, "algorithms": []string{"ES256"},
			}},
			"admission": map[string]any{"key_file": w.path("admission.keys")},
			"envoy": map[string]any{
				"ingress": strings.TrimPrefix(w.Envoys[e].URL, "http://"), "hosts": map[string]string{"127.0.0.1": "PROD"},
				"upstream": map[string]any{"address": w.Upstream.args[2]}, "sidecars": authorizers,
			},
		})
		if err != nil {
			return err
		}
		w.Sidecars = append(w.Sidecars, &Node{p, "", "http://" + debug.addr, links})
	}
	for _, n := range w.Sidecars {
		if err := n.Await(ctx, GetOK(n.Debug+"/readyz")); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) envoys() (sidecars, envoys int) {
	for _, e := range o.EnvoyOf {
		envoys = max(envoys, e+1)
	}
	return len(o.EnvoyOf), envoys
}

func (w *World) startEnvoys(ctx context.Context) error {
	bin, err := runner.Find()
	if err != nil {
		return err
	}
	for i, n := range w.Envoys {
		admin, err := w.hold()
		if err == nil {
			err = errors.Join(admin.free(), w.ingress[i].free())
		}
		if err != nil {
			return err
		}
		var sockets []string
		for _, s := range w.SidecarsOf(i) {
			sockets = append(sockets, "unix:"+w.socket(s))
		}
		name := fmt.Sprintf("envoy-%d", i+1)
		boot, err := xds.Bootstrap(xds.BootstrapConfig{NodeID: name, Admin: admin.addr, Sidecars: sockets})
		if err != nil {
			return err
		}
		if err := os.WriteFile(w.path(name+".json"), boot, 0o600); err != nil {
			return err
		}
		n.Debug = "http://" + admin.addr
		if n.Process, err = Start(w.o.Dir, name, bin, "-c", w.path(name+".json"), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"); err != nil {
			return err
		}
	}
	for _, n := range w.Envoys {
		if err := n.Await(ctx, getStatus(n.URL+"/registry/v1/abns/1", http.StatusUnauthorized)); err != nil {
			return err
		}
	}
	return nil
}

// GetOK asks a URL for 200.
func GetOK(url string) func(context.Context) error { return getStatus(url, http.StatusOK) }

func getStatus(url string, want int) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(io.LimitReader(resp.Body, 512))
		if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != want {
			err = fmt.Errorf("%s answers %d: %s", url, resp.StatusCode, b)
		}
		return err
	}
}
