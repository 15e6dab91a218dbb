package control

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// Signals are what the fleet's watcher told. The zero value has none.
type Signals struct {
	Latest func(ctx context.Context, n int) ([]anomaly.Signal, error) // the latest first
	// Of are the n latest of some products together, the latest first.
	Of   func(ctx context.Context, products []string, n int) ([]anomaly.Signal, error)
	Each func(ctx context.Context, from, to time.Time, visit func(anomaly.Signal) bool) error
	// Share is a product's share of the traffic in percent, negative where nobody
	// knows.
	Share func(product string) float64
	// Names finds the subscriptions that signals are about. Nil finds none.
	Names *policy.Names
	// Fields are the calls allowed in the last four weeks and what they lacked, of
	// one product or, for "", of all; ok is false when nobody knows yet.
	Fields func(product string) (all []anomaly.FieldTally, ok bool)
}

// policyRoutes are the part of the API about signals, and what is done about them.
func (s *server) policyRoutes() []route {
	const (
		officers  = registry.PermIncidentOfficer | registry.PermOperator
		onlookers = officers | registry.PermAuditor | registry.PermAssessor
	)
	onPolicy := func(what, summary string) route {
		do := map[string]func(*policy.Desk, context.Context, registry.Actor, string, registry.Meta) (registry.Outcome, error){
			"enforce": (*policy.Desk).Enforce, "relax": (*policy.Desk).Relax, "stop": (*policy.Desk).Stop,
		}[what]
		return post("/v1/policies/{id}/"+what, what+"-policy", summary, with(s, func(c *call, in *policyReasonBody) (answer, error) {
			return s.onPolicy(c, in.Reason, func(d *policy.Desk, m registry.Meta) (registry.Outcome, error) {
				return do(d, c.r.Context(), c.actor, c.path("id"), m)
			})
		})).gives(policyView{}).by(officers).lenient()
	}
	return []route{
		get("/v1/signals", "list-watch-signals", "What the watcher told of callers, the latest first, among the last thousand; with product_id, among the last hundred of that product. A developer sees those of its own products, the last hundred of each.", s.listWatchSignals).listsPlain(signalView{}).by(onlookers|registry.PermDeveloper).filters("product_id", "signal"),

		get("/v1/policies", "list-policies", "What is done about callers that stray, by name.", s.listPolicies).lists(policyView{}).by(onlookers).filters("state").missing(),
		post("/v1/policies/preview", "preview-policy", "Try a rule on recorded signals and calls: who would have been touched.", with(s, s.previewPolicy)).givesPlain(policyPreview{}).by(officers),
		get("/v1/policies/{id}", "get-policy", "One policy, with its versions and how well it has done.", s.getPolicy).gives(policyView{}).by(onlookers),
		put("/v1/policies/{id}", "propose-policy", "Write a version of a policy, or a new policy. It begins in shadow.", with(s, s.proposePolicy)).gives(policyView{}).by(officers),
		onPolicy("enforce", "Ask for the version in shadow to be enforced; or, as a second person, approve that."),
		onPolicy("relax", "Put the enforced version back into shadow, at once."),
		onPolicy("stop", "End a policy. What it imposed ends by itself, or is lifted."),

		get("/v1/alarms", "list-alarms", "What policies found, by ID.", s.listAlarms).lists(policy.Alarm{}).by(onlookers).filters("state", "policy", "product_id", "shadow", "outcome", "incident").missing(),
		get("/v1/alarms/{id}", "get-alarm", "One alarm.", s.getAlarm).gives(policy.Alarm{}).by(onlookers),
		post("/v1/alarms/{id}/confirm", "confirm-alarm", "It was right.", with(s, s.confirmAlarm)).gives(policy.Alarm{}).by(officers).lenient(),
		post("/v1/alarms/{id}/dismiss", "dismiss-alarm", "It was a false alarm. A measure it took is lifted on its own.", with(s, s.dismissAlarm)).gives(policy.Alarm{}).by(officers).matching(),
	}
}

type policyReasonBody struct {
	Reason string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

// RuleFields is a rule as it is sent.
type RuleFields struct {
	When policy.Condition      `json:"when"`
	Then policy.Countermeasure `json:"then"`
}

type proposeBody struct {
	Purpose string `json:"purpose,omitempty" maxLength:"500" doc:"What it is for; needed the first time."`
	Reason  string `json:"reason,omitempty" maxLength:"500" doc:"Why this version; kept in the log."`
	RuleFields
}

type previewPolicyBody struct {
	Since registry.Time `json:"since,omitempty" doc:"Try what was seen from then on; default the last day."`
	RuleFields
}

type confirmAlarmBody struct {
	Reason  string        `json:"reason,omitempty" maxLength:"500"`
	BeganAt registry.Time `json:"began_at,omitempty" doc:"When it began, as found out since; default its first signal."`
}

// policyView is a policy as the API shows it.
type policyView struct {
	policy.Policy
	States []string      `json:"states" doc:"enforced, shadow, both, or off."`
	Texts  []string      `json:"texts" doc:"What the versions in force say, in words; the enforced one first."`
	Effect policy.Effect `json:"effect" doc:"How well it has done."`
}

// signalView is a signal as the API shows it.
type signalView struct {
	Subject   policy.Caller `json:"subject" doc:"Of a subscription and a network the ID is a keyed hash."`
	ProductID string        `json:"product_id,omitempty"`
	Signal    string        `json:"signal"`
	At        registry.Time `json:"at" doc:"The minute it was seen in."`
	Value     float64       `json:"value"`
	Words     string        `json:"words" doc:"What the value counts."`
	P         float64       `json:"probability" doc:"Of a value as large in a caller like this one; 0 for a rule."`
	Surprise  float64       `json:"surprise" doc:"−log10 of it; 6 for a rule."`
	Newcomer  bool          `json:"newcomer" doc:"Its own past is too short: it was held against that of the others."`
	Text      string        `json:"text"`
	Reasons   []string      `json:"reasons"`
}

func (s *server) viewSignal(v *registry.View, x *anomaly.Signal) signalView {
	out := signalView{
		Subject: policy.Caller{Kind: x.Subject.Kind.String(), ID: x.Subject.ID}, ProductID: s.signals.Names.FactsOf(v, x.Subject).Product,
		Signal: x.Name.String(), At: registry.At(x.At), Value: x.Value, Words: x.Name.Words(), P: x.P, Surprise: x.Surprise(), Newcomer: x.Newcomer,
		Text: x.Text(), Reasons: x.Reasons,
	}
	if out.Reasons == nil {
		out.Reasons = []string{}
	}
	return out
}

// Bounds on the list of signals.
const (
	signalsShown    = 1000
	signalsProducts = 1000 // of a developer
)

func (s *server) listWatchSignals(c *call) (answer, error) {
	if s.signals.Latest == nil {
		return answer{}, unavailable(fmt.Errorf("nobody watches callers here"))
	}
	product, byProduct := c.filter("product_id")
	name, byName, err := c.filterWord("signal")
	if err != nil {
		return answer{}, err
	}
	all, err := s.signalsFor(c, product, signalsShown)
	if err != nil {
		return answer{}, err
	}
	return paged(c, all, func(v signalView) bool {
		return (!byProduct || v.ProductID == product) && (!byName || v.Signal == name)
	}, func(v signalView) any { return v })
}

// signalsFor are the n latest signals that the caller may know of, of one product
// when it is not "". Staff see all; a developer is warned of what its own products
// do, but not that somebody on the list of protected clients was among those they
// asked for.
func (s *server) signalsFor(c *call, product string, n int) ([]signalView, error) {
	products := []string{product}
	switch {
	case c.actor.Staff() && product == "":
		products = nil
	case !c.actor.Staff():
		products = s.ownProducts(c)
		if product != "" {
			products = slices.DeleteFunc(products, func(id string) bool { return id != product })
		}
		if len(products) == 0 {
			return []signalView{}, nil
		}
	}
	var latest []anomaly.Signal
	var err error
	if products == nil {
		latest, err = s.signals.Latest(c.r.Context(), n)
	} else { // some are not shown
		latest, err = s.signals.Of(c.r.Context(), products[:min(len(products), signalsProducts)], 2*n)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	out := make([]signalView, 0, min(len(latest), n))
	for i := range latest {
		v := s.viewSignal(c.view, &latest[i])
		if c.actor.Staff() || latest[i].Name != anomaly.SignalProtected && v.ProductID != "" && mayKnowProduct(c, c.view.Product(v.ProductID)) {
			out = append(out, v)
		}
	}
	return out[:min(len(out), n)], nil
}

// policies are the desk and the casework to read.
func (s *server) policies() (*policy.Desk, *registry.Casebook, error) {
	if s.policyDesk == nil {
		return nil, nil, errNoCasework
	}
	book, err := s.reg.Casebook()
	return s.policyDesk, book, err
}

func (s *server) viewPolicy(book *registry.Casebook) func(*registry.Case[policy.Policy]) any {
	return func(x *registry.Case[policy.Policy]) any {
		v := policyView{Policy: x.Body, States: x.Body.States(), Texts: []string{}}
		for _, a := range x.Body.Active() {
			v.Texts = append(v.Texts, a.Rule.Text())
		}
		v.Effect, _ = policy.EffectOf(book, x.ID) // what does not decode was refused where it entered
		return record{v, x.Revision}
	}
}

func (s *server) listPolicies(c *call) (answer, error) {
	_, book, err := s.policies()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, s.viewPolicy(book), "state")
}

func (s *server) getPolicy(c *call) (answer, error) {
	_, book, err := s.policies()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[policy.Policy](book, c.path("id"))
	return oneCase(x, err, s.viewPolicy(book))
}

// onPolicy runs one command on the policy that the path names.
func (s *server) onPolicy(c *call, reason string, do func(*policy.Desk, registry.Meta) (registry.Outcome, error)) (answer, error) {
	return atPolicyDesk(s, c, reason, do, s.viewPolicy)
}

// atPolicyDesk runs a command of the policies' desk on the case that the path
// names, and renders what it made of it.
func atPolicyDesk[T registry.CaseBody](s *server, c *call, reason string, do func(*policy.Desk, registry.Meta) (registry.Outcome, error), show func(*registry.Casebook) func(*registry.Case[T]) any) (answer, error) {
	d, _, err := s.policies()
	if err != nil {
		return answer{}, err
	}
	m, err := c.meta(reason)
	if err != nil {
		return answer{}, err
	}
	out, err := do(d, m)
	if out.ID == "" || out.Cases == nil {
		return answer{}, errs(err, "")
	}
	x, rerr := registry.CaseOf[T](out.Cases, c.path("id"))
	if rerr != nil {
		return answer{}, rerr
	}
	return caseDone(x, false, err, found, show(out.Cases))
}

func (s *server) proposePolicy(c *call, in *proposeBody) (answer, error) {
	return s.onPolicy(c, in.Reason, func(d *policy.Desk, m registry.Meta) (registry.Outcome, error) {
		return d.Propose(c.r.Context(), c.actor, c.path("id"), in.Purpose, policy.Rule(in.RuleFields), m)
	})
}

func (s *server) listAlarms(c *call) (answer, error) {
	_, book, err := s.policies()
	if err != nil {
		return answer{}, err
	}
	return cases(c, book, showCase[policy.Alarm], "state", "policy", "product_id", "shadow", "outcome", "incident")
}

func (s *server) getAlarm(c *call) (answer, error) {
	_, book, err := s.policies()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[policy.Alarm](book, c.path("id"))
	return oneCase(x, err, showCase[policy.Alarm])
}

func (s *server) onAlarm(c *call, reason string, do func(*policy.Desk, registry.Meta) (registry.Outcome, error)) (answer, error) {
	return atPolicyDesk(s, c, reason, do, func(*registry.Casebook) func(*registry.Case[policy.Alarm]) any { return showCase[policy.Alarm] })
}

func (s *server) confirmAlarm(c *call, in *confirmAlarmBody) (answer, error) {
	return s.onAlarm(c, in.Reason, func(d *policy.Desk, m registry.Meta) (registry.Outcome, error) {
		return d.Confirm(c.r.Context(), c.actor, c.path("id"), in.BeganAt, m)
	})
}

func (s *server) dismissAlarm(c *call, in *policyReasonBody) (answer, error) {
	return s.onAlarm(c, in.Reason, func(d *policy.Desk, m registry.Meta) (registry.Outcome, error) {
		return d.Dismiss(c.r.Context(), c.actor, c.path("id"), m)
	})
}

// policyPreview is what a rule would have done to what was recorded.
type policyPreview struct {
	Text      string           `json:"text" doc:"The rule in words."`
	From      registry.Time    `json:"from"`
	To        registry.Time    `json:"to"`
	Signals   uint64           `json:"signals" doc:"Told in that time, of all callers."`
	Decisions uint64           `json:"decisions" doc:"Recorded in that time."`
	Allowed   uint64           `json:"allowed" doc:"Of them, those that were allowed."`
	Refused   uint64           `json:"refused" doc:"Of them, those that the rule would have refused."`
	Truncated bool             `json:"truncated,omitempty" doc:"There was more than is tried at once: the rest is not in the figures."`
	Touched   []policy.Touched `json:"touched" doc:"Whom it would have touched, those refused most first."`
}

const (
	previewTouchedMax   = 100
	previewSignalsSince = 24 * time.Hour
)

// previewPolicy tries a rule on the signals kept and then on the calls recorded.
func (s *server) previewPolicy(c *call, in *previewPolicyBody) (answer, error) {
	rule := policy.Rule(in.RuleFields)
	if err := rule.Check(""); err != nil {
		return answer{}, errs(err, "")
	}
	if s.signals.Each == nil {
		return answer{}, unavailable(fmt.Errorf("there are no signals to try it on"))
	}
	to := c.at.Std()
	from := in.Since.Std()
	if in.Since == 0 {
		from = to.Add(-previewSignalsSince)
	}
	if !from.Before(to) {
		return answer{}, registry.Field("/since", "%s is not in the past", in.Since)
	}
	share := s.signals.Share
	if share == nil {
		share = func(string) float64 { return -1 }
	}
	trial := policy.NewTrial(rule, func(x anomaly.Subject) policy.Facts { return s.signals.Names.FactsOf(c.view, x) }, share)
	if err := s.signals.Each(c.r.Context(), from, to, func(x anomaly.Signal) bool { trial.See(x); return true }); err != nil {
		return answer{}, unavailable(err)
	}
	out := policyPreview{Text: rule.Text(), From: registry.At(from), To: c.at}
	if s.decisions.Each != nil && rule.Then.Do != policy.Observe {
		err := s.decisions.Each(c.r.Context(), from, to, func(r *authz.Record) bool {
			if out.Decisions == previewDecisionsMax {
				out.Truncated = true
				return false
			}
			out.Decisions++
			if r.Reason == authz.OK {
				out.Allowed++
				risk := registry.Risk(0)
				if x := c.view.Service(r.Service); x != nil {
					risk = x.Risk
				}
				if rule.Then.Do == policy.Deny {
					if c.view.IsProtected(registry.ClientHash(r.SubjectHash)) || c.view.IsProtected(registry.ClientHash(r.ClientHash)) {
						trial.Screened(r.ProductID, risk)
					}
					return true
				}
				trial.Call(r.ProductID, r.ClientID, risk, r.At.Std())
			}
			return true
		})
		if err != nil {
			return answer{}, unavailable(err)
		}
	}
	var left uint64
	out.Signals, left = trial.Signals()
	touched := trial.Touched()
	for i := range touched {
		out.Refused += touched[i].Refused
	}
	out.Truncated = out.Truncated || left > 0 || len(touched) > previewTouchedMax
	out.Touched = touched[:min(len(touched), previewTouchedMax)]
	return answer{data: out}, nil
}
