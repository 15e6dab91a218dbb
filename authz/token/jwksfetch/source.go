// Package jwksfetch keeps the key set of one issuer, from a file or a URL.
//
// Readers load the current set without a lock; one goroutine, Run, fetches. A
// fetch that fails in any way changes nothing: the last good set stays until
// MaxStale after the fetch that brought it began, and then there is no key and
// every token of the issuer is refused. Nothing a token says makes more than one
// fetch in 30 s.
package jwksfetch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/authz/token"
)

// ErrConfig wraps everything New refuses.
var ErrConfig = errors.New("key source configuration")

// missInterval is the least time between the fetches that unknown kids cause,
// and between retries once there has been a set.
const missInterval = 30 * time.Second

// Config says where an issuer's key set is. Zero values mean the defaults.
type Config struct {
	// File or URL, exactly one. The URL is https; the file a regular one.
	File, URL string
	// Algorithms of the issuer: what a key may be pinned to.
	Algorithms []string
	// Refresh is how often to look, ±10 %. Default 5m for a URL, 2s for a file;
	// at least 1s.
	Refresh time.Duration
	// MaxStale is how long the last good set holds when looking fails. Default
	// 12h, greatest 7 days, at least Refresh. Beyond it every token is refused.
	MaxStale time.Duration
	// Timeout bounds one fetch from the URL whole: connecting, the handshake,
	// headers and body. Default and greatest 5s.
	Timeout time.Duration
	// CAFile holds the PEM certificates to trust for the URL in place of the system's.
	CAFile string
	// AllowHTTPLoopback admits plain http to a literal loopback address: the
	// demo's own issuer. Never in production. Default false.
	AllowHTTPLoopback bool
	// Log gets a line when the set changes and when looking fails. Default none.
	Log *slog.Logger
}

// Source is an issuer's current key set: a token.KeySource.
type Source struct {
	cfg    Config
	client *http.Client // nil for a file
	log    *slog.Logger

	current atomic.Pointer[held] // swapped whole by fetch; nil before the first success
	wanted  atomic.Bool          // an unknown kid came, since the last fetch
	wake    chan struct{}

	mu     sync.Mutex // held over a fetch: one at a time
	status atomic.Pointer[Status]
}

// held is a good set and until when it holds.
type held struct {
	set        *token.KeySet
	sum        [sha256.Size]byte // of the document
	until      time.Time
	generation uint64
}

// Status is how the source stands.
type Status struct {
	LastSuccess time.Time // when the fetch began that last succeeded; zero before
	LastAttempt time.Time
	Err         error  // of the last attempt; nil when it succeeded
	Keys        int    // in the last good set
	Skipped     int    // keys of its document that were left out
	Generation  uint64 // counts the sets that differed; 0 before the first
	Fetches     uint64 // attempts so far
}

// New checks the configuration and reads the CA file; it fetches nothing.
func New(cfg Config) (*Source, error) {
	fail := func(format string, args ...any) (*Source, error) {
		return nil, fmt.Errorf("%w: %w", ErrConfig, fmt.Errorf(format, args...))
	}
	s := &Source{log: cfg.Log, wake: make(chan struct{}, 1)}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	switch {
	case (cfg.File == "") == (cfg.URL == ""):
		return fail("give a file or a URL, and not both")
	case cfg.File != "" && cfg.Refresh == 0:
		cfg.Refresh = 2 * time.Second
	case cfg.Refresh == 0:
		cfg.Refresh = 5 * time.Minute
	}
	if cfg.MaxStale == 0 {
		cfg.MaxStale = 12 * time.Hour
	}
	if cfg.Refresh < time.Second || cfg.MaxStale < cfg.Refresh || cfg.MaxStale > 7*24*time.Hour {
		return fail("refresh %v and max stale %v: want 1s <= refresh <= max stale <= 168h", cfg.Refresh, cfg.MaxStale)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = timeoutMax
	}
	if cfg.Timeout < 0 || cfg.Timeout > timeoutMax {
		return fail("timeout %v is not within %v", cfg.Timeout, timeoutMax)
	}
	if err := token.CheckAlgorithms(cfg.Algorithms); err != nil {
		return fail("%w", err)
	}
	if cfg.URL != "" {
		client, err := newClient(&cfg)
		if err != nil {
			return fail("%w", err)
		}
		s.client = client
	}
	s.cfg = cfg
	s.status.Store(&Status{})
	return s, nil
}

// Keys implements token.KeySource: the current set, nil when it is too old or
// there never was one.
func (s *Source) Keys(now time.Time) *token.KeySet {
	h := s.current.Load()
	// By the monotonic clock, and by the wall clock too: the one stands still
	// while a virtual machine sleeps, the other may be set back.
	if h == nil || now.After(h.until) || now.Round(0).After(h.until.Round(0)) {
		return nil
	}
	return h.set
}

// Missed implements token.KeySource: a fetch follows, 30 s after the last one
// began at the earliest.
func (s *Source) Missed(string) {
	if !s.wanted.Load() && s.wanted.CompareAndSwap(false, true) {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Status tells how the source stands.
func (s *Source) Status() Status { return *s.status.Load() }

// Run fetches at once, and then as configured, until ctx ends. It returns nil.
func (s *Source) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	due := time.Now()
	plan := func(at time.Time) {
		due = at
		timer.Reset(time.Until(due))
	}
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
			// Sooner than planned, never later, and not too soon after the last.
			if soon := s.Status().LastAttempt.Add(missInterval); soon.Before(due) {
				plan(soon)
			}
			continue
		case <-timer.C:
		}
		if err := s.Load(ctx); err == nil {
			failures = 0
			plan(time.Now().Add(jitter(s.cfg.Refresh)))
		} else {
			plan(time.Now().Add(jitter(s.retry(failures))))
			failures++
		}
	}
}

// retry is how long to wait after failures in a row: from 1 s doubling to 30 s
// while there is no set to serve with, else 30 s; never longer than Refresh.
func (s *Source) retry(failures int) time.Duration {
	wait := missInterval
	if s.current.Load() == nil {
		wait = min(time.Second<<min(failures, 5), missInterval)
	}
	return min(wait, s.cfg.Refresh)
}

// jitter is d within ±10 %, so that a fleet does not fetch as one.
func jitter(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// Load fetches once, now: for a start that wants the keys before it serves. It
// returns why nothing new was taken; the last good set stays.
func (s *Source) Load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted.Store(false) // before the fetch: a kid missed meanwhile wants another
	began := time.Now()
	next := *s.status.Load()
	next.LastAttempt, next.Fetches = began, next.Fetches+1
	doc, err := s.read(ctx)
	if err == nil {
		err = s.take(ctx, doc, began, &next)
	}
	if err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "key set not refreshed", "source", s.where(), "err", err, "last_success", next.LastSuccess)
	}
	next.Err = err
	s.status.Store(&next)
	return err
}

// take makes a document the current set.
func (s *Source) take(ctx context.Context, doc []byte, began time.Time, next *Status) error {
	h := &held{sum: sha256.Sum256(doc), until: began.Add(s.cfg.MaxStale), generation: 1}
	old := s.current.Load()
	if old != nil && old.sum == h.sum {
		h.set, h.generation = old.set, old.generation
	} else {
		set, skipped, err := Parse(doc, s.cfg.Algorithms)
		if err != nil {
			return err
		}
		h.set, next.Skipped = set, len(skipped)
		if old != nil {
			h.generation = old.generation + 1
			if set.Equal(old.set) {
				// The verifier takes the pointer for the set's identity.
				h.set, h.generation = old.set, old.generation
			}
		}
		s.log.InfoContext(ctx, "key set loaded", "source", s.where(), "keys", set.Len(), "skipped", errors.Join(skipped...), "generation", h.generation)
	}
	s.current.Store(h)
	next.LastSuccess, next.Keys, next.Generation = began, h.set.Len(), h.generation
	return nil
}

func (s *Source) where() string { return s.cfg.File + s.cfg.URL }

func (s *Source) read(ctx context.Context) ([]byte, error) {
	if s.client != nil {
		return s.get(ctx)
	}
	// Stat before Open: opening a pipe would wait for its writer.
	if info, err := os.Stat(s.cfg.File); err != nil {
		return nil, fmt.Errorf("read key set: %w", err)
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("read key set: %s is no regular file", s.cfg.File)
	}
	f, err := os.Open(s.cfg.File)
	if err != nil {
		return nil, fmt.Errorf("read key set: %w", err)
	}
	defer f.Close()
	return bounded(f)
}

// bounded reads everything up to the bound, and one more byte is an error.
func bounded(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(r, DocumentBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("read key set: %w", err)
	}
	if n > DocumentBytesMax {
		return nil, fmt.Errorf("%w: above %d bytes", ErrDocument, DocumentBytesMax)
	}
	return b.Bytes(), nil
}
