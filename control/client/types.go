package client

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Suspension is a suspension with whether it holds and how far it has come.
type Suspension struct {
	registry.Suspension
	Active      bool         `json:"active"`
	Enforcement *Enforcement `json:"enforcement,omitempty"`
}

// Enforcement is how far a suspension has come, and where even a complete one
// promises less.
type Enforcement struct {
	registry.Enforcement
	// P1OnlyServices verify no admission stamp: a call allowed before may still
	// reach them.
	P1OnlyServices []string `json:"p1_only_services"`
}

// Suspend is what a suspension is asked for with.
type Suspend struct {
	Subject    registry.SubjectRef `json:"subject"`
	Reason     string              `json:"reason"`
	Emergency  bool                `json:"emergency,omitempty"`
	NoticeID   string              `json:"notice_id,omitempty"`
	IncidentID string              `json:"incident_id,omitempty"`
	Expires    registry.Time       `json:"expires_at,omitempty"`
	// Effect curbs instead of stopping: Rate is of a throttle, MaxRisk of a
	// restriction.
	Effect  registry.Effect `json:"effect,omitempty"`
	Rate    int64           `json:"rate,omitempty"`
	MaxRisk registry.Risk   `json:"max_risk,omitempty"`
}

// Wait says whether and how long to wait for the sidecars.
type Wait struct {
	On      bool
	Timeout time.Duration
}

func (w Wait) query() url.Values {
	if !w.On {
		return nil
	}
	return url.Values{"wait": {"true"}, "timeout": {w.Timeout.String()}}
}

// Suspend suspends a subject.
func (c *Client) Suspend(ctx context.Context, s Suspend, w Wait) (Answer[Suspension], error) {
	return Do[Suspension](ctx, c, Request{Method: http.MethodPost, Path: Path("suspensions"), Query: w.query(), Body: s})
}

// Confirm confirms a suspension, until expires (not set: 72 h after it was imposed).
func (c *Client) Confirm(ctx context.Context, id, reason string, expires registry.Time, w Wait) (Answer[Suspension], error) {
	body := struct {
		Reason  string        `json:"reason,omitempty"`
		Expires registry.Time `json:"expires_at,omitempty"`
	}{reason, expires}
	return Do[Suspension](ctx, c, Request{Method: http.MethodPost, Path: Path("suspensions", id, "confirm"), Query: w.query(), Body: body})
}

// Lift lifts a suspension.
func (c *Client) Lift(ctx context.Context, id, reason string, w Wait) (Answer[Suspension], error) {
	body := struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
	return Do[Suspension](ctx, c, Request{Method: http.MethodPost, Path: Path("suspensions", id, "lift"), Query: w.query(), Body: body})
}

// Suspension reads a suspension and, when asked to wait, how far its last
// change has come.
func (c *Client) Suspension(ctx context.Context, id string, w Wait) (Answer[Suspension], error) {
	return Do[Suspension](ctx, c, Request{Path: Path("suspensions", id), Query: w.query()})
}

// Sidecar is one sidecar on the roll.
type Sidecar = registry.SidecarStatus

// Decision is one decision record.
type Decision struct {
	ID          string               `json:"id"`
	At          registry.Time        `json:"at"`
	Allowed     bool                 `json:"allowed"`
	Code        string               `json:"code"`
	Status      int                  `json:"status"`
	Revision    registry.Revision    `json:"revision"`
	Environment registry.Environment `json:"environment"`
	Service     string               `json:"service"`
	Route       string               `json:"route"`
	ProductID   string               `json:"product_id"`
	Version     string               `json:"version"`
	ClientID    string               `json:"client_id"`
	Holder      registry.ABN         `json:"holder_abn"`
	Limit       string               `json:"limit"`
	Shadow      string               `json:"shadow_limit"`
	Suspension  string               `json:"suspension_id"`
	Sidecar     string               `json:"sidecar_id"`
}

// Explanation says why a call was decided as it was.
type Explanation struct {
	Decision   Decision    `json:"decision"`
	Title      string      `json:"title"`
	Detail     string      `json:"detail"`
	Remedy     string      `json:"remedy"`
	Suspension *Suspension `json:"suspension"`
	Register   []Fact      `json:"register"`
	Now        struct {
		Revision registry.Revision `json:"revision"`
		Known    bool              `json:"known"`
		Alike    bool              `json:"alike"`
		Code     string            `json:"code"`
		Detail   string            `json:"detail"`
	} `json:"now"`
}

// Fact is one record a decision rested on.
type Fact struct {
	Kind     registry.Kind     `json:"kind"`
	ID       string            `json:"id"`
	Says     string            `json:"says"`
	Revision registry.Revision `json:"revision"`
	Changed  bool              `json:"changed_since"`
	Change   *Change           `json:"change"`
}

// Change is one entry of the log.
type Change struct {
	Revision registry.Revision `json:"revision"`
	At       registry.Time     `json:"at"`
	Actor    string            `json:"actor"`
	Command  string            `json:"command"`
	Reason   string            `json:"reason"`
	Records  []string          `json:"records"`
}

// Explain says why a call was decided as it was.
func (c *Client) Explain(ctx context.Context, decisionID string) (Answer[Explanation], error) {
	return Do[Explanation](ctx, c, Request{Path: Path("decisions", decisionID)})
}

// Problem is what the code of a refused call means.
type Problem struct {
	Code   string `json:"code"`
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy"`
	Who    string `json:"who"`
	Again  bool   `json:"again"`
}

// Problem tells what the code of a refused call means.
func (c *Client) Problem(ctx context.Context, code string) (Answer[Problem], error) {
	return Do[Problem](ctx, c, Request{Path: Path("problems", code)})
}

// Me is who calls and, for a developer, how its own entity stands.
type Me struct {
	Name        string   `json:"name"`
	Permissions []string `json:"permissions"`
	Entity      *struct {
		registry.Entity
		Suspension *Suspension `json:"suspension"`
	} `json:"entity"`
	Products []struct {
		ID            string                 `json:"id"`
		Name          string                 `json:"name"`
		Standing      string                 `json:"standing"`
		Detail        string                 `json:"detail"`
		Certification registry.Certification `json:"certification"`
		Suspension    *Suspension            `json:"suspension"`
		Versions      []struct {
			registry.Version
			Standing string `json:"standing"`
		} `json:"versions"`
		Entitlements  []registry.Entitlement  `json:"entitlements"`
		Subscriptions []registry.Subscription `json:"subscriptions"`
		Limits        []LimitUse              `json:"limits"`
		LimitsNote    string                  `json:"limits_note"`
	} `json:"products"`
	Signals []Signal   `json:"last_signals"`
	Denials []Decision `json:"last_denials"`
}

// Signal is in what a caller was unlike its own past.
type Signal struct {
	ProductID string        `json:"product_id"`
	Signal    string        `json:"signal"`
	At        registry.Time `json:"at"`
	Text      string        `json:"text"`
	Reasons   []string      `json:"reasons"`
}

// LimitUse is one limit and what it is at, over all sidecars.
type LimitUse struct {
	Name        string               `json:"name"`
	Account     string               `json:"account"`
	Kind        registry.LimitKind   `json:"kind"`
	Service     string               `json:"service"`
	Environment registry.Environment `json:"environment"`
	Stage       registry.Stage       `json:"stage"`
	Amount      int64                `json:"amount"`
	Burst       int64                `json:"burst"`
	Period      registry.Period      `json:"period"`
	Shadow      bool                 `json:"shadow"`
	Used        *int64               `json:"used"` // nil while it cannot be read
	Remaining   *int64               `json:"remaining"`
	Resets      registry.Time        `json:"resets_at"`
	Refused     uint64               `json:"refused_today"`
	Observed    uint64               `json:"shadow_refused_today"`
}

// Me reads who calls.
func (c *Client) Me(ctx context.Context) (Answer[Me], error) {
	return Do[Me](ctx, c, Request{Path: Path("me")})
}

// Overview is what is wrong now, what runs out next, and what waits for the agency's
// people; figures that are not for who asks are nil.
type Overview struct {
	OverviewFigures
	Suspensions SuspensionFigures `json:"suspensions"`
	Sidecars    *SidecarFigures   `json:"sidecars"`
}

// OverviewFigures are those of its figures that come without examples.
type OverviewFigures struct {
	At        registry.Time `json:"at"`
	Incidents *struct {
		Open    int `json:"open"`
		Overdue int `json:"overdue"`
		Unowned int `json:"unowned"`
	} `json:"incidents"`
	Alarms *struct {
		Open int `json:"open"`
	} `json:"alarms"`
	Applications *struct {
		Waiting int `json:"waiting"`
		Late    int `json:"late"`
	} `json:"applications"`
	Assessments *struct {
		Waiting  int `json:"waiting"`
		Late     int `json:"late"`
		Answered int `json:"findings_answered"`
	} `json:"assessments"`
	Products int `json:"products"`
	Runs     []struct {
		Kind         string        `json:"kind"`
		ID           string        `json:"id"`
		What         string        `json:"what"`
		Duty         string        `json:"duty"`
		Due          registry.Time `json:"due_at"`
		Verification string        `json:"verification_id"`
	} `json:"runs_out_next"`
	Later int `json:"runs_out_later"`
}

// SuspensionFigures count the suspensions in force.
type SuspensionFigures struct {
	InForce int `json:"in_force"`
	Ending  int `json:"ending_within_a_day"`
}

// SidecarFigures count the sidecars as they were at AsOf.
type SidecarFigures struct {
	AsOf   registry.Time `json:"as_of"`
	Stale  bool          `json:"stale"`
	Total  int           `json:"total"`
	Behind int           `json:"behind"`
}

// Overview reads the overview of the agency's people.
func (c *Client) Overview(ctx context.Context) (Answer[Overview], error) {
	return Do[Overview](ctx, c, Request{Path: Path("overview")})
}
