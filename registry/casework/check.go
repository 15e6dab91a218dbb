package casework

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Outcome of an eligibility check: nothing beside it is kept.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "pass"
	Failed  Outcome = "fail"
	Pending Outcome = "pending" // a person will record it
)

// CheckState is how far a check has come.
type CheckState string

// The states of a check.
const (
	CheckToAsk  CheckState = "to-ask"  // the checker is asked at Retry
	CheckAsked  CheckState = "asked"   // somebody is to record the outcome
	CheckPassed CheckState = "passed"  //
	CheckFailed CheckState = "failed"  //
	CheckEnded  CheckState = "expired" // it passed once; it must be made again
)

// CheckRun is one check of an entity or of one of its people.
type CheckRun struct {
	Name    string        `json:"name"`
	Subject string        `json:"subject"` // entity, or a principal's ID
	State   CheckState    `json:"state"`
	Source  string        `json:"source,omitempty"`
	At      registry.Time `json:"at,omitempty"`
	Expires registry.Time `json:"expires_at,omitempty"`
	// Retry is when the checker is asked next, Problem why it has not answered yet:
	// shown to both sides.
	Retry    registry.Time `json:"asked_at,omitempty"`
	Attempts int           `json:"attempts,omitempty"`
	Problem  string        `json:"waiting_because,omitempty"`
}

func (c *CheckRun) key() string { return c.Name + "@" + c.Subject }

// entityChecks are those of the business, principalChecks those of each of its
// principals and responsible officials: the same, but for what only a business
// can be. Each belongs to a requirement of the catalogue.
func entityChecks() []string {
	return append([]string{"authority", "legitimate-business"}, principalChecks()...)
}

func principalChecks() []string {
	return []string{"tax-obligations", "compliance-behaviour", "criminal-history", "bankruptcy"}
}

// requirementOf a check (domain model §4).
func requirementOf(check string) string {
	switch check {
	case "authority":
		return "REG-1"
	case "tax-obligations":
		return "REG-3"
	}
	return "REG-2"
}

// checkValid is how long an outcome counts when it does not say.
const checkValid = year

// CheckRequest is what a Checker is asked.
type CheckRequest struct {
	Check     string
	ABN       registry.ABN
	Name      string // of the business
	Principal *Principal
	Applicant *Applicant // for authority
}

// CheckResult is what it answers; no detail.
type CheckResult struct {
	Outcome Outcome
	Source  string
	Expires registry.Time // 0: in a year
}

// Checker makes eligibility checks. An error says that it could not answer now:
// the registration waits, says so, and it is asked again.
type Checker interface {
	Check(ctx context.Context, q CheckRequest) (CheckResult, error)
}

// Manual is the Checker of an agency whose people look for themselves: a
// registrar records each outcome.
type Manual struct{}

// Check implements Checker.
func (Manual) Check(context.Context, CheckRequest) (CheckResult, error) {
	return CheckResult{Outcome: Pending, Source: "a registrar"}, nil
}

// Bounds of asking.
const (
	askTimeout  = 10 * time.Second
	askRetryMin = 5 * time.Second
	askRetryMax = 15 * time.Minute
	askIdle     = time.Second
	askBatch    = 16
)

// RunChecks asks the Checker for what is to be asked, while this control plane is
// the writer, until ctx ends. What it answers is recorded in one commit, unless
// somebody recorded it meanwhile.
func (d *Desk) RunChecks(ctx context.Context) {
	for ctx.Err() == nil {
		changed := d.reg.CasebookChanged()
		if d.askDue(ctx) {
			continue
		}
		idle := time.NewTimer(askIdle)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-idle.C:
		}
		idle.Stop()
	}
}

// askDue asks what is due; false when nothing was, or nothing could be recorded.
func (d *Desk) askDue(ctx context.Context) bool {
	book, err := d.reg.Casebook()
	if err != nil || !d.reg.Writing() {
		return false
	}
	now := d.reg.Now()
	ids, _ := book.Find(registry.Query{
		Kind: "registration", Where: []registry.Where{{Index: "ask"}}, To: askValue(now + 1), Limit: askBatch,
	})
	did := false
	for _, id := range ids {
		c, err := registry.CaseOf[Registration](book, id)
		if err != nil {
			continue
		}
		for i := range c.Body.Checks {
			if run := &c.Body.Checks[i]; run.State == CheckToAsk && run.Retry <= now && ctx.Err() == nil {
				did = d.ask(ctx, &c.Body, *run) || did
			}
		}
	}
	return did
}

// ask asks for one check and records what came of it.
func (d *Desk) ask(ctx context.Context, r *Registration, run CheckRun) bool {
	q := CheckRequest{Check: run.Name, ABN: r.ABN, Name: r.Form.Name}
	if run.Name == "authority" {
		q.Applicant = &r.Form.Applicant
	}
	if i := slices.IndexFunc(r.Form.Principals, func(p Principal) bool { return p.ID == run.Subject }); i >= 0 {
		q.Principal = &r.Form.Principals[i]
	}
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	res, err := d.cfg.Checker.Check(actx, q)
	cancel()
	if ctx.Err() != nil {
		return false
	}
	cmd := checkAnswered
	if err != nil {
		cmd = checkerDown
		d.cfg.Log.WarnContext(ctx, "an eligibility check was not answered, asked again later", "check", run.Name, "attempts", run.Attempts+1, "err", err)
	}
	_, derr := d.do(ctx, registry.Actor{Name: "checker"}, cmd, "", func(t *registry.Tx) error {
		c, e, err := registrationOf(t, r.ABN)
		if err != nil {
			return err
		}
		x := c.Body.check(run.Name, run.Subject)
		if x == nil || x.State != CheckToAsk || x.Attempts != run.Attempts {
			t.Keep(c.ID, c.Revision) // somebody recorded it meanwhile
			return nil
		}
		x.Attempts++
		switch {
		case cmd == checkerDown:
			x.Problem = "the checker does not answer; it is asked again"
			x.Retry = later(t.Now(), min(askRetryMin<<min(x.Attempts-1, 10), askRetryMax))
			return d.putChecked(t, c.Body, e, cmd, x)
		case res.Outcome == Pending:
			x.State, x.Source, x.Problem, x.Retry = CheckAsked, res.Source, "", 0
			return d.putChecked(t, c.Body, e, cmd, x)
		}
		return d.settle(t, c.Body, e, cmd, x, res.Outcome, res.Source, res.Expires)
	})
	if derr != nil && !errors.Is(derr, registry.ErrNotDurable) {
		d.cfg.Log.WarnContext(ctx, "the outcome of a check was not recorded", "check", run.Name, "err", derr)
		return false
	}
	return true
}

// check finds a run; nil when there is none. The Registration must be the caller's own.
func (r *Registration) check(name, subject string) *CheckRun {
	for i := range r.Checks {
		if r.Checks[i].Name == name && r.Checks[i].Subject == subject {
			return &r.Checks[i]
		}
	}
	return nil
}

// plan makes the runs that an application needs; those that passed and still
// hold are kept.
func (r *Registration) plan(now registry.Time) {
	var all []CheckRun
	add := func(name, subject string) {
		if old := r.check(name, subject); old != nil && old.State == CheckPassed && old.Expires > now && name != "authority" {
			all = append(all, *old)
			return
		}
		all = append(all, CheckRun{Name: name, Subject: subject, State: CheckToAsk, Retry: now})
	}
	for _, name := range entityChecks() {
		add(name, "entity")
	}
	for _, p := range r.Form.Principals {
		for _, name := range principalChecks() {
			add(name, p.ID)
		}
	}
	r.Checks = all
}

// open lists the checks that have not passed.
func (r *Registration) open(now registry.Time) []string {
	var out []string
	for i := range r.Checks {
		c := &r.Checks[i]
		if c.State != CheckPassed || c.Expires != 0 && c.Expires <= now {
			out = append(out, fmt.Sprintf("%s of %s is %s", c.Name, c.Subject, c.State))
		}
	}
	return out
}

// summary is what the register itself shows of the checks: one outcome for each
// requirement, the worst. What it showed of others stays.
func (r *Registration) summary(now registry.Time, shown []registry.Check) []registry.Check {
	out := []registry.Check{}
	for _, requirement := range []string{"REG-1", "REG-2", "REG-3"} {
		sum := registry.Check{Name: requirement, Outcome: "pass"}
		n := 0
		for i := range r.Checks {
			c := &r.Checks[i]
			if requirementOf(c.Name) != requirement {
				continue
			}
			n++
			switch {
			case c.State == CheckFailed:
				sum.Outcome = "fail"
			case c.State != CheckPassed && sum.Outcome != "fail":
				sum.Outcome = "pending"
			}
			sum.At = max(sum.At, c.At)
			if c.Expires != 0 && (sum.Expires == 0 || c.Expires < sum.Expires) {
				sum.Expires = c.Expires
			}
			sum.Source = c.Source
		}
		if n == 0 {
			out = append(out, shownOf(shown, requirement)...)
			continue
		}
		if sum.Outcome != "pass" || sum.Expires <= sum.At {
			sum.Expires = 0
		}
		out = append(out, sum)
	}
	if len(r.Accepted) > 0 {
		last := r.Accepted[len(r.Accepted)-1]
		return append(out, registry.Check{Name: "REG-4", Outcome: "pass", Source: "terms " + last.Version, At: last.At})
	}
	return append(out, shownOf(shown, "REG-4")...)
}

func shownOf(shown []registry.Check, requirement string) []registry.Check {
	if i := slices.IndexFunc(shown, func(c registry.Check) bool { return c.Name == requirement }); i >= 0 {
		return shown[i : i+1]
	}
	return nil
}
