// Package sandboxop is a real OpenID provider for the demo and for tests: the
// OP library of zitadel/oidc with a handful of fictional people in memory and
// one client, the console. Nobody else should use it: all people share one
// password, and what it knows is gone when the process ends.
package sandboxop

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// Person is one who can sign in.
type Person struct {
	Email      string
	Name       string
	Roles      []string // the roles claim: permissions of agency staff
	Unverified bool     // the address was never proved
}

// Config is one provider.
type Config struct {
	Issuer       string // http on loopback, or https
	ClientID     string
	ClientSecret string
	RedirectURI  string
	Password     string // of everybody
	People       []Person
	Log          *slog.Logger
}

//go:embed login.html login.css
var files embed.FS

const (
	requestLife    = 10 * time.Minute
	requestsMax    = 1000
	idTokenLife    = time.Hour
	accessLife     = 5 * time.Minute
	formBytesMax   = 4 << 10
	triesPerSignIn = 5
)

// New makes the provider's handler.
func New(cfg Config) (http.Handler, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	page, err := template.ParseFS(files, "login.html")
	if err != nil {
		return nil, err
	}
	s := &storage{cfg: cfg, key: signingKey{id: rand.Text()[:8], key: key}, requests: map[string]*request{}, codes: map[string]string{}}
	var crypto [32]byte
	if _, err := rand.Read(crypto[:]); err != nil {
		return nil, err
	}
	provider, err := op.NewProvider(&op.Config{CryptoKey: crypto, CodeMethodS256: true, AuthMethodPost: true}, s, op.StaticIssuer(cfg.Issuer),
		op.WithAllowInsecure(), op.WithLogger(cfg.Log))
	if err != nil {
		return nil, fmt.Errorf("OpenID provider: %w", err)
	}
	l := &login{storage: s, page: page, callback: op.AuthCallbackURL(provider)}
	mux := http.NewServeMux()
	interceptor := op.NewIssuerInterceptor(provider.IssuerFromRequest)
	mux.HandleFunc("GET /login", l.show)
	mux.HandleFunc("POST /login", interceptor.HandlerFunc(l.check))
	mux.HandleFunc("GET /login.css", func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, files, "login.css") })
	mux.Handle("/", provider)
	return mux, nil
}

// login is the page where people say who they are.
type login struct {
	storage  *storage
	page     *template.Template
	callback func(context.Context, string) string
}

type loginPage struct {
	ID, Email, Wrong string
	People           []Person
}

func (l *login) render(w http.ResponseWriter, status int, p loginPage) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	p.People = l.storage.cfg.People
	w.WriteHeader(status)
	_ = l.page.Execute(w, p) // fails only when the browser hung up
}

func (l *login) show(w http.ResponseWriter, r *http.Request) {
	l.render(w, http.StatusOK, loginPage{ID: r.URL.Query().Get("id")})
}

func (l *login) check(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, formBytesMax)
	id, email := r.PostFormValue("id"), strings.ToLower(strings.TrimSpace(r.PostFormValue("email")))
	if err := l.storage.signIn(id, email, r.PostFormValue("password")); err != nil {
		l.render(w, http.StatusUnauthorized, loginPage{ID: id, Email: email, Wrong: err.Error()})
		return
	}
	http.Redirect(w, r, l.callback(r.Context(), id), http.StatusFound)
}

// request is one sign-in under way: op.AuthRequest.
type request struct {
	oidc.AuthRequest
	id      string
	subject string
	done    time.Time
	made    time.Time
	tries   int
}

func (r *request) GetID() string          { return r.id }
func (r *request) GetACR() string         { return "" }
func (r *request) GetAMR() []string       { return []string{"pwd"} }
func (r *request) GetAudience() []string  { return []string{r.ClientID} }
func (r *request) GetAuthTime() time.Time { return r.done }
func (r *request) GetClientID() string    { return r.ClientID }
func (r *request) GetNonce() string       { return r.Nonce }
func (r *request) GetRedirectURI() string { return r.RedirectURI }
func (r *request) GetScopes() []string    { return r.Scopes }
func (r *request) GetState() string       { return r.State }
func (r *request) GetSubject() string     { return r.subject }
func (r *request) Done() bool             { return !r.done.IsZero() }

func (r *request) GetResponseType() oidc.ResponseType { return r.ResponseType }
func (r *request) GetResponseMode() oidc.ResponseMode { return r.ResponseMode }

func (r *request) GetCodeChallenge() *oidc.CodeChallenge {
	if r.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: r.CodeChallenge, Method: r.CodeChallengeMethod}
}

// storage implements op.Storage for one client and the authorization code flow.
type storage struct {
	cfg Config
	key signingKey

	mu       sync.Mutex
	requests map[string]*request
	codes    map[string]string
}

var errGone = errors.New("this sign-in is over: begin again at the console")

func (s *storage) signIn(id, email, password string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.requests[id]
	if r == nil || time.Since(r.made) > requestLife || r.tries >= triesPerSignIn {
		return errGone
	}
	r.tries++
	given, want := sha256.Sum256([]byte(password)), sha256.Sum256([]byte(s.cfg.Password))
	p := s.person(email)
	if subtle.ConstantTimeCompare(given[:], want[:]) != 1 || p == nil {
		return errors.New("that is not the address and password of anybody here")
	}
	r.subject, r.done = p.Email, time.Now()
	return nil
}

func (s *storage) person(email string) *Person {
	for i := range s.cfg.People {
		if s.cfg.People[i].Email == email {
			return &s.cfg.People[i]
		}
	}
	return nil
}

func (s *storage) CreateAuthRequest(_ context.Context, r *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	if len(r.Prompt) == 1 && r.Prompt[0] == oidc.PromptNone {
		return nil, oidc.ErrLoginRequired()
	}
	if r.CodeChallenge == "" {
		return nil, oidc.ErrInvalidRequest().WithDescription("PKCE is needed here")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, old := range s.requests {
		if time.Since(old.made) > requestLife {
			delete(s.requests, id)
		}
	}
	if len(s.requests) >= requestsMax {
		return nil, oidc.ErrServerError().WithDescription("too many sign-ins at once")
	}
	n := &request{AuthRequest: *r, id: rand.Text(), made: time.Now()}
	s.requests[n.id] = n
	return n, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.requests[id]; r != nil {
		return r, nil
	}
	return nil, errGone
}

func (s *storage) AuthRequestByCode(ctx context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	id := s.codes[code]
	delete(s.codes, code) // a code is for once
	s.mu.Unlock()
	return s.AuthRequestByID(ctx, id)
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	for code, of := range s.codes {
		if of == id {
			delete(s.codes, code)
		}
	}
	return nil
}
