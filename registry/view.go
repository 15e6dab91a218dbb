package registry

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"unsafe"
)

// View is the register at one revision: immutable, indexed for the request
// path, safe for any number of readers. Two Views share all that did not change.
// Lookups take no lock and do not allocate; the strings passed in are not kept.
type View struct {
	Revision Revision
	Epoch    Epoch
	Records  uint64
	Digest   Digest

	entities      table[Entity]
	products      table[Product]
	apps          table[ClientApp]
	credentials   table[Credential]
	subscriptions table[Subscription]
	services      table[Service]
	suspensions   table[Suspension]
	denials       table[Denial]
	notices       table[Notice]

	// suspended lists, per kind and ID of the subject, every suspension neither
	// lifted nor known to have expired when it entered.
	suspended [KindService + 1]table[[]*Suspension]
	// clientSubs lists the subscriptions of a product for a client: "FP-1001 56000001313".
	clientSubs table[[]string]
	routes     *Routes
}

// Entity finds an entity; nil when unknown.
func (v *View) Entity(abn ABN) *Entity {
	var b [11]byte
	t, _ := abn.AppendText(b[:0])
	return value(v.entities.get(unsafeString(t)))
}

// Product finds a product; nil when unknown.
func (v *View) Product(id string) *Product { return value(v.products.get(id)) }

// ClientApp finds a client app; nil when unknown.
func (v *View) ClientApp(clientID string) *ClientApp { return value(v.apps.get(clientID)) }

// Credential finds a credential by its thumbprint; nil when unknown.
func (v *View) Credential(thumbprint string) *Credential { return value(v.credentials.get(thumbprint)) }

// Subscription finds a subscription; nil when unknown.
func (v *View) Subscription(ssid string) *Subscription { return value(v.subscriptions.get(ssid)) }

// Service finds a service by its key; nil when unknown.
func (v *View) Service(key string) *Service { return value(v.services.get(key)) }

// Suspension finds a suspension by its ID, lifted or not; nil when unknown.
func (v *View) Suspension(id string) *Suspension { return value(v.suspensions.get(id)) }

// Notice finds a notice; nil when unknown.
func (v *View) Notice(id string) *Notice { return value(v.notices.get(id)) }

// Route finds the service of a method and a clean path.
func (v *View) Route(method, path string, m *Match) { v.routes.Match(method, path, m) }

// Denied tells whether a kid or jti of an issuer is denied at an instant.
func (v *View) Denied(what, issuer, val string, at Time) bool {
	if v.denials.n == 0 || val == "" {
		return false
	}
	var buf [256]byte
	b := append(append(append(append(append(buf[:0], what...), ':'), issuer...), ':'), val...)
	d := value(v.denials.get(unsafeString(b)))
	return d != nil && d.Active(at)
}

// Suspended finds the suspension of a subject that holds at an instant, an
// emergency before any other; nil when there is none.
func (v *View) Suspended(kind Kind, id string, at Time) *Suspension {
	t := &v.suspended[kind]
	if t.n == 0 || id == "" {
		return nil
	}
	e := t.get(id)
	if e == nil {
		return nil
	}
	var found *Suspension
	for _, s := range e.Value {
		if s.Active(at) && (found == nil || s.Emergency && !found.Emergency) {
			found = s
		}
	}
	return found
}

// Nominated finds an SSID by which a client nominated a product; "" when none.
func (v *View) Nominated(productID string, client ABN) string {
	var buf [96]byte
	e := v.clientSubs.get(unsafeString(clientSubsKey(buf[:0], productID, client)))
	if e == nil {
		return ""
	}
	for _, ssid := range e.Value {
		if s := v.Subscription(ssid); s != nil && s.Nominated && s.ClientABN == client && s.ProductID == productID {
			return ssid
		}
	}
	return ""
}

func clientSubsKey(b []byte, productID string, client ABN) []byte {
	b = append(append(b, productID...), ' ')
	b, _ = client.AppendText(b)
	return b
}

func value[T any](e *Entry[T]) *T {
	if e == nil {
		return nil
	}
	return &e.Value
}

// unsafeString is for lookups only: the bytes live on the caller's stack.
func unsafeString(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// Entry finds a record with its revision (the ETag of the API); ok is false
// when unknown. The value is one of the record types, by pointer.
func (v *View) Entry(kind Kind, id string) (value any, rev Revision, ok bool) {
	switch kind {
	case KindEntity:
		return entryAny(v.entities.get(id))
	case KindProduct:
		return entryAny(v.products.get(id))
	case KindClientApp:
		return entryAny(v.apps.get(id))
	case KindCredential:
		return entryAny(v.credentials.get(id))
	case KindSubscription:
		return entryAny(v.subscriptions.get(id))
	case KindService:
		return entryAny(v.services.get(id))
	case KindSuspension:
		return entryAny(v.suspensions.get(id))
	case KindDenial:
		return entryAny(v.denials.get(id))
	case KindNotice:
		return entryAny(v.notices.get(id))
	}
	return nil, 0, false
}

func entryAny[T any](e *Entry[T]) (any, Revision, bool) {
	if e == nil {
		return nil, 0, false
	}
	return &e.Value, e.Revision, true
}

// The listings below copy and sort; they are for the control plane, never for
// the request path.

// Entities lists all entities by ABN.
func (v *View) Entities() []*Entry[Entity] { return sorted(&v.entities) }

// Products lists all products by ID.
func (v *View) Products() []*Entry[Product] { return sorted(&v.products) }

// ClientApps lists all client apps by client_id.
func (v *View) ClientApps() []*Entry[ClientApp] { return sorted(&v.apps) }

// Credentials lists all credentials by thumbprint.
func (v *View) Credentials() []*Entry[Credential] { return sorted(&v.credentials) }

// Subscriptions lists all subscriptions by SSID.
func (v *View) Subscriptions() []*Entry[Subscription] { return sorted(&v.subscriptions) }

// Services lists all services by key.
func (v *View) Services() []*Entry[Service] { return sorted(&v.services) }

// Suspensions lists all suspensions, lifted ones too, by ID.
func (v *View) Suspensions() []*Entry[Suspension] { return sorted(&v.suspensions) }

// Denials lists all denials by ID.
func (v *View) Denials() []*Entry[Denial] { return sorted(&v.denials) }

// Notices lists all notices by ID.
func (v *View) Notices() []*Entry[Notice] { return sorted(&v.notices) }

func sorted[T any](t *table[T]) []*Entry[T] {
	all := make([]*Entry[T], 0, t.n)
	t.each(func(e *Entry[T]) bool { all = append(all, e); return true })
	slices.SortFunc(all, func(a, b *Entry[T]) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Builder makes a View from another and some records. Not safe for concurrent
// use; the parent View is not touched.
type Builder struct {
	v             View
	now           Time
	intern        map[string]string
	routesChanged bool
	own           struct {
		entities, products, apps, credentials, subscriptions, services, suspensions, denials, notices, clientSubs owned
		suspended                                                                                                 [KindService + 1]owned
	}
}

// NewBuilder starts from a View, or from the empty register when v is nil. now
// is used only to leave out suspensions that have expired already.
func NewBuilder(v *View, now Time) *Builder {
	b := &Builder{now: now, intern: map[string]string{}}
	if v != nil {
		b.v = *v
	}
	return b
}

// Put decodes a genuine record into the register. A record older than the one
// held is passed over, so that a snapshot read while the register changes
// converges once the log is replayed over it.
func (b *Builder) Put(r *Record) error {
	var err error
	switch r.Kind {
	case KindEntity:
		_, err = put(b, &b.v.entities, &b.own.entities, r, nil)
	case KindProduct:
		_, err = put(b, &b.v.products, &b.own.products, r, b.internProduct)
	case KindClientApp:
		_, err = put(b, &b.v.apps, &b.own.apps, r, func(a *ClientApp) { a.ProductID = b.str(a.ProductID) })
	case KindCredential:
		_, err = put(b, &b.v.credentials, &b.own.credentials, r, nil)
	case KindSubscription:
		var e *Entry[Subscription]
		e, err = put(b, &b.v.subscriptions, &b.own.subscriptions, r, func(s *Subscription) { s.ProductID = b.str(s.ProductID) })
		if e != nil {
			b.indexSubscription(&e.Value)
		}
	case KindService:
		_, err = put(b, &b.v.services, &b.own.services, r, nil)
		b.routesChanged = true
	case KindSuspension:
		var e *Entry[Suspension]
		e, err = put(b, &b.v.suspensions, &b.own.suspensions, r, nil)
		if e != nil {
			b.indexSuspension(&e.Value)
		}
	case KindDenial:
		_, err = put(b, &b.v.denials, &b.own.denials, r, nil)
	case KindNotice:
		_, err = put(b, &b.v.notices, &b.own.notices, r, nil)
	default:
		err = fmt.Errorf("%w: record kind %d", ErrInvalid, r.Kind)
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", r.Key(), err)
	}
	return nil
}

func put[T any](b *Builder, t *table[T], o *owned, r *Record, tidy func(*T)) (*Entry[T], error) {
	if old := t.get(r.ID); old != nil && old.Revision >= r.Revision {
		return nil, nil
	}
	e := &Entry[T]{Revision: r.Revision, MAC: r.MAC, ID: r.ID}
	if err := json.Unmarshal(r.Data, &e.Value); err != nil {
		return nil, err
	}
	if tidy != nil {
		tidy(&e.Value)
	}
	if old := t.put(e, o); old != nil {
		b.v.Digest = b.v.Digest.Sub(old.MAC)
	} else {
		b.v.Records++
	}
	b.v.Digest = b.v.Digest.Add(r.MAC)
	return e, nil
}

func (b *Builder) str(s string) string {
	if k, ok := b.intern[s]; ok {
		return k
	}
	b.intern[s] = s
	return s
}

func (b *Builder) internProduct(p *Product) {
	for i := range p.Entitlements {
		p.Entitlements[i].Service = b.str(p.Entitlements[i].Service)
	}
	for i := range p.Versions {
		p.Versions[i].Version = b.str(p.Versions[i].Version)
	}
}

func (b *Builder) indexSuspension(s *Suspension) {
	if !s.Subject.Kind.Suspendable() {
		return
	}
	t, o := &b.v.suspended[s.Subject.Kind], &b.own.suspended[s.Subject.Kind]
	e := &Entry[[]*Suspension]{ID: s.Subject.ID}
	if old := t.get(s.Subject.ID); old != nil {
		for _, x := range old.Value {
			if x.ID != s.ID && x.LiftedAt == 0 && (x.Expires == 0 || x.Expires > b.now) {
				e.Value = append(e.Value, x)
			}
		}
	}
	if s.LiftedAt == 0 {
		e.Value = append(e.Value, s)
	}
	t.put(e, o)
}

func (b *Builder) indexSubscription(s *Subscription) {
	key := string(clientSubsKey(nil, s.ProductID, s.ClientABN))
	e := &Entry[[]string]{ID: key}
	if old := b.v.clientSubs.get(key); old != nil {
		e.Value = append(e.Value, old.Value...)
	}
	if !slices.Contains(e.Value, s.SSID) {
		e.Value = append(e.Value, s.SSID)
	}
	b.v.clientSubs.put(e, &b.own.clientSubs)
}

// View finishes: the register as it then stands at a revision. The Builder
// must not be used afterwards.
func (b *Builder) View(rev Revision, epoch Epoch) (*View, error) {
	if b.routesChanged {
		var all []*Service
		for _, e := range sorted(&b.v.services) {
			all = append(all, &e.Value)
		}
		r, err := CompileRoutes(all)
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		b.v.routes = r
	}
	v := b.v
	v.Revision, v.Epoch = rev, epoch
	return &v, nil
}
