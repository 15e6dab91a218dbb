package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"crypto/rand"

	"github.com/goccy/go-yaml"

	"github.com/dspgate/dspgate/chaos/world"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/internal/freeport"
	"github.com/dspgate/dspgate/internal/sandboxop"
)

// Who calls. The developer's entity is the first of the file.
const (
	registrarName = "registrar@agency.example"
	developerName = "dev@entity-1.example"
)

// site is a Redis with control planes over it, and an OpenID provider.
type site struct {
	dir      string
	dspgate  string
	redis    *redisServer
	planes   []*plane
	provider *http.Server
	issuer   string
	tokens   map[string]string // by name
	password string
	secret   string
}

// plane is one control plane.
type plane struct {
	*world.Process
	id, url, debug string
}

func newSite(ctx context.Context, dir string, o options) (s *site, err error) {
	s = &site{dir: dir, dspgate: o.dspgate, tokens: map[string]string{}, password: randomHex(), secret: randomHex()}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return s, err
	}
	if err := s.secrets(); err != nil {
		return s, err
	}
	if s.redis, err = world.StartRedis(ctx, dir, "redis"); err != nil {
		return s, err
	}
	if err := s.startProvider(); err != nil {
		return s, err
	}
	_, err = s.startPlane(ctx, "control-1")
	return s, err
}

func (s *site) close() {
	for _, p := range s.planes {
		p.Kill()
	}
	if s.provider != nil {
		_ = s.provider.Close() // nothing is lost with it
	}
	if s.redis != nil {
		s.redis.Close()
	}
}

func (s *site) path(name string) string { return filepath.Join(s.dir, name) }

func randomHex() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (s *site) secrets() error {
	var tokens control.TokenFile
	for _, e := range []control.TokenEntry{
		{Name: registrarName, Permissions: []string{"registrar", "assessor"}},
		{Name: developerName, Permissions: []string{"developer"}, Entity: abn(1).String()},
	} {
		s.tokens[e.Name] = randomHex()
		e.SHA256 = control.HashToken(s.tokens[e.Name])
		tokens.Tokens = append(tokens.Tokens, e)
	}
	file, err := yaml.Marshal(&tokens)
	if err != nil {
		return err
	}
	for name, b := range map[string][]byte{
		"tokens.yaml": file, "register.key": []byte(randomHex()), "console.secret": []byte(s.secret),
		"token": []byte(s.tokens[registrarName]),
	} {
		if err := os.WriteFile(s.path(name), b, 0o600); err != nil {
			return err
		}
	}
	return s.command("audit", "key", "bench.example", s.path("audit.key")).Run()
}

// command is dspgate as somebody at a shell starts it.
func (s *site) command(args ...string) *exec.Cmd {
	cmd := exec.Command(s.dspgate, args...)
	cmd.Env = append(os.Environ(), "DSPGATE_TOKEN="+s.tokens[registrarName])
	if len(s.planes) > 0 {
		cmd.Env = append(cmd.Env, "DSPGATE_URL="+s.planes[0].url)
	}
	return cmd
}

// startPlane starts a control plane and waits until it answers; the first is the
// writer. The provider knows the redirect address of the first only, which a
// second therefore takes for its own.
func (s *site) startPlane(ctx context.Context, id string) (*plane, error) {
	api, err1 := freeport.Pick()
	debug, err2 := freeport.Pick()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	p := &plane{id: id, url: "http://" + api, debug: "http://" + debug}
	cfg := map[string]any{
		"id": id, "listen": api, "debug": debug, "redis": map[string]any{"addrs": []string{s.redis.Addr}},
		"register_key_file": s.path("register.key"), "tokens_file": s.path("tokens.yaml"), "state_dir": s.path("state"),
		"audit": map[string]any{"key_file": s.path("audit.key")}, "evidence_dir": s.path("evidence"), "sample_register": len(s.planes) == 0,
		"claim_ttl": "2s",
		"sign_in":   map[string]any{"issuer": s.issuer, "client_secret_file": s.path("console.secret"), "public_url": p.url},
	}
	b, err := json.Marshal(cfg) // YAML holds JSON
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.path(id+".yaml"), b, 0o600); err != nil {
		return nil, err
	}
	if err := s.serveProvider(p.url); err != nil {
		return nil, err
	}
	if p.Process, err = world.Start(s.dir, id, s.dspgate, "control", "--config", s.path(id+".yaml")); err != nil {
		return nil, err
	}
	s.planes = append(s.planes, p)
	return p, s.awaitReady(ctx, p, len(s.planes) == 1)
}

// awaitReady waits until a plane takes commands, or, of one that only reads,
// until it shows the register with its casework.
func (s *site) awaitReady(ctx context.Context, p *plane, writes bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if writes {
		return p.Await(ctx, world.GetOK(p.debug+"/readyz"))
	}
	c := s.program(registrarName)
	return p.Await(ctx, func(ctx context.Context) error {
		for _, path := range []string{"/v1/products?limit=1", "/v1/certifications?limit=1"} {
			if _, err := c.get(ctx, p.url+path); err != nil {
				return err
			}
		}
		return nil
	})
}

// startProvider reserves the provider's address.
func (s *site) startProvider() error {
	addr, err := freeport.Pick()
	s.issuer = "http://" + addr
	return err
}

// serveProvider starts the provider for the console at an address, in the place
// of the one before.
func (s *site) serveProvider(console string) error {
	if s.provider != nil {
		_ = s.provider.Close()
	}
	h, err := sandboxop.New(sandboxop.Config{
		Issuer: s.issuer, ClientID: "dspgate-console", ClientSecret: s.secret, RedirectURI: console + signin.PathCallback, Password: s.password,
		People: []sandboxop.Person{{Email: registrarName, Name: "Rhea", Roles: []string{"registrar", "assessor"}}, {Email: developerName, Name: "Dev"}},
	})
	if err != nil {
		return err
	}
	s.provider = &http.Server{Addr: strings.TrimPrefix(s.issuer, "http://"), Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func(srv *http.Server) { _ = srv.ListenAndServe() }(s.provider) // until it is closed
	return nil
}

// reader reads pages over one kept connection, with a token or a session.
type reader struct {
	token string
	http  *http.Client
}

func newReader(token string) *reader {
	return &reader{token, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true}, Timeout: time.Minute}}
}

// program is somebody who calls with a token; "" calls without.
func (s *site) program(name string) *reader { return newReader(s.tokens[name]) }

// person signs in at a plane's console.
func (s *site) person(ctx context.Context, p *plane, email string) (*reader, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	r := newReader("")
	r.http.Jar = jar
	if err := p.Await(ctx, world.GetOK(s.issuer+"/.well-known/openid-configuration")); err != nil {
		return nil, err
	}
	resp, err := r.http.Get(p.url + signin.PathStart)
	if err != nil {
		return nil, err
	}
	resp.Body.Close()
	id := resp.Request.URL.Query().Get("id")
	resp, err = r.http.PostForm(s.issuer+"/login", url.Values{"id": {id}, "email": {email}, "password": {s.password}})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || "http://"+resp.Request.URL.Host != p.url {
		return nil, fmt.Errorf("sign in as %s: %d at %s", email, resp.StatusCode, resp.Request.URL)
	}
	return r, nil
}

// get reads a page whole.
func (r *reader) get(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %d: %.300s", address, resp.StatusCode, b)
	}
	return b, err
}
