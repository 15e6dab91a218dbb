package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Config says which Redis holds the register, and how safely. Secrets are
// paths of files, read at every connection: they may be replaced while running.
type Config struct {
	// Addrs are host:port, or the path of a Unix socket. Several with Master are
	// Sentinels; several without, or with Cluster, are seeds of a Redis Cluster.
	Addrs   []string `yaml:"addrs"`
	Master  string   `yaml:"master"`  // name of the master that the Sentinels watch
	Cluster bool     `yaml:"cluster"` // also with one address
	DB      int      `yaml:"db"`      // not in a Cluster

	Username             string `yaml:"username"`
	PasswordFile         string `yaml:"password_file"`
	SentinelUsername     string `yaml:"sentinel_username"`
	SentinelPasswordFile string `yaml:"sentinel_password_file"` // read once, at start

	TLS        bool   `yaml:"tls"`
	CAFile     string `yaml:"ca_file"`     // PEM; the system's when empty
	CertFile   string `yaml:"cert_file"`   // PEM, with KeyFile: the client certificate
	KeyFile    string `yaml:"key_file"`    // PEM
	ServerName string `yaml:"server_name"` // the address's host when empty

	// Prefix is the hash tag of every key: {dspgate}:head and so on. Default dspgate.
	Prefix string `yaml:"prefix"`
	// Timeout bounds each call. Default 2 s.
	Timeout time.Duration `yaml:"timeout"`
	// Replicas is how many replicas must hold a commit before it is answered as
	// durable; on Redis 7.2 and later also their disks. Default 0.
	Replicas int `yaml:"replicas"`
	// ReplicaTimeout bounds the wait for them; beyond it a commit is answered
	// with ErrNotDurable. Default 1 s.
	ReplicaTimeout time.Duration `yaml:"replica_timeout"`
	// LogMax is how many changes the log keeps, about; a follower further behind
	// loads the snapshot. 0, the default, keeps all: the log is the audit's source.
	LogMax int64 `yaml:"log_max"`
	// EvictionPolicy states maxmemory-policy where Redis lets nobody read it
	// (CONFIG and INFO forbidden by ACL). It must be noeviction; leave it empty elsewhere.
	EvictionPolicy string `yaml:"eviction_policy"`
}

// ErrEviction: this Redis may evict keys when it is full, suspensions among
// them, so nothing starts on it.
var ErrEviction = errors.New("maxmemory-policy is not noeviction: Redis would forget suspensions when it is full")

// ErrForgetful: a Redis that wrote each commit to disk no longer does.
var ErrForgetful = errors.New("redis no longer writes every commit to disk, and may lose acknowledged suspensions in a crash")

// Dial makes a client; it does not connect yet. Calls are not retried: a
// commit sent twice would meet its own traces.
func Dial(cfg Config) (redis.UniversalClient, error) {
	if len(cfg.Addrs) == 0 {
		return nil, errors.New("redis: no address")
	}
	timeout := cmp.Or(cfg.Timeout, 2*time.Second)
	o := &redis.UniversalOptions{
		Addrs: cfg.Addrs, MasterName: cfg.Master, IsClusterMode: cfg.Cluster, DB: cfg.DB,
		Username: cfg.Username, SentinelUsername: cfg.SentinelUsername,
		Protocol: 2, DisableIdentity: true, ClientName: "dspgate",
		MaxRetries: -1, DialTimeout: timeout, DialerRetries: 1,
		ReadTimeout:  timeout + cmp.Or(cfg.ReplicaTimeout, time.Second),
		WriteTimeout: timeout, PoolTimeout: timeout,
		ContextTimeoutEnabled:    true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	if cfg.PasswordFile != "" {
		if _, err := secret(cfg.PasswordFile); err != nil {
			return nil, err
		}
		o.CredentialsProviderContext = func(context.Context) (string, string, error) {
			password, err := secret(cfg.PasswordFile)
			return cfg.Username, password, err
		}
	}
	if cfg.SentinelPasswordFile != "" {
		password, err := secret(cfg.SentinelPasswordFile)
		if err != nil {
			return nil, err
		}
		o.SentinelPassword = password
	}
	if cfg.TLS {
		t, err := tlsConfig(cfg)
		if err != nil {
			return nil, err
		}
		o.TLSConfig = t
	}
	return redis.NewUniversalClient(o), nil
}

func secret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("redis: password: %w", err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	if s == "" {
		return "", fmt.Errorf("redis: password: %s is empty", path)
	}
	return s, nil
}

func tlsConfig(cfg Config) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: cfg.ServerName}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("redis: ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("redis: ca_file: no certificate in %s", cfg.CAFile)
		}
	}
	if cfg.CertFile != "" || cfg.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("redis: cert_file, key_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// inspect refuses a Redis that is too old or may evict, and warns of one that
// may lose acknowledged writes.
func (s *Store) inspect(ctx context.Context) error {
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	if err := client.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("reach Redis: %w", classify(err, false))
	}
	info := map[string]string{}
	for _, section := range []string{"server", "memory", "persistence"} {
		text, err := client.Info(ctx, section).Result()
		if err != nil {
			s.log.WarnContext(ctx, "Redis does not tell about itself", "section", section, "err", err)
		}
		readInfo(info, text)
	}
	if v := info["redis_version"]; v != "" {
		if s.version = parseVersion(v); s.version < version(6, 2) {
			return fmt.Errorf("this Redis is %s; 6.2 or later is needed", v)
		}
	}

	kept, err := s.keeps(ctx, client, info)
	if err != nil {
		return err
	}
	s.localAOF = kept.aof == "yes"
	s.fsync.Store(kept.always())
	if !kept.always() {
		s.log.WarnContext(ctx, "REDIS MAY LOSE ACKNOWLEDGED SUSPENSIONS in a crash: set appendonly yes and appendfsync always",
			"appendonly", cmp.Or(kept.aof, "unknown"), "appendfsync", kept.fsync)
	}
	return nil
}

// keeping is how a Redis keeps what it was given.
type keeping struct{ aof, fsync string }

func (k keeping) always() bool { return k.aof == "yes" && k.fsync == "always" }

// keeps asks how the Redis keeps things now; ErrEviction when it may forget them.
func (s *Store) keeps(ctx context.Context, client redis.Cmdable, info map[string]string) (k keeping, err error) {
	setting := func(name, fallback string) string {
		if got, err := client.ConfigGet(ctx, name).Result(); err == nil && got[name] != "" {
			return got[name]
		}
		return fallback
	}
	switch policy := cmp.Or(setting("maxmemory-policy", info["maxmemory_policy"]), s.cfg.EvictionPolicy); policy {
	case "noeviction":
	case "":
		return k, fmt.Errorf("%w: it cannot be read either; when it is noeviction, state eviction_policy: noeviction", ErrEviction)
	default:
		return k, fmt.Errorf("%w: it is %s", ErrEviction, policy)
	}
	return keeping{setting("appendonly", map[string]string{"1": "yes", "0": "no"}[info["aof_enabled"]]), setting("appendfsync", "unknown")}, nil
}

// Check asks again what Open asked, because settings change while a Redis runs,
// and with a failover the Redis does: ErrEviction when it may forget what it
// holds by now, ErrForgetful when it no longer writes each commit to disk as it
// did at Open. From then on nothing here counts on its disk.
func (s *Store) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	client, err := s.client(ctx)
	if err != nil {
		return err
	}
	info := map[string]string{}
	for _, section := range []string{"memory", "persistence"} {
		text, err := client.Info(ctx, section).Result()
		if err != nil && !isReply(err) {
			return fmt.Errorf("ask Redis how it keeps things: %w", classify(err, false))
		}
		readInfo(info, text)
	}
	kept, err := s.keeps(ctx, client, info)
	if err != nil {
		return err
	}
	if s.fsync.Load() && !kept.always() {
		s.fsync.Store(false)
		s.forgetful.Store(true)
	}
	if s.forgetful.Load() && !kept.always() {
		return fmt.Errorf("%w: appendonly is %s, appendfsync %s", ErrForgetful, cmp.Or(kept.aof, "unknown"), kept.fsync)
	}
	return nil
}

// isReply tells an error that Redis answered from one that kept it from answering.
func isReply(err error) bool {
	var reply redis.Error
	return errors.As(err, &reply)
}

func readInfo(into map[string]string, text string) {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			into[k] = v
		}
	}
}

func version(major, minor int) int { return major*1000 + minor }

func parseVersion(v string) int {
	f := strings.SplitN(v, ".", 3)
	if len(f) < 2 {
		return 0
	}
	major, _ := strconv.Atoi(f[0])
	minor, _ := strconv.Atoi(f[1])
	return version(major, minor)
}

// Open connects and checks. ErrEviction when this Redis may evict keys;
// ErrUnavailable when it cannot be reached. Close the Store when done.
func Open(ctx context.Context, cfg Config, log *slog.Logger) (*Store, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg.Prefix = cmp.Or(cfg.Prefix, "dspgate")
	if strings.ContainsAny(cfg.Prefix, "{}") {
		return nil, errors.New("redis: prefix: no braces; it becomes the hash tag")
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 2*time.Second)
	cfg.ReplicaTimeout = cmp.Or(cfg.ReplicaTimeout, time.Second)
	rdb, err := Dial(cfg)
	if err != nil {
		return nil, err
	}
	s := newStore(cfg, rdb, log)
	ictx, cancel := context.WithTimeout(ctx, 2*cfg.Timeout)
	defer cancel()
	if err := s.inspect(ictx); err != nil {
		return nil, errors.Join(err, rdb.Close())
	}
	s.prepareScripts()
	return s, nil
}
