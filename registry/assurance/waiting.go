package assurance

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Waiting is a product that waits for an assessor, with its risk.
type Waiting struct {
	Product      *registry.Product
	Verification string // the one that is open, "" for none
	Risk         *certification.RiskProfile
}

// waitingMax bounds the queue: the risk of each is computed when it is asked for.
const waitingMax = 1000

// waitingStates are those of a product that waits for an assessor.
func waitingStates() []registry.CertState {
	return []registry.CertState{registry.CertSelfCertified, registry.CertInVerification, registry.CertPVT, registry.CertReviewDue}
}

// CountWaiting counts what Waiting would list if it listed them all.
func CountWaiting(book *registry.Casebook) (n int) {
	states := waitingStates()
	for _, state := range states {
		_, found := book.Find(registry.Query{Kind: "product", Where: []registry.Where{{Index: "certification", Value: state.String()}}})
		n += found
	}
	last := ""
	for id := range book.Values("verification", OpenIndex, "") {
		if p := book.View.Product(id); id != last && p != nil && !slices.Contains(states, p.Certification.State) {
			n++
		}
		last = id
	}
	return n
}

// Waiting lists what an assessor may do something about, the riskiest first:
// products that were submitted, are piloted or under review, and those with a
// verification that is open.
func (d *Desk) Waiting(ctx context.Context, book *registry.Casebook) ([]Waiting, error) {
	open := map[string]string{} // by product
	for product, id := range book.Values("verification", OpenIndex, "") {
		open[product] = id
	}
	ids := slices.Collect(maps.Keys(open))
	for _, state := range waitingStates() {
		found, _ := book.Find(registry.Query{Kind: "product", Where: []registry.Where{{Index: "certification", Value: state.String()}}, Limit: waitingMax})
		ids = append(ids, found...)
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	var out []Waiting
	for _, id := range ids {
		p := book.View.Product(id)
		if p == nil || len(out) == waitingMax {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		risk, err := d.RiskProfile(book, p)
		if err != nil {
			return nil, fmt.Errorf("risk of %s: %w", id, err)
		}
		out = append(out, Waiting{p, open[id], risk})
	}
	slices.SortFunc(out, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(b.Risk.Score, a.Risk.Score), cmp.Compare(a.Product.ID, b.Product.ID))
	})
	return out, nil
}
