package authz_test

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// fault is one thing broken on purpose, around the production code: no build
// of it holds any of these. The zero fault breaks nothing.
type fault struct {
	name    string
	within  int // seeds in which it must be caught
	noDrain bool
	// What happens every second time, so that the fault shows soon: a fate of the
	// sidecars (12 is 0), of the control planes. 0: nothing out of the ordinary.
	sidecars, planes int
	failovers        bool // often
	stops            bool // every failover is of a primary that was stopped, and wakes up later
	// planeStore and sidecarStore stand between a process and its store.
	planeStore   func(*registrytest.Link, *simWorld) registrytest.Store
	sidecarStore func(*registrytest.Link) registrytest.Store
	// served stands between a mirror and the decisions.
	served func(authz.Served, registrytest.Store) authz.Served
}

var faults = []fault{
	{name: "no drain", within: 200, noDrain: true},
	{name: "no lease timeout", within: 200, served: func(s authz.Served, _ registrytest.Store) authz.Served { return endless{s} }},
	{name: "lease counted from the reply", within: 1000, sidecars: 6,
		sidecarStore: func(s *registrytest.Link) registrytest.Store { return &timed{Link: s} },
		served:       func(s authz.Served, log registrytest.Store) authz.Served { return fromReply{s, log.(*timed)} }},
	{name: "no epoch check", within: 300, planes: 1, planeStore: func(s *registrytest.Link, w *simWorld) registrytest.Store { return anyEpoch{s, w.store} }},
	{name: "quorum instead of all", within: 200, planeStore: func(s *registrytest.Link, _ *simWorld) registrytest.Store { return quorum{s} }},
	{name: "acknowledgement before the swap", within: 500,
		sidecarStore: func(s *registrytest.Link) registrytest.Store { return hasty{s} }},
	{name: "acknowledgement of what is pushed", within: 500,
		sidecarStore: func(s *registrytest.Link) registrytest.Store { return &rash{Link: s} }},
	{name: "nobody goes past what a deposed primary told", within: 1000, stops: true, failovers: true,
		planeStore: func(s *registrytest.Link, _ *simWorld) registrytest.Store { return blind{s} }},
	{name: "separate acknowledgement", within: 1000,
		sidecarStore: func(s *registrytest.Link) registrytest.Store { return twoSteps{s} }},
	{name: "deposed writer goes by its own list", within: 500,
		planeStore: func(s *registrytest.Link, _ *simWorld) registrytest.Store { return &ownList{Link: s} }},
	{name: "unknown member", within: 500, sidecars: 3, failovers: true, planeStore: func(s *registrytest.Link, _ *simWorld) registrytest.Store { return sure{s} }},
	{name: "one entry for all incarnations", within: 500, sidecars: 2, planeStore: func(s *registrytest.Link, _ *simWorld) registrytest.Store { return byName{s} }},
}

// endless: a lease that was once held never ends.
type endless struct{ of authz.Served }

func (e endless) Served() *registry.Served {
	s := e.of.Served()
	if s == nil || s.LongUntil == 0 {
		return s
	}
	return &registry.Served{View: s.View, ShortUntil: 1 << 62, LongUntil: 1 << 62}
}

// timed notes how long the last successful poll took.
type timed struct {
	*registrytest.Link
	mu   sync.Mutex
	took time.Duration
}

func (x *timed) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	sent := time.Now()
	p, err := x.Link.Follow(ctx, ack, n)
	if err == nil {
		x.mu.Lock()
		x.took = time.Since(sent)
		x.mu.Unlock()
	}
	return p, err
}

// fromReply counts the lease from the reply.
type fromReply struct {
	of  authz.Served
	log *timed
}

func (f fromReply) Served() *registry.Served {
	s := f.of.Served()
	if s == nil || s.LongUntil == 0 {
		return s
	}
	f.log.mu.Lock()
	defer f.log.mu.Unlock()
	return &registry.Served{View: s.View, ShortUntil: s.ShortUntil + f.log.took, LongUntil: s.LongUntil + f.log.took}
}

// anyEpoch: the store takes a commit under whatever epoch, and a deposed
// writer takes no notice.
type anyEpoch struct {
	*registrytest.Link
	memory *registrytest.Memory
}

func (a anyEpoch) Commit(ctx context.Context, _ registry.Epoch, base registry.Mark, c *registry.Change, h *registry.Head) error {
	return a.Link.Commit(ctx, a.memory.Epoch(), base, c, h)
}

func (a anyEpoch) CommitGroup(ctx context.Context, _ registry.Epoch, base registry.Mark, all []*registry.Change, h *registry.Head) error {
	return a.Link.CommitGroup(ctx, a.memory.Epoch(), base, all, h)
}

func (a anyEpoch) Lead(ctx context.Context, holder string, have registry.Epoch, ttl time.Duration) (registry.Epoch, error) {
	e, err := a.Link.Lead(ctx, holder, have, ttl)
	if errors.Is(err, registry.ErrFenced) && have != 0 {
		return have, nil
	}
	return e, err
}

// quorum: the slower half of the roll is not waited for.
type quorum struct{ *registrytest.Link }

func (q quorum) Roll(ctx context.Context) (registry.Roll, error) {
	r, err := q.Link.Roll(ctx)
	slices.SortFunc(r.Members, func(a, b registry.Member) int { return cmp.Compare(b.Revision, a.Revision) })
	n := (len(r.Members) + 1) / 2
	r.Members = r.Members[:n:n]
	return r, err
}

// hasty acknowledges what a poll brought before it is served.
type hasty struct{ *registrytest.Link }

func (x hasty) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	p, err := x.Link.Follow(ctx, ack, n)
	if err == nil && len(p.Changes) > 0 && !ack.Observer {
		last := &p.Changes[len(p.Changes)-1]
		ack.Revision, ack.Digest = last.Revision, last.Digest
		_, _ = x.Link.Follow(ctx, ack, 0)
		time.Sleep(100 * time.Millisecond)
	}
	return p, err
}

// rash acknowledges what is pushed before it is served.
type rash struct {
	*registrytest.Link
	ack registry.Ack // by the one follower
}

func (x *rash) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	x.ack = ack
	return x.Link.Follow(ctx, ack, n)
}

func (x *rash) Pushed(after registry.Revision) []registry.Change {
	all := x.Link.Pushed(after)
	if len(all) > 0 && !x.ack.Observer {
		last, ack := &all[len(all)-1], x.ack
		ack.Revision, ack.Digest = last.Revision, last.Digest
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		_, _ = x.Link.Follow(ctx, ack, 0)
		time.Sleep(100 * time.Millisecond)
	}
	return all
}

// blind takes who is above the head for one that holds nothing.
type blind struct{ *registrytest.Link }

func (b blind) Roll(ctx context.Context) (registry.Roll, error) {
	r, err := b.Link.Roll(ctx)
	for i := range r.Members {
		if m := &r.Members[i]; m.Revision > r.Head {
			m.Revision, m.Digest = 0, registry.Digest{}
		}
	}
	return r, err
}

// twoSteps reads on in one call and acknowledges in another, whose loss it does not mind.
type twoSteps struct{ *registrytest.Link }

func (x twoSteps) Follow(ctx context.Context, ack registry.Ack, n int) (registry.Poll, error) {
	read := ack
	read.Observer = true
	p, err := x.Link.Follow(ctx, read, n)
	if err == nil && !ack.Observer {
		actx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		_, _ = x.Link.Follow(actx, ack, 0)
	}
	return p, err
}

// ownList: a control plane goes by the roll it read itself, for a while.
type ownList struct {
	*registrytest.Link
	read time.Time // by one reader at a time
	roll registry.Roll
}

func (o *ownList) Roll(ctx context.Context) (registry.Roll, error) {
	if time.Since(o.read) < 3*time.Second && o.roll.Tenure != "" {
		// It takes it that who was there has followed since.
		r := o.roll
		r.Members = slices.Clone(r.Members)
		p, err := o.Link.Follow(ctx, registry.Ack{Observer: true, Revision: 1 << 40}, 0)
		if err != nil && !errors.Is(err, registry.ErrTrimmed) {
			return r, nil
		}
		for i := range r.Members {
			if m := &r.Members[i]; m.Revision > 0 {
				m.Revision, m.Digest = p.Head.Revision, p.Head.Digest
			}
		}
		r.Head = p.Head.Revision
		return r, nil
	}
	r, err := o.Link.Roll(ctx)
	if err == nil {
		o.roll, o.read = r, time.Now()
	}
	return r, err
}

// sure takes every roll for whole, also after a failover.
type sure struct{ *registrytest.Link }

func (s sure) Roll(ctx context.Context) (registry.Roll, error) {
	r, err := s.Link.Roll(ctx)
	r.Tenure, r.Settled = "one and only", true
	return r, err
}

// byName: the newest incarnation hides the others.
type byName struct{ *registrytest.Link }

func (b byName) Roll(ctx context.Context) (registry.Roll, error) {
	r, err := b.Link.Roll(ctx)
	newest := map[string]registry.Member{}
	for _, m := range r.Members {
		if old, ok := newest[m.ID]; !ok || m.Incarnation > old.Incarnation {
			newest[m.ID] = m
		}
	}
	r.Members = slices.DeleteFunc(r.Members, func(m registry.Member) bool { return newest[m.ID].Incarnation != m.Incarnation })
	return r, err
}
