package registry

import (
	"cmp"
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
	// CaseSum is all that a View knows of the casework: how much there is, and
	// its digest.
	CaseSum CaseSum

	entities      table[Entity]
	products      table[Product]
	apps          table[ClientApp]
	credentials   table[Credential]
	subscriptions table[Subscription]
	services      table[Service]
	suspensions   table[Suspension]
	denials       table[Denial]
	notices       table[Notice]
	limits        table[Limit]
	protected     table[Protected]
	screens       table[Screen]

	// suspended lists, per kind and ID of the subject, every suspension not
	// lifted: without end first, then those that expire last. Expired ones stay:
	// what a View holds depends on no clock.
	suspended [KindService + 1]table[[]*Suspension]
	// curbs is how many of them curb instead of stop: mostly none.
	curbs int
	// clientSubs lists the subscriptions of a product for a client: "FP-1001 56000001313".
	clientSubs table[[]string]
	// limited lists, per kind and ID of the subject, the limits not removed, by name.
	limited        [KindTier + 1]table[[]*Limit]
	limitsRevision Revision
	// screening are the screens not removed, by ID: mostly none.
	screening         []*Screen
	protectedRevision Revision
	routes            *Routes
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
	var buf [768]byte
	b := append(append(append(append(append(buf[:0], what...), ':'), issuer...), ':'), val...)
	d := value(v.denials.get(unsafeString(b)))
	return d != nil && d.Active(at)
}

// Suspended finds the suspension that stops a subject at an instant, an
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
		if s.Expires != 0 && s.Expires <= at {
			break // and so have all that follow
		}
		if s.Effect == EffectStop && s.Active(at) && (found == nil || s.Emergency && !found.Emergency) {
			found = s
		}
	}
	return found
}

// Curbed finds the tightest throttle and the tightest restriction of a subject
// that hold at an instant; nil where there is none.
func (v *View) Curbed(kind Kind, id string, at Time) (throttle, restrict *Suspension) {
	if v.curbs == 0 || id == "" {
		return nil, nil
	}
	e := v.suspended[kind].get(id)
	if e == nil {
		return nil, nil
	}
	for _, s := range e.Value {
		if s.Expires != 0 && s.Expires <= at {
			break // and so have all that follow
		}
		switch {
		case !s.Active(at):
		case s.Effect == EffectThrottle && (throttle == nil || s.Rate < throttle.Rate):
			throttle = s
		case s.Effect == EffectRestrict && (restrict == nil || s.MaxRisk < restrict.MaxRisk):
			restrict = s
		}
	}
	return throttle, restrict
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
	case KindLimit:
		return entryAny(v.limits.get(id))
	case KindProtected:
		return entryAny(v.protected.get(id))
	case KindScreen:
		return entryAny(v.screens.get(id))
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
