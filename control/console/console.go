// Package console is the web console: pages rendered here, which work without
// JavaScript, for staff and developers, and the public register for everybody.
//
// It is a client of the API, in this process, as the person who signed in: what
// somebody may see or do is decided there and nowhere else. Pages are structs
// (pages.go) given to templates; there is no inline script or style, so that the
// content security policy can forbid both.
package console

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/registry"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed static
var staticFiles embed.FS

// Config is what the console is made of.
type Config struct {
	// API is the control plane's API. Needed.
	API http.Handler
	// As makes requests to API those of a person (control.As). Needed.
	As func(context.Context, registry.Actor) context.Context
	// SignIn keeps sessions; nil: nobody can sign in, and only the public register is shown.
	SignIn *signin.SignIn
	// Secure: browsers reach the console by https.
	Secure bool
	// PublicURL is the console's address, for links in the feed.
	PublicURL string
	Now       func() time.Time
	Log       *slog.Logger
}

const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

const formBytesMax = 64 << 10

type console struct {
	cfg   Config
	pages map[string]*template.Template
	mux   *http.ServeMux
}

// New makes the console's handler; what it does not know it answers 404.
func New(cfg Config) (http.Handler, error) {
	if cfg.API == nil || cfg.As == nil {
		return nil, errors.New("console: API and As are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &console{cfg: cfg, mux: http.NewServeMux()}
	var err error
	if c.pages, err = parsePages(); err != nil {
		return nil, err
	}
	static, err := fs.Sub(staticFiles, "static")
	if err != nil {
		return nil, err
	}
	c.mux.Handle("GET /console/static/", http.StripPrefix("/console/static/", cached(http.FileServerFS(static))))
	c.routes()
	// Requests that a page of another origin makes the browser send change nothing.
	guard := http.NewCrossOriginProtection()
	guard.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.visit(w, r).refuse(http.StatusForbidden, "This form came from another site", "Nothing was changed. Open the console itself and try again.")
	}))
	return c.headers(guard.Handler(c.mux)), nil
}

// Serves tells whether the console answers a path; the rest is the API's.
func Serves(path string) bool {
	switch path {
	case "/", "/register", pathProblems, signin.PathStart, signin.PathEnd:
		return true
	}
	return strings.HasPrefix(path, signin.PathHome) || strings.HasPrefix(path, pathProblems+"/") || strings.HasPrefix(path, signin.PathStart+"/") || path == "/console"
}

func parsePages() (map[string]*template.Template, error) {
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return nil, err
	}
	base, err := template.New("").Funcs(functions()).ParseFS(templateFiles, "templates/_*.html")
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	pages := map[string]*template.Template{}
	for _, name := range names {
		file := strings.TrimPrefix(name, "templates/")
		if strings.HasPrefix(file, "_") {
			continue
		}
		t, err := base.Clone()
		if err != nil {
			return nil, err
		}
		if t, err = t.ParseFS(templateFiles, name); err != nil {
			return nil, fmt.Errorf("console: %w", err)
		}
		pages[strings.TrimSuffix(file, ".html")] = t.Lookup("page")
	}
	return pages, nil
}

func (c *console) headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Frame-Options", "DENY")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
		h.Set("Cache-Control", "no-store")
		if c.cfg.Secure {
			h.Set("Strict-Transport-Security", "max-age=63072000")
		}
		r.Body = http.MaxBytesReader(w, r.Body, bodyBytesMax(r))
		next.ServeHTTP(w, r)
	})
}

func cached(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=300")
		next.ServeHTTP(w, r)
	})
}

// routes is the whole console.
func (c *console) routes() {
	open := func(pattern string, h func(*visit) error) { c.mux.HandleFunc(pattern, c.serve(h, false)) }
	mine := func(pattern string, h func(*visit) error) { c.mux.HandleFunc(pattern, c.serve(h, true)) }

	open("GET /{$}", func(v *visit) error { return v.redirect(signin.PathHome) })
	open("GET /register", (*visit).register)
	open("GET "+pathProblems, (*visit).problems)
	open("GET "+pathProblems+"/{code}", (*visit).problem)
	open("GET /sign-in", func(v *visit) error { return v.c.cfg.SignIn.Start(v.w, v.r) })
	open("GET /sign-in/callback", func(v *visit) error { return v.c.cfg.SignIn.Callback(v.w, v.r) })
	mine("POST /sign-in/entity", (*visit).chooseEntity)
	open("POST /sign-out", (*visit).signOut)
	open("GET /console/signed-out", (*visit).signedOut)

	mine("GET /console/{$}", (*visit).dashboard)
	mine("GET /console/find", (*visit).find)
	mine("GET /console/entities", (*visit).entities)
	mine("GET /console/entities/{abn}", (*visit).entity)
	mine("GET /console/products", (*visit).products)
	mine("GET /console/products/{id}", (*visit).product)
	mine("GET /console/suspend", (*visit).suspendForm)
	mine("POST /console/suspensions", (*visit).suspend)
	mine("GET /console/suspensions", (*visit).suspensions)
	mine("GET /console/suspensions/{id}", (*visit).suspension)
	mine("GET /console/suspensions/{id}/events", (*visit).suspensionEvents)
	mine("POST /console/suspensions/{id}/lift", (*visit).lift)
	mine("POST /console/suspensions/{id}/confirm", (*visit).confirm)
	mine("GET /console/sidecars", (*visit).sidecars)
	mine("GET /console/decisions", (*visit).decisions)
	mine("GET /console/decisions/{id}", (*visit).decision)
	mine("GET /console/own", (*visit).own)
	mine("POST /console/own/products", (*visit).addProduct)
	mine("POST /console/own/products/{id}/test", (*visit).openTest)
	mine("GET /console/people", (*visit).people)
	mine("POST /console/people", (*visit).invite)
	mine("POST /console/people/{id}/remove", (*visit).removePerson)
	mine("POST /console/invitations/{id}/withdraw", (*visit).withdraw)
	mine("GET /console/join", (*visit).joinForm)
	mine("POST /console/join", (*visit).join)
	mine("GET /console/tokens", (*visit).tokens)
	mine("POST /console/tokens", (*visit).makeToken)
	mine("POST /console/tokens/{id}/revoke", (*visit).revokeToken)
	mine("GET /console/audit", (*visit).audit)
	mine("GET /console/audit/{index}", (*visit).auditEntry)
	mine("GET /console/changes", (*visit).changes)
	applicationPages(mine)
	certifyPages(mine)
	assessPages(mine)
	incidentPages(open, mine)
	addOnPages(mine)
	ecosystemPages(mine)
	eventPages(mine)
	signalPages(mine)
	policyPages(mine)
	open("GET /console", func(v *visit) error { return v.redirect(signin.PathHome) })
	open("/", func(*visit) error { return &apiError{Status: http.StatusNotFound, Detail: "There is no such page."} })
}

// serve is the way into every page: who visits, and what to show when it fails.
func (c *console) serve(h func(*visit) error, signedIn bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := c.visit(w, r)
		defer func() {
			if p := recover(); p != nil {
				if p == http.ErrAbortHandler {
					panic(p)
				}
				c.cfg.Log.ErrorContext(r.Context(), "panic in a page", "pattern", r.Pattern, "panic", fmt.Sprint(p))
				v.refuse(http.StatusInternalServerError, "Something went wrong here", "Nothing you sent was lost on your side; try again in a minute.")
			}
		}()
		if c.cfg.SignIn == nil && (signedIn || strings.HasPrefix(r.URL.Path, signin.PathStart) || r.URL.Path == signin.PathEnd) {
			v.refuse(http.StatusNotFound, "No sign-in here", "This control plane has no identity provider configured. The public register is open to everybody.")
			return
		}
		if err := v.who(); err != nil && (signedIn || !errors.Is(err, signin.ErrNobody)) {
			v.fail(err)
			return
		}
		if err := h(v); err != nil {
			v.fail(err)
		}
	}
}
