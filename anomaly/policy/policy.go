package policy

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Policy is a rule with its history, as kept. Its ID is its name.
type Policy struct {
	ID      string `json:"id"`
	Purpose string `json:"purpose"`
	// Enforced and Shadow are the numbers of the versions that are evaluated; 0
	// for none. A new version is tried in shadow while the old one is enforced.
	Enforced int `json:"enforced"`
	Shadow   int `json:"shadow"`
	// Versions are all there ever were, the first one first.
	Versions []RuleVersion `json:"versions"`
}

// RuleVersion is one rule and how it came to hold.
type RuleVersion struct {
	Number int `json:"number"`
	Rule
	By     string        `json:"by"`
	At     registry.Time `json:"at"`
	Reason string        `json:"reason,omitempty"`
	// Asked is the first of the two people who bring it out of shadow, Approved
	// the second; Ended who put it back, or replaced it.
	Asked    *Step `json:"asked,omitempty"`
	Approved *Step `json:"approved,omitempty"`
	Ended    *Step `json:"ended,omitempty"`
}

// Step is what a person did to a version.
type Step struct {
	By     string        `json:"by"`
	At     registry.Time `json:"at"`
	Reason string        `json:"reason,omitempty"`
}

// CaseKind is policy.
func (Policy) CaseKind() registry.CaseKind { return "policy" }

// CaseKeys: policies are found by state: enforced, shadow, off.
func (p Policy) CaseKeys(add func(index, value string)) {
	for _, s := range p.States() {
		add("state", s)
	}
}

// States are enforced, shadow, both, or off.
func (p *Policy) States() (states []string) {
	if p.Enforced != 0 {
		states = append(states, "enforced")
	}
	if p.Shadow != 0 {
		states = append(states, "shadow")
	}
	if states == nil {
		states = []string{"off"}
	}
	return states
}

// Bounds on policies.
const (
	// PoliciesMax bounds how many there are, so that they may be a metric's label.
	PoliciesMax = 50
	versionsMax = 200
	purposeMax  = 500
)

var idExp = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)

// version finds one by number; 0 and what there is not is nil.
func (p *Policy) version(n int) *RuleVersion {
	if n < 1 || n > len(p.Versions) {
		return nil
	}
	return &p.Versions[n-1]
}

// Active are the versions to evaluate.
func (p *Policy) Active() (active []Active) {
	if v := p.version(p.Enforced); v != nil {
		active = append(active, Active{p.ID, v.Number, false, v.Rule})
	}
	if v := p.version(p.Shadow); v != nil {
		active = append(active, Active{p.ID, v.Number, true, v.Rule})
	}
	return active
}

// Check tells what is wrong with the head of a policy.
func (p *Policy) Check() error {
	var errs []error
	if !idExp.MatchString(p.ID) {
		errs = append(errs, registry.Field("/id", "%q: name it in at most 40 lower-case letters, digits and hyphens, a letter first", cut(p.ID)))
	}
	if strings.TrimSpace(p.Purpose) == "" || len(p.Purpose) > purposeMax {
		errs = append(errs, registry.Field("/purpose", "say in at most %d characters what it is for", purposeMax))
	}
	return errors.Join(errs...)
}

// Propose adds a version, which begins in shadow in the place of one that is
// there.
func (p *Policy) Propose(r Rule, by Step) error {
	if err := r.Check(""); err != nil {
		return err
	}
	if len(p.Versions) == versionsMax {
		return registry.Field("", "a policy has at most %d versions; begin another policy", versionsMax)
	}
	p.Versions = slices.Clone(p.Versions)
	p.end(p.Shadow, by)
	v := RuleVersion{Number: len(p.Versions) + 1, Rule: r, By: by.By, At: by.At, Reason: by.Reason}
	p.Versions = append(p.Versions, v)
	p.Shadow = v.Number
	return nil
}

// Enforce is asked for by one person and approved by another, neither of whom
// may be alone: the second is not the first, nor the one who wrote the rule. It
// tells whether it is enforced now. least is for how long a version must have
// been in shadow.
func (p *Policy) Enforce(by Step, least time.Duration) (enforced bool, err error) {
	v := p.version(p.Shadow)
	if v == nil {
		return false, fmt.Errorf("%w: policy %s has no version in shadow; propose one first", registry.ErrState, p.ID)
	}
	if ran := by.At.Std().Sub(v.At.Std()); ran < least {
		return false, fmt.Errorf("%w: version %d has been in shadow for %s; it is enforced after %s at the earliest", registry.ErrState, v.Number, ran.Round(time.Second), least)
	}
	p.Versions = slices.Clone(p.Versions)
	v = p.version(p.Shadow)
	if v.Asked == nil {
		v.Asked = &by
		return false, nil
	}
	switch by.By {
	case v.Asked.By:
		return false, fmt.Errorf("%w: you asked for it; another person approves", registry.ErrForbidden)
	case v.By:
		return false, fmt.Errorf("%w: you wrote this version; another person approves", registry.ErrForbidden)
	}
	v.Approved = &by
	p.end(p.Enforced, by)
	p.Enforced, p.Shadow = p.Shadow, 0
	return true, nil
}

// Relax puts the enforced version back into shadow, at once: one person is
// enough to do less. A version that was tried in shadow meanwhile ends.
func (p *Policy) Relax(by Step) error {
	if p.Enforced == 0 {
		return fmt.Errorf("%w: policy %s is not enforced; next may be enforce", registry.ErrState, p.ID)
	}
	p.Versions = slices.Clone(p.Versions)
	p.end(p.Shadow, by)
	old := p.version(p.Enforced)
	next := RuleVersion{Number: len(p.Versions) + 1, Rule: old.Rule, By: old.By, At: by.At, Reason: cmp.Or(by.Reason, "put back into shadow")}
	p.end(p.Enforced, by)
	p.Versions = append(p.Versions, next)
	p.Enforced, p.Shadow = 0, next.Number
	return nil
}

// Stop ends both versions.
func (p *Policy) Stop(by Step) {
	p.Versions = slices.Clone(p.Versions)
	p.end(p.Enforced, by)
	p.end(p.Shadow, by)
	p.Enforced, p.Shadow = 0, 0
}

// end notes the end of a version, if there is that one.
func (p *Policy) end(n int, by Step) {
	if v := p.version(n); v != nil {
		v.Ended = &by
	}
}
