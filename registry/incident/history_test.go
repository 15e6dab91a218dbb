package incident_test

import (
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry/incident"
)

func TestHistoryCountsWhatIncidentsAProductHad(t *testing.T) {
	atDesk(t, func(t *testing.T, d *desk) {
		counts := func(product string, now time.Time) [2]int {
			t.Helper()
			book, err := d.Register.Casebook()
			if err != nil {
				t.Fatal(err)
			}
			high, other, err := incident.History(book, product, now)
			if err != nil {
				t.Fatal(err)
			}
			return [2]int{high, other}
		}
		x := report()
		x.Exposure = incident.Exposure{TFN: true}
		id := d.must(d.Raise(t.Context(), kooka, x))
		d.get(id)
		if got := counts("FP-1003", time.Now()); got != [2]int{0, 1} {
			t.Errorf("not triaged yet: %v", got)
		}
		d.must(d.Triage(t.Context(), officer, id, "", "", "", none))
		drill := report()
		drill.Drill = true
		d.must(d.Raise(t.Context(), officer, drill))
		wrong := d.must(d.Raise(t.Context(), kooka, report()))
		d.must(d.Dismiss(t.Context(), officer, wrong, "none at all", "", none))
		d.get(wrong)
		if got := counts("FP-1003", time.Now()); got != [2]int{1, 0} {
			t.Errorf("one high, a drill and a dismissed one: %v", got)
		}
		if got := counts("FP-1003", time.Now().AddDate(3, 0, 1)); got != [2]int{0, 0} {
			t.Errorf("three years later: %v", got)
		}
		if got := counts("FP-1001", time.Now()); got != [2]int{0, 0} {
			t.Errorf("of another product: %v", got)
		}
	})
}
