package control

import (
	"fmt"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// mayKnow tells whether the caller may know of a record: staff of all, a
// developer of what belongs to its own entity. A record that does not exist is
// not known to a developer either, so that the two cannot be told apart.
func mayKnow(c *call, kind registry.Kind, id string) bool {
	if c.actor.Staff() {
		return true
	}
	v := c.view
	switch kind {
	case registry.KindEntity:
		abn, err := registry.ParseABN(id)
		return err == nil && v.Entity(abn) != nil && c.actor.MaySee(abn)
	case registry.KindProduct:
		return mayKnowProduct(c, v.Product(id))
	case registry.KindVersion:
		product, version, _ := strings.Cut(id, "@")
		p := v.Product(product)
		return mayKnowProduct(c, p) && p.Version(version) != nil
	case registry.KindClientApp:
		a := v.ClientApp(id)
		return a != nil && mayKnowProduct(c, v.Product(a.ProductID))
	case registry.KindCredential:
		cr := v.Credential(id)
		return cr != nil && c.actor.MaySee(cr.ABN)
	case registry.KindSubscription:
		s := v.Subscription(id)
		return s != nil && mayKnowProduct(c, v.Product(s.ProductID))
	case registry.KindService:
		return v.Service(id) != nil // services are no secret from those who call them
	case registry.KindTier:
		return true // as services are
	case registry.KindLimit:
		l := v.Limit(id)
		return l != nil && mayKnow(c, l.Subject.Kind, l.Subject.ID)
	case registry.KindSuspension:
		s := v.Suspension(id)
		return s != nil && mayKnow(c, s.Subject.Kind, s.Subject.ID)
	case registry.KindNotice:
		n := v.Notice(id)
		return n != nil && mayKnow(c, n.Subject.Kind, n.Subject.ID)
	}
	return false
}

// mayKnowProduct: the owner, and the other entities of the delivery chain.
func mayKnowProduct(c *call, p *registry.Product) bool {
	if p == nil {
		return false
	}
	return c.actor.Staff() || c.actor.Has(registry.PermDeveloper) && c.actor.Entity != 0 && p.Delivers(c.actor.Entity)
}

func notFound(kind registry.Kind, id string) error {
	return fmt.Errorf("%w: there is no %s %s", registry.ErrNotFound, kind, cut(id, 80))
}

// one finds a record for a single read.
func (c *call) one(kind registry.Kind, id string) (answer, error) {
	if kind == registry.KindEntity {
		abn, err := registry.ParseABN(id) // as people write it, with spaces
		if err != nil {
			return answer{}, notFound(kind, id)
		}
		id = abn.String()
	}
	value, rev, ok := c.view.Entry(kind, id)
	if !ok {
		return answer{}, notFound(kind, id)
	}
	return answer{data: record{value, rev}, rev: rev}, nil
}

// changed renders what a command made of a record.
func changed[T any](r registry.Result[T], err error, done outcome) (answer, error) {
	a := answer{outcome: done}
	if r.Entry != nil {
		a.data, a.rev = record{&r.Entry.Value, r.Entry.Revision}, r.Entry.Revision
	}
	if r.Existing {
		a.outcome = already
	}
	if err != nil && a.data != nil {
		return answer{}, &committedError{a.data, err}
	}
	return a, err
}

// entityOf reads the path's ABN.
func (c *call) entityOf() (registry.ABN, error) {
	abn, err := registry.ParseABN(c.path("abn"))
	if err != nil {
		return 0, notFound(registry.KindEntity, c.path("abn"))
	}
	return abn, nil
}

// rereadsMax is how often a command that changes a part of a record is tried
// again when the record moved on between the read and the write and the caller
// named no ETag of its own.
const rereadsMax = 8
