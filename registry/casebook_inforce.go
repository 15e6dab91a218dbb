package registry

// What of the suspensions holds, by the index: none of these looks at more of them
// than it tells of, and those that were announced and have not begun.

// InForce counts the suspensions that hold at an instant.
func (b *Casebook) InForce(at Time) int {
	_, ending := b.Find(Query{Kind: "suspension", Where: []Where{{Index: "ends"}}, From: (at + 1).String()})
	_, endless := b.Find(Query{Kind: "suspension", Where: []Where{{Index: "ends"}}})
	_, announced := b.Find(Query{Kind: "suspension", Where: []Where{{Index: "starts"}}, From: (at + 1).String()})
	return ending + endless - announced
}

// Ending finds the suspensions that hold at an instant and end before another, the
// one that ends first in front: max of them, and how many there are.
func (b *Casebook) Ending(at, until Time, max int) (first []*Suspension, total int) {
	_, total = b.Find(Query{Kind: "suspension", Where: []Where{{Index: "ends"}}, From: (at + 1).String(), To: until.String()})
	for _, id := range b.Values("suspension", "starts", (at + 1).String()) {
		if s := b.View.Suspension(id); s != nil && s.Expires != 0 && s.Expires < until {
			total--
		}
	}
	for value, id := range b.Values("suspension", "ends", (at + 1).String()) {
		if len(first) == max || value >= until.String() {
			break
		}
		if s := b.View.Suspension(id); s != nil && s.Active(at) {
			first = append(first, s)
		}
	}
	return first, total
}

// LatestInForce finds the suspensions that hold at an instant, the one imposed last
// in front: max of them.
func (b *Casebook) LatestInForce(at Time, max int) (latest []*Suspension) {
	q := Query{Kind: "suspension", Where: []Where{{Index: "imposed"}}, From: "0", Limit: 4 * max}
	_, left := b.Find(Query{Kind: q.Kind, Where: q.Where, From: q.From})
	for left > 0 && len(latest) < max {
		q.Limit = min(q.Limit, left)
		q.Offset = left - q.Limit
		ids, _ := b.Find(q)
		for i := len(ids) - 1; i >= 0 && len(latest) < max; i-- {
			if s := b.View.Suspension(ids[i]); s != nil && s.Active(at) {
				latest = append(latest, s)
			}
		}
		left -= q.Limit
	}
	return latest
}
