package extproc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// Config is what Streams is made of.
type Config struct {
	// Still tells whether a grant stands now. (*authz.Decider).Still is it. Needed.
	Still func(g *authz.Grant, now time.Time) (authz.Reason, *registry.Suspension)
	// Changed is closed when another View is published; take it before asking
	// Still. (*registry.Mirror).Changed is it. Needed.
	Changed func() <-chan struct{}
	// PerProduct caps the open streams of one product, Total those of all; what
	// exceeds them is refused with 429. Needed.
	PerProduct, Total int
	// EndWithToken ends a stream when its token expires. Default: it may outlive
	// the token that it was opened with.
	EndWithToken bool
	// Now is the wall clock. Default time.Now.
	Now func() time.Time
	// Metrics registers what is counted; nil counts unseen.
	Metrics prometheus.Registerer
	// Log hears of streams ended; nil discards.
	Log *slog.Logger
}

// judgeEvery is how often all grants are asked about when no View changed. What
// ends at an instant (a certification, support, a lease, a notice taking effect)
// ends its streams within it, whatever the clock did meanwhile; a timer for each
// would have to be right about each of them, and about clocks that are set.
const judgeEvery = 400 * time.Millisecond

// Streams is every side stream open on this sidecar. Safe for concurrent use.
type Streams struct {
	cfg     Config
	metrics *metrics

	mu     sync.Mutex
	all    []*leash
	by     map[string]int // open streams of a product
	closed bool
}

// leash is one open stream.
type leash struct {
	grant *authz.Grant
	// end takes the one reason to end it; its handler takes that out.
	end   chan authz.Reason
	index int // in Streams.all
}

// NewStreams makes a Streams; Run watches over it.
func NewStreams(cfg Config) (*Streams, error) {
	if cfg.Still == nil || cfg.Changed == nil {
		return nil, errors.New("extproc: nobody to ask whether a grant stands")
	}
	if cfg.PerProduct < 1 || cfg.Total < cfg.PerProduct {
		return nil, fmt.Errorf("extproc: at most %d streams of a product and %d in all is no cap", cfg.PerProduct, cfg.Total)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Streams{cfg: cfg, by: map[string]int{}}
	var err error
	if s.metrics, err = newMetrics(cfg.Metrics, s.Open); err != nil {
		return nil, err
	}
	return s, nil
}

// Open is how many streams are open.
func (s *Streams) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.all)
}

// Room implements authz.StreamRoom. Between the ALLOW and the side stream others
// may take what room there was: then the side stream is refused.
func (s *Streams) Room(product string) bool {
	s.mu.Lock()
	room := s.room(product)
	s.mu.Unlock()
	if !room {
		s.metrics.refused.Inc()
	}
	return room
}

func (s *Streams) room(product string) bool {
	return !s.closed && len(s.all) < s.cfg.Total && s.by[product] < s.cfg.PerProduct
}

// open takes a stream in, if its grant stands and there is room.
func (s *Streams) open(g *authz.Grant) (*leash, authz.Reason) {
	l := &leash{grant: g, end: make(chan authz.Reason, 1)}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, authz.AuthorizerUnavailable
	}
	if !s.room(g.Product) {
		s.mu.Unlock()
		s.metrics.refused.Inc()
		return nil, authz.RateLimited
	}
	l.index = len(s.all)
	s.all = append(s.all, l)
	s.by[g.Product]++
	s.mu.Unlock()
	// Asked after it is in the list, not before: a View that comes in between is
	// then asked about by Run.
	if reason, _ := s.still(g, s.cfg.Now()); reason != authz.OK {
		s.release(l)
		s.metrics.ended[reason].Inc()
		return nil, reason
	}
	return l, authz.OK
}

// release lets a stream go that has ended.
func (s *Streams) release(l *leash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := len(s.all) - 1
	s.all[l.index] = s.all[last]
	s.all[l.index].index = l.index
	s.all[last] = nil
	s.all = s.all[:last]
	if s.by[l.grant.Product]--; s.by[l.grant.Product] == 0 {
		delete(s.by, l.grant.Product)
	}
}

func (s *Streams) still(g *authz.Grant, now time.Time) (authz.Reason, *registry.Suspension) {
	if s.cfg.EndWithToken && registry.At(now) >= g.Expires {
		return authz.TokenExpired, nil
	}
	return s.cfg.Still(g, now)
}

// Run ends streams whose grants do not stand any more, until ctx is done; then
// it ends all there are, because nobody watches over them from then on.
func (s *Streams) Run(ctx context.Context) {
	tick := time.NewTicker(judgeEvery)
	defer tick.Stop()
	var all []*leash
	for ctx.Err() == nil {
		changed := s.cfg.Changed()
		start := time.Now()
		all = s.judge(ctx, all)
		// A fifth of a processor at most, however many streams there are and however
		// often Views change: requests are decided on the same one.
		rest := time.NewTimer(min(4*time.Since(start), judgeEvery))
		select {
		case <-ctx.Done():
		case <-rest.C:
		}
		rest.Stop()
		select {
		case <-ctx.Done():
		case <-changed:
		case <-tick.C:
		}
	}
	s.Close(context.WithoutCancel(ctx))
}

// ending is what one judgement ended for one cause.
type ending struct {
	reason     authz.Reason
	suspension string
}

// judge asks about every stream; buf is scratch that is handed back.
func (s *Streams) judge(ctx context.Context, buf []*leash) []*leash {
	s.mu.Lock()
	buf = append(buf[:0], s.all...)
	s.mu.Unlock()
	now := s.cfg.Now()
	var ended map[ending]int
	for i, l := range buf {
		reason, suspension := s.still(l.grant, now)
		if reason != authz.OK && l.finish(reason) {
			s.metrics.ended[reason].Inc()
			if ended == nil {
				ended = map[ending]int{}
			}
			e := ending{reason: reason}
			if suspension != nil {
				e.suspension = suspension.ID
			}
			ended[e]++
		}
		if i%judgeAtOnce == judgeAtOnce-1 {
			runtime.Gosched() // requests are decided on the same processor
		}
	}
	clear(buf)
	s.tell(ctx, ended)
	return buf
}

// judgeAtOnce is how many streams are asked about before others get their turn.
const judgeAtOnce = 128

// tellMax bounds the lines of one judgement.
const tellMax = 20

// tell logs one line for each cause, the most streams first.
func (s *Streams) tell(ctx context.Context, ended map[ending]int) {
	causes := slices.SortedFunc(maps.Keys(ended), func(a, b ending) int {
		return cmp.Or(cmp.Compare(ended[b], ended[a]), cmp.Compare(a.suspension, b.suspension), cmp.Compare(a.reason, b.reason))
	})
	more, streams := 0, 0
	for i, e := range causes {
		if i >= tellMax {
			more, streams = more+1, streams+ended[e]
			continue
		}
		s.cfg.Log.WarnContext(ctx, "streams ended", "reason", e.reason.String(), "suspension", e.suspension, "streams", ended[e])
	}
	if more > 0 {
		s.cfg.Log.WarnContext(ctx, "streams ended for further causes", "causes", more, "streams", streams)
	}
}

// finish ends a stream; false when it was ended already.
func (l *leash) finish(reason authz.Reason) bool {
	select {
	case l.end <- reason:
		return true
	default:
		return false
	}
}

// Close ends every stream and takes no more: call it before the gRPC server is
// stopped, gracefully or not.
func (s *Streams) Close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	n := 0
	for _, l := range s.all {
		if l.finish(authz.AuthorizerUnavailable) {
			s.metrics.ended[authz.AuthorizerUnavailable].Inc()
			n++
		}
	}
	if n > 0 {
		s.cfg.Log.WarnContext(ctx, "streams cut: this sidecar stops", "streams", n)
	}
}
