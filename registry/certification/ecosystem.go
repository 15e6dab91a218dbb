package certification

import (
	"fmt"
	"net/mail"
	"slices"
	"strings"
	"time"
)

// addOnConnections is the number of connections above which a DSP lists an
// add-on (domain model §4 OSF-ADD, §9).
const addOnConnections = 1000

// AddOn is a third party's app that uses a DSP's API, as the DSP declares it.
type AddOn struct {
	ID        string `json:"id"`
	ProductID string `json:"product_id"` // of the DSP whose API it uses
	Name      string `json:"name"`
	Developer string `json:"developer"` // whoever offers it; an ABN where it has one
	// Contact is its developer's e-mail address, told of incidents that concern it;
	// "" when the DSP does not know it.
	Contact string `json:"contact,omitempty"`
	// Connections is how many of the DSP's clients use it.
	Connections uint64 `json:"connections"`
	// ClientList: it reads an agent's list of clients.
	ClientList bool `json:"client_list_access"`
	// Assessed is when its developer last self-assessed against SSAM to this DSP.
	Assessed time.Time `json:"assessed_at,omitzero"`
	// SSIDs are the subscriptions of the DSP's product through which its calls
	// reach the agency: suspending the add-on suspends these.
	SSIDs []string `json:"ssids,omitempty"`
}

// Bounds on a declaration.
const (
	addOnNameMax  = 200
	addOnSSIDsMax = 1000
)

// Check refuses a declaration that is none.
func (a *AddOn) Check() error {
	if strings.TrimSpace(a.Name) == "" || len(a.Name) > addOnNameMax {
		return Invalid("/name", "name the add-on, in at most %d bytes", addOnNameMax)
	}
	if strings.TrimSpace(a.Developer) == "" || len(a.Developer) > addOnNameMax {
		return Invalid("/developer", "name who offers it, in at most %d bytes", addOnNameMax)
	}
	for _, f := range []struct{ pointer, text string }{{"/name", a.Name}, {"/developer", a.Developer}} {
		if err := checkFree(f.text, addOnNameMax); err != nil {
			return &FieldError{Field: f.pointer, Err: err}
		}
	}
	if m, err := mail.ParseAddress(a.Contact); a.Contact != "" && (err != nil || m.Address != a.Contact || len(a.Contact) > addOnNameMax) {
		return Invalid("/contact", "is no e-mail address")
	}
	if len(a.SSIDs) > addOnSSIDsMax {
		return Invalid("/ssids", "at most %d", addOnSSIDsMax)
	}
	for i, s := range a.SSIDs {
		if len(s) != 10 || strings.Trim(s, "0123456789") != "" {
			return Invalid(fmt.Sprintf("/ssids/%d", i), "an SSID is 10 digits")
		}
		if slices.Contains(a.SSIDs[:i], s) {
			return Invalid(fmt.Sprintf("/ssids/%d", i), "stands twice")
		}
	}
	return nil
}

// AddOnStanding is what a declared add-on owes.
type AddOnStanding struct {
	// Listed: the DSP must list it, and its developer self-assess each year.
	Listed  bool   `json:"must_be_listed"`
	Because string `json:"because"`
	// Due is when the next self-assessment is due; zero when none is.
	Due     time.Time `json:"assessment_due,omitzero"`
	Overdue bool      `json:"overdue"`
	Mark    Mark      `json:"mark"`
}

// Standing computes what an add-on owes at an instant.
func (a *AddOn) Standing(now time.Time) AddOnStanding {
	var s AddOnStanding
	switch {
	case a.ClientList:
		s.Listed, s.Because = true, "It reads an agent's list of clients."
	case a.Connections > addOnConnections:
		s.Listed, s.Because = true, fmt.Sprintf("It has %d connections, more than %d.", a.Connections, addOnConnections)
	default:
		return AddOnStanding{Because: fmt.Sprintf("It has %d connections, not more than %d, and reads no list of clients.", a.Connections, addOnConnections), Mark: Pass}
	}
	s.Mark = Pass
	if a.Assessed.IsZero() {
		s.Due, s.Overdue, s.Mark = now, true, Fail
		return s
	}
	s.Due = AddMonths(a.Assessed, assuranceMonths)
	switch {
	case !now.Before(s.Due):
		s.Overdue, s.Mark = true, Fail
	case !now.Before(s.Due.AddDate(0, 0, -dueSoonDays)):
		s.Mark = Warn
	}
	return s
}

// dueSoonDays is how long before it is due something is marked warn.
const dueSoonDays = 30

// Threat is one line of a DSP's threat analysis.
type Threat struct {
	Title      string `json:"title"`
	Scenario   string `json:"scenario"`
	Likelihood string `json:"likelihood"` // low, medium, high
	Impact     string `json:"impact"`     // low, medium, high
	Treatment  string `json:"treatment"`  // avoid, reduce, share, accept (ISO/IEC 27005)
	Control    string `json:"control,omitempty"`
}

// ThreatAnalysis is what a DSP hands in about its ecosystem.
type ThreatAnalysis struct {
	Title   string   `json:"title"`
	Scope   string   `json:"scope"`
	Method  string   `json:"method,omitempty"` // e.g. STRIDE, ISO/IEC 27005
	Threats []Threat `json:"threats"`
	// Evidence are content addresses of the analysis itself, when it is a document.
	Evidence []string `json:"evidence,omitempty"`
}

const (
	threatsMax    = 200
	threatTextMax = 2000
)

// Check refuses an analysis that cannot be read as one.
func (a *ThreatAnalysis) Check() error {
	free := func(pointer, s string, needed bool) error {
		if needed && strings.TrimSpace(s) == "" {
			return Invalid(pointer, "must be given")
		}
		if err := checkFree(s, threatTextMax); err != nil {
			return &FieldError{Field: pointer, Err: err}
		}
		return nil
	}
	for _, f := range []struct {
		pointer, text string
		needed        bool
	}{{"/title", a.Title, true}, {"/scope", a.Scope, true}, {"/method", a.Method, false}} {
		if err := free(f.pointer, f.text, f.needed); err != nil {
			return err
		}
	}
	if len(a.Threats) == 0 && len(a.Evidence) == 0 {
		return Invalid("/threats", "list the threats, or attach the analysis as evidence")
	}
	if len(a.Threats) > threatsMax {
		return Invalid("/threats", "at most %d", threatsMax)
	}
	for i, e := range a.Evidence {
		if _, err := ParseAddress(e); err != nil {
			return &FieldError{Field: fmt.Sprintf("/evidence/%d", i), Err: err}
		}
	}
	for i := range a.Threats {
		t, at := &a.Threats[i], fmt.Sprintf("/threats/%d", i)
		for _, f := range []struct {
			name, text string
			needed     bool
		}{{"/title", t.Title, true}, {"/scenario", t.Scenario, true}, {"/control", t.Control, t.Treatment == "reduce"}} {
			if err := free(at+f.name, f.text, f.needed); err != nil {
				return err
			}
		}
		for _, f := range []struct {
			name, word string
			words      []string
		}{
			{"/likelihood", t.Likelihood, levels()}, {"/impact", t.Impact, levels()},
			{"/treatment", t.Treatment, []string{"avoid", "reduce", "share", "accept"}},
		} {
			if !slices.Contains(f.words, f.word) {
				return Invalid(at+f.name, "%q; write one of %s", cut(f.word), strings.Join(f.words, ", "))
			}
		}
	}
	return nil
}

func levels() []string { return []string{"low", "medium", "high"} }

// Exposure is likelihood times impact, 1 to 9, as the intake sorts by.
func (t *Threat) Exposure() int {
	return (slices.Index(levels(), t.Likelihood) + 1) * (slices.Index(levels(), t.Impact) + 1)
}
