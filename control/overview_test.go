package control_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control/controltest"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/registrytest"
)

type overviewAnswer struct {
	At          registry.Time
	Incidents   *struct{ Open, Overdue, Unowned int }
	Alarms      *struct{ Open int }
	Suspensions struct {
		In_Force, Ending_Within_A_Day int
		Latest                        []struct{ ID string }
	}
	Sidecars *struct {
		As_Of         registry.Time
		Stale         bool
		Total, Behind int
	}
	Applications *struct{ Waiting, Late int }
	Assessments  *struct{ Waiting, Late, Findings_Answered int }
	Products     int
	Runs         []struct {
		Kind, ID, What, Duty string
		Due_At               registry.Time
	} `json:"runs_out_next"`
	Later int `json:"runs_out_later"`
}

// Of whatever there is hundreds of, the overview names what runs out first, wherever
// it stands among the others, and counts all of it.
func TestTheOverviewNamesWhatRunsOutFirstOfAll(t *testing.T) {
	w := newWorld(t)
	const n = 150
	now := registry.At(time.Now())
	minutes := func(m int) registry.Time { return now + registry.Time(m)*60_000 }
	// The later the ID, the sooner it is due; the very last is late.
	w.put(t, func(tx *registry.Tx) error {
		for i := range n {
			id := fmt.Sprintf("ZZ-%04d", i)
			clock := []casework.Clock{{Name: "verify", On: "agency", Started: now - 1, Due: minutes(10*(n-i) - 15)}}
			p := registry.Product{ID: id, Name: "Product " + id, Owner: 65000000101, Certification: registry.Certification{State: registry.CertSelfCertified}}
			if err := tx.PutProduct(p); err != nil {
				return err
			}
			if err := registry.PutCase(tx, id, casework.Certification{Product: id, Owner: p.Owner, Clocks: clock}); err != nil {
				return err
			}
			x := incident.Incident{ID: fmt.Sprintf("INC-Z%04d", i), Title: "Leak " + id, State: incident.Triaged, Owner: officer, AwareAt: minutes(10*(n-i)-14) - 86_400_000, Entity: 65000000101, Drill: i < 10}
			if err := registry.PutCase(tx, x.ID, x); err != nil {
				return err
			}
		}
		return nil
	})
	var before, o overviewAnswer
	w.call(assessor, "GET", "/v1/overview", nil).data(t, 200, &before)
	for i := range n { // the first imposed is the first to end
		w.call(operator, "POST", "/v1/suspensions", fmt.Sprintf(`{"subject":{"kind":"product","id":"ZZ-%04d"},"reason":"test","expires_at":%q}`, i, minutes(30+i))).data(t, 201, new(suspension))
	}
	w.call(assessor, "GET", "/v1/overview", nil).data(t, 200, &o)
	if o.Assessments.Late != before.Assessments.Late || o.Assessments.Late < 1 || o.Assessments.Waiting < n || o.Incidents.Open != n-10 || o.Incidents.Overdue != 1 || o.Incidents.Unowned != 0 {
		t.Errorf("assessments %+v, incidents %+v", o.Assessments, o.Incidents)
	}
	if held := o.Suspensions.In_Force - before.Suspensions.In_Force; held != n || len(o.Suspensions.Latest) != 10 {
		t.Errorf("%d more suspensions in force", held)
	}
	var first []string
	for _, r := range o.Runs[:4] {
		first = append(first, r.ID)
	}
	if fmt.Sprint(first) != "[ZZ-0149 INC-Z0149 ZZ-0148 INC-Z0148]" {
		t.Errorf("%v run out first", first)
	}
	for i := 1; i < len(o.Runs); i++ {
		if o.Runs[i].Due_At < o.Runs[i-1].Due_At {
			t.Errorf("%s is before %s", o.Runs[i-1].ID, o.Runs[i].ID)
		}
	}
	if all := len(o.Runs) + o.Later; all != n+(n-10)+o.Suspensions.Ending_Within_A_Day {
		t.Errorf("%d clocks in all", all)
	}
	if r := w.call(wattlebird, "GET", "/v1/overview", nil); r.status != 403 {
		t.Errorf("a developer: %s", r)
	}
	var other overviewAnswer
	w.call(operator2, "GET", "/v1/overview", nil).data(t, 200, &other)
	if other.Assessments != nil || other.Applications != nil || other.Incidents == nil {
		t.Errorf("an operator: %+v", other)
	}
}

// The overview asks the store nothing: it is there while the store is not, and says
// of when the sidecars are.
func TestTheOverviewAsksTheStoreNothing(t *testing.T) {
	w := newWorld(t)
	var o overviewAnswer
	controltest.Eventually(t, "the roll was read", func() bool {
		w.call(operator, "GET", "/v1/overview", nil).data(t, 200, &o)
		return o.Sidecars != nil && o.Sidecars.Total == 1
	})
	w.link.Set(registrytest.Fault{Refused: true})
	seen := registry.At(time.Now())
	controltest.Eventually(t, "it says that it cannot ask", func() bool {
		w.call(operator, "GET", "/v1/overview", nil).data(t, 200, &o)
		return o.Sidecars.Stale
	})
	if o.Sidecars.As_Of > seen+1000 || o.Sidecars.Total != 1 || o.Products < 10 {
		t.Errorf("%+v as of %s, the store was last there at %s", o.Sidecars, o.Sidecars.As_Of, seen)
	}
}
