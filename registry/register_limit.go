package registry

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// limiters may set limits: those who assess what a product is good for, and
// those who keep the service running.
const limiters = PermAssessor | PermOperator

// Bounds on limits.
const (
	limitAmountMax  = 1_000_000_000
	limitRateMax    = 1_000_000
	limitClientsMax = 1_000_000
	limitNameMax    = 32
	limitsOfTier    = 64 // at most
	limitsOfSubject = 16
	// One call may have so many to pass: of its tier, and of each of the five
	// subjects it has beside; the request path has room for 24.
	limitsOfTierCall    = 8
	limitsOfSubjectCall = 3
	zoneBytesMax        = 64
)

// SetLimit makes a limit, or changes the one of that subject and name, or
// brings a removed one back. Assessor or operator. What is left out is as the
// tier says whose limit of that name it stands for. What was used stays used.
func (r *Register) SetLimit(ctx context.Context, a Actor, l Limit, m Meta) (Result[Limit], error) {
	if err := need(a, limiters); err != nil {
		return Result[Limit]{}, err
	}
	return do[Limit](ctx, r, a, "limit.set", m.Reason, func(t *tx) error {
		next := l
		if err := next.complete(t.view); err != nil {
			return err
		}
		if err := checkLimit(t.view, &next); err != nil {
			return err
		}
		old := entryOf[Limit](t.view, next.ID)
		if m.IfMatch != 0 && (old == nil || old.Revision != m.IfMatch) {
			return fmt.Errorf("%w: it has another revision now, or none", ErrPrecondition)
		}
		next.Removed, next.Updated = 0, t.now
		if old != nil {
			same := old.Value
			same.Updated = next.Updated
			if same == next {
				return keep(t, old)
			}
		}
		if old == nil || old.Value.Removed != 0 {
			if err := roomForLimit(t.view, &next); err != nil {
				return err
			}
		}
		return t.put(KindLimit, next.ID, &next)
	})
}

// RemoveLimit takes a limit away. Assessor or operator. Where it stood for a
// tier's, that one holds again. The last limit of a tier that products are in
// stays: they would be without any.
func (r *Register) RemoveLimit(ctx context.Context, a Actor, id string, m Meta) (Result[Limit], error) {
	if err := need(a, limiters); err != nil {
		return Result[Limit]{}, err
	}
	return do[Limit](ctx, r, a, "limit.remove", m.Reason, func(t *tx) error {
		l, err := changing[Limit](t, id, m)
		if err != nil {
			return err
		}
		if l.Removed != 0 {
			return keep(t, entryOf[Limit](t.view, id))
		}
		if l.Subject.Kind == KindTier && l.Subject.ID != TierPVT && len(t.view.SubjectLimits(l.Subject)) == 1 {
			if p := productIn(t.view, l.Subject.ID); p != "" {
				return fmt.Errorf("%w: it is the last limit of the tier %s, which %s is in; change it, or move the products first", ErrState, l.Subject.ID, p)
			}
		}
		l.Removed, l.Updated = t.now, t.now
		return t.put(KindLimit, id, &l)
	})
}

// productIn finds a product that names a tier; "" when there is none.
func productIn(v *View, tier string) (id string) {
	v.products.each(func(e *Entry[Product]) bool {
		if e.Value.Tier == tier {
			id = e.ID
		}
		return id == ""
	})
	return id
}

// SetTier puts a product into a tier; "" or "standard" is the one for all.
// Assessor or operator.
func (r *Register) SetTier(ctx context.Context, a Actor, productID, tier string, m Meta) (Result[Product], error) {
	if err := need(a, limiters); err != nil {
		return Result[Product]{}, err
	}
	if tier == TierStandard {
		tier = ""
	}
	return r.editProduct(ctx, a, "product.tier", productID, m, func(t *tx, p *Product) error {
		p.Tier = tier
		return checkTier(t.view, tier)
	})
}

// checkTier wants a tier that has a limit.
func checkTier(v *View, tier string) error {
	if tier == "" {
		return nil
	}
	if err := checkID("/tier", tier); err != nil {
		return err
	}
	if tier == TierPVT {
		return Field("/tier", "%s is for the stage PVT of every product; name another", TierPVT)
	}
	if tier == TierStandard || len(v.SubjectLimits(SubjectRef{KindTier, tier})) == 0 {
		return Field("/tier", "no tier %q has a limit; set one first (limit set tier:%s …), or leave it out for %s", tier, tier, TierStandard)
	}
	return nil
}

// complete fills in the ID and what a limit that stands for a tier's leaves out.
func (l *Limit) complete(v *View) error {
	if err := checkID("/subject/id", l.Subject.ID); err != nil {
		return err
	}
	if l.Subject.Kind == KindEntity {
		abn, err := ParseABN(l.Subject.ID)
		if err != nil {
			return &FieldError{Field: "/subject/id", Err: err}
		}
		l.Subject.ID = abn.String()
	}
	l.ID = LimitID(l.Subject, l.Name)
	if from := l.standsFor(v); from != nil {
		inherit(&l.Kind, from.Kind)
		inherit(&l.Service, from.Service)
		inherit(&l.Environment, from.Environment)
		inherit(&l.Stage, from.Stage)
		if l.Kind == from.Kind {
			inherit(&l.Period, from.Period)
			inherit(&l.Zone, from.Zone)
		}
	}
	switch l.Kind {
	case LimitRate:
		inherit(&l.Burst, l.Amount)
	case LimitClients:
		inherit(&l.Period, PeriodDay)
		inherit(&l.Zone, ZoneDefault)
	case LimitQuota:
		inherit(&l.Zone, ZoneDefault)
	}
	return nil
}

func inherit[T comparable](field *T, from T) {
	var zero T
	if *field == zero {
		*field = from
	}
}

// standsFor finds the tier's limit whose place this one takes; nil when it is
// one of its own.
func (l *Limit) standsFor(v *View) *Limit {
	var p *Product
	switch l.Subject.Kind {
	case KindProduct:
		p = v.Product(l.Subject.ID)
	case KindSubscription:
		if s := v.Subscription(l.Subject.ID); s != nil {
			p = v.Product(s.ProductID)
		}
	case KindClientApp:
		if a := v.ClientApp(l.Subject.ID); a != nil {
			p = v.Product(a.ProductID)
		}
	}
	if p == nil {
		return nil
	}
	for _, tier := range [...]string{p.TierOf(), TierPVT} {
		rules := v.SubjectLimits(SubjectRef{KindTier, tier})
		for _, r := range rules {
			if r.Name == l.Name {
				return r
			}
		}
		if len(rules) == 0 && tier == TierPVT {
			for i := range pvtLimits {
				if pvtLimits[i].Name == l.Name {
					return &pvtLimits[i]
				}
			}
		}
	}
	return nil
}

// Uncovers finds the tier's limit in whose place a limit stands though it covers
// fewer calls, so that the others are held to neither; nil when there is none.
func (v *View) Uncovers(l *Limit) *Limit {
	from := l.standsFor(v)
	if from == nil || from.Per != l.Subject.Kind && (from.Per != NoKind || l.Subject.Kind != KindProduct) ||
		(l.Service == "" || l.Service == from.Service) && (l.Environment == NoEnvironment || l.Environment == from.Environment) && (l.Stage == NoStage || l.Stage == from.Stage) {
		return nil
	}
	return from
}

func checkLimit(v *View, l *Limit) error {
	if err := checkLimitSubject(v, l); err != nil {
		return err
	}
	if err := checkLimitName(l.Name); err != nil {
		return err
	}
	if l.ID != LimitID(l.Subject, l.Name) {
		return Field("/id", "the ID of this limit is %s", LimitID(l.Subject, l.Name))
	}
	switch {
	case l.Service != "" && l.Subject.Kind == KindService:
		return Field("/service", "a service's own limit is for that service; leave it out")
	case l.Service != "" && v.Service(l.Service) == nil:
		return Field("/service", "no service %s is registered", truncate(l.Service, idBytesMax))
	case l.Environment.String() == "" && l.Environment != NoEnvironment:
		return Field("/environment", "must be SANDBOX, EVTE or PROD")
	case l.Stage != NoStage && l.Environment != PROD:
		return Field("/stage", "goes with the environment PROD only")
	case l.Per != NoKind && l.Subject.Kind != KindTier:
		return Field("/per", "goes with a tier only")
	case l.Per != NoKind && l.Per != KindEntity && l.Per != KindProduct && l.Per != KindSubscription && l.Per != KindClientApp:
		return Field("/per", "must be entity, product, subscription or client-app")
	}
	return checkLimitAmount(v, l)
}

func checkLimitSubject(v *View, l *Limit) error {
	s := l.Subject
	if !s.Kind.Limitable() {
		return Field("/subject/kind", "must be one of %s", limitableWords())
	}
	if err := checkID("/subject/id", s.ID); err != nil {
		return err
	}
	known := true
	switch s.Kind {
	case KindTier:
		if strings.Contains(s.ID, ":") {
			return Field("/subject/id", "the name of a tier holds no ':'")
		}
		if s.ID == TierPVT && l.Stage != StagePVT {
			return Field("/stage", "a limit of the tier %s is of the stage PVT", TierPVT)
		}
	case KindEntity:
		abn, err := ParseABN(s.ID)
		known = err == nil && v.Entity(abn) != nil
	default:
		_, _, known = v.Entry(s.Kind, s.ID)
	}
	if !known {
		return Field("/subject/id", "no %s %s is registered", s.Kind, s.ID)
	}
	return nil
}

// checkLimitName bounds a name to what stands in a header as it is.
func checkLimitName(name string) error {
	if name == "" || len(name) > limitNameMax {
		return Field("/name", "must be given, at most %d bytes", limitNameMax)
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (i == 0 || c != '-' && !digit(c)) {
			return Field("/name", "holds %q; use lower-case letters, digits and -, a letter first", rune(c))
		}
	}
	return nil
}

func checkLimitAmount(v *View, l *Limit) error {
	most := int64(limitAmountMax)
	switch l.Kind {
	case LimitRate:
		most = limitRateMax
	case LimitClients:
		most = limitClientsMax
	case LimitConcurrency, LimitQuota:
	default:
		return Field("/kind", "must be rate, concurrency, quota or clients")
	}
	switch {
	case l.Amount < 1:
		return Field("/amount", "%d lets nothing pass; at least 1 (to stop a subject, suspend it)", l.Amount)
	case l.Amount > most:
		return Field("/amount", "at most %d", most)
	case l.Kind == LimitRate && l.Burst < 1:
		return Field("/burst", "%d is less than one request, so that nothing would pass; at least 1", l.Burst)
	case l.Kind == LimitRate && l.Burst > limitRateMax:
		return Field("/burst", "at most %d", limitRateMax)
	case l.Kind != LimitRate && l.Burst != 0:
		return Field("/burst", "goes with a rate only")
	}
	return checkLimitPeriod(v, l)
}

func checkLimitPeriod(v *View, l *Limit) error {
	calendar := l.Kind == LimitQuota || l.Kind == LimitClients
	switch {
	case !calendar && l.Period != NoPeriod:
		return Field("/period", "goes with a quota or clients only")
	case !calendar && l.Zone != "":
		return Field("/zone", "goes with a quota or clients only")
	case l.Kind == LimitQuota && l.Period != PeriodDay && l.Period != PeriodMonth:
		return Field("/period", "must be day or month")
	case l.Kind == LimitClients && l.Period != PeriodDay:
		return Field("/period", "clients are counted by the day")
	}
	if calendar {
		if _, err := time.LoadLocation(l.Zone); err != nil || len(l.Zone) > zoneBytesMax || !sameEverywhere(l.Zone) {
			return Field("/zone", "%q is no time zone; write an IANA name such as %s", truncate(l.Zone, zoneBytesMax), ZoneDefault)
		}
	}
	if l.Kind == LimitClients {
		service := l.Service
		if l.Subject.Kind == KindService {
			service = l.Subject.ID
		}
		if s := v.Service(service); s != nil && s.Subject.In == "" {
			return Field("/service", "the service %s does not say where the person or client is found (its subject), so none can be counted", service)
		}
	}
	return nil
}

// sameEverywhere refuses zones that are a machine's own, or that only some
// machines have: they would differ from one sidecar to the next. Those under
// right/ count leap seconds, so that their days begin half a minute late.
func sameEverywhere(zone string) bool {
	switch dir, _, _ := strings.Cut(zone, "/"); dir {
	case "", "Local", "localtime", "posixrules", "posix", "right", "Factory":
		return false
	}
	return true
}

// roomForLimit bounds how many limits one subject has, and one call: every one
// of them is looked at on each call.
func roomForLimit(v *View, l *Limit) error {
	held := v.SubjectLimits(l.Subject)
	most, mostCall, tier := limitsOfSubject, limitsOfSubjectCall, l.Subject.Kind == KindTier
	if tier {
		most, mostCall = limitsOfTier, limitsOfTierCall
	}
	if len(held) >= most {
		return Field("/name", "%s %s has %d limits, the most there may be; change or remove one", l.Subject.Kind, l.Subject.ID, most)
	}
	if l.standsFor(v) != nil {
		return nil // it is counted as the tier's
	}
	alike := 0
	for _, h := range held {
		if h.overlaps(l) && (tier || h.standsFor(v) == nil) {
			alike++
		}
	}
	if alike >= mostCall {
		return Field("/name", "%s %s has %d limits that the same call would have to pass, the most there may be; change one of them, or name a service", l.Subject.Kind, l.Subject.ID, alike)
	}
	return nil
}
