package policy

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Rule is what a version of a policy says.
type Rule struct {
	When Condition      `json:"when"`
	Then Countermeasure `json:"then"`
}

// Screen is what a rule that denies says to the sidecars.
func (r *Rule) Screen(policy string) registry.Screen {
	return registry.Screen{ID: policy, Products: r.When.Products, Except: r.When.Except, MinRisk: r.Then.MinRisk}
}

// Condition selects signals. All that it says must hold; what it leaves out, it
// does not ask for.
type Condition struct {
	// Signals are the names of those that count. None: all that a person should
	// look at (anomaly.SignalName.Alarm).
	Signals []string `json:"signals,omitempty"`
	// Surprise is the least of a signal: −log10 of its tail probability. 3 is one
	// window in a thousand, 6 one in a million and what a rule counts.
	Surprise float64 `json:"surprise,omitempty"`
	// Value is the least of what was observed, in the words of the signal.
	Value float64 `json:"value,omitempty"`
	// Subjects are the kinds that count: product, client-app, subscription,
	// network. None: product and client-app.
	Subjects []string `json:"subjects,omitempty"`
	// Newcomer: only, never, or "" for both: subjects with too short a past of
	// their own.
	Newcomer string `json:"newcomer,omitempty"`
	// States are those of the product's certification that count. None: all.
	States []registry.CertState `json:"states,omitempty"`
	// Risk is the least rating of the riskiest service that the product may call
	// in production.
	Risk registry.Risk `json:"risk,omitempty" minimum:"0" maximum:"4"`
	// Products are the only ones that count; Except those that never do.
	Products []string `json:"products,omitempty"`
	Except   []string `json:"except,omitempty"`
	// Signs is how many different signals there must be of one subject within
	// Within minutes. 0 and 1: each by itself. Default of Within: 60.
	Signs  int `json:"signs,omitempty"`
	Within int `json:"within_minutes,omitempty"`
}

// Do is what an action does.
type Do string

// The actions, mildest first.
const (
	Observe  Do = "observe"  // raises an incident, touches nothing
	Throttle Do = "throttle" // so many calls a second, the rest anomaly-throttled
	Restrict Do = "restrict" // services of low ratings only, the rest product-restricted
	Suspend  Do = "suspend"  // anomaly-suspended
	// Deny refuses the single calls that concern a protected client, with
	// client-not-permitted, and leaves the caller alone otherwise.
	Deny Do = "deny"
)

// Actions are all actions, mildest first.
func Actions() []Do { return []Do{Observe, Deny, Throttle, Restrict, Suspend} }

// Countermeasure is what is done.
type Countermeasure struct {
	Do Do `json:"do"`
	// On is whom it is done to: the subject of the signals (""), or product, its
	// product. Of a network nothing is known in the register: it is only observed.
	// A subscription is known where the control plane holds the subject key;
	// elsewhere a person is asked.
	On string `json:"on,omitempty"`
	// Minutes is for how long: at most 240, the longest without a second person.
	Minutes int `json:"for_minutes,omitempty"`
	// Rate is of a throttle: calls a second over all sidecars.
	Rate int64 `json:"rate,omitempty"`
	// MaxRisk is of a restriction: the highest service rating left.
	MaxRisk registry.Risk `json:"max_risk,omitempty" minimum:"0" maximum:"3"`
	// MinRisk is of a denial: the lowest service rating it holds for; 0: all.
	MinRisk registry.Risk `json:"min_risk,omitempty" minimum:"0" maximum:"4"`
	// Incident is the type of the incident raised. "": what the signals suggest.
	Incident string `json:"incident_type,omitempty"`
	// MaxProducts and MaxTraffic bound what policies do without a person, all of
	// them together: so many products, and such a share of the traffic in percent,
	// under measures of the last day. 0 takes the default: 3 products, 10 %.
	MaxProducts int     `json:"max_products,omitempty"`
	MaxTraffic  float64 `json:"max_traffic_percent,omitempty"`
}

// Bounds and defaults of a rule.
const (
	MinutesMax         = int(registry.SuspendAlone / time.Minute)
	maxProductsDefault = 3
	maxTrafficDefault  = 10
	maxProductsMax     = 1000
	withinDefault      = 60
	withinMax          = 24 * 60
	listMax            = 1000
	rateMax            = 1_000_000
)

var newcomerWords = []string{"", "only", "never"}

// Check tells everything that is wrong with a rule, each as a
// registry.FieldError below pointer.
func (r *Rule) Check(pointer string) error {
	return errors.Join(r.When.check(pointer+"/when"), r.Then.check(pointer+"/then", &r.When))
}

func (c *Condition) check(pointer string) error {
	var errs []error
	add := func(at, format string, args ...any) {
		errs = append(errs, registry.Field(pointer+at, format, args...))
	}
	for i, s := range c.Signals {
		if _, ok := anomaly.ParseSignalName(s); !ok {
			add(fmt.Sprintf("/signals/%d", i), "%q is no signal; use one of %s", cut(s), strings.Join(anomaly.SignalNames(), ", "))
		}
	}
	for i, s := range c.Subjects {
		if _, ok := anomaly.ParseKind(s); !ok {
			add(fmt.Sprintf("/subjects/%d", i), "%q is no kind of subject; use product, client-app, subscription or network", cut(s))
		}
	}
	for _, n := range []struct {
		at       string
		v, least float64
		most     float64
	}{
		{"/surprise", c.Surprise, 0, 300}, {"/value", c.Value, 0, math.MaxFloat32},
		{"/signs", float64(c.Signs), 0, float64(len(anomaly.SignalNames()))}, {"/within_minutes", float64(c.Within), 0, withinMax}, {"/risk", float64(c.Risk), 0, 4},
	} {
		if !(n.v >= n.least && n.v <= n.most) { // so that NaN fails
			add(n.at, "must be a number from %g to %g", n.least, n.most)
		}
	}
	if !slices.Contains(newcomerWords, c.Newcomer) {
		add("/newcomer", "%q: use only or never, or leave it out for both", cut(c.Newcomer))
	}
	for at, n := range map[string]int{"/signals": len(c.Signals), "/subjects": len(c.Subjects), "/states": len(c.States), "/products": len(c.Products), "/except": len(c.Except)} {
		if n > listMax {
			add(at, "at most %d entries; there are %d", listMax, n)
		}
	}
	return errors.Join(errs...)
}

func (a *Countermeasure) check(pointer string, c *Condition) error {
	var errs []error
	add := func(at, format string, args ...any) {
		errs = append(errs, registry.Field(pointer+at, format, args...))
	}
	if !slices.Contains(Actions(), a.Do) {
		add("/do", "%q is no action; use observe, deny, throttle, restrict or suspend", cut(string(a.Do)))
		return errors.Join(errs...)
	}
	if a.On != "" && a.On != "product" {
		add("/on", "%q: use product, or leave it out for the subject of the signals", cut(a.On))
	}
	if a.Do == Deny {
		errs = append(errs, a.checkDeny(pointer, c))
	} else if a.MinRisk != 0 {
		add("/min_risk", "only a denial has a lowest rating")
	}
	switch {
	case a.Do == Deny && a.Minutes != 0:
		add("/for_minutes", "a denial holds for as long as the policy is enforced; leave it out")
	case a.Do == Observe && a.Minutes != 0:
		add("/for_minutes", "observing takes no time; leave it out")
	case a.touches() && (a.Minutes < 1 || a.Minutes > MinutesMax):
		add("/for_minutes", "say for how long, 1 to %d minutes; a second person may extend it", MinutesMax)
	}
	if slices.Contains(c.Subjects, anomaly.Network.String()) && a.Do != Observe {
		add("/do", "a network belongs to nobody in the register; it can only be observed")
	}
	if want := a.Do == Throttle; want != (a.Rate != 0) || a.Rate < 0 || a.Rate > rateMax {
		add("/rate", "a throttle needs a rate from 1 to %d calls a second, and nothing else has one", rateMax)
	}
	if want := a.Do == Restrict; want != (a.MaxRisk != 0) || a.MaxRisk > 3 {
		add("/max_risk", "a restriction needs the highest rating left, 1 to 3, and nothing else has one")
	}
	if a.MaxProducts < 0 || a.MaxProducts > maxProductsMax {
		add("/max_products", "must be from 0 (the default, %d) to %d", maxProductsDefault, maxProductsMax)
	}
	if !(a.MaxTraffic >= 0 && a.MaxTraffic <= 100) {
		add("/max_traffic_percent", "must be from 0 (the default, %d) to 100", maxTrafficDefault)
	}
	return errors.Join(errs...)
}

// touches tells whether something is done to a caller, for a time.
func (a *Countermeasure) touches() bool { return a.Do != Observe && a.Do != Deny }

// checkDeny wants of a denial what a sidecar can tell of a single call: whether
// it concerns a protected client, by which product, of which service.
func (a *Countermeasure) checkDeny(pointer string, c *Condition) error {
	var errs []error
	if len(c.Signals) != 1 || c.Signals[0] != anomaly.SignalProtected.String() {
		errs = append(errs, registry.Field(pointer+"/do", "only calls about protected clients are denied one by one: let when.signals be %s alone", anomaly.SignalProtected))
	}
	if c.Surprise != 0 || c.Value != 0 || c.Newcomer != "" || len(c.States) > 0 || c.Risk != 0 || c.Signs > 1 || c.Within != 0 {
		errs = append(errs, registry.Field(pointer+"/do", "a denial asks for nothing but products and except, and its min_risk: take the rest out of when"))
	}
	if a.MinRisk > 4 {
		errs = append(errs, registry.Field(pointer+"/min_risk", "must be a rating from 1 to 4, or 0 for all"))
	}
	if a.On != "" {
		errs = append(errs, registry.Field(pointer+"/on", "a denial is of single calls; leave it out"))
	}
	return errors.Join(errs...)
}

// Text is a rule in one sentence for an operator.
func (r *Rule) Text() string {
	c := &r.When
	what := "any alarm"
	if len(c.Signals) > 0 {
		what = strings.Join(c.Signals, ", ")
	}
	if c.Signs > 1 {
		what = fmt.Sprintf("%d different of %s within %d minutes", c.Signs, what, c.within())
	}
	text := "when " + what + " of a " + strings.Join(c.kinds(), " or ")
	if c.Surprise > 0 {
		text += " is as rare as 1 in " + strconv.FormatFloat(math.Pow(10, math.Min(c.Surprise, 15)), 'f', 0, 64)
	}
	return text + ": " + r.Then.Text()
}

// Text is an action in words: "throttle to 5 calls a second for 60 minutes".
func (a *Countermeasure) Text() string {
	text := string(a.Do)
	switch a.Do {
	case Deny:
		text = "deny the single call"
		if a.MinRisk > 0 {
			text += fmt.Sprintf(" of a service rated %d or higher", a.MinRisk)
		}
	case Throttle:
		text += fmt.Sprintf(" to %d calls a second", a.Rate)
		if a.Rate == 1 {
			text = "throttle to one call a second"
		}
	case Restrict:
		text += fmt.Sprintf(" to services rated %d or lower", a.MaxRisk)
	}
	if a.On == "product" {
		text += ", on the product,"
	}
	if a.Minutes > 0 {
		text += fmt.Sprintf(" for %d minutes", a.Minutes)
	}
	return text
}

func (c *Condition) within() int {
	if c.Within == 0 {
		return withinDefault
	}
	return c.Within
}

func (c *Condition) kinds() []string {
	if len(c.Subjects) == 0 {
		return []string{anomaly.Product.String(), anomaly.ClientApp.String()}
	}
	return c.Subjects
}

// counts tells whether one signal, by itself, is one that the condition asks for.
func (c *Condition) counts(s *anomaly.Signal, f *Facts) bool {
	surprise := s.Surprise()
	switch {
	case len(c.Signals) == 0 && !s.Name.Alarm(), len(c.Signals) > 0 && !slices.Contains(c.Signals, s.Name.String()),
		!slices.Contains(c.kinds(), s.Subject.Kind.String()),
		!(surprise >= c.Surprise) || !(s.Value >= c.Value), // NaN never is
		c.Newcomer == "only" && !s.Newcomer, c.Newcomer == "never" && s.Newcomer,
		len(c.States) > 0 && (f.Product == "" || !slices.Contains(c.States, f.State)),
		c.Risk > 0 && f.Risk < c.Risk,
		len(c.Products) > 0 && !slices.Contains(c.Products, f.Product),
		slices.Contains(c.Except, f.Product) && f.Product != "":
		return false
	}
	return true
}

func cut(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
