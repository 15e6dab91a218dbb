package main

import (
	"bufio"
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
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/authz/token/issue"
	"github.com/dspgate/dspgate/bench/seed"
	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

const (
	issuer    = "https://issuer.bench.example"
	audience  = "https://gateway.bench.example"
	productID = "FP-000001"
	clientID  = "fp-000001-prod"
)

// fleet is the sidecars of one run, or a peer's processes in their place, and
// the Redis they share.
type fleet struct {
	dir, dspgate string
	design       int
	spec         spec
	redis        *world.Server
	sidecars     []*world.Process
	token        string
	counted      int64 // by processes that were killed
}

// startFleet starts the Redis and every process, and waits until all are ready.
func startFleet(ctx context.Context, dir, dspgate string, design int, s spec) (f *fleet, err error) {
	f = &fleet{dir: dir, dspgate: dspgate, design: design, spec: s}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if f.redis, err = world.StartRedis(ctx, dir, "redis"); err != nil {
		return f, err
	}
	if design == ours {
		if err = f.fill(ctx); err != nil {
			return f, err
		}
	}
	b, err := json.Marshal(s)
	if err != nil {
		return f, err
	}
	if err = os.WriteFile(filepath.Join(dir, "spec.json"), b, 0o600); err != nil {
		return f, err
	}
	for i := range s.Sidecars {
		p, err := f.start(i)
		if err != nil {
			return f, err
		}
		f.sidecars = append(f.sidecars, p)
	}
	for i, p := range f.sidecars {
		if err := p.Await(ctx, func(ctx context.Context) error { return f.ready(ctx, i) }); err != nil {
			return f, err
		}
	}
	return f, nil
}

func (f *fleet) close() {
	for _, p := range f.sidecars {
		p.Kill()
	}
	if f.redis != nil {
		f.redis.Close()
	}
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

// socket is where a sidecar answers.
func (f *fleet) socket(i int) string { return f.path(fmt.Sprintf("s%d.sock", i)) }
func (f *fleet) debug(i int) string  { return f.path(fmt.Sprintf("d%d.sock", i)) }

// fill makes keys, a token, and a register with one product and one limit.
func (f *fleet) fill(ctx context.Context) error {
	var key [2][]byte
	for i, name := range []string{"register.key", "subject.key"} {
		b := make([]byte, 32)
		rand.Read(b) // never fails: it ends the process instead
		if err := os.WriteFile(f.path(name), []byte(hex.EncodeToString(b)), 0o600); err != nil {
			return err
		}
		var err error
		if key[i], err = config.ReadSecret(f.path(name)); err != nil {
			return err
		}
	}
	seal, err := registry.NewSealer(key[0])
	if err != nil {
		return err
	}
	store, err := redisstore.Open(ctx, redisstore.Config{Addrs: []string{f.redis.Addr}}, nil)
	if err != nil {
		return err
	}
	defer store.Close()
	records, err := f.records()
	if err != nil {
		return err
	}
	if _, err := seed.Fill(ctx, store, seal, records); err != nil {
		return err
	}
	signer, err := issue.Generate("bench", "ES256")
	if err != nil {
		return err
	}
	jwks, err := issue.JWKS(signer)
	if err != nil {
		return err
	}
	if err := os.WriteFile(f.path("jwks.json"), jwks, 0o600); err != nil {
		return err
	}
	now := time.Now()
	f.token, err = signer.Sign(nil, map[string]any{
		"iss": issuer, "aud": audience, "sub": clientID, "client_id": clientID, "jti": "bench",
		"iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "abn": seed.ABN(1).String(),
	})
	return err
}

func (f *fleet) records() (all []registry.Record, err error) {
	put := func(kind registry.Kind, id string, v any) {
		data, merr := json.Marshal(v)
		err = errors.Join(err, merr)
		all = append(all, registry.Record{Kind: kind, ID: id, Data: data})
	}
	now := time.Now()
	from, until := registry.At(now.AddDate(-1, 0, 0)), registry.At(now.AddDate(1, 0, 0))
	product := registry.SubjectRef{Kind: registry.KindProduct, ID: productID}
	limit := registry.Limit{
		ID: registry.LimitID(product, "rate"), Subject: product, Name: "rate", Kind: registry.LimitRate,
		Amount: int64(f.spec.Rate), Burst: f.spec.Burst,
	}
	put(registry.KindService, "abr.lookup", registry.Service{Key: "abr.lookup", Method: "GET", Template: "/registry/v1/abns/{abn}", Risk: 1})
	put(registry.KindEntity, seed.ABN(1).String(), registry.Entity{
		ABN: seed.ABN(1), Name: "Entity", Roles: []registry.Role{registry.RoleDeveloper}, State: registry.EntityRegistered, Contact: "dev@entity.example", Updated: from,
	})
	put(registry.KindProduct, productID, registry.Product{
		ID: productID, Name: "Product", Owner: seed.ABN(1), Scenario: 1, Category: "A", Updated: from,
		Certification: registry.Certification{State: registry.CertWhitelisted, ValidFrom: from, ValidUntil: until},
		Versions:      []registry.Version{{Version: "1.0", Released: from}},
		Entitlements:  []registry.Entitlement{{Service: "abr.lookup", Environment: registry.PROD, Stage: registry.StagePROD, From: from}},
	})
	put(registry.KindClientApp, clientID, registry.ClientApp{ClientID: clientID, ProductID: productID, Environment: registry.PROD, Updated: from})
	put(registry.KindLimit, limit.ID, limit)
	return all, err
}

// start starts one process.
func (f *fleet) start(i int) (*world.Process, error) {
	name := fmt.Sprintf("sidecar-%d", i)
	if f.design != ours {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		return world.Start(f.dir, name, self, "peer", strconv.Itoa(f.design), f.socket(i), f.redis.Addr, f.path("spec.json"))
	}
	state := f.path(name + "-state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	b, err := json.Marshal(map[string]any{ // JSON is YAML
		"id": name, "listen": "unix:" + f.socket(i), "debug": "unix:" + f.debug(i), "state_dir": state,
		"register_key_file": f.path("register.key"), "subject_key_file": f.path("subject.key"),
		"redis":   map[string]any{"addrs": []string{f.redis.Addr}, "timeout": "1s"},
		"issuers": []any{map[string]any{"issuer": issuer, "jwks_file": f.path("jwks.json"), "audiences": []string{audience}, "algorithms": []string{"ES256"}}},
		"envoy": map[string]any{
			"ingress": "127.0.0.1:0", "hosts": map[string]string{"127.0.0.1": "PROD"}, "upstream": map[string]any{"address": "127.0.0.1:9"},
			"sidecars": []any{map[string]any{"authz": "unix:" + f.socket(i), "access_log": "unix:" + f.socket(i)}},
		},
	})
	if err != nil {
		return nil, err
	}
	file := f.path(name + ".yaml")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		return nil, err
	}
	return world.Start(f.dir, name, f.dspgate, "sidecar", "--config", file)
}

func (f *fleet) ready(ctx context.Context, i int) error {
	if f.design == ours {
		_, err := get(ctx, f.debug(i), "/readyz")
		return err
	}
	c, err := new(net.Dialer).DialContext(ctx, "unix", f.socket(i))
	if err == nil {
		err = c.Close()
	}
	return err
}

// kill kills a process and starts it again; up is called when it is ready.
func (f *fleet) kill(ctx context.Context, i int, up func()) error {
	if f.design == ours {
		n, err := f.poolCalls(ctx, i)
		if err != nil {
			return err
		}
		f.counted += n
	}
	if err := f.sidecars[i].Restart(); err != nil { // kills it first
		return err
	}
	if err := f.sidecars[i].Await(ctx, func(ctx context.Context) error { return f.ready(ctx, i) }); err != nil {
		return err
	}
	up()
	return nil
}

// calls is how many calls were made to Redis for the limit: of a sidecar by its
// own count, of a peer, which does nothing else there, by Redis's.
func (f *fleet) calls(ctx context.Context) (n int64, err error) {
	if f.design != ours {
		return redisCalls(ctx, f.redis)
	}
	n = f.counted
	for i := range f.sidecars {
		one, err := f.poolCalls(ctx, i)
		if err != nil {
			return 0, err
		}
		n += one
	}
	return n, nil
}

func (f *fleet) poolCalls(ctx context.Context, i int) (int64, error) {
	page, err := get(ctx, f.debug(i), "/metrics")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(page) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasSuffix(name, "limits_pool_calls_total") && !strings.HasPrefix(line, "#") {
			x, err := strconv.ParseFloat(v, 64)
			return int64(x), err
		}
	}
	return 0, errors.New("limits_pool_calls_total is not in the metrics")
}

// redisCalls counts what clients sent, by Redis's own count of commands.
func redisCalls(ctx context.Context, r *world.Server) (n int64, err error) {
	info, err := r.Client().Info(ctx, "commandstats").Result()
	if err != nil {
		return 0, err
	}
	for s := bufio.NewScanner(strings.NewReader(info)); s.Scan(); {
		name, rest, _ := strings.Cut(s.Text(), ":")
		if name != "cmdstat_evalsha" && name != "cmdstat_eval" && name != "cmdstat_incrby" {
			continue
		}
		calls, _, _ := strings.Cut(strings.TrimPrefix(rest, "calls="), ",")
		one, err := strconv.ParseInt(calls, 10, 64)
		if err != nil {
			return 0, err
		}
		n += one
	}
	return n, nil
}

// get fetches a page over a Unix socket; one that is not 200 is an error.
func get(ctx context.Context, socket, path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://debug"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(b), err
}
