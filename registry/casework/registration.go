package casework

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// Registration is one entity's case; its ID is the ABN. The state is the
// entity's (registry.EntityState).
type Registration struct {
	ABN   registry.ABN `json:"abn"`
	Round int          `json:"round"` // applications so far
	// Applicant is the subject of the sign-in that applied.
	AppliedBy string         `json:"applied_by"`
	Form      Form           `json:"form"`
	Accepted  []Acceptance   `json:"accepted,omitempty"` // of terms, the latest last
	Checks    []CheckRun     `json:"checks,omitempty"`
	Questions []Question     `json:"questions,omitempty"`
	Changes   []EntityChange `json:"changes,omitempty"`
	Trigger   Trigger        `json:"rejection_trigger,omitempty"` // of the last rejection
	Product   string         `json:"product_id,omitempty"`        // made when it was admitted
	Admitted  registry.Time  `json:"admitted_at,omitempty"`
	Review    Review         `json:"review,omitzero"`
	// NoticeID announces the suspension for a check that is not satisfied.
	NoticeID     string  `json:"notice_id,omitempty"`
	SuspensionID string  `json:"suspension_id,omitempty"` // imposed when the notice took effect
	Ending       *Ending `json:"cancellation_proposed,omitempty"`
	// TermsNotice announces the suspension for terms that were not accepted in time.
	TermsNotice     string `json:"terms_notice_id,omitempty"`
	TermsSuspension string `json:"terms_suspension_id,omitempty"`
	Clocks          clocks `json:"clocks,omitempty"`
	Dues            dues   `json:"dues,omitempty"`
	Steps           []Step `json:"steps"`
}

// Form is what an applicant states. One form serves every role.
type Form struct {
	Name       string          `json:"name" maxLength:"200"`
	Roles      []registry.Role `json:"roles" maxItems:"4"`
	Applicant  Applicant       `json:"applicant"`
	Principals []Principal     `json:"principals,omitempty" maxItems:"20"` // and responsible officials
	Contacts   []Contact       `json:"contacts,omitempty" maxItems:"10"`
	Purpose    string          `json:"purpose,omitempty" maxLength:"4000"`
	Intent     string          `json:"intent,omitempty" maxLength:"4000"`
	Access     []string        `json:"access_wanted,omitempty" maxItems:"100"` // service keys
	Product    *ProductForm    `json:"product,omitempty"`
}

// Applicant is who applies, and by what right.
type Applicant struct {
	Name      string `json:"name" maxLength:"200"`
	Email     string `json:"email" maxLength:"200"`
	Position  string `json:"position,omitempty" maxLength:"200"`
	Authority string `json:"authority,omitempty" enum:"director,employee,agent" doc:"By what right the applicant represents the business."`
	Reference string `json:"authority_reference,omitempty" maxLength:"200" doc:"Where the authority can be looked up, e.g. a RAM link."`
}

// Principal is a principal or responsible official, who is checked with consent.
type Principal struct {
	ID        string        `json:"id" maxLength:"32" doc:"Your own word for the person, such as P1."`
	Name      string        `json:"name" maxLength:"200"`
	Position  string        `json:"position,omitempty" maxLength:"200"`
	Consented registry.Time `json:"consented_at,omitempty" doc:"When the person consented to the checks."`
}

// Contact is whom to turn to.
type Contact struct {
	For   string `json:"for" enum:"security,privacy,responsible"`
	Name  string `json:"name" maxLength:"200"`
	Email string `json:"email" maxLength:"200"`
	Phone string `json:"phone,omitempty" maxLength:"40"`
}

// ProductForm is the product the applicant means to build, if any.
type ProductForm struct {
	Name     string         `json:"name" maxLength:"200"`
	Scenario uint8          `json:"scenario" minimum:"1" maximum:"6"`
	Chain    []registry.ABN `json:"chain,omitempty" maxItems:"16"`
}

// Acceptance is one person's acceptance of one version of the terms.
type Acceptance struct {
	Version string        `json:"version"`
	Name    string        `json:"name"`
	By      string        `json:"by"`
	At      registry.Time `json:"at"`
}

// Question is one the registrar asked, with its answer.
type Question struct {
	At       registry.Time `json:"at"`
	By       string        `json:"by"`
	Text     string        `json:"text"`
	Answer   string        `json:"answer,omitempty"`
	Answered registry.Time `json:"answered_at,omitempty"`
}

// EntityChange is a change of what the registration rests on, as told. Contacts
// change at once; what the register itself holds when a registrar confirmed it.
type EntityChange struct {
	At        registry.Time   `json:"at"`
	By        string          `json:"by"`
	Name      string          `json:"name,omitempty"`
	Roles     []registry.Role `json:"roles,omitempty"`
	Contacts  []Contact       `json:"contacts,omitempty"`
	Note      string          `json:"note,omitempty"` // incidents, ownership, anything else
	Confirmed registry.Time   `json:"confirmed_at,omitempty"`
}

// Review is the annual one, or another that was asked for.
type Review struct {
	Opened   registry.Time `json:"opened_at,omitempty"`
	AnswerBy registry.Time `json:"answer_by,omitempty"`
	Answered registry.Time `json:"answered_at,omitempty"`
	Note     string        `json:"note,omitempty"`
}

// Trigger is why an application was rejected, in one of these words.
type Trigger string

// The triggers of a rejection (an open question of the framework; these follow
// from its checks).
const (
	NotAuthorised    Trigger = "applicant-not-authorised"
	NotLegitimate    Trigger = "business-not-legitimate"
	ObligationsUnmet Trigger = "obligations-not-satisfied"
	HistoryUnfit     Trigger = "history-check-not-satisfied"
	IntentUnfit      Trigger = "purpose-or-intent"
	FalseStatement   Trigger = "false-statement"
	NoReply          Trigger = "no-reply"
)

// Triggers is every one of them.
func Triggers() []Trigger {
	return []Trigger{NotAuthorised, NotLegitimate, ObligationsUnmet, HistoryUnfit, IntentUnfit, FalseStatement, NoReply}
}

// The due-dates of a registration.
const (
	dueReply  = "reply"
	dueReview = "review"
	dueLapse  = "lapse"
	dueNotice = "notice"
	// dueTerms: new terms are to be accepted; dueTermsNotice: or a suspension follows.
	dueTerms       = "terms"
	dueTermsNotice = "terms-notice"
)

// CaseKind implements registry.CaseBody.
func (Registration) CaseKind() registry.CaseKind { return "registration" }

// CaseDues implements registry.Dated.
func (r Registration) CaseDues() []registry.Due {
	all := slices.Clone(r.Dues)
	for _, c := range r.Checks {
		if c.State == CheckPassed && c.Expires != 0 {
			all = append(all, registry.Due{What: "check " + c.key(), At: c.Expires})
		}
	}
	return all
}

// CaseKeys implements registry.CaseIndexer.
func (r Registration) CaseKeys(add func(index, value string)) {
	registry.Words(r.Form.Name+" "+r.ABN.String(), func(w string) { add("word", w) })
	add("applied_by", r.AppliedBy)
	for _, mail := range r.mails() {
		add("contact", mail)
	}
	for _, on := range []string{"agency", "applicant"} {
		if due := r.Clocks.due(on); due != 0 {
			add(ClockIndex(on), due.String())
		}
	}
	for i := range r.Checks {
		if c := &r.Checks[i]; c.State == CheckToAsk {
			add("ask", askValue(c.Retry))
			break
		}
	}
}

// ClockIndex is the index of what waits for the agency, or for the applicant: by
// when the first running clock on them is due.
func ClockIndex(on string) string { return "clock_" + on }

func askValue(at registry.Time) string { return fmt.Sprintf("%016x", uint64(at)) }

// mails are every address on the form, each once.
func (r *Registration) mails() []string {
	var out []string
	add := func(mail string) {
		if mail = strings.ToLower(mail); mail != "" && !slices.Contains(out, mail) {
			out = append(out, mail)
		}
	}
	add(r.Form.Applicant.Email)
	for _, c := range r.Form.Contacts {
		add(c.Email)
	}
	return out
}

// SharedContacts finds the other entities whose registration names one of this
// one's addresses: a signal, no proof. assurance.Signals tells of shared evidence.
func SharedContacts(b *registry.Casebook, r *Registration) map[string][]registry.ABN {
	out := map[string][]registry.ABN{}
	for _, mail := range r.mails() {
		for id := range b.All(registry.Query{Kind: "registration", Where: []registry.Where{{Index: "contact", Value: mail}}}) {
			if abn, err := registry.ParseABN(id); err == nil && abn != r.ABN {
				out[mail] = append(out[mail], abn)
			}
		}
	}
	return out
}

// Shares lists the other entities whose registration names an address that this
// one's names, for assurance.
func Shares(b *registry.Casebook, abn registry.ABN) []registry.ABN {
	c, err := registry.CaseOf[Registration](b, abn.String())
	if err != nil {
		return nil
	}
	var out []registry.ABN
	for _, others := range SharedContacts(b, &c.Body) {
		out = append(out, others...)
	}
	return out
}

// check bounds the form; whole also asks for all that a submission needs.
func (f *Form) check(v *registry.View, whole bool) error {
	if err := checkLine("/name", f.Name, true); err != nil {
		return err
	}
	if len(f.Roles) == 0 && whole {
		return registry.Field("/roles", "name at least one role: D, SP, CP or IHD")
	}
	if err := f.Applicant.check(whole); err != nil {
		return err
	}
	if err := f.checkPrincipals(whole); err != nil {
		return err
	}
	have := map[string]bool{}
	for i, c := range f.Contacts {
		at := fmt.Sprintf("/contacts/%d", i)
		if !slices.Contains([]string{"security", "privacy", "responsible"}, c.For) {
			return registry.Field(at+"/for", "use security, privacy or responsible")
		}
		have[c.For] = true
		if err := checkLine(at+"/name", c.Name, true); err != nil {
			return err
		}
		if err := checkMail(at+"/email", c.Email); err != nil {
			return err
		}
		if len(c.Phone) > 40 || strings.Trim(c.Phone, "+0123456789 ()-") != "" {
			return registry.Field(at+"/phone", "is no telephone number")
		}
	}
	for _, needed := range []string{"security", "privacy", "responsible"} {
		if whole && !have[needed] {
			return registry.Field("/contacts", "name a contact for %s", needed)
		}
	}
	if err := checkText("/purpose", f.Purpose, whole); err != nil {
		return err
	}
	if err := checkText("/intent", f.Intent, whole); err != nil {
		return err
	}
	if len(f.Access) > 100 {
		return registry.Field("/access_wanted", "at most 100")
	}
	for i, key := range f.Access {
		if v.Service(key) == nil {
			return registry.Field(fmt.Sprintf("/access_wanted/%d", i), "there is no service of that key")
		}
	}
	if f.Product != nil {
		return f.Product.check()
	}
	return nil
}

func (a *Applicant) check(whole bool) error {
	for _, x := range []struct{ pointer, text string }{{"/applicant/name", a.Name}, {"/applicant/position", a.Position}, {"/applicant/authority_reference", a.Reference}} {
		if err := checkLine(x.pointer, x.text, whole && x.pointer == "/applicant/name"); err != nil {
			return err
		}
	}
	if a.Email != "" || whole {
		if err := checkMail("/applicant/email", a.Email); err != nil {
			return err
		}
	}
	switch {
	case a.Authority == "" && !whole:
	case !slices.Contains([]string{"director", "employee", "agent"}, a.Authority):
		return registry.Field("/applicant/authority", "say by what right the applicant represents the business: director, employee or agent")
	case whole && a.Authority != "director" && a.Reference == "":
		return registry.Field("/applicant/authority_reference", "say where the authority of an %s can be looked up", a.Authority)
	}
	return nil
}

func (f *Form) checkPrincipals(whole bool) error {
	if len(f.Principals) == 0 && whole {
		return registry.Field("/principals", "name the principals and responsible officials")
	}
	seen := map[string]bool{}
	for i, p := range f.Principals {
		at := fmt.Sprintf("/principals/%d", i)
		if p.ID == "" || len(p.ID) > 32 || strings.ContainsFunc(p.ID, func(c rune) bool {
			return (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-'
		}) || seen[p.ID] || p.ID == "entity" {
			return registry.Field(at+"/id", "give each person a word of its own, letters and digits")
		}
		seen[p.ID] = true
		if err := checkLine(at+"/name", p.Name, true); err != nil {
			return err
		}
		if err := checkLine(at+"/position", p.Position, false); err != nil {
			return err
		}
		if whole && p.Consented == 0 {
			return registry.Field(at+"/consented_at", "the checks of a person need that person's consent")
		}
	}
	return nil
}

func (p *ProductForm) check() error {
	if err := checkLine("/product/name", p.Name, true); err != nil {
		return err
	}
	if p.Scenario < 1 || p.Scenario > 6 {
		return registry.Field("/product/scenario", "%d is no deployment scenario; use 1 to 6", p.Scenario)
	}
	return nil
}
