package main

import (
	"cmp"
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
	"syscall"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/internal/freeport"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/sample"
)

// demoOptions are the flags of `dspgate demo`.
type demoOptions struct {
	dir, ingress, ingressTLS, control, redis, envoyAdmin string
	upstream                                             string // picked at start
	sidecars, envoyConcurrency                           int
	fresh, quiet                                         bool
	sampleLimits                                         bool
	day                                                  time.Duration
}

// demoInfo is DIR/demo.json: what runs where. The names are a contract.
type demoInfo struct {
	Ingress         string   `json:"ingress"`
	IngressTLS      string   `json:"ingress_tls"`
	CA              string   `json:"ca"`
	ClientCerts     string   `json:"client_certs"`
	Upstream        string   `json:"upstream"` // the sample upstream, which refuses what does not come through Envoy
	Control         string   `json:"control"`
	Redis           string   `json:"redis"`
	EnvoyAdmin      string   `json:"envoy_admin"`
	Issuer          string   `json:"issuer"`
	IssuerKeys      string   `json:"issuer_keys"`
	Audience        string   `json:"audience"`
	OperatorToken   string   `json:"operator_token"`
	Operator2Token  string   `json:"operator2_token"`
	AssessorToken   string   `json:"assessor_token"`
	AuditorToken    string   `json:"auditor_token"`
	DeveloperToken  string   `json:"developer_token"`
	SignIn          string   `json:"sign_in"`          // the identity provider of the console
	ConsolePassword string   `json:"console_password"` // of everybody there
	AuditKey        string   `json:"audit_key"`        // the audit log's public key
	Arrivals        string   `json:"arrivals"`         // the sample upstream's log of arrivals
	SidecarDebug    []string `json:"sidecar_debug"`    // /metrics, /healthz, /readyz of each sidecar
	ControlDebug    string   `json:"control_debug"`
	PIDs            struct {
		Demo     int   `json:"demo"`
		Envoy    int   `json:"envoy"`
		Redis    int   `json:"redis"`
		Control  int   `json:"control"`
		Sidecars []int `json:"sidecars"`
		Upstream int   `json:"upstream"`
	} `json:"pids"`
}

// The demo's hosts, by environment; any other host is 404.
var demoHosts = map[string]registry.Environment{
	"localhost": registry.PROD, "127.0.0.1": registry.PROD, "evte.localhost": registry.EVTE,
}

// demoNewcomer is a business that nobody has registered yet; its developer has a
// token already, to try a registration with.
const demoNewcomer = "22000001414"

const demoAudience = "https://api.dspgate.example"

func newDemoCmd(_ *globals) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything on this machine: Redis, control plane, sidecar, Envoy, a sample upstream",
		Long: "Runs real Redis, the control plane, sidecars, real Envoy and a sample upstream with a sample\n" +
			"register of fictional entities, each as a process of its own, until Ctrl-C.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			return runDemo(ctx, o, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.dir, "dir", ".run", "folder for data, keys, logs and demo.json")
	f.StringVar(&o.ingress, "ingress", ":10000", "address of Envoy for plain HTTP (port 0: any free one)")
	f.StringVar(&o.ingressTLS, "ingress-tls", "", "address of Envoy for TLS 1.3 (default :10443, or any free port when --ingress has port 0)")
	f.StringVar(&o.control, "control", ":8080", "address of the control plane")
	f.StringVar(&o.redis, "redis", ":6380", "address of Redis")
	f.StringVar(&o.envoyAdmin, "envoy-admin", ":9901", "address of Envoy's admin interface")
	f.IntVar(&o.sidecars, "sidecars", 1, "how many sidecars share Envoy's calls (1 to 16)")
	f.IntVar(&o.envoyConcurrency, "envoy-concurrency", 2, "Envoy's worker threads")
	f.DurationVar(&o.day, "day", 24*time.Hour, "how long a day of the service standards lasts, to see notices and reviews run out")
	f.BoolVar(&o.fresh, "fresh", false, "forget the data of an earlier start in this folder")
	f.BoolVar(&o.sampleLimits, "sample-limits", true, "enter the sample services' limits with the sample register")
	f.BoolVar(&o.quiet, "quiet", false, "print nothing but errors")
	return cmd
}

// demo is one running demonstration.
type demo struct {
	o     demoOptions
	dir   string // absolute
	socks string // where the Unix sockets are: their paths must be short
	out   io.Writer
	info  demoInfo
	kids  *family

	envoyPath, redisPath, self string
	registerKey, subjectKey    string
	admissionKeys              string
}

func runDemo(ctx context.Context, o demoOptions, out io.Writer) (err error) {
	if o.sidecars < 1 || o.sidecars > 16 {
		return usageError("--sidecars is a number from 1 to 16")
	}
	if o.envoyConcurrency < 1 || o.envoyConcurrency > 64 {
		return usageError("--envoy-concurrency is a number from 1 to 64")
	}
	if o.quiet {
		out = io.Discard
	}
	d := &demo{o: o, out: out}
	release, err := d.prepare()
	if err != nil {
		return err
	}
	defer release()

	d.kids = newFamily(filepath.Join(d.dir, "log"), func(c *child) {
		fmt.Fprintf(out, "%s ended (%v); its log is %s\n", c.name, cmp.Or(c.err, errors.New("exit 0")), c.log)
	})
	defer d.kids.stop(10 * time.Second)
	defer os.Remove(d.path("demo.json"))

	for _, step := range []struct {
		what string
		run  func(context.Context) error
	}{
		{"keys and certificates", d.makeKeys},
		{"Redis", d.startRedis},
		{"token issuer", d.startIssuer},
		{"identity provider", d.startProvider},
		{"sample upstream", d.startUpstream},
		{"control plane", d.startControl},
		{"sidecars", d.startSidecars},
		{"Envoy", d.startEnvoy},
	} {
		began := time.Now()
		if err := step.run(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("%s: %w", step.what, err)
		}
		fmt.Fprintf(out, "%-22s ready after %d ms\n", step.what, time.Since(began).Milliseconds())
	}
	b, err := json.MarshalIndent(&d.info, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(d.path("demo.json"), append(b, '\n'), 0o600); err != nil {
		return err
	}
	d.welcome()
	<-ctx.Done()
	fmt.Fprintln(out, "\nstopping")
	return nil
}

func (d *demo) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// prepare makes the folder, finds the programs and picks the ports. release
// lets the next demo have the folder.
func (d *demo) prepare() (release func(), err error) {
	if d.dir, err = filepath.Abs(d.o.dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(d.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("a demo already runs in %s: stop it, or choose another --dir", d.o.dir)
	}
	release = func() { lock.Close() }
	defer func() {
		if err != nil {
			release()
		}
	}()
	// One left by a demo that was killed would send people to nobody.
	if err := os.Remove(d.path("demo.json")); err != nil && !errors.Is(err, os.ErrNotExist) {
		return release, err
	}
	if d.o.fresh {
		for _, sub := range []string{"redis", "state", "key", "issuer", "tls", "log", "client-certs"} {
			if err := os.RemoveAll(d.path(sub)); err != nil {
				return release, err
			}
		}
	}
	for _, sub := range []string{"redis", "state", "key", "issuer", "tls", "log", "client-certs"} {
		if err := os.MkdirAll(d.path(sub), 0o700); err != nil {
			return release, err
		}
	}
	if d.self, err = os.Executable(); err != nil {
		return release, err
	}
	if d.envoyPath, err = findTool("envoy", "DSPGATE_ENVOY", d.self); err != nil {
		return release, err
	}
	if d.redisPath, err = findTool("redis-server", "DSPGATE_REDIS", d.self); err != nil {
		return release, err
	}
	// A Unix socket's path has at most 107 bytes; a deep folder needs another place.
	d.socks = d.path("state")
	if len(d.socks) > 80 {
		if d.socks, err = os.MkdirTemp("", "dspgate"); err != nil {
			return release, err
		}
		unlock := release
		release = func() { os.RemoveAll(d.socks); unlock() }
	}
	return release, d.pickPorts()
}

// makeKeys makes what is missing: the register's, the subjects' and the stamps' keys,
// the CA, the ingress's and every entity's certificate, the programs' tokens.
func (d *demo) makeKeys(context.Context) error {
	for _, k := range []struct {
		name string
		path *string
	}{{"register.key", &d.registerKey}, {"subject.key", &d.subjectKey}, {"admission.keys", &d.admissionKeys}} {
		*k.path = d.path("key", k.name)
		if _, err := os.Stat(*k.path); err == nil {
			continue
		}
		if err := writeFile(*k.path, []byte(randomHex(32)+"\n"), 0o600); err != nil {
			return err
		}
	}
	d.info.AuditKey = d.path("key", "audit.key.pub")
	if _, err := os.Stat(d.info.AuditKey); err != nil {
		if _, err := makeNoteKey("demo.dspgate.example/audit", d.path("key", "audit.key")); err != nil {
			return err
		}
	}
	ca, err := loadOrMakeCA(d.path("tls"))
	if err != nil {
		return err
	}
	hosts := []string{"localhost", "127.0.0.1", "evte.localhost"}
	if _, err := ca.pair(d.path("tls", "ingress.pem"), d.path("tls", "ingress.key"), serverTemplate(hosts)); err != nil {
		return err
	}
	for _, r := range sample.Records(time.Now()) {
		if e, ok := r.(registry.Entity); ok {
			abn := e.ABN.String()
			if _, err := ca.pair(d.path("client-certs", abn+".pem"), d.path("client-certs", abn+".key"), clientTemplate(e.Name, abn)); err != nil {
				return err
			}
		}
	}
	d.info.CA, d.info.ClientCerts = ca.path, d.path("client-certs")
	d.info.Audience = demoAudience
	return d.makeTokens()
}

// makeTokens gives each role a bearer token, new at each start; the control
// plane's file holds only their sums.
func (d *demo) makeTokens() error {
	var file control.TokenFile
	for _, t := range []struct {
		token       *string
		name        string
		permissions []string
		entity      string
	}{
		{&d.info.OperatorToken, "operator@agency.example", []string{"operator", "incident-officer", "registrar"}, ""},
		{&d.info.Operator2Token, "operator2@agency.example", []string{"operator", "registrar"}, ""},
		{&d.info.AssessorToken, "assessor@agency.example", []string{"assessor"}, ""},
		{&d.info.AuditorToken, "auditor@agency.example", []string{"auditor"}, ""},
		{&d.info.DeveloperToken, "dev@kookaburra.example", []string{"developer"}, "31000000202"},
	} {
		*t.token = randomHex(32)
		file.Tokens = append(file.Tokens, control.TokenEntry{
			Name: t.name, Permissions: t.permissions, Entity: t.entity, SHA256: control.HashToken(*t.token),
		})
	}
	// Everybody else's token stands in a file of its own, for --token-file.
	if err := os.MkdirAll(d.path("key", "people"), 0o700); err != nil {
		return err
	}
	more := func(file *control.TokenFile, who, name, permission, entity string) error {
		token := randomHex(32)
		file.Tokens = append(file.Tokens, control.TokenEntry{Name: name, Permissions: []string{permission}, Entity: entity, SHA256: control.HashToken(token)})
		return writeFile(d.path("key", "people", who), []byte(token+"\n"), 0o600)
	}
	if err := more(&file, "assessor2", "assessor2@agency.example", "assessor", ""); err != nil {
		return err
	}
	if err := more(&file, demoNewcomer, "edna@echidna.example", "developer", demoNewcomer); err != nil {
		return err
	}
	for _, r := range sample.Records(time.Now()) {
		if e, ok := r.(registry.Entity); ok {
			if err := more(&file, e.ABN.String(), e.Contact, "developer", e.ABN.String()); err != nil {
				return err
			}
		}
	}
	b, err := yaml.Marshal(&file)
	if err != nil {
		return err
	}
	return writeFile(d.path("key", "tokens.yaml"), b, 0o600)
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: it ends the process instead
	return hex.EncodeToString(b)
}

func (d *demo) startRedis(ctx context.Context) error {
	host, port, err := net.SplitHostPort(d.o.redis)
	if err != nil {
		return err
	}
	conf := fmt.Sprintf("bind %s\nport %s\nprotected-mode yes\ndir %s\nappendonly yes\nappendfsync always\nsave \"\"\n"+
		"maxmemory-policy noeviction\ndaemonize no\nset-proc-title no\n", host, port, strconv.Quote(d.path("redis")))
	if err := writeFile(d.path("redis.conf"), []byte(conf), 0o600); err != nil {
		return err
	}
	c, err := d.kids.start("redis", d.redisPath, []string{d.path("redis.conf")}, nil)
	if err != nil {
		return err
	}
	d.info.PIDs.Redis = c.pid()
	client := redis.NewClient(&redis.Options{Addr: d.o.redis, MaxRetries: -1})
	defer client.Close()
	return c.await(ctx, 20*time.Second, func(ctx context.Context) error { return client.Ping(ctx).Err() })
}

func (d *demo) startUpstream(ctx context.Context) error {
	addr, err := freeport.Pick()
	if err != nil {
		return err
	}
	d.info.Arrivals = d.path("log", "arrivals.jsonl")
	if err := os.Remove(d.info.Arrivals); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	c, err := d.kids.start("upstream", d.self, []string{"upstream", "--listen", addr, "--arrivals", d.info.Arrivals, "--admission-keys", d.admissionKeys}, nil)
	if err != nil {
		return err
	}
	d.info.PIDs.Upstream = c.pid()
	d.o.upstream = addr
	d.info.Upstream = "http://" + addr
	return c.await(ctx, 10*time.Second, func(ctx context.Context) error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

func (d *demo) startControl(ctx context.Context) error {
	debug, err := freeport.Pick()
	if err != nil {
		return err
	}
	cfg := defaultControlConfig()
	if day := d.o.day; day > 0 && day != 24*time.Hour {
		cfg.Casework.Standards = casework.Standards{Acknowledge: 2 * day, Decide: 28 * day, Reply: 14 * day, Verify: 28 * day, Review: 28 * day, Remedy: 30 * day}
	}
	cfg.ID = "control-1"
	cfg.Listen = d.o.control
	cfg.Debug = debug
	cfg.Redis.Addrs = []string{d.o.redis}
	cfg.RegisterKeyFile = d.registerKey
	cfg.TokensFile = d.path("key", "tokens.yaml")
	cfg.StateDir = d.path("state")
	cfg.AuditEvery = 2 * time.Second // so that it can be seen at work
	cfg.Watch.ShadowLeast = time.Minute
	cfg.Watch.SubjectKeyFile = d.subjectKey
	cfg.Audit.KeyFile = d.path("key", "audit.key")
	cfg.SignIn.Issuer, cfg.SignIn.PublicURL = d.info.SignIn, d.info.Control
	cfg.SignIn.ClientID, cfg.SignIn.ClientSecretFile = consoleClientID, d.path("key", "console.secret")
	cfg.SampleRegister, cfg.SamplePolicies, cfg.SampleLimits = true, true, d.o.sampleLimits
	cfg.SampleCredentials = d.path("client-certs")
	c, err := d.startConfigured("control", "control", &cfg)
	if err != nil {
		return err
	}
	d.info.PIDs.Control = c.pid()
	d.info.ControlDebug = "http://" + debug
	return c.await(ctx, 20*time.Second, getOK("http://"+debug+"/readyz"))
}

func (d *demo) startSidecars(ctx context.Context) error {
	ex := xds.Config{
		Ingress:    d.o.ingress,
		IngressTLS: d.o.ingressTLS,
		TLS: xds.TLSFiles{
			Certificate: d.path("tls", "ingress.pem"), Key: d.path("tls", "ingress.key"), ClientCA: d.path("tls", "ca.pem"),
		},
		Hosts:    demoHosts,
		Upstream: xds.Upstream{Address: d.o.upstream},
	}
	if path, err := filepath.Abs(d.path("access.log")); err == nil && xds.AccessLogFileOK(path) {
		ex.AccessLogFile = path
	}
	for i := range d.o.sidecars {
		id := fmt.Sprintf("sidecar-%d", i+1)
		ex.Sidecars = append(ex.Sidecars, xds.Sidecar{ID: id, Authz: "unix:" + d.socket(id+"-authz"), AccessLog: "unix:" + d.socket(id)})
	}
	var kids []*child
	for _, s := range ex.Sidecars {
		debug, err := freeport.Pick()
		if err != nil {
			return err
		}
		cfg := defaultSidecarConfig()
		cfg.ID = s.ID
		cfg.Listen, cfg.ListenAuthz = s.AccessLog, s.Authz
		cfg.Debug = debug
		cfg.Redis.Addrs = []string{d.o.redis}
		cfg.RegisterKeyFile, cfg.SubjectKeyFile = d.registerKey, d.subjectKey
		cfg.StateDir = d.path("state")
		cfg.Issuers = []issuerConfig{{
			Issuer: d.info.Issuer, JWKSURL: d.info.Issuer, AllowHTTPLoopback: true,
			// Soon, so that a key added to the folder or taken away can be watched.
			JWKSRefresh: 2 * time.Second,
			Audiences:   []string{demoAudience}, Algorithms: demoAlgorithms,
		}}
		cfg.Admission.KeyFile = d.admissionKeys
		cfg.Envoy = ex
		c, err := d.startConfigured(s.ID, "sidecar", &cfg)
		if err != nil {
			return err
		}
		kids = append(kids, c)
		d.info.PIDs.Sidecars = append(d.info.PIDs.Sidecars, c.pid())
		d.info.SidecarDebug = append(d.info.SidecarDebug, "http://"+debug)
	}
	for i, c := range kids {
		if err := c.await(ctx, 20*time.Second, getOK(d.info.SidecarDebug[i]+"/readyz")); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) socket(id string) string { return filepath.Join(d.socks, id+".sock") }

// startConfigured writes a configuration file and starts `dspgate COMMAND` with
// it, so that the process can be started again by hand in the same way.
func (d *demo) startConfigured(name, command string, cfg any) (*child, error) {
	b, err := yaml.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	path := d.path(name + ".yaml")
	if err := writeFile(path, b, 0o600); err != nil {
		return nil, err
	}
	return d.kids.start(name, d.self, []string{command, "--config", path}, nil)
}

func (d *demo) startEnvoy(ctx context.Context) error {
	var sockets []string
	for i := range d.o.sidecars {
		sockets = append(sockets, "unix:"+d.socket(fmt.Sprintf("sidecar-%d", i+1)))
	}
	boot, err := xds.Bootstrap(xds.BootstrapConfig{NodeID: "demo", Admin: d.o.envoyAdmin, Sidecars: sockets})
	if err != nil {
		return err
	}
	if err := writeFile(d.path("envoy.yaml"), boot, 0o600); err != nil {
		return err
	}
	c, err := d.kids.start("envoy", d.envoyPath, []string{
		"-c", d.path("envoy.yaml"), "--concurrency", strconv.Itoa(d.o.envoyConcurrency),
		"--use-dynamic-base-id", "--log-level", "warn", "--parent-shutdown-time-s", "1", "--drain-time-s", "1",
	}, nil)
	if err != nil {
		return err
	}
	d.info.PIDs.Envoy = c.pid()
	if err := c.await(ctx, 30*time.Second, getOK("http://"+d.o.envoyAdmin+"/ready")); err != nil {
		return err
	}
	// Ready is when the ingress answers with a decision of the sidecar: 401.
	return c.await(ctx, 10*time.Second, func(ctx context.Context) error {
		return getStatus(ctx, d.info.Ingress+"/registry/v1/abns/ready", http.StatusUnauthorized)
	})
}

func getOK(url string) func(context.Context) error {
	return func(ctx context.Context) error { return getStatus(ctx, url, http.StatusOK) }
}

func getStatus(ctx context.Context, url string, want int) error {
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
	defer resp.Body.Close()
	if resp.StatusCode != want {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 512))
		return fmt.Errorf("%s answers %d: %s", url, resp.StatusCode, strings.TrimSpace(string(b)))
	}
	return nil
}

// welcome prints where everything is and five calls to try.
func (d *demo) welcome() {
	bin := d.self
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, d.self); err == nil && !strings.HasPrefix(rel, "..") {
			bin = rel
		}
	}
	tok := func(client string) string {
		return fmt.Sprintf("-H \"Authorization: Bearer $(%s token --dir %s --client-id %s)\"", bin, d.o.dir, client)
	}
	fmt.Fprintf(d.out, `
dspgate demo is ready.
  ingress        %s  (TLS: %s)
  console        %[17]s/console/  (sign in as operator@agency.example, dev@kookaburra.example …, password %[18]s)
  control plane  %[3]s  (API: /docs, public register: /register)
  Envoy admin    %s
  Redis          %s
  tokens         for programs, of every role, in %s

Try, in another terminal:
  # 1  a whitelisted product is let through, and the upstream sees who it is
  curl -s %s %s/agents/v1/clients
  # 2  no token: 401
  curl -s %s/lodgments/v1/receipts/R-1
  # 3  a genuine token of a product whose certification ran out yesterday: 403
  curl -s -X POST %s %s/lodgments/v1/activity-statements
  # 4  a version whose support has ended: 403
  curl -s -H 'x-product-version: 4.8' %s %s/lodgments/v1/receipts/R-1
  # 5  the public register, without any sign-in
  curl -s %s/v1/register

Stop a product everywhere (# 1 is 403 then; receipts stay available), then let it go on:
  %[15]s suspend product FP-1003 --reason "credential found on a paste site" --wait --dir %[16]s
  %[15]s lift product FP-1003 --reason "credential replaced" --as operator2 --dir %[16]s
Ctrl-C ends everything.
`,
		d.info.Ingress, d.info.IngressTLS, d.info.Control, d.info.EnvoyAdmin, d.info.Redis, filepath.Join(d.o.dir, "demo.json"),
		tok("fp-1003-prod"), d.info.Ingress,
		d.info.Ingress,
		tok("fp-1011-prod"), d.info.Ingress,
		tok("fp-1001-prod"), d.info.Ingress,
		d.info.Control,
		bin, d.o.dir, d.info.Control, d.info.ConsolePassword)
}
