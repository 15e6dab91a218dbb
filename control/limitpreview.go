package control

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

type previewBody struct {
	Subject registry.SubjectRef `json:"subject" doc:"An entity, product, client-app, service or tier."`
	Name    string              `json:"name" minLength:"1" maxLength:"32" doc:"Where the subject has a limit of that name, the proposed one stands in its place."`
	Since   registry.Time       `json:"since,omitempty" doc:"Replay the decisions made from then on; default the last hour, at most what is kept."`
	LimitFields
}

// previewView is what a proposed limit would have done to the calls recorded.
type previewView struct {
	Limit     registry.Limit   `json:"limit"`
	From      registry.Time    `json:"from"`
	To        registry.Time    `json:"to"`
	Decisions uint64           `json:"decisions" doc:"Recorded in that time, of all calls."`
	Calls     uint64           `json:"calls" doc:"Of them, those that the limit would have counted."`
	Refused   uint64           `json:"refused" doc:"Of them, those that it would have refused."`
	Truncated bool             `json:"truncated,omitempty" doc:"There were more decisions than are replayed at once: the rest is not in the figures."`
	Accounts  []previewAccount `json:"accounts" doc:"Who would have been refused, the most first."`
}

type previewAccount struct {
	Account string        `json:"account" doc:"KIND:ID; of a subscription, the keyed hash of its SSID."`
	Calls   uint64        `json:"calls"`
	Refused uint64        `json:"refused"`
	First   registry.Time `json:"first_refused_at,omitempty"`
}

// Bounds on a preview.
const (
	previewDecisionsMax = 2_000_000
	previewAccountsMax  = 100_000 // counted
	previewShownMax     = 100
	previewSinceDefault = time.Hour
)

// previewLimit replays the recorded decisions against a limit that is not set.
// A call counts when it was allowed, or refused by the limit that the proposed
// one would stand in the place of; what another rule refused spends nothing.
// Times are the sidecars', so that calls of several within some milliseconds
// may count in another order than they came in.
func (s *server) previewLimit(c *call, in *previewBody) (answer, error) {
	if in.Subject.Kind == registry.KindSubscription {
		return answer{}, registry.Field("/subject/kind", "records keep a keyed hash of a subscription's SSID only; preview a tier's limit, per subscription, instead")
	}
	if in.Kind == registry.LimitConcurrency {
		return answer{}, registry.Field("/kind", "records do not say how long calls took, so that calls at once cannot be replayed")
	}
	proposed, err := in.limit(in.Subject, in.Name)
	if err != nil {
		return answer{}, err
	}
	view, l, err := c.view.WithLimit(proposed)
	if err != nil {
		return answer{}, err
	}
	to := c.at.Std()
	from := in.Since.Std()
	if in.Since == 0 {
		from = to.Add(-previewSinceDefault)
	}
	if !from.Before(to) {
		return answer{}, registry.Field("/since", "%s is not in the past", in.Since)
	}
	if s.decisions.Each == nil {
		return answer{}, unavailable(fmt.Errorf("there are no records to replay"))
	}
	p, err := newPreview(view, l)
	if err != nil {
		return answer{}, err
	}
	p.out.From, p.out.To = registry.At(from), c.at
	if err := s.decisions.Each(c.r.Context(), from, to, p.replay); err != nil {
		return answer{}, unavailable(err)
	}
	return answer{data: p.result()}, nil
}

// preview is one replay.
type preview struct {
	view     *registry.View
	limit    *registry.Limit
	zone     *time.Location
	limiter  *ratelimit.Limiter
	began    time.Time
	accounts map[string]*previewed
	room     []registry.Applied
	out      previewView
}

type previewed struct {
	previewAccount
	limit *ratelimit.Limit
}

func newPreview(view *registry.View, l *registry.Limit) (*preview, error) {
	p := &preview{view: view, limit: l, limiter: ratelimit.Solo(), accounts: map[string]*previewed{}, out: previewView{Limit: *l, Accounts: []previewAccount{}}}
	p.limit.Shadow = false // what an enforced one would refuse, and what an observed one would count
	if l.Zone != "" {
		var err error
		if p.zone, err = time.LoadLocation(l.Zone); err != nil {
			return nil, registry.Field("/zone", "%q is no time zone here", l.Zone)
		}
	}
	return p, nil
}

// replay counts one decision.
func (p *preview) replay(r *authz.Record) bool {
	if p.out.Decisions == previewDecisionsMax {
		p.out.Truncated = true
		return false
	}
	p.out.Decisions++
	of, applies := p.applies(r)
	if !applies || r.Reason != authz.OK && r.Limit != registry.LimitID(of, p.limit.Name) {
		return true
	}
	a := p.account(of)
	if a == nil {
		p.out.Truncated = true
		return true
	}
	at := r.At.Std()
	if p.began.IsZero() {
		p.began = at
	}
	p.out.Calls++
	a.Calls++
	q := ratelimit.Query{Elapsed: at.Sub(p.began) + time.Hour, Now: at, Subject: [16]byte(r.SubjectHash)}
	var out ratelimit.Outcome
	if p.limiter.Spend(&q, []*ratelimit.Limit{a.limit}, &out) {
		return true
	}
	p.out.Refused++
	a.Refused++
	if a.First == 0 || r.At < a.First {
		a.First = r.At
	}
	return true
}

// applies tells whether the proposed limit would count a call, and whose account it is.
func (p *preview) applies(r *authz.Record) (of registry.SubjectRef, ok bool) {
	q := registry.LimitQuery{App: p.view.ClientApp(r.ClientID), Product: p.view.Product(r.ProductID), Service: p.view.Service(r.Service), Environment: r.Environment}
	if q.App == nil || q.Product == nil || q.Service == nil {
		return of, false
	}
	if e := q.Product.Entitled(q.Service.Key, q.Environment); e != nil {
		q.Stage = e.Stage
	}
	if r.SSIDHash != (authz.Hash{}) {
		q.SSID = hex.EncodeToString(r.SSIDHash[:])
	}
	p.room = p.view.AppendLimits(p.room[:0], &q)
	for _, a := range p.room {
		if a.ID == p.limit.ID {
			return a.Of, true
		}
	}
	return of, false
}

func (p *preview) account(of registry.SubjectRef) *previewed {
	name := of.Kind.String() + ":" + of.ID
	if a := p.accounts[name]; a != nil {
		return a
	}
	if len(p.accounts) == previewAccountsMax {
		return nil
	}
	l, _ := authz.LimitOf(registry.Applied{Limit: p.limit, Of: of}, p.zone) // it was checked as a whole
	a := &previewed{previewAccount: previewAccount{Account: name}, limit: l}
	p.accounts[name] = a
	return a
}

func (p *preview) result() previewView {
	for _, a := range p.accounts {
		if a.Refused > 0 {
			p.out.Accounts = append(p.out.Accounts, a.previewAccount)
		}
	}
	slices.SortFunc(p.out.Accounts, func(a, b previewAccount) int {
		return cmp.Or(cmp.Compare(b.Refused, a.Refused), cmp.Compare(a.Account, b.Account))
	})
	p.out.Accounts = p.out.Accounts[:min(len(p.out.Accounts), previewShownMax)]
	return p.out
}
