package control

import (
	"slices"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Listings of entities, products, client apps and subscriptions are cut out of
// the Casebook's index: what a page takes does not grow with the register. Where
// the Casebook is not at hand they look at every record, which takes longer and
// says the same.

// bookWait is how long a listing waits for a Casebook that is a commit behind.
const bookWait = 100 * time.Millisecond

// book is the Casebook at the call's View or a later one, whose View is the
// call's from then on; nil when there is none.
func (s *server) book(c *call) *registry.Casebook {
	var timeout <-chan time.Time
	for {
		changed := s.reg.CasebookChanged()
		b, err := s.reg.Casebook()
		if err != nil {
			return nil
		}
		if b.Revision() >= c.view.Revision {
			c.view = b.View
			return b
		}
		if timeout == nil {
			timeout = time.After(bookWait)
		}
		select {
		case <-changed:
		case <-timeout:
			return nil
		case <-c.r.Context().Done():
			return nil
		}
	}
}

// indexed is one page of the records of a kind that meet every condition.
func (c *call) indexed(b *registry.Casebook, kind registry.Kind, where []registry.Where) (answer, error) {
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	ids, total := b.Find(registry.Query{Kind: kind.String(), Where: where, Offset: int((page - 1) * limit), Limit: int(limit)})
	out := make([]any, 0, len(ids))
	for _, r := range recordsOf(c.view, kind, ids) {
		out = append(out, r)
	}
	return answer{data: out, page: c.pageInfo(page, limit, uint64(total))}, nil
}

func recordsOf(v *registry.View, kind registry.Kind, ids []string) []record {
	out := make([]record, 0, len(ids))
	for _, id := range ids {
		if value, rev, ok := v.Entry(kind, id); ok {
			out = append(out, record{value, rev})
		}
	}
	return out
}

// picked is one page of those of some records that keep wants.
func picked[T any](c *call, all []record, keep func(*T) bool) (answer, error) {
	return paged(c, all, func(r record) bool { return keep(r.value.(*T)) }, func(r record) any { return r })
}

// filterWords reads a search: each of its words, as the index has them.
func (c *call) filterWords(name string) (words []string, err error) {
	text, ok := c.filter(name)
	if !ok {
		return nil, nil
	}
	registry.Words(text, func(w string) { words = append(words, w) })
	if words == nil {
		return nil, wrongParam(name, "write a word or two")
	}
	return words, nil
}

func whereWords(words []string) (where []registry.Where) {
	for _, w := range words {
		where = append(where, registry.Where{Index: "word", Value: w})
	}
	return where
}

// hasWords tells what the index would find.
func hasWords(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !registry.HasWord(text, w) })
}

// deliveredBy lists the IDs of the products that an entity owns or helps to
// deliver, in order.
func deliveredBy(b *registry.Casebook, abn registry.ABN) []string {
	var ids []string
	for _, index := range []string{"owner", "chain"} {
		ids = slices.AppendSeq(ids, b.All(registry.Query{Kind: "product", Where: []registry.Where{{Index: index, Value: abn.String()}}}))
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// ofProductsMax is of how many products the client apps or subscriptions are
// looked up one by one; of more, all records are looked at.
const ofProductsMax = 1000

// ofProducts lists the records of a kind that belong to some products, in order;
// ok is false when those are too many.
func ofProducts(b *registry.Casebook, v *registry.View, kind registry.Kind, products []string) (all []record, ok bool) {
	if len(products) > ofProductsMax {
		return nil, false
	}
	var ids []string
	for _, p := range products {
		ids = slices.AppendSeq(ids, b.All(registry.Query{Kind: kind.String(), Where: []registry.Where{{Index: "product_id", Value: p}}}))
	}
	slices.Sort(ids)
	return recordsOf(v, kind, ids), true
}

// appsOf lists the client apps of a product.
func (s *server) appsOf(v *registry.View, product string) (apps []*registry.ClientApp) {
	if b, err := s.reg.Casebook(); err == nil && b.Revision() >= v.Revision {
		all, _ := ofProducts(b, v, registry.KindClientApp, []string{product})
		for _, r := range all {
			apps = append(apps, r.value.(*registry.ClientApp))
		}
		return apps
	}
	for _, e := range s.lists.apps.get(v, (*registry.View).ClientApps) {
		if e.Value.ProductID == product {
			apps = append(apps, &e.Value)
		}
	}
	return apps
}

// subscriptionsOf lists the first subscriptions of a product.
func (s *server) subscriptionsOf(c *call, product string, most int) (subs []registry.Subscription) {
	if b := s.book(c); b != nil {
		ids, _ := b.Find(registry.Query{Kind: registry.KindSubscription.String(), Where: []registry.Where{{Index: "product_id", Value: product}}, Limit: most})
		for _, r := range recordsOf(c.view, registry.KindSubscription, ids) {
			subs = append(subs, *r.value.(*registry.Subscription))
		}
		return subs
	}
	for _, e := range s.lists.subscriptions.get(c.view, (*registry.View).Subscriptions) {
		if e.Value.ProductID == product && len(subs) < most {
			subs = append(subs, e.Value)
		}
	}
	return subs
}

// ownProducts are the IDs of the products that the caller's entity owns or
// helps to deliver.
func (s *server) ownProducts(c *call) []string {
	if c.actor.Entity == 0 {
		return nil
	}
	if b := s.book(c); b != nil {
		return deliveredBy(b, c.actor.Entity)
	}
	var ids []string
	for _, e := range s.lists.products.get(c.view, (*registry.View).Products) {
		if e.Value.Delivers(c.actor.Entity) {
			ids = append(ids, e.ID)
		}
	}
	return ids
}
