package control

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// call is one request on its way through a handler. It belongs to the
// goroutine that serves it.
type call struct {
	id     string // x-request-id
	w      *recorder
	r      *http.Request
	route  *route         // nil until one was found
	actor  registry.Actor // zero when nobody signed in
	person bool           // signed in at the console, not by a token
	view   *registry.View // one for the whole request
	at     registry.Time
	query  url.Values
	body   []byte
	// release gives the slot back before the end, for an answer that goes on for
	// long and is bounded otherwise; began is when such an answer began.
	release func()
	began   time.Time
}

// recorder notes what was answered, for the access log and the metrics.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

func newRequestID() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails, says crypto/rand
	return hex.EncodeToString(b[:])
}

func (c *call) routeName() string {
	if c.route == nil {
		return "none"
	}
	return c.route.path
}

func (c *call) path(name string) string { return c.r.PathValue(name) }

// etagPattern is one entity tag (RFC 9110 §8.8.3), or any.
const etagPattern = `^(\*|(W/)?"[!#-~]*")$`

var etagExp = regexp.MustCompile(etagPattern)

// meta is what every command takes beside its body.
func (c *call) meta(reason string) (registry.Meta, error) {
	m := registry.Meta{Reason: reason}
	values := c.r.Header.Values("If-Match")
	switch {
	case len(values) == 0 || len(values) == 1 && values[0] == "*":
		return m, nil
	case len(values) > 1 || !etagExp.MatchString(values[0]):
		return m, &paramError{header: "If-Match", err: fmt.Errorf("%w: If-Match takes the one ETag you were given, quotes and all", errMalformed)}
	}
	rev, err := strconv.ParseUint(strings.Trim(values[0], `"`), 10, 64)
	if err != nil || rev == 0 {
		// No record ever had such a tag (a weak one never matches), so it cannot be the one there is.
		return m, &paramError{header: "If-Match", err: fmt.Errorf("%w: no record has this ETag", registry.ErrPrecondition)}
	}
	m.IfMatch = registry.Revision(rev)
	return m, nil
}

// checkQuery refuses parameters the route does not know, and repeated ones.
func (c *call) checkQuery() error {
	q, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil {
		return fmt.Errorf("%w: the query does not parse", errMalformed)
	}
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !slices.ContainsFunc(c.route.params, func(p param) bool { return p.name == name }) {
			return wrongParam(cut(name, 40), "there is no such parameter here; use %s", c.route.paramNames())
		}
		if len(q[name]) > 1 {
			return wrongParam(name, "this parameter stands twice")
		}
		if len(q[name][0]) > 256 {
			return wrongParam(name, "at most 256 bytes")
		}
	}
	c.query = q
	return nil
}

func wrongParam(name, format string, args ...any) error {
	return &paramError{parameter: name, err: fmt.Errorf("%w: "+format, append([]any{registry.ErrInvalid}, args...)...)}
}

// filter reads a query parameter; ok is false when it was not given.
func (c *call) filter(name string) (value string, ok bool) {
	if !c.query.Has(name) {
		return "", false
	}
	return c.query.Get(name), true
}

// filterWord reads a parameter that must not be empty and, where its schema
// lists words, must be one of them.
func (c *call) filterWord(name string) (value string, ok bool, err error) {
	value, ok = c.filter(name)
	if !ok {
		return "", false, nil
	}
	if words := params[name].schema().Enum; len(words) > 0 && !slices.Contains(words, any(value)) {
		return "", false, wrongParam(name, "use one of %s", strings.Trim(fmt.Sprint(words), "[]"))
	}
	if value == "" {
		return "", false, wrongParam(name, "this parameter is empty")
	}
	return value, true, nil
}

func (c *call) filterABN(name string) (abn registry.ABN, ok bool, err error) {
	s, ok := c.filter(name)
	if !ok {
		return 0, false, nil
	}
	abn, err = registry.ParseABN(s)
	if err != nil {
		return 0, false, &paramError{parameter: name, err: err}
	}
	return abn, true, nil
}

func (c *call) filterBool(name string) (value, ok bool, err error) {
	s, ok := c.filter(name)
	switch {
	case !ok:
		return false, false, nil
	case s == "true", s == "false":
		return s == "true", true, nil
	}
	return false, false, wrongParam(name, "write true or false")
}

func (c *call) filterUint(name string, least, most, otherwise uint64) (uint64, error) {
	s, ok := c.filter(name)
	if !ok {
		return otherwise, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n < least || n > most || s != strconv.FormatUint(n, 10) {
		return 0, wrongParam(name, "a number from %d to %d", least, most)
	}
	return n, nil
}

// filterDuration reads a duration such as 5s or 250ms, 0 to most.
func (c *call) filterDuration(name string, most, otherwise time.Duration) (time.Duration, error) {
	s, ok := c.filter(name)
	if !ok {
		return otherwise, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > most {
		return 0, wrongParam(name, "a duration from 0s to %s, such as 2s or 250ms", most)
	}
	return d, nil
}

// filterText reads a word of a closed vocabulary.
func filterText[T any, P interface {
	*T
	UnmarshalText([]byte) error
}](c *call, name string) (value T, ok bool, err error) {
	s, ok := c.filter(name)
	if !ok {
		return value, false, nil
	}
	if s == "" {
		return value, false, wrongParam(name, "this parameter is empty")
	}
	if err := P(&value).UnmarshalText([]byte(s)); err != nil {
		return value, false, &paramError{parameter: name, err: err}
	}
	return value, true, nil
}

// idempotency is the key under which an answer is kept: per actor, so that
// nobody gets another's answer by guessing a key. ok is false without one.
func (c *call) idempotency() (key string, fingerprint string, ok bool, err error) {
	values := c.r.Header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", "", false, nil
	}
	given := values[0]
	if len(values) > 1 || given == "" || len(given) > 128 || strings.ContainsFunc(given, func(r rune) bool { return r < 0x21 || r > 0x7e }) {
		return "", "", false, &paramError{header: "Idempotency-Key", err: fmt.Errorf("%w: an Idempotency-Key is 1 to 128 printable ASCII characters without spaces, once", registry.ErrInvalid)}
	}
	return sum(c.actor.Name, given), sum(c.r.Method, c.r.URL.EscapedPath(), whatIsAsked(c.r.URL.RawQuery), c.r.Header.Get("If-Match"), string(c.body)), true, nil
}

// whatIsAsked is a query without how long to wait for the answer, which does not
// make it another request: who was cut off while waiting may ask again without.
func whatIsAsked(query string) string {
	q, err := url.ParseQuery(query)
	if err != nil {
		return query
	}
	q.Del("wait")
	q.Del("timeout")
	return q.Encode()
}

// sum hashes parts so that no two lists of parts run together.
func sum(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}
