package main

import (
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/console"
	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/control/signin/redissession"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
)

// signInConfig is how people sign in to the console.
type signInConfig struct {
	// Issuer is the OpenID provider, found by its discovery document. Without one
	// nobody signs in; the public register is shown all the same.
	Issuer string `yaml:"issuer"`
	// ClientID is the console's at the provider. Default dspgate-console.
	ClientID string `yaml:"client_id"`
	// ClientSecretFile holds its secret.
	ClientSecretFile string `yaml:"client_secret_file"`
	// PublicURL is the control plane's address as browsers see it, such as
	// https://control.agency.example; the redirect URI is /sign-in/callback under
	// it. Default http:// and the address it listens on, which must be loopback.
	PublicURL string `yaml:"public_url"`
	// RolesClaim names the claim with the permissions of staff. Default roles.
	RolesClaim string `yaml:"roles_claim"`
	// Idle and Absolute end a session. Defaults 30m and 8h.
	Idle     time.Duration `yaml:"idle"`
	Absolute time.Duration `yaml:"absolute"`
}

// openConsole makes what the control plane serves: the console before the API.
func openConsole(cfg controlConfig, api http.Handler, register *registry.Register, audit *translog.Log, sessions redis.UniversalClient, log *slog.Logger) (http.Handler, error) {
	public := cfg.SignIn.PublicURL
	if public == "" {
		public = "http://" + cfg.Listen
	}
	c := console.Config{API: api, As: control.As, Secure: strings.HasPrefix(public, "https:"), PublicURL: strings.TrimSuffix(public, "/"), Log: log}
	if cfg.SignIn.Issuer != "" {
		s, err := openSignIn(cfg, public, register, audit, sessions, log)
		if err != nil {
			return nil, usageError("%v", err)
		}
		c.SignIn = s
	}
	pages, err := console.New(c)
	if err != nil {
		return nil, err
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if console.Serves(r.URL.Path) {
			pages.ServeHTTP(w, r)
			return
		}
		api.ServeHTTP(w, r)
	}), nil
}

func openSignIn(cfg controlConfig, public string, register *registry.Register, audit *translog.Log, sessions redis.UniversalClient, log *slog.Logger) (*signin.SignIn, error) {
	secret, err := config.ReadSecret(cfg.SignIn.ClientSecretFile)
	if err != nil {
		return nil, fmt.Errorf("sign_in.client_secret_file: %w", err)
	}
	register0, err := config.ReadSecret(cfg.RegisterKeyFile)
	if err != nil {
		return nil, err
	}
	// The store of sessions is sealed under a key of its own, so that a seal of
	// one sort of thing is never taken for another's.
	key, err := hkdf.Key(sha256.New, register0, nil, "dspgate console sessions", 32)
	if err != nil {
		return nil, err
	}
	id := cfg.SignIn.ClientID
	if id == "" {
		id = "dspgate-console"
	}
	return signin.New(signin.Config{
		Issuer: cfg.SignIn.Issuer, ClientID: id, ClientSecret: string(secret), PublicURL: public, RolesClaim: cfg.SignIn.RolesClaim,
		Key: key, Idle: cfg.SignIn.Idle, Absolute: cfg.SignIn.Absolute,
		Store: redissession.New(sessions, "{"+cfg.sessionPrefix()+"}:session:"), Casebook: register.Casebook, Audit: audit, Log: log,
	})
}

// sessionPrefix keeps sessions beside the register's keys and apart from another
// register's in the same Redis.
func (cfg *controlConfig) sessionPrefix() string {
	if cfg.Redis.Prefix != "" {
		return cfg.Redis.Prefix
	}
	return "dspgate"
}
