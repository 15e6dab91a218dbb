package signin

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/people"
	"github.com/dspgate/dspgate/registry/translog"
)

// Paths that the console mounts.
const (
	PathStart    = "/sign-in"
	PathCallback = "/sign-in/callback"
	PathEnd      = "/sign-out"
	PathEntity   = "/sign-in/entity"
	PathHome     = "/console/"
)

// Bounds.
const (
	loginLife       = 10 * time.Minute
	touchEvery      = time.Minute
	renameEvery     = 15 * time.Minute
	renameGrace     = 30 * time.Second
	providerTimeout = 10 * time.Second
	returnBytesMax  = 500
	idTokenBytesMax = 16 << 10
	cookieBytesMax  = 100
)

// What a caller is told apart by.
var (
	// ErrNobody: there is no session, or it has ended.
	ErrNobody = errors.New("nobody is signed in")
	// ErrProvider: the identity provider does not answer, or not as it should.
	ErrProvider = errors.New("the identity provider cannot be reached or gave no valid answer; try again in a minute")
	// ErrStale: the answer of the provider belongs to no sign-in begun in this browser.
	ErrStale = errors.New("this sign-in was begun too long ago, or in another window: begin again")
	// ErrDenied: the provider let the person not in.
	ErrDenied = errors.New("the identity provider did not let you in")
	// ErrUnverified: the provider gives no verified address.
	ErrUnverified = errors.New("the identity provider does not vouch for your email address; ask who runs it")
)

// Config is how people sign in.
type Config struct {
	// Issuer is the provider, found by its discovery document. Needed.
	Issuer string
	// ClientID and ClientSecret are the console's at the provider. Needed.
	ClientID, ClientSecret string
	// PublicURL is the console's own address as browsers see it, such as
	// https://control.agency.example; http on loopback only. Needed.
	PublicURL string
	// RolesClaim names the ID token's claim with the permissions of agency staff,
	// a list of the contract's words. Default roles.
	RolesClaim string
	// Key seals what the store holds: at least 32 bytes. Needed.
	Key []byte
	// Idle and Absolute end a session. Defaults 30 min and 8 h.
	Idle, Absolute time.Duration
	Store          Store
	// Casebook is the register's newest casework and view.
	Casebook func() (*registry.Casebook, error)
	Audit    *translog.Log // nil: none is kept
	Now      func() time.Time
	Log      *slog.Logger
}

// SignIn signs people in. Any number of goroutines may use it.
type SignIn struct {
	cfg    Config
	cookie string // its name
	login  string // the name of the cookie of a sign-in under way
	secure bool
	http   *http.Client

	mu       sync.Mutex
	provider *oidc.Provider // nil until found
}

// New checks the configuration; the provider is looked for at the first sign-in.
func New(cfg Config) (*SignIn, error) {
	u, err := url.Parse(cfg.PublicURL)
	if err != nil || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("sign-in: %q is no address such as https://control.agency.example", cfg.PublicURL)
	}
	secure := u.Scheme == "https"
	if !secure && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("sign-in: %s is not on this machine: its address must be https", u.Host)
	}
	if cfg.Issuer == "" || cfg.ClientID == "" || cfg.Store == nil || cfg.Casebook == nil || len(cfg.Key) < 32 {
		return nil, errors.New("sign-in: issuer, client, store, casebook and a key of at least 32 bytes are needed")
	}
	cfg.PublicURL = strings.TrimSuffix(cfg.PublicURL, "/")
	if cfg.RolesClaim == "" {
		cfg.RolesClaim = "roles"
	}
	if cfg.Idle <= 0 {
		cfg.Idle = 30 * time.Minute
	}
	if cfg.Absolute <= 0 {
		cfg.Absolute = 8 * time.Hour
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &SignIn{cfg: cfg, cookie: "dspgate", login: "dspgate-signin", secure: secure, http: &http.Client{Timeout: providerTimeout}}
	if secure {
		s.cookie, s.login = "__Host-dspgate", "__Host-dspgate-signin"
	}
	return s, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// pending is a sign-in under way.
type pending struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Return   string    `json:"return"`
	Made     time.Time `json:"made"`
}

// oauth finds the provider, once it answers.
func (s *SignIn) oauth(ctx context.Context) (*oauth2.Config, *oidc.Provider, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.provider == nil {
		// The key set is fetched with this context later too, so it must not end.
		p, err := oidc.NewProvider(oidc.ClientContext(context.WithoutCancel(ctx), s.http), s.cfg.Issuer)
		if err != nil {
			s.cfg.Log.ErrorContext(ctx, "identity provider not found", "issuer", s.cfg.Issuer, "err", err)
			return nil, nil, ErrProvider
		}
		s.provider = p
	}
	return &oauth2.Config{
		ClientID: s.cfg.ClientID, ClientSecret: s.cfg.ClientSecret, Endpoint: s.provider.Endpoint(),
		RedirectURL: s.cfg.PublicURL + PathCallback, Scopes: []string{oidc.ScopeOpenID, "email", "profile"},
	}, s.provider, nil
}

// Start sends the browser to the provider, to come back to the page named by ?to=.
func (s *SignIn) Start(w http.ResponseWriter, r *http.Request) error {
	conf, _, err := s.oauth(r.Context())
	if err != nil {
		return err
	}
	p := pending{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Return: SafeReturn(r.URL.Query().Get("to")), Made: s.cfg.Now()}
	id := rand.Text() + rand.Text()
	if err := s.put(r.Context(), "signin", id, p, loginLife); err != nil {
		return err
	}
	s.setCookie(w, s.login, id, loginLife)
	http.Redirect(w, r, conf.AuthCodeURL(p.State, oidc.Nonce(p.Nonce), oauth2.S256ChallengeOption(p.Verifier)), http.StatusSeeOther)
	return nil
}

// SafeReturn is a page of the console to go back to; its home when the path is
// none, or leads to another host however a browser may read it.
func SafeReturn(to string) string {
	u, err := url.Parse(to)
	if err != nil || len(to) > returnBytesMax || u.Scheme != "" || u.Host != "" || u.User != nil || u.Opaque != "" || u.Fragment != "" ||
		strings.ContainsAny(to, "\\\r\n\t") || !strings.HasPrefix(u.Path, PathHome) || path.Clean(u.Path)+"/" != strings.TrimSuffix(u.Path, "/")+"/" {
		return PathHome
	}
	return u.RequestURI()
}

// Callback takes the provider's answer, begins a session and goes back.
func (s *SignIn) Callback(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	cookie, err := r.Cookie(s.login)
	if err != nil || len(cookie.Value) > cookieBytesMax {
		return ErrStale
	}
	s.setCookie(w, s.login, "", -1)
	var p pending
	if found, err := s.take(ctx, "signin", cookie.Value, &p); err != nil {
		return err
	} else if !found || s.cfg.Now().Sub(p.Made) > loginLife {
		return ErrStale
	}
	q := r.URL.Query()
	if len(q["state"]) != 1 || !hmac.Equal([]byte(q.Get("state")), []byte(p.State)) {
		return ErrStale
	}
	if q.Get("error") != "" || q.Get("code") == "" {
		s.cfg.Log.WarnContext(ctx, "sign-in refused by the provider", "error", cut(q.Get("error"), 80))
		return ErrDenied
	}
	who, err := s.exchange(ctx, q.Get("code"), p)
	if err != nil {
		return err
	}
	if old, err := r.Cookie(s.cookie); err == nil { // whoever was signed in here before is not any more
		if err := s.cfg.Store.Delete(ctx, s.key("session", old.Value)); err != nil {
			return err
		}
	}
	if err := s.note(ctx, who.Name, "sign-in"); err != nil {
		return err
	}
	if err := s.begin(ctx, w, who); err != nil {
		return err
	}
	http.Redirect(w, r, p.Return, http.StatusSeeOther)
	return nil
}

// exchange turns the code into a person: every check of the ID token is go-oidc's,
// and the nonce's is here.
func (s *SignIn) exchange(ctx context.Context, code string, p pending) (session, error) {
	conf, provider, err := s.oauth(ctx)
	if err != nil {
		return session{}, err
	}
	refused := func(what string, err error) (session, error) {
		s.cfg.Log.WarnContext(ctx, "sign-in not accepted", "what", what, "err", err)
		return session{}, ErrProvider
	}
	octx, cancel := context.WithTimeout(oidc.ClientContext(ctx, s.http), providerTimeout)
	defer cancel()
	token, err := conf.Exchange(octx, code, oauth2.VerifierOption(p.Verifier))
	if err != nil {
		return refused("code", err)
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" || len(raw) > idTokenBytesMax {
		return refused("id_token", errors.New("missing or too long"))
	}
	id, err := provider.Verifier(&oidc.Config{ClientID: s.cfg.ClientID, Now: s.cfg.Now}).Verify(octx, raw)
	if err != nil {
		return refused("id_token", err)
	}
	if !hmac.Equal([]byte(id.Nonce), []byte(p.Nonce)) {
		return refused("nonce", errors.New("of another sign-in"))
	}
	var claims struct {
		Email    string `json:"email"`
		Verified bool   `json:"email_verified"`
	}
	var all map[string]any
	if err := errors.Join(id.Claims(&claims), id.Claims(&all)); err != nil {
		return refused("claims", err)
	}
	email, err := people.ParseEmail("/email", claims.Email)
	if err != nil || !claims.Verified {
		return session{}, ErrUnverified
	}
	return session{Name: email, Subject: id.Subject, Staff: s.roles(ctx, all[s.cfg.RolesClaim])}, nil
}

// roles reads the permissions of staff; a developer's come from the register.
func (s *SignIn) roles(ctx context.Context, claim any) (words []string) {
	list, _ := claim.([]any)
	for _, x := range list {
		word, _ := x.(string)
		p, ok := registry.ParsePermission(word)
		switch {
		case ok && p != registry.PermDeveloper && !slices.Contains(words, word):
			words = append(words, word)
		case !ok:
			s.cfg.Log.InfoContext(ctx, "a role that is no permission here", "role", cut(word, 40))
		}
	}
	return words
}

func (s *SignIn) note(ctx context.Context, who, what string) error {
	if s.cfg.Audit == nil {
		return nil
	}
	return s.cfg.Audit.Append(ctx, translog.Leaf{Kind: translog.KindAccess, Actor: who, Command: what})
}

func (s *SignIn) setCookie(w http.ResponseWriter, name, value string, life time.Duration) {
	age := int(life.Seconds())
	http.SetCookie(w, &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: age, Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	})
}

// key is the name of a secret in the store: never the secret itself.
func (s *SignIn) key(sort, secret string) string {
	sum := sha256.Sum256([]byte(sort + ":" + secret))
	return sort + ":" + hex.EncodeToString(sum[:])
}

// seal binds a value to its name.
func (s *SignIn) seal(key string, value []byte) []byte {
	m := hmac.New(sha256.New, s.cfg.Key)
	fmt.Fprintf(m, "signin\x00%d:%s", len(key), key)
	m.Write(value)
	return append(m.Sum(nil), value...)
}

func (s *SignIn) open(key string, sealed []byte, into any) (bool, error) {
	if len(sealed) < sha256.Size {
		return false, nil
	}
	value := sealed[sha256.Size:]
	if !hmac.Equal(s.seal(key, value), sealed) {
		s.cfg.Log.Error("a session in the store does not verify", "key", key)
		return false, nil
	}
	if err := json.Unmarshal(value, into); err != nil {
		return false, err
	}
	return true, nil
}

func (s *SignIn) put(ctx context.Context, sort, secret string, v any, ttl time.Duration) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	key := s.key(sort, secret)
	return s.cfg.Store.Put(ctx, key, s.seal(key, b), ttl)
}

func (s *SignIn) take(ctx context.Context, sort, secret string, into any) (bool, error) {
	key := s.key(sort, secret)
	b, err := s.cfg.Store.Take(ctx, key)
	if err != nil {
		return false, err
	}
	return s.open(key, b, into)
}

func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "")
}
