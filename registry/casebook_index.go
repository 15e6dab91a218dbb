package registry

import (
	"strings"
	"sync"
)

// The index of a Casebook over the register's own records, for listings.

// index brings the keys of the records a change wrote forward.
func (b *Casebook) index(c *Change, old, now *View) {
	for i := range c.Puts {
		switch r := &c.Puts[i]; r.Kind {
		case KindEntity:
			b.reindex("entity", r.ID, entityKeys(value(old.entities.get(r.ID))), entityKeys(value(now.entities.get(r.ID))))
		case KindProduct:
			b.reindex("product", r.ID, productKeys(value(old.products.get(r.ID))), productKeys(value(now.products.get(r.ID))))
		case KindClientApp:
			b.reindex("client-app", r.ID, appKeys(value(old.apps.get(r.ID))), appKeys(value(now.apps.get(r.ID))))
		case KindSubscription:
			b.reindex("subscription", r.ID, subscriptionKeys(value(old.subscriptions.get(r.ID))), subscriptionKeys(value(now.subscriptions.get(r.ID))))
		case KindSuspension:
			b.reindex("suspension", r.ID, suspensionKeys(value(old.suspensions.get(r.ID))), suspensionKeys(value(now.suspensions.get(r.ID))))
		}
	}
}

// indexAll makes the keys of every record of a View that is indexed.
func (b *Casebook) indexAll(v *View) {
	indexTable(b, "entity", &v.entities, entityKeys)
	indexTable(b, "product", &v.products, productKeys)
	indexTable(b, "client-app", &v.apps, appKeys)
	indexTable(b, "subscription", &v.subscriptions, subscriptionKeys)
	indexTable(b, "suspension", &v.suspensions, suspensionKeys)
}

func indexTable[T any](b *Casebook, kind string, t *table[T], keys func(*T) []Where) {
	t.each(func(e *Entry[T]) bool { b.reindex(kind, e.ID, nil, keys(&e.Value)); return true })
}

func (b *Casebook) reindex(kind, id string, gone, come []Where) {
	for _, w := range gone {
		b.keys.remove(b.indexKey(kind, w.Index, w.Value, id))
	}
	for _, w := range come {
		b.keys.insert(b.indexKey(kind, w.Index, w.Value, id))
	}
}

// entityKeys are the ways to find an entity; productKeys those to find a product …
func entityKeys(e *Entity) []Where {
	if e == nil {
		return nil
	}
	keys := []Where{{"", ""}, {"state", e.State.String()}}
	for _, r := range e.Roles {
		keys = append(keys, Where{"role", string(r)})
	}
	if box := Mailbox(e.Contact); box != "" {
		keys = append(keys, Where{"contact", box})
	}
	Words(e.Name+" "+e.ABN.String(), func(w string) { keys = append(keys, Where{"word", w}) })
	return keys
}

// Mailbox is an address as it is compared: the case of its letters and what stands
// after a plus sign make no other mailbox. The index "contact" of entities is of it.
func Mailbox(address string) string {
	box := strings.ToLower(strings.TrimSpace(address))
	if name, host, ok := strings.Cut(box, "@"); ok {
		name, _, _ = strings.Cut(name, "+")
		return name + "@" + host
	}
	return box
}

func productKeys(p *Product) []Where {
	if p == nil {
		return nil
	}
	keys := []Where{{"", ""}, {"certification", p.Certification.State.String()}, {"owner", p.Owner.String()}}
	if p.Category != "" {
		keys = append(keys, Where{"category", string(p.Category)})
	}
	for _, abn := range p.Chain {
		keys = append(keys, Where{"chain", abn.String()})
	}
	Words(p.Name+" "+p.ID, func(w string) { keys = append(keys, Where{"word", w}) })
	return keys
}

func appKeys(a *ClientApp) []Where {
	if a == nil {
		return nil
	}
	return []Where{{"", ""}, {"product_id", a.ProductID}, {"environment", a.Environment.String()}}
}

func subscriptionKeys(s *Subscription) []Where {
	if s == nil {
		return nil
	}
	return []Where{{"", ""}, {"product_id", s.ProductID}, {"client_abn", s.ClientABN.String()}}
}

// suspensionKeys are those of a suspension that was not lifted: when it was imposed,
// when it ends or that it has no end, and, of one that was announced, when it starts.
// Whether it holds depends on the clock: see InForce.
func suspensionKeys(s *Suspension) []Where {
	if s == nil || s.LiftedAt != 0 {
		return nil
	}
	keys := []Where{{"imposed", s.ImposedAt.String()}, {"ends", s.Expires.String()}}
	if s.Starts > s.ImposedAt {
		keys = append(keys, Where{"starts", s.Starts.String()})
	}
	return keys
}

// codes give each pair of a kind and an index two bytes of its own: written out,
// the pair would be half of every key, and there are a million keys.
type codes struct {
	mu sync.RWMutex
	at map[[2]string]string
}

func newCodes() *codes { return &codes{at: map[[2]string]string{}} }

// codesMax is more than all kinds and indexes together.
const codesMax = 200 * 200

func (c *codes) of(kind, index string) string {
	pair := [2]string{kind, index}
	c.mu.RLock()
	code, ok := c.at[pair]
	c.mu.RUnlock()
	if ok {
		return code
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if code, ok := c.at[pair]; ok {
		return code
	}
	n := len(c.at)
	if n == codesMax {
		panic("registry: index names are made up without end")
	}
	code = string([]byte{byte(1 + n/200), byte(1 + n%200)})
	c.at[[2]string{strings.Clone(kind), strings.Clone(index)}] = code
	return code
}
