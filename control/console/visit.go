package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/registry"
)

// visit is one request on its way through a page. It belongs to the goroutine
// that serves it.
type visit struct {
	c      *console
	w      http.ResponseWriter
	r      *http.Request
	person *signin.Person // nil: nobody signed in
	shown  bool
	// match is the revision that what is commanded next must find: the one that
	// the form was made of. 0: any.
	match registry.Revision
}

func (c *console) visit(w http.ResponseWriter, r *http.Request) *visit {
	return &visit{c: c, w: w, r: r}
}

func (v *visit) who() (err error) {
	if v.c.cfg.SignIn == nil {
		return signin.ErrNobody
	}
	v.person, err = v.c.cfg.SignIn.Person(v.w, v.r)
	return err
}

func (v *visit) has(p registry.Permission) bool { return v.person != nil && v.person.Actor.Has(p) }

// apiError is a refusal by the API.
type apiError struct {
	Status int
	ID     string    `json:"id"`
	Code   string    `json:"code"`
	Detail string    `json:"detail"`
	Source apiSource `json:"source"`
	Meta   apiMeta   `json:"meta"`

	others []apiError // what else was wrong
}

type apiSource struct {
	Pointer   string `json:"pointer"`
	Parameter string `json:"parameter"`
}

type apiMeta struct {
	Data json.RawMessage `json:"data"`
}

func (e *apiError) Error() string { return e.Detail }

// pageMeta is what the API says of a page of a listing.
type pageMeta struct {
	Page       int `json:"page"`
	Limit      int `json:"limit"`
	TotalItems int `json:"total_items"`
	TotalPages int `json:"total_pages"`
}

// reply is an answer of the API, kept in memory.
type reply struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *reply) Header() http.Header { return r.header }
func (r *reply) WriteHeader(s int) {
	if r.status == 0 {
		r.status = s
	}
}
func (r *reply) Write(b []byte) (int, error) { r.WriteHeader(http.StatusOK); return r.body.Write(b) }

// get reads from the API as the person.
func (v *visit) get(out any, path string, query ...string) (pageMeta, error) {
	q := url.Values{}
	for i := 0; i+1 < len(query); i += 2 {
		if query[i+1] != "" {
			q.Set(query[i], query[i+1])
		}
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return v.call(v.r.Context(), http.MethodGet, path, nil, out)
}

// send commands the API as the person.
func (v *visit) send(method, path string, body, out any) error {
	_, err := v.call(v.r.Context(), method, path, body, out)
	return err
}

func (v *visit) call(ctx context.Context, method, path string, body, out any) (meta pageMeta, err error) {
	q := request{method: method, path: path}
	if v.match != 0 && method != http.MethodGet {
		q.match = strconv.Quote(strconv.FormatUint(uint64(v.match), 10))
	}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return meta, err
		}
		q.body, q.media = bytes.NewReader(b), "application/json"
	}
	_, meta, err = v.ask(ctx, q, out)
	return meta, err
}

// request is one to the API.
type request struct {
	method, path string
	body         io.Reader
	media        string // of the body
	match        string // the ETag that it must still have
}

// to makes the request the person's.
func (v *visit) to(ctx context.Context, q request) (*http.Request, error) {
	if v.person != nil {
		ctx = v.c.cfg.As(ctx, v.person.Actor)
	}
	if q.body == nil {
		q.body = http.NoBody
	}
	req, err := http.NewRequestWithContext(ctx, q.method, "http://api"+q.path, q.body)
	if err != nil {
		return nil, &apiError{Status: http.StatusNotFound, Detail: "There is no such page."}
	}
	if q.media != "" {
		req.Header.Set("Content-Type", q.media)
	}
	if q.match != "" {
		req.Header.Set("If-Match", q.match)
	}
	return req, nil
}

// ask sends one request to the API and reads what it answers.
func (v *visit) ask(ctx context.Context, q request, out any) (header http.Header, meta pageMeta, err error) {
	req, err := v.to(ctx, q)
	if err != nil {
		return nil, meta, err
	}
	a := &reply{header: http.Header{}}
	v.c.cfg.API.ServeHTTP(a, req)
	meta, err = a.read(q.method, out)
	return a.header, meta, err
}

// read takes an answer apart: what it holds, or the refusal.
func (r *reply) read(method string, out any) (meta pageMeta, err error) {
	var env struct {
		Data   json.RawMessage `json:"data"`
		Meta   pageMeta        `json:"_meta"`
		Errors []apiError      `json:"errors"`
	}
	if err := json.Unmarshal(r.body.Bytes(), &env); err != nil {
		return meta, fmt.Errorf("console: the API answered %d to %s: %w", r.status, method, err)
	}
	if r.status >= 300 || len(env.Errors) > 0 {
		if len(env.Errors) == 0 {
			return meta, fmt.Errorf("console: the API answered %d without saying why", r.status)
		}
		e := env.Errors[0]
		e.Status, e.others = r.status, env.Errors[1:]
		return meta, &e
	}
	if out != nil {
		err = json.Unmarshal(env.Data, out)
	}
	return env.Meta, err
}

// api joins path segments, each escaped.
func api(segments ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, s := range segments {
		b.WriteString("/" + url.PathEscape(s))
	}
	return b.String()
}

// local joins the path of one of the console's own pages.
func local(segments ...string) string {
	return "/console" + strings.TrimPrefix(api(segments...), "/v1")
}

func (v *visit) redirect(to string) error {
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}

func (v *visit) show(status int, name string, page any) error {
	t := v.c.pages[name]
	if t == nil {
		return fmt.Errorf("console: no page %s", name)
	}
	var b bytes.Buffer // whole or not at all
	if err := t.Execute(&b, page); err != nil {
		return fmt.Errorf("console: page %s: %w", name, err)
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.WriteHeader(status)
	v.shown = true
	_, _ = v.w.Write(b.Bytes()) // the browser hung up: nobody is left to tell
	return nil
}

// refuse shows a page that says what is wrong.
func (v *visit) refuse(status int, title, detail string) {
	if v.shown {
		return
	}
	if err := v.show(status, "refusal", refusalPage{v.frame(title), detail, ""}); err != nil {
		v.c.cfg.Log.ErrorContext(v.r.Context(), "page not shown", "err", err)
		http.Error(v.w, title, status)
	}
}

// fail shows what went wrong, with the status it has.
func (v *visit) fail(err error) {
	var api *apiError
	var size *http.MaxBytesError
	switch {
	case errors.Is(err, signin.ErrNobody):
		v.askToSignIn()
	case errors.Is(err, signin.ErrStale), errors.Is(err, signin.ErrDenied), errors.Is(err, signin.ErrUnverified):
		v.refuse(http.StatusForbidden, "Not signed in", sentence(err.Error()))
	case errors.Is(err, signin.ErrProvider):
		v.refuse(http.StatusBadGateway, "Sign-in is not possible now", sentence(err.Error()))
	case errors.As(err, &size):
		v.refuse(http.StatusRequestEntityTooLarge, "Too much at once", "What was sent is too large.")
	case errors.As(err, &api):
		title := map[int]string{
			http.StatusNotFound: "Nothing here", http.StatusForbidden: "Not for you", http.StatusConflict: "Not in this state",
			http.StatusUnprocessableEntity: "Something is not right", http.StatusServiceUnavailable: "Not now",
		}[api.Status]
		if title == "" {
			title = "Something went wrong here"
		}
		v.refuse(api.Status, title, sentence(api.Detail))
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		v.c.cfg.Log.WarnContext(v.r.Context(), "page not available", "pattern", v.r.Pattern, "err", err)
		v.refuse(http.StatusServiceUnavailable, "Not now", "The register cannot be reached. Try again in a few seconds.")
	default:
		v.c.cfg.Log.ErrorContext(v.r.Context(), "page failed", "pattern", v.r.Pattern, "err", err)
		v.refuse(http.StatusInternalServerError, "Something went wrong here", "Try again in a minute.")
	}
}

// askToSignIn offers the sign-in, and the way back to this page. What was typed
// into a form is kept in the page, to be sent once more after signing in.
func (v *visit) askToSignIn() {
	v.person = nil
	to := signin.PathHome
	p := signInPage{frame: v.frame("Sign in"), Lost: v.r.Method != http.MethodGet}
	switch {
	case !p.Lost:
		to = signin.SafeReturn(v.r.URL.RequestURI())
	case v.r.ParseForm() == nil && v.r.PostForm != nil:
		p.Again = v.r.URL.RequestURI()
		for _, name := range slices.Sorted(maps.Keys(v.r.PostForm)) {
			for _, value := range v.r.PostForm[name] {
				p.Typed = append(p.Typed, typed{name, value})
			}
		}
	}
	p.Link = signin.PathStart + "?" + url.Values{"to": {to}}.Encode()
	if err := v.show(http.StatusUnauthorized, "signin", p); err != nil {
		v.fail(err)
	}
}

// sentence makes one of an error's text.
func sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.ContainsAny(s[len(s)-1:], ".!?") {
		s += "."
	}
	return s
}

func (v *visit) form(name string) string { return strings.TrimSpace(v.r.PostFormValue(name)) }

func (v *visit) query(name string) string { return strings.TrimSpace(v.r.URL.Query().Get(name)) }

func (v *visit) now() time.Time { return v.c.cfg.Now() }
