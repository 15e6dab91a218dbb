package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// This file is the only place where a status code is chosen.

// What only HTTP can get wrong; everything else is a sentinel of registry.
var (
	errUnauthenticated  = errors.New("sign in with a bearer token: Authorization: Bearer <token>")
	errMalformed        = errors.New("malformed request")
	errTooLarge         = fmt.Errorf("the body is larger than %d bytes", bodyBytesMax)
	errEvidenceTooLarge = fmt.Errorf("%w: evidence has at most %d MiB", assurance.ErrTooLarge, certification.EvidenceBytesMax>>20)
	errMediaType        = errors.New("send the body as application/json")
	errEncoded          = errors.New("send the body as it is, without Content-Encoding")
	errMethod           = errors.New("this address does not answer that method")
	errKeyReused        = errors.New("this Idempotency-Key was used for another request: make a new key")
	errBusy             = errors.New("too many requests at once: try again in a second")
)

// outcome is what a handler did; statusOK turns it into a status code.
type outcome uint8

const (
	found outcome = iota
	created
	already // the command asked for what there was already
)

func (o outcome) status() int {
	if o == created {
		return http.StatusCreated
	}
	return http.StatusOK
}

// answer is what a handler gives back.
type answer struct {
	outcome outcome
	data    any
	rev     registry.Revision // of the record: its ETag; 0 for none
	page    *pageInfo         // set for listings
}

// errorBody is one member of "errors".
type errorBody struct {
	ID     string       `json:"id" doc:"The request, as in the x-request-id header and in the log."`
	Code   string       `json:"code" doc:"Stable, lower-case and hyphenated."`
	Detail string       `json:"detail" doc:"What is wrong and what to do about it, for people."`
	Source *errorSource `json:"source,omitempty"`
	Meta   *errorMeta   `json:"meta,omitempty"`
}

// errorSource says which part of the request is wrong.
type errorSource struct {
	Pointer   string `json:"pointer,omitempty" doc:"A JSON pointer (RFC 6901) into the body."`
	Parameter string `json:"parameter,omitempty" doc:"A query parameter."`
	Header    string `json:"header,omitempty" doc:"A header of the request."`
}

// errorMeta is what was done all the same, a suspension that is committed but
// not yet durable on the replicas asked for; or, when nothing could be
// committed, until when what was to be stopped may still pass.
type errorMeta struct {
	Data          any                             `json:"data,omitempty"`
	ExposureUntil map[registry.Risk]registry.Time `json:"exposure_until,omitempty" doc:"By risk rating: when the sidecars' serving leases end, while the store is away for them too. Left out when nothing bounds it."`
}

type errorsBody struct {
	Errors []errorBody `json:"errors" minItems:"1"`
}

// paramError is a wrong query parameter or header.
type paramError struct {
	parameter, header string
	err               error
}

func (e *paramError) Error() string { return e.err.Error() }
func (e *paramError) Unwrap() error { return e.err }

// manyErrors is several things wrong with one body, at least one.
type manyErrors []error

func (m manyErrors) Error() string   { return m[0].Error() }
func (m manyErrors) Unwrap() []error { return m }

// committedError is an error after the fact: the command is committed, and data
// says what it did.
type committedError struct {
	data any
	err  error
}

func (e *committedError) Error() string { return e.err.Error() }
func (e *committedError) Unwrap() error { return e.err }

// verdict is what is told of an error: its status, its code, and how long to
// wait before trying again, in seconds (0: not stated).
type verdict struct {
	status     int
	code       string
	retryAfter int
	// plain replaces the error's own text where that is not for the caller.
	plain string
}

func judge(err error) verdict {
	switch {
	case errors.Is(err, errUnauthenticated):
		return verdict{status: http.StatusUnauthorized, code: "unauthenticated"}
	case errors.Is(err, errMalformed):
		return verdict{status: http.StatusBadRequest, code: "malformed"}
	case errors.Is(err, errTooLarge), errors.Is(err, assurance.ErrTooLarge):
		return verdict{status: http.StatusRequestEntityTooLarge, code: "body-too-large"}
	case errors.Is(err, errMediaType), errors.Is(err, errEncoded):
		return verdict{status: http.StatusUnsupportedMediaType, code: "unsupported-media-type"}
	case errors.Is(err, errMethod):
		return verdict{status: http.StatusMethodNotAllowed, code: "method-not-allowed"}
	case errors.Is(err, errKeyReused), errors.Is(err, registry.ErrInvalid):
		return verdict{status: http.StatusUnprocessableEntity, code: "invalid"}
	case errors.Is(err, registry.ErrNotFound):
		return verdict{status: http.StatusNotFound, code: "not-found"}
	case errors.Is(err, registry.ErrForbidden):
		return verdict{status: http.StatusForbidden, code: "forbidden"}
	case errors.Is(err, registry.ErrPrecondition):
		return verdict{status: http.StatusPreconditionFailed, code: "precondition-failed"}
	case errors.Is(err, registry.ErrState):
		return verdict{status: http.StatusConflict, code: "state-conflict"}
	case errors.Is(err, registry.ErrConflict):
		return verdict{status: http.StatusConflict, code: "conflict"}
	case errors.Is(err, registry.ErrNotDurable):
		return verdict{status: http.StatusServiceUnavailable, code: "not-durable", retryAfter: 1,
			plain: "committed, but not yet durable on as many replicas as are asked for; a loss of the primary now could undo it"}
	case errors.Is(err, registry.ErrUncertain):
		return verdict{status: http.StatusServiceUnavailable, code: "outcome-unknown", retryAfter: 1,
			plain: "the register's store went silent during the commit, which may or may not have happened: read before you repeat, or repeat with the same Idempotency-Key"}
	case errors.Is(err, registry.ErrFenced):
		return verdict{status: http.StatusServiceUnavailable, code: "not-the-writer", retryAfter: 2,
			plain: "another control plane is the writer now; nothing was changed"}
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrRewound), errors.Is(err, registry.ErrTampered):
		return verdict{status: http.StatusServiceUnavailable, code: "register-unavailable", retryAfter: 2,
			plain: "the register's store cannot be reached or cannot be trusted; nothing was changed"}
	case errors.Is(err, registry.ErrTrimmed):
		return verdict{status: http.StatusGone, code: "trimmed", plain: "the log no longer reaches back that far"}
	case errors.Is(err, errBusy):
		return verdict{status: http.StatusServiceUnavailable, code: "unavailable", retryAfter: 1}
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return verdict{status: http.StatusServiceUnavailable, code: "unavailable", retryAfter: 1,
			plain: "the request took too long; read before you repeat, or repeat with the same Idempotency-Key"}
	}
	return verdict{status: http.StatusInternalServerError, code: "internal",
		plain: "something went wrong here; quote the id when you report it"}
}

// fail answers with an error. Detail that is not for the caller is logged only.
func (s *server) fail(c *call, err error) {
	v := judge(err)
	if v.plain != "" && v.code != "trimmed" {
		s.log.WarnContext(c.r.Context(), "request failed", "request_id", c.id, "route", c.routeName(), "status", v.status, "err", err)
	}
	h := c.w.Header()
	if v.retryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(v.retryAfter))
	}
	if v.status == http.StatusUnauthorized {
		challenge := `Bearer realm="dspgate"`
		if c.r.Header.Get("Authorization") != "" {
			challenge += `, error="invalid_token"`
		}
		h.Set("WWW-Authenticate", challenge)
	}
	var body errorsBody
	for _, one := range flatten(err) {
		body.Errors = append(body.Errors, c.errorBody(one, v))
	}
	b, mErr := json.Marshal(body)
	if mErr != nil { // cannot be: every part is a string or a record
		b = []byte(`{"errors":[{"id":"` + c.id + `","code":"internal","detail":"something went wrong here"}]}`)
	}
	c.write(v.status, b)
}

func flatten(err error) []error {
	var many manyErrors
	if errors.As(err, &many) {
		return many
	}
	var joined interface{ Unwrap() []error }
	if !errors.As(err, &joined) {
		return []error{err}
	}
	all := joined.Unwrap()
	for _, one := range all {
		var field *registry.FieldError
		if !errors.As(one, &field) { // not several things wrong, but one with several causes
			return []error{err}
		}
	}
	return all[:min(len(all), bodyErrorsMax)]
}

func (c *call) errorBody(err error, v verdict) errorBody {
	b := errorBody{ID: c.id, Code: v.code, Detail: sentence(err)}
	if v.plain != "" {
		b.Detail = v.plain
	}
	var field *registry.FieldError
	var param *paramError
	var committed *committedError
	var exposed *registry.ExposureError
	switch {
	case errors.As(err, &field):
		b.Source = &errorSource{Pointer: field.Field}
		b.Detail = sentence(field.Err)
	case errors.As(err, &param):
		b.Source = &errorSource{Parameter: param.parameter, Header: param.header}
	case errors.Is(err, errKeyReused):
		b.Source = &errorSource{Header: "Idempotency-Key"}
	}
	if errors.As(err, &committed) {
		b.Meta = &errorMeta{Data: committed.data}
	}
	if errors.As(err, &exposed) {
		b.Detail += exposure(exposed)
		b.Meta = &errorMeta{ExposureUntil: exposed.Until}
	}
	return b
}

func exposure(e *registry.ExposureError) string {
	if e.Until == nil {
		return "; the store goes on renewing the sidecars' leases, so what you would stop passes until it commits again: stop the store, or the sidecars"
	}
	return fmt.Sprintf("; while the store is away for the sidecars too, they let pass what you would stop until %s at the latest for risk ratings 3 and 4, %s for 1 and 2",
		e.Until[4], e.Until[1])
}

// plainText is an error's text without the sentinel of the rules in front.
func plainText(err error) string {
	return strings.TrimPrefix(err.Error(), certification.ErrInvalid.Error()+": ")
}

// sentence is an error's text for people: without the sentinel in front, which
// the code says already.
func sentence(err error) string {
	text := err.Error()
	for _, s := range []error{registry.ErrInvalid, registry.ErrState, registry.ErrNotFound, registry.ErrForbidden, registry.ErrPrecondition} {
		text = strings.ReplaceAll(text, s.Error()+": ", "")
	}
	return text
}

// succeed renders an answer; the bytes are also what an Idempotency-Key keeps.
func render(a answer) (stored, error) {
	var b []byte
	var err error
	if a.page != nil {
		b, err = renderList(&a)
	} else {
		b, err = json.Marshal(dataBody{Data: a.data})
	}
	if err != nil {
		return stored{}, fmt.Errorf("render: %w", err)
	}
	return stored{Status: a.outcome.status(), Revision: a.rev, Body: b}, nil
}

type dataBody struct {
	Data any `json:"data"`
}

// renderList writes a listing, each member of it once: json.Marshal of the whole
// would read again what each record wrote.
func renderList(a *answer) ([]byte, error) {
	b := make([]byte, 0, 4<<10)
	b = append(b, `{"data":`...)
	if all, ok := a.data.([]any); ok {
		b = append(b, '[')
		for i, x := range all {
			if i > 0 {
				b = append(b, ',')
			}
			var err error
			if r, ok := x.(record); ok {
				b, err = r.appendJSON(b)
			} else {
				b, err = appendJSON(b, x)
			}
			if err != nil {
				return nil, err
			}
		}
		b = append(b, ']')
	} else {
		var err error
		if b, err = appendJSON(b, a.data); err != nil {
			return nil, err
		}
	}
	b, err := appendJSON(append(b, `,"_meta":`...), a.page.Meta)
	if err == nil {
		b, err = appendJSON(append(b, `,"_links":`...), a.page.Links)
	}
	return append(b, '}'), err
}

func appendJSON(b []byte, x any) ([]byte, error) {
	one, err := json.Marshal(x)
	return append(b, one...), err
}

// stored is a whole answer, as kept for an Idempotency-Key.
type stored struct {
	Status   int               `json:"status"`
	Revision registry.Revision `json:"revision,omitempty"`
	Body     json.RawMessage   `json:"body"`
}

// send sends an answer. The ETag of one record is its revision; what is read
// otherwise has a sum of what is sent.
func (c *call) send(st stored) {
	switch {
	case st.Revision != 0 && reads(c.r.Method):
		c.w.Header().Set("Cache-Control", "private, no-cache")
		if c.unchanged(etag(st.Revision)) {
			return
		}
	case st.Revision != 0:
		c.w.Header().Set("ETag", etag(st.Revision))
	case reads(c.r.Method):
		sum := sha256.Sum256(st.Body)
		if c.unchanged(`"` + hex.EncodeToString(sum[:16]) + `"`) {
			return
		}
	}
	c.write(st.Status, st.Body)
}

// unchanged tells whether the caller has what it would be sent; it was then told
// so, and nothing may be sent any more.
func (c *call) unchanged(tag string) bool {
	c.w.Header().Set("ETag", tag)
	if !noneMatch(strings.Join(c.r.Header.Values("If-None-Match"), ","), tag) {
		return false
	}
	c.w.WriteHeader(http.StatusNotModified)
	return true
}

// write sends a JSON body whose status was chosen above.
func (c *call) write(status int, body []byte) {
	h := c.w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	c.w.WriteHeader(status)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(append(body, '\n')) // the caller hung up: nobody is left to tell
	}
}

// allowed answers OPTIONS.
func (c *call) allowed(methods string) {
	c.w.Header().Set("Allow", methods)
	c.w.WriteHeader(http.StatusNoContent)
}

// ready answers /readyz, healthy /healthz.
func (c *call) health(ok bool, body []byte) {
	status := http.StatusOK
	if !ok {
		status = http.StatusServiceUnavailable
		c.w.Header().Set("Retry-After", "1")
	}
	c.write(status, body)
}

// download sends a file to be saved. Its address is its ETag: what an address
// names never changes.
func (c *call) download(media, name, address string, f io.ReadSeeker) {
	h := c.w.Header()
	h.Set("Content-Type", media)
	h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
	h.Set("ETag", `"`+address+`"`)
	h.Set("Cache-Control", "private, no-cache")
	http.ServeContent(c.w, c.r, "", time.Time{}, f)
}

// begin begins an answer that is written bit by bit.
func (c *call) begin(media string) {
	c.w.Header().Set("Content-Type", media)
	c.w.WriteHeader(http.StatusOK)
}

// raw sends a document that is no JSON answer (the OpenAPI page).
func (c *call) raw(contentType string, body []byte) {
	c.w.Header().Set("Content-Type", contentType)
	c.w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method != http.MethodHead {
		_, _ = c.w.Write(body) // as in write
	}
}

func reads(method string) bool { return method == http.MethodGet || method == http.MethodHead }

func etag(rev registry.Revision) string { return `"` + strconv.FormatUint(uint64(rev), 10) + `"` }

// noneMatch compares as If-None-Match does: weakly, any of a list, or "*".
func noneMatch(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		one = strings.TrimSpace(one)
		if one == "*" || strings.TrimPrefix(one, "W/") == tag {
			return one != ""
		}
	}
	return false
}

// logRequest is the access log: the route's template, never the path, and no query.
func (s *server) logRequest(c *call, status int, bytes int64, tookMS float64) {
	level := slog.LevelInfo
	if status >= http.StatusInternalServerError {
		level = slog.LevelWarn
	}
	s.log.LogAttrs(c.r.Context(), level, "request",
		slog.String("request_id", c.id), slog.String("method", knownMethod(c.r.Method)), slog.String("route", c.routeName()),
		slog.Int("status", status), slog.Int64("bytes", bytes), slog.Float64("ms", tookMS), slog.String("actor", c.actor.Name))
}

func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions:
		return m
	}
	return "other"
}
