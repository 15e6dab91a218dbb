package control

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/incident"
)

// The overview: what is wrong now, what runs out next, and what waits for whoever
// asks. All of it comes from what this process holds in memory: counted by the
// index, and nothing read of which nothing is told. Only the sidecars are not of
// this instant but of the last reading of their roll, and say of when that is.

// Bounds on the overview.
const (
	overviewRuns    = 12
	overviewLatest  = 10
	overviewLagging = 20
	endingSoon      = 24 * time.Hour // of a suspension
	rollStale       = 5 * time.Second
)

type overviewView struct {
	At           registry.Time      `json:"at" doc:"All but the sidecars is of this instant."`
	Incidents    *incidentFigures   `json:"incidents,omitempty" doc:"Without drills. Left out, as each of these, for those whom it does not concern."`
	Alarms       *openFigure        `json:"alarms,omitempty"`
	Suspensions  suspensionFigures  `json:"suspensions"`
	Sidecars     *sidecarFigures    `json:"sidecars,omitempty" doc:"Left out until their roll was read for the first time."`
	Applications *waitingFigures    `json:"applications,omitempty" doc:"That wait for the agency."`
	Assessments  *assessmentFigures `json:"assessments,omitempty"`
	Products     int                `json:"products"`
	Runs         []runsOut          `json:"runs_out_next" doc:"The clocks that run out next, or ran out already, the first in front; of suspensions only those that end within a day."`
	Later        int                `json:"runs_out_later" doc:"How many more there are."`
}

type incidentFigures struct {
	Open    int `json:"open"`
	Overdue int `json:"overdue" doc:"Of them, those with a clock that ran out."`
	Unowned int `json:"unowned" doc:"Of them, those that nobody works on."`
}

type openFigure struct {
	Open int `json:"open"`
}

type suspensionFigures struct {
	InForce int              `json:"in_force"`
	Ending  int              `json:"ending_within_a_day"`
	Latest  []suspensionView `json:"latest" doc:"At most ten of those in force, the latest first."`
}

type sidecarFigures struct {
	AsOf   registry.Time `json:"as_of" doc:"When the roll was read that these are from; it is every second."`
	Stale  bool          `json:"stale" doc:"It could not be read for some seconds: how they stand now is not known."`
	Total  int           `json:"total"`
	Behind int           `json:"behind" doc:"Of them, those that lapsed, lag, or hold something else than the register."`
	Named  []sidecarView `json:"named" doc:"At most twenty of those behind."`
}

type waitingFigures struct {
	Waiting int `json:"waiting"`
	Late    int `json:"late"`
}

type assessmentFigures struct {
	Waiting  int `json:"waiting" doc:"Products that were submitted, are piloted or under review, or have an open verification."`
	Late     int `json:"late"`
	Answered int `json:"findings_answered"`
}

// runsOut is one clock.
type runsOut struct {
	Kind string        `json:"kind" enum:"incident,suspension,registration,certification"`
	ID   string        `json:"id"`
	What string        `json:"what" doc:"The title of the incident, the subject of the suspension, the name of the applicant or product."`
	Duty string        `json:"duty" doc:"What is to be done, by the name of the clock; of a suspension: ends."`
	Due  registry.Time `json:"due_at"`
	// Verification is the one to work on.
	Verification string `json:"verification_id,omitempty"`
}

// overview makes one answer.
type overview struct {
	*server
	c    *call
	book *registry.Casebook
	overviewView
}

func (s *server) showOverview(c *call) (answer, error) {
	book, err := s.reg.Casebook()
	if err != nil {
		return answer{}, err
	}
	o := overview{server: s, c: c, book: book, overviewView: overviewView{At: c.at, Runs: []runsOut{}}}
	o.suspensions()
	o.Products = o.count("product", "", "")
	if err := errors.Join(o.incidents(), o.applications(), o.assessments(), o.sidecars()); err != nil {
		return answer{}, err
	}
	slices.SortStableFunc(o.Runs, func(a, b runsOut) int { return cmp.Compare(a.Due, b.Due) })
	if more := len(o.Runs) - overviewRuns; more > 0 {
		o.Later += more
		o.Runs = o.Runs[:overviewRuns]
	}
	return answer{data: o.overviewView}, nil
}

// count counts what has a value in an index.
func (o *overview) count(kind, index, value string) int {
	_, n := o.book.Find(registry.Query{Kind: kind, Where: []registry.Where{{Index: index, Value: value}}})
	return n
}

// before counts what has a value below one in an index of instants.
func (o *overview) before(kind, index string, to registry.Time) int {
	_, n := o.book.Find(registry.Query{Kind: kind, Where: []registry.Where{{Index: index}}, From: "0", To: to.String()})
	return n
}

// clocks visits the first of an index of instants, and counts the rest as later.
func (o *overview) clocks(kind, index string, visit func(value, id string) error) (total int, err error) {
	_, total = o.book.Find(registry.Query{Kind: kind, Where: []registry.Where{{Index: index}}, From: "0"})
	shown := 0
	for value, id := range o.book.Values(kind, index, "0") {
		if shown == overviewRuns {
			break
		}
		if err := visit(value, id); err != nil {
			return 0, err
		}
		shown++
	}
	o.Later += total - shown
	return total, nil
}

func (o *overview) incidents() error {
	if none := (&incident.Incident{}); o.incidentDesk == nil || !none.MaySee(o.c.actor) {
		return nil
	}
	f := &incidentFigures{Unowned: o.count("incident", "open", "unowned")}
	f.Open = f.Unowned + o.count("incident", "open", "owned")
	late := map[string]bool{} // one has several clocks
	for value, id := range o.book.Values("incident", incident.ClockIndex, "0") {
		if value >= o.At.String() {
			break
		}
		late[id] = true
	}
	f.Overdue = len(late)
	_, err := o.clocks("incident", incident.ClockIndex, func(value, id string) error {
		x, err := registry.CaseOf[incident.Incident](o.book, id)
		if err != nil {
			return err
		}
		end, duty, _ := strings.Cut(value, " ")
		r := runsOut{Kind: "incident", ID: id, What: cmp.Or(x.Body.Title, id), Duty: duty}
		if err := r.Due.UnmarshalText([]byte(end)); err != nil {
			return err
		}
		o.Runs = append(o.Runs, r)
		return nil
	})
	o.Incidents = f
	if o.policyDesk != nil {
		o.Alarms = &openFigure{o.count("alarm", "state", "open")}
	}
	return err
}

func (o *overview) suspensions() {
	f := suspensionFigures{InForce: o.book.InForce(o.At), Latest: []suspensionView{}}
	for _, x := range o.book.LatestInForce(o.At, overviewLatest) {
		f.Latest = append(f.Latest, o.viewSuspension(o.c, x))
	}
	soon, total := o.book.Ending(o.At, o.At+registry.Time(endingSoon.Milliseconds())+1, overviewRuns)
	for _, x := range soon {
		o.Runs = append(o.Runs, runsOut{Kind: "suspension", ID: x.ID, What: x.Subject.Kind.String() + " " + x.Subject.ID, Duty: "ends", Due: x.Expires})
	}
	f.Ending = total
	o.Later += total - len(soon)
	o.Suspensions = f
}

func (o *overview) applications() (err error) {
	if o.casework == nil || !o.c.actor.Has(registry.PermRegistrar) {
		return nil
	}
	index := casework.ClockIndex("agency")
	f := &waitingFigures{Late: o.before("registration", index, o.At+1)}
	f.Waiting, err = o.clocks("registration", index, func(_, id string) error {
		x, err := registry.CaseOf[casework.Registration](o.book, id)
		if err != nil {
			return err
		}
		r := runsOut{Kind: "registration", ID: id, What: cmp.Or(x.Body.Form.Name, id)}
		r.Duty, r.Due = x.Body.Clocks.Next("agency")
		o.Runs = append(o.Runs, r)
		return nil
	})
	o.Applications = f
	return err
}

func (o *overview) assessments() error {
	if o.assurance == nil || o.casework == nil || !o.c.actor.Has(registry.PermAssessor) {
		return nil
	}
	index := casework.ClockIndex("agency")
	f := &assessmentFigures{Answered: o.count("finding", "state", "answered"), Late: o.before("certification", index, o.At+1), Waiting: assurance.CountWaiting(o.book)}
	_, err := o.clocks("certification", index, func(_, id string) error {
		x, err := registry.CaseOf[casework.Certification](o.book, id)
		if err != nil {
			return err
		}
		r := runsOut{Kind: "certification", ID: id, What: id}
		if p := o.book.View.Product(id); p != nil {
			r.What = p.Name
		}
		r.Duty, r.Due = x.Body.Clocks.Next("agency")
		for product, verification := range o.book.Values("verification", assurance.OpenIndex, id) {
			if product == id {
				r.Verification = verification
			}
			break
		}
		o.Runs = append(o.Runs, r)
		return nil
	})
	o.Assessments = f
	return err
}

func (o *overview) sidecars() error {
	all, at, err := o.reg.SidecarsSeen()
	if errors.Is(err, registry.ErrUnavailable) {
		return nil // not read yet
	}
	if err != nil {
		return fmt.Errorf("sidecars: %w", err)
	}
	f := &sidecarFigures{AsOf: at, Stale: o.At-at > registry.Time(rollStale.Milliseconds()), Total: len(all), Named: []sidecarView{}}
	for _, x := range all {
		if !x.Lapsed && x.Lag == 0 && (x.DigestOK == nil || *x.DigestOK) {
			continue
		}
		if f.Behind++; len(f.Named) < overviewLagging {
			f.Named = append(f.Named, sidecarView(x))
		}
	}
	o.Sidecars = f
	return nil
}
