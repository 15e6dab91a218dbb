package registry

import (
	"slices"
	"strings"
)

// LimitKind is what a Limit bounds.
type LimitKind uint8

// The kinds of limit.
const (
	NoLimitKind      LimitKind = iota
	LimitRate                  // Amount calls a second, Burst at once
	LimitConcurrency           // Amount calls under way at once
	LimitQuota                 // Amount calls a calendar day or month
	LimitClients               // Amount distinct people or clients a calendar day (domain model §7)
)

var limitKindWords = []string{"", "rate", "concurrency", "quota", "clients"}

func (k LimitKind) String() string               { return enumText(limitKindWords, uint8(k)) }
func (k LimitKind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (k *LimitKind) UnmarshalText(b []byte) error {
	v, err := parseEnum("kind of limit", limitKindWords, b)
	*k = LimitKind(v)
	return err
}

// Period is the calendar period of a quota, from midnight to midnight of its
// time zone: a day is 23 or 25 hours long when the clocks change.
type Period uint8

// The periods.
const (
	NoPeriod Period = iota
	PeriodDay
	PeriodMonth
)

var periodWords = []string{"", "day", "month"}

func (p Period) String() string               { return enumText(periodWords, uint8(p)) }
func (p Period) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText accepts exactly the words of String.
func (p *Period) UnmarshalText(b []byte) error {
	v, err := parseEnum("period", periodWords, b)
	*p = Period(v)
	return err
}

// Limit bounds what its subject may spend. The subject is an entity (as the
// owner of products), a product, a subscription, a client app, a service (over
// all its callers), or a tier: what a tier says, it says of each product of the
// tier, and of each subscription or client app where Per says so. A limit of a
// subject's own stands in the place of the tier's limit of the same name.
//
// A limit is never deleted, only removed: what was spent under its ID stays
// spent when it comes back.
type Limit struct {
	ID      string     `json:"id"` // LimitID of what follows, e.g. product:FP-1003:day
	Subject SubjectRef `json:"subject"`
	Name    string     `json:"name"` // as the RateLimit headers show it
	// Service, Environment, Stage: only calls of that service, there, under those
	// terms. Not set: any, and all of them are spent from the one account.
	Service     string      `json:"service,omitempty"`
	Zone        string      `json:"zone,omitempty"` // IANA, of a calendar period
	Amount      int64       `json:"amount"`
	Burst       int64       `json:"burst,omitempty"` // of a rate
	Updated     Time        `json:"updated_at,omitempty"`
	Removed     Time        `json:"removed_at,omitempty"`
	Kind        LimitKind   `json:"kind"`
	Period      Period      `json:"period,omitempty"`
	Per         Kind        `json:"per,omitempty"` // of a tier: whose account each is; not set: the product's
	Environment Environment `json:"environment,omitempty"`
	Stage       Stage       `json:"stage,omitempty"`
	// Shadow: only observed. What it would have refused is counted and shown.
	Shadow bool `json:"shadow,omitempty"`
}

// LimitID is the ID of a limit: one subject has one limit of a name.
func LimitID(s SubjectRef, name string) string { return s.Kind.String() + ":" + s.ID + ":" + name }

// ParseLimitSubject reads "product:FP-1003" or "tier:standard".
func ParseLimitSubject(text string) (SubjectRef, error) {
	word, id, _ := strings.Cut(text, ":")
	var s SubjectRef
	if err := s.Kind.UnmarshalText([]byte(word)); err != nil || !s.Kind.Limitable() || id == "" {
		return SubjectRef{}, Field("/subject", "%q is no subject of a limit; write KIND:ID, KIND one of %s", truncate(text, 80), limitableWords())
	}
	s.ID = id
	return s, nil
}

// Limitable tells whether a limit may have this kind as its subject.
func (k Kind) Limitable() bool { return slices.Contains(limitables[:], k) }

var limitables = [...]Kind{KindTier, KindEntity, KindProduct, KindSubscription, KindClientApp, KindService}

func limitableWords() string {
	var words []string
	for _, k := range limitables {
		words = append(words, k.String())
	}
	return strings.Join(words, ", ")
}

// The tiers that mean something by themselves.
const (
	// TierStandard is the tier of a product that names no other.
	TierStandard = "standard"
	// TierPVT holds for every call in production verification testing, instead of
	// the product's own tier. A register without one has the caps of PVTLimits.
	TierPVT = "pvt"
)

// ZoneDefault is the time zone of a calendar period that names no other.
const ZoneDefault = "Australia/Sydney"

// PVTLimits are the caps of production verification testing that hold unless
// the register's tier "pvt" says otherwise (domain model §7): 1 call a second
// (2 at once: with one, the second of two sidecars would have nothing to give)
// and 500 a day for each product.
func PVTLimits() []Limit { return slices.Clone(pvtLimits[:]) }

// pvtLimits is never written.
var pvtLimits = [...]Limit{
	{ID: "tier:pvt:pvt-day", Subject: SubjectRef{KindTier, TierPVT}, Name: "pvt-day", Kind: LimitQuota, Amount: 500, Period: PeriodDay, Zone: ZoneDefault, Environment: PROD, Stage: StagePVT},
	{ID: "tier:pvt:pvt-rate", Subject: SubjectRef{KindTier, TierPVT}, Name: "pvt-rate", Kind: LimitRate, Amount: 1, Burst: 2, Environment: PROD, Stage: StagePVT},
}

// LimitQuery is a call, as far as its limits depend on it.
type LimitQuery struct {
	App         *ClientApp
	Product     *Product
	Service     *Service
	SSID        string // "" when the call names no subscription
	Environment Environment
	Stage       Stage // of the entitlement it is made under; PROD only
}

// Applied is a limit that applies to a call, and whose account it is spent
// from: for a tier's limit the product's, the subscription's or the app's.
type Applied struct {
	*Limit
	Of SubjectRef
}

// Account names what is spent: the same for a tier's limit and for the one that
// stands in its place, so that what was used stays used.
func (a Applied) Account() string { return LimitID(a.Of, a.Name) }

// covers tells whether calls like this one are spent from the limit.
func (l *Limit) covers(q *LimitQuery) bool {
	return (l.Service == "" || l.Service == q.Service.Key) &&
		(l.Environment == NoEnvironment || l.Environment == q.Environment) &&
		(l.Stage == NoStage || l.Stage == q.Stage)
}

// overlaps tells whether one call may be covered by both.
func (l *Limit) overlaps(m *Limit) bool {
	return (l.Service == "" || m.Service == "" || l.Service == m.Service) &&
		(l.Environment == NoEnvironment || m.Environment == NoEnvironment || l.Environment == m.Environment) &&
		(l.Stage == NoStage || m.Stage == NoStage || l.Stage == m.Stage)
}

// AppliedRevision is the revision that last changed what an applied limit says:
// it grows also when a limit is taken away and the tier's holds again.
func (v *View) AppliedRevision(a Applied, productID string) Revision {
	var rev Revision
	for _, id := range [...]string{a.Limit.ID, a.Account()} {
		if e := v.limits.get(id); e != nil {
			rev = max(rev, e.Revision)
		}
	}
	if a.Of.ID != a.Subject.ID || a.Of.Kind != a.Subject.Kind { // through the product's tier, or its stage
		if e := v.products.get(productID); e != nil {
			rev = max(rev, e.Revision)
		}
	}
	return rev
}

// Limit finds a limit by its ID, removed or not; nil when unknown.
func (v *View) Limit(id string) *Limit { return value(v.limits.get(id)) }

// LimitsRevision is the revision that last changed a limit: as long as it, the
// product, the app and the service are the same, so is what AppendLimits finds.
func (v *View) LimitsRevision() Revision { return v.limitsRevision }

// SubjectLimits lists a subject's own limits by name, without the removed ones.
// The list is the View's: read only.
func (v *View) SubjectLimits(s SubjectRef) []*Limit {
	if !s.Kind.Limitable() {
		return nil
	}
	if e := v.limited[s.Kind].get(s.ID); e != nil {
		return e.Value
	}
	return nil
}

// TierOf is the tier of a product.
func (p *Product) TierOf() string {
	if p.Tier == "" {
		return TierStandard
	}
	return p.Tier
}

// AppendLimits appends every limit that applies to a call, in an order that
// depends on the register alone. It takes no lock and allocates only when the
// list has too little room.
func (v *View) AppendLimits(list []Applied, q *LimitQuery) []Applied {
	subjects := [...]SubjectRef{
		{KindEntity, v.entityID(q.Product.Owner)},
		{KindProduct, q.Product.ID},
		{KindSubscription, q.SSID},
		{KindClientApp, q.App.ClientID},
		{KindService, q.Service.Key},
	}
	first := len(list)
	tier := q.Product.TierOf()
	if q.Stage == StagePVT {
		tier = TierPVT
	}
	rules := v.SubjectLimits(SubjectRef{KindTier, tier})
	for _, l := range rules {
		list = v.appendTier(list, l, q, subjects[:])
	}
	if len(rules) == 0 && tier == TierPVT {
		for i := range pvtLimits {
			list = v.appendTier(list, &pvtLimits[i], q, subjects[:])
		}
	}
	ofTier := list[first:]
	for _, s := range subjects {
		for _, l := range v.SubjectLimits(s) {
			if !l.covers(q) || slices.ContainsFunc(ofTier, func(a Applied) bool { return a.Of == s && a.Name == l.Name }) {
				continue
			}
			list = append(list, Applied{l, s})
		}
	}
	return list
}

// appendTier appends a tier's limit, or the subject's own of that name.
func (v *View) appendTier(list []Applied, l *Limit, q *LimitQuery, subjects []SubjectRef) []Applied {
	if !l.covers(q) {
		return list
	}
	per := l.Per
	switch {
	case per == NoKind:
		per = KindProduct
	case per == KindSubscription && q.SSID == "":
		per = KindClientApp // who names no subscription does not get around it
	}
	at := slices.IndexFunc(subjects, func(s SubjectRef) bool { return s.Kind == per })
	of := subjects[at]
	own := v.SubjectLimits(of)
	if i, found := slices.BinarySearchFunc(own, l.Name, byLimitName); found {
		if own[i].covers(q) {
			list = append(list, Applied{own[i], of})
		}
		return list
	}
	return append(list, Applied{l, of})
}

func byLimitName(l *Limit, name string) int { return strings.Compare(l.Name, name) }

// entityID is an entity's ABN as its record has it; "" when there is none.
func (v *View) entityID(abn ABN) string {
	var b [11]byte
	t, _ := abn.AppendText(b[:0])
	if e := v.entities.get(unsafeString(t)); e != nil {
		return e.ID
	}
	return ""
}

// Limits lists all limits by ID, removed ones too; for the control plane.
func (v *View) Limits() []*Entry[Limit] { return sorted(&v.limits) }

// indexLimit keeps the list of each subject's limits, by name.
func (b *Builder) indexLimit(e *Entry[Limit]) {
	b.v.limitsRevision = max(b.v.limitsRevision, e.Revision)
	l := &e.Value
	if !l.Subject.Kind.Limitable() {
		return
	}
	t := &b.v.limited[l.Subject.Kind]
	next := &Entry[[]*Limit]{ID: l.Subject.ID}
	if held := t.get(l.Subject.ID); held != nil {
		next.Value = slices.Clone(held.Value)
	}
	i, found := slices.BinarySearchFunc(next.Value, l.Name, byLimitName)
	switch {
	case found && l.Removed == 0:
		next.Value[i] = l
	case found:
		next.Value = slices.Delete(next.Value, i, i+1)
	case l.Removed == 0:
		next.Value = slices.Insert(next.Value, i, l)
	default:
		return
	}
	t.put(next, &b.own.limited[l.Subject.Kind])
}

// WithLimit is the register as it would be with a limit: to try it out. What is
// wrong with it is found as SetLimit would. The View is for reading only, and
// of no revision that ever was.
func (v *View) WithLimit(l Limit) (*View, *Limit, error) {
	if err := l.complete(v); err != nil {
		return nil, nil, err
	}
	if err := checkLimit(v, &l); err != nil {
		return nil, nil, err
	}
	b := NewBuilder(v, 0)
	b.insert(&Entry[Limit]{Revision: v.Revision + 1, ID: l.ID, Value: l})
	next, err := b.View(v.Revision, v.Epoch)
	if err != nil {
		return nil, nil, err
	}
	return next, next.Limit(l.ID), nil
}
