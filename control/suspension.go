package control

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// waitMax is the longest a command waits for the sidecars.
const waitMax = 5 * time.Second

// suspensionView is a suspension as the API shows it. A developer sees why and
// until when, and not the names of the agency's people.
type suspensionView struct {
	registry.Suspension
	Active      bool             `json:"active"`
	Enforcement *enforcementView `json:"enforcement,omitempty"`
}

// enforcementView is how far a suspension has come, and where even a complete one
// promises less.
type enforcementView struct {
	registry.Enforcement
	P1OnlyServices []string `json:"p1_only_services" doc:"Services of the subject whose upstream verifies no admission stamp: no call that starts later is allowed, but one allowed before may still arrive."`
}

type subjectBody struct {
	Kind registry.Kind `json:"kind"`
	ID   string        `json:"id" minLength:"1" maxLength:"200" doc:"A version is PRODUCT@VERSION, such as FP-1009@4.2."`
}

type suspendBody struct {
	Subject    subjectBody   `json:"subject"`
	Reason     string        `json:"reason" minLength:"1" maxLength:"500"`
	Emergency  bool          `json:"emergency,omitempty" doc:"Nothing at all may pass, not even receipts."`
	NoticeID   string        `json:"notice_id,omitempty" maxLength:"64"`
	IncidentID string        `json:"incident_id,omitempty" maxLength:"64"`
	Expires    registry.Time `json:"expires_at,omitempty" doc:"Default: in 4 hours."`
	CurbFields
}

// CurbFields curbs a subject instead of stopping it.
type CurbFields struct {
	Effect  string        `json:"effect,omitempty" enum:"throttle,restrict" doc:"Left out: nothing may pass."`
	Rate    int64         `json:"rate,omitempty" minimum:"1" maximum:"1000000" doc:"Of a throttle: calls a second, over all sidecars."`
	MaxRisk registry.Risk `json:"max_risk,omitempty" minimum:"1" maximum:"3" doc:"Of a restriction: the highest service rating left."`
}

// curb fills a command in.
func (b *CurbFields) curb(c registry.SuspendCommand) (registry.SuspendCommand, error) {
	c.Rate, c.MaxRisk = b.Rate, b.MaxRisk
	if err := c.Effect.UnmarshalText([]byte(b.Effect)); err != nil {
		return c, &registry.FieldError{Field: "/effect", Err: err}
	}
	return c, nil
}

type confirmBody struct {
	Expires registry.Time `json:"expires_at,omitempty" doc:"At most 72 h after it was imposed, which is also the default."`
	Reason  string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type liftBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type noticeBody struct {
	Subject     subjectBody   `json:"subject"`
	Reason      string        `json:"reason" minLength:"1" maxLength:"500"`
	EffectiveAt registry.Time `json:"effective_at"`
}

type denyBody struct {
	What    string        `json:"what" enum:"kid,jti"`
	Issuer  string        `json:"issuer" minLength:"1" maxLength:"120"`
	Value   string        `json:"value" minLength:"1" maxLength:"128"`
	Reason  string        `json:"reason" minLength:"1" maxLength:"500"`
	Expires registry.Time `json:"expires_at,omitempty"`
}

func (b subjectBody) ref() registry.SubjectRef { return registry.SubjectRef(b) }

func (s *server) viewSuspension(c *call, x *registry.Suspension) suspensionView {
	v := suspensionView{Suspension: *x, Active: x.Active(registry.At(s.now()))} // not c.at: it may have begun since
	if !c.actor.Staff() {
		v.ImposedBy, v.ConfirmedBy, v.LiftedBy = "", "", ""
	}
	return v
}

// refuseSuspend answers somebody who may not suspend: that it is forbidden,
// unless the subject is one that the caller may not even know of.
func (s *server) refuseSuspend(c *call) error {
	if c.actor.Staff() {
		return forbidden(c.route)
	}
	var in suspendBody
	b, err := readBody(c.w, c.r)
	if err == nil && s.doc.decode(b, &in) == nil && !mayKnow(c, in.Subject.Kind, in.Subject.ID) {
		return notFound(in.Subject.Kind, in.Subject.ID)
	}
	return forbidden(c.route)
}

func (s *server) suspend(c *call, in *suspendBody) (answer, error) {
	w, err := c.waiting()
	if err != nil {
		return answer{}, err
	}
	cmd, err := in.curb(registry.SuspendCommand{
		Subject: in.Subject.ref(), Reason: in.Reason, Emergency: in.Emergency,
		NoticeID: in.NoticeID, IncidentID: in.IncidentID, Expires: in.Expires,
	})
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.Suspend(c.r.Context(), c.actor, cmd)
	return s.suspended(c, w, r, err, created)
}

func (s *server) confirm(c *call, in *confirmBody) (answer, error) {
	w, err := c.waiting()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.ConfirmSuspension(c.r.Context(), c.actor, c.path("id"), in.Expires, m)
	return s.suspended(c, w, r, err, found)
}

func (s *server) lift(c *call, in *liftBody) (answer, error) {
	w, err := c.waiting()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.LiftSuspension(c.r.Context(), c.actor, c.path("id"), m)
	return s.suspended(c, w, r, err, found)
}

// wait is whether and how long to wait for the sidecars.
type wait struct {
	on      bool
	timeout time.Duration
}

func (c *call) waiting() (w wait, err error) {
	if w.on, _, err = c.filterBool("wait"); err != nil {
		return w, err
	}
	w.timeout, err = c.filterDuration("timeout", waitMax, waitMax)
	return w, err
}

// suspended renders a suspension that a command made or changed, waiting first
// if that was asked for. What is committed is committed: neither a wait that
// fails nor a caller that hangs up turns it into a failure.
func (s *server) suspended(c *call, w wait, r registry.Result[registry.Suspension], err error, done outcome) (answer, error) {
	if r.Entry == nil || err != nil && !errors.Is(err, registry.ErrNotDurable) {
		return answer{}, err
	}
	if r.Existing {
		done = already
	}
	v := s.viewSuspension(c, &r.Entry.Value)
	if w.on {
		v.Enforcement = s.enforced(c, &r.Entry.Value, r.Revision, w.timeout)
	}
	if err != nil {
		return answer{}, &committedError{v, err}
	}
	return answer{outcome: done, data: v, rev: r.Entry.Revision}, nil
}

// enforced waits for the sidecars and says where the promise is the smaller one.
func (s *server) enforced(c *call, x *registry.Suspension, rev registry.Revision, timeout time.Duration) *enforcementView {
	e := &enforcementView{Enforcement: *s.await(c, rev, timeout), P1OnlyServices: []string{}}
	if v, err := s.reg.View(); err == nil && x.LiftedAt == 0 {
		e.P1OnlyServices = v.P1Only(x.Subject, x.Emergency, s.drain > 0)
	}
	return e
}

// await waits for the sidecars. A timeout of 0 looks once.
func (s *server) await(c *call, rev registry.Revision, timeout time.Duration) *registry.Enforcement {
	e, err := s.reg.Await(c.r.Context(), rev, max(timeout, time.Millisecond))
	if err != nil {
		// Nobody knows how far it has come, which is not the same as nobody having it.
		s.log.WarnContext(c.r.Context(), "roll of sidecars not read", "request_id", c.id, "revision", rev, "err", err)
		return &registry.Enforcement{Sidecars: []registry.SidecarState{}}
	}
	if e.Sidecars == nil {
		e.Sidecars = []registry.SidecarState{}
	}
	return &e
}

// latestFirst sorts by the revision that made the record, which its ID holds.
func latestFirst[T any](list func(*registry.View) []*registry.Entry[T]) func(*registry.View) []*registry.Entry[T] {
	return func(v *registry.View) []*registry.Entry[T] {
		all := list(v)
		slices.SortFunc(all, func(a, b *registry.Entry[T]) int {
			return cmp.Or(cmp.Compare(len(b.ID), len(a.ID)), strings.Compare(b.ID, a.ID))
		})
		return all
	}
}

func (s *server) listSuspensions(c *call) (answer, error) {
	kind, byKind, err := filterText[registry.Kind](c, "kind")
	if err != nil {
		return answer{}, err
	}
	active, byActive, err := c.filterBool("active")
	if err != nil {
		return answer{}, err
	}
	subject, bySubject := c.filter("subject")
	product, byProduct := c.filter("product_id")
	keep := func(e *registry.Entry[registry.Suspension]) bool {
		x := &e.Value
		return (!byKind || x.Subject.Kind == kind) && (!bySubject || x.Subject.ID == subject) &&
			(!byActive || x.Active(c.at) == active) && (!byProduct || ofProduct(c.view, x.Subject, product)) &&
			mayKnow(c, x.Subject.Kind, x.Subject.ID)
	}
	if c.actor.Staff() && !byKind && !bySubject && !byActive && !byProduct {
		keep = nil
	}
	return paged(c, s.lists.suspensions.get(c.view, latestFirst((*registry.View).Suspensions)), keep,
		func(e *registry.Entry[registry.Suspension]) any { return s.viewSuspension(c, &e.Value) })
}

// ofProduct tells whether a subject is a product or something that belongs to it.
func ofProduct(v *registry.View, s registry.SubjectRef, product string) bool {
	switch s.Kind {
	case registry.KindProduct:
		return s.ID == product
	case registry.KindVersion:
		id, _, _ := strings.Cut(s.ID, "@")
		return id == product
	case registry.KindClientApp:
		a := v.ClientApp(s.ID)
		return a != nil && a.ProductID == product
	case registry.KindSubscription:
		x := v.Subscription(s.ID)
		return x != nil && x.ProductID == product
	}
	return false
}

func (s *server) getSuspension(c *call) (answer, error) {
	value, rev, ok := c.view.Entry(registry.KindSuspension, c.path("id"))
	if !ok {
		return answer{}, notFound(registry.KindSuspension, c.path("id"))
	}
	w, err := c.waiting()
	if err != nil {
		return answer{}, err
	}
	v := s.viewSuspension(c, value.(*registry.Suspension))
	if w.on && c.actor.Staff() {
		v.Enforcement = s.enforced(c, value.(*registry.Suspension), rev, w.timeout)
	}
	// No ETag to read it by again: whether it holds, and how far it has come,
	// change without a new revision.
	return answer{data: v}, nil
}

func (s *server) listNotices(c *call) (answer, error) {
	kind, byKind, err := filterText[registry.Kind](c, "kind")
	if err != nil {
		return answer{}, err
	}
	subject, bySubject := c.filter("subject")
	keep := func(e *registry.Entry[registry.Notice]) bool {
		x := &e.Value
		return (!byKind || x.Subject.Kind == kind) && (!bySubject || x.Subject.ID == subject) && mayKnow(c, x.Subject.Kind, x.Subject.ID)
	}
	return paged(c, s.lists.notices.get(c.view, latestFirst((*registry.View).Notices)), keep,
		func(e *registry.Entry[registry.Notice]) any { return c.notice(e) })
}

func (c *call) notice(e *registry.Entry[registry.Notice]) any {
	n := e.Value
	if !c.actor.Staff() {
		n.By = ""
	}
	return record{n, e.Revision}
}

func (s *server) getNotice(c *call) (answer, error) {
	value, rev, ok := c.view.Entry(registry.KindNotice, c.path("id"))
	if !ok {
		return answer{}, notFound(registry.KindNotice, c.path("id"))
	}
	return answer{data: c.notice(&registry.Entry[registry.Notice]{Value: *value.(*registry.Notice), Revision: rev}), rev: rev}, nil
}

func (s *server) issueNotice(c *call, in *noticeBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.IssueNotice(c.r.Context(), c.actor, registry.Notice{Subject: in.Subject.ref(), Reason: in.Reason, EffectiveAt: in.EffectiveAt}, m)
	return changed(r, err, created)
}

func (s *server) listDenials(c *call) (answer, error) {
	issuer, byIssuer := c.filter("issuer")
	active, byActive, err := c.filterBool("active")
	if err != nil {
		return answer{}, err
	}
	keep := func(e *registry.Entry[registry.Denial]) bool {
		return (!byIssuer || e.Value.Issuer == issuer) && (!byActive || e.Value.Active(c.at) == active)
	}
	return paged(c, s.lists.denials.get(c.view, (*registry.View).Denials), keep, show)
}

func (s *server) getDenial(c *call) (answer, error) { return c.one(registry.KindDenial, c.path("id")) }

func (s *server) denyToken(c *call, in *denyBody) (answer, error) {
	w, err := c.waiting()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.DenyToken(c.r.Context(), c.actor, registry.Denial{What: in.What, Issuer: in.Issuer, Value: in.Value, Reason: in.Reason, Expires: in.Expires}, m)
	if w.on && r.Entry != nil && (err == nil || errors.Is(err, registry.ErrNotDurable)) {
		v := denialView{r.Entry.Value, r.Entry.Revision, s.await(c, r.Revision, w.timeout)}
		if err != nil {
			return answer{}, &committedError{v, err}
		}
		done := created
		if r.Existing {
			done = already
		}
		return answer{outcome: done, data: v, rev: v.Revision}, nil
	}
	return changed(r, err, created)
}

// denialView is a denial with how far it has come.
type denialView struct {
	registry.Denial
	Revision    registry.Revision     `json:"revision"`
	Enforcement *registry.Enforcement `json:"enforcement,omitempty"`
}

func (s *server) liftDenial(c *call, in *liftBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.LiftDenial(c.r.Context(), c.actor, c.path("id"), m)
	return changed(r, err, found)
}
