// Package client calls the control plane's HTTP API.
//
// Every command carries an Idempotency-Key, so that a repeated one does nothing
// twice. What may be repeated (a read, a command) is, a few times, when the
// connection fails or the answer is 503; never after an answer which says that
// something was committed or may have been.
package client

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Bounds on what is sent again and what is read.
const (
	triesMax       = 4
	pauseFirst     = 100 * time.Millisecond
	pauseMax       = 2 * time.Second
	answerBytesMax = 16 << 20
	pagesMax       = 10_000
	pageLimit      = 100
)

// ErrAddress: the address is none that a token may be sent to.
var ErrAddress = errors.New("control plane address")

// Client calls one control plane as one caller. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New makes a client for the control plane at base, such as
// https://control.agency.example. Plain http is for loopback addresses only: a
// token sent over it elsewhere is anybody's. token may be empty for what is public.
func New(base, token string) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%w: %q is no address such as https://control.agency.example", ErrAddress, base)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && loopback(u.Hostname()):
	case u.Scheme == "http":
		return nil, fmt.Errorf("%w: %s is not on this machine, and http would send the token in the clear: use https", ErrAddress, u.Host)
	default:
		return nil, fmt.Errorf("%w: %q is neither https nor http", ErrAddress, u.Scheme)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:   5 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second,
		MaxIdleConns:          4,
		IdleConnTimeout:       30 * time.Second,
		ForceAttemptHTTP2:     true,
	}
	return &Client{base: u, token: token, http: &http.Client{
		Transport: transport,
		// A redirect would take the token to where nobody sent it.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.IsLoopback()
}

// Address is where the client calls.
func (c *Client) Address() string { return c.base.String() }

// Error is a refusal by the control plane. Error says in one sentence what is
// wrong, where, and what to do.
type Error struct {
	Status    int
	ID        string // of the request, for the agency's log
	Code      string
	Detail    string
	Pointer   string // JSON pointer into the body
	Parameter string
	Header    string
	// Data is what was committed all the same, for the code not-durable.
	Data json.RawMessage
	More int // further things that are wrong
}

func (e *Error) Error() string {
	var b strings.Builder
	switch {
	case e.Pointer != "":
		b.WriteString(strings.TrimPrefix(e.Pointer, "/") + ": ")
	case e.Parameter != "":
		b.WriteString(e.Parameter + ": ")
	case e.Header != "":
		b.WriteString(e.Header + ": ")
	}
	b.WriteString(e.Detail)
	if e.More > 0 {
		fmt.Fprintf(&b, " (and %d more)", e.More)
	}
	fmt.Fprintf(&b, " [%s]", e.Code)
	if e.Status >= http.StatusInternalServerError {
		fmt.Fprintf(&b, " (request %s)", e.ID)
	}
	return b.String()
}

// NotDurable tells whether an error says that the command is committed, though
// not yet on as many replicas as asked for.
func NotDurable(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e) && e.Code == "not-durable"
	return e, ok
}

// Answer is one answer of the API.
type Answer[T any] struct {
	Data    T
	Raw     json.RawMessage // the same, as sent
	ETag    string
	Created bool
	Meta    Meta // of a listing
}

// Meta counts a listing.
type Meta struct {
	Page       int `json:"page"`
	Limit      int `json:"limit"`
	TotalItems int `json:"total_items"`
	TotalPages int `json:"total_pages"`
}

// Request is one call.
type Request struct {
	Method  string // default GET
	Path    string // such as /v1/products/FP-1001, its segments escaped (Path)
	Query   url.Values
	Body    any    // JSON; nil for none
	IfMatch string // an ETag
	// Raw is a file to send instead of Body.
	Raw []byte
	// After is the event heard last, of a stream that is gone on with.
	After string
}

// Path joins path segments, escaping each.
func Path(segments ...string) string {
	var b strings.Builder
	b.WriteString("/v1")
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// Do calls once, or a few times where that is safe, and decodes "data".
func Do[T any](ctx context.Context, c *Client, r Request) (Answer[T], error) {
	var a Answer[T]
	if r.Method == "" {
		r.Method = http.MethodGet
	}
	body := r.Raw
	if r.Body != nil {
		var err error
		if body, err = json.Marshal(r.Body); err != nil {
			return a, fmt.Errorf("encode the request: %w", err)
		}
	}
	res, err := c.send(ctx, r, body)
	if err != nil {
		return a, err
	}
	var env struct {
		Data json.RawMessage `json:"data"`
		Meta Meta            `json:"_meta"`
	}
	if err := json.Unmarshal(res.body, &env); err != nil {
		return a, fmt.Errorf("%s %s: the answer is not the control plane's (is this its address?): %w", r.Method, c.base.Host, err)
	}
	a.Raw, a.Meta, a.ETag, a.Created = env.Data, env.Meta, res.etag, res.status == http.StatusCreated
	if err := json.Unmarshal(env.Data, &a.Data); err != nil {
		return a, fmt.Errorf("decode the answer of %s: %w", r.Path, err)
	}
	return a, nil
}

// List reads a whole listing, page by page, at most max items.
func List[T any](ctx context.Context, c *Client, path string, query url.Values, max int) ([]T, []json.RawMessage, error) {
	q := url.Values{}
	for k, v := range query {
		q[k] = v
	}
	q.Set("limit", strconv.Itoa(min(pageLimit, max)))
	var items []T
	var raws []json.RawMessage
	for page := 1; page <= pagesMax; page++ {
		q.Set("page", strconv.Itoa(page))
		a, err := Do[[]json.RawMessage](ctx, c, Request{Path: path, Query: q})
		if err != nil {
			return nil, nil, err
		}
		for _, raw := range a.Data {
			var item T
			if err := json.Unmarshal(raw, &item); err != nil {
				return nil, nil, fmt.Errorf("decode the answer of %s: %w", path, err)
			}
			items, raws = append(items, item), append(raws, raw)
			if len(items) == max {
				return items, raws, nil
			}
		}
		if page >= a.Meta.TotalPages || len(a.Data) == 0 {
			break
		}
	}
	return items, raws, nil
}

type response struct {
	status int
	etag   string
	body   []byte
}

// send sends, again where that is safe: a read changes nothing, and a command
// carries an Idempotency-Key, the same each time.
func (c *Client) send(ctx context.Context, r Request, body []byte) (response, error) {
	key := ""
	if r.Method != http.MethodGet {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails, says crypto/rand
		key = hex.EncodeToString(b[:])
	}
	pause := pauseFirst
	for try := 1; ; try++ {
		res, after, err := c.once(ctx, r, body, key)
		if err == nil || try == triesMax || !again(err) || ctx.Err() != nil {
			return res, err
		}
		if after > 0 {
			pause = min(after, pauseMax)
		}
		select {
		case <-ctx.Done():
			return response{}, ctx.Err()
		case <-time.After(pause):
			pause = min(2*pause, pauseMax)
		}
	}
}

// again tells whether an error is one that may pass.
func again(err error) bool {
	var e *Error
	if !errors.As(err, &e) {
		return true // the connection
	}
	return e.Status == http.StatusServiceUnavailable && e.Code != "not-durable" && e.Code != "outcome-unknown"
}

func (c *Client) once(ctx context.Context, r Request, body []byte, key string) (res response, after time.Duration, err error) {
	address := c.base.String() + r.Path
	if len(r.Query) > 0 {
		address += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, address, bytes.NewReader(body))
	if err != nil {
		return res, 0, &Error{Code: "usage", Detail: err.Error()}
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("Accept", "application/json")
	switch {
	case r.Raw != nil:
		req.Header.Set("Content-Type", "application/octet-stream")
	case r.Body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	if r.IfMatch != "" {
		req.Header.Set("If-Match", r.IfMatch)
	}
	answer, err := c.http.Do(req)
	if err != nil {
		return res, 0, c.unreachable(ctx, err)
	}
	defer answer.Body.Close()
	if res.body, err = io.ReadAll(io.LimitReader(answer.Body, answerBytesMax)); err != nil {
		return res, 0, c.unreachable(ctx, err)
	}
	res.status, res.etag = answer.StatusCode, answer.Header.Get("ETag")
	if res.status < 200 || res.status > 299 {
		if s, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && s >= 0 {
			after = time.Duration(s) * time.Second
		}
		return res, after, refusal(res)
	}
	return res, 0, nil
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return fmt.Errorf("the control plane at %s cannot be reached (%v): is it running, and is this its address?", c.base.Host, op.Err)
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the URL adds nothing
	}
	return fmt.Errorf("the control plane at %s broke off: %w", c.base.Host, err)
}

func refusal(res response) error {
	var body struct {
		Errors []struct {
			ID     string `json:"id"`
			Code   string `json:"code"`
			Detail string `json:"detail"`
			Source struct{ Pointer, Parameter, Header string }
			Meta   struct{ Data json.RawMessage }
		}
	}
	if err := json.Unmarshal(res.body, &body); err != nil || len(body.Errors) == 0 {
		return &Error{Status: res.status, Code: strconv.Itoa(res.status), Detail: fmt.Sprintf("the answer has status %d and is not the control plane's: is this its address?", res.status)}
	}
	first := body.Errors[0]
	return &Error{
		Status: res.status, ID: first.ID, Code: first.Code, Detail: first.Detail,
		Pointer: first.Source.Pointer, Parameter: first.Source.Parameter, Header: first.Source.Header,
		Data: first.Meta.Data, More: len(body.Errors) - 1,
	}
}
