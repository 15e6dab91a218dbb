package incident

import (
	"time"

	"github.com/dspgate/dspgate/registry"
)

// historyYears is for how long an incident counts in its product's risk.
const historyYears = 3

// History counts a product's incidents of the last three years: those of a high
// level, and all others. Drafts, drills and what turned out to be none do not
// count.
func History(book *registry.Casebook, productID string, now time.Time) (high, other int, err error) {
	since := registry.At(now.AddDate(-historyYears, 0, 0))
	for id := range book.All(registry.Query{Kind: string(Incident{}.CaseKind()), Where: []registry.Where{{Index: "product_id", Value: productID}}}) {
		c, err := registry.CaseOf[Incident](book, id)
		if err != nil {
			return 0, 0, err
		}
		x := &c.Body
		switch {
		case x.Drill, x.State == Draft, x.State == Dismissed, x.ReportedAt < since:
		case x.Level == High:
			high++
		default:
			other++
		}
	}
	return high, other, nil
}
