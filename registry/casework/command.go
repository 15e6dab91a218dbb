package casework

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// Command is one thing that may be done to a case; also its name in the log.
type Command string

// The commands of a registration.
const (
	Apply           Command = "registration.apply"
	Revise          Command = "registration.revise"
	Submit          Command = "registration.submit"
	Withdraw        Command = "registration.withdraw"
	Ask             Command = "registration.ask"
	Reply           Command = "registration.reply"
	RecordCheck     Command = "registration.record-check"
	Admit           Command = "registration.admit"
	Reject          Command = "registration.reject"
	TellChange      Command = "registration.tell-change"
	ConfirmChange   Command = "registration.confirm-change"
	AnswerReview    Command = "registration.answer-review"
	AcceptTerms     Command = "registration.accept-terms"
	AddProduct      Command = "registration.add-product"
	OpenTest        Command = "registration.open-test"
	CancelEntity    Command = "registration.cancel"
	checkAnswered   Command = "registration.check-answered"
	checkerDown     Command = "registration.checker-down"
	reviewOpened    Command = "registration.review-opened"
	lapsed          Command = "registration.lapsed"
	checkExpired    Command = "registration.check-expired"
	noticeEffective Command = "registration.notice-effective"
	replyOverdue    Command = "registration.reply-overdue"
	termsReached    Command = "registration.terms-changed"
	termsOverdue    Command = "registration.terms-overdue"
)

// The commands of a certification.
const (
	Begin             Command = "certification.begin"
	Describe          Command = "certification.describe"
	Answer            Command = "certification.answer"
	RequestException  Command = "certification.request-exception"
	ApproveException  Command = "certification.approve-exception"
	SubmitCert        Command = "certification.submit"
	Recall            Command = "certification.recall"
	SendBack          Command = "certification.send-back"
	StartVerification Command = "certification.start-verification"
	Conform           Command = "certification.conform"
	ApproveHighRisk   Command = "certification.approve-high-risk"
	Pilot             Command = "certification.pilot"
	PassScenario      Command = "certification.pass-scenario"
	Whitelist         Command = "certification.approve"
	Interim           Command = "certification.interim"
	Restrict          Command = "certification.restrict"
	RequestReview     Command = "certification.request-review"
	AnswerCertReview  Command = "certification.answer-review"
	TellCertChange    Command = "certification.tell-change"
	Announce          Command = "certification.announce-suspension"
	Reinstate         Command = "certification.reinstate"
	Delist            Command = "certification.delist"
	certReviewDue     Command = "certification.review-due"
	certSuspended     Command = "certification.suspended"
	findingOverdue    Command = "certification.finding-overdue"
	certExpired       Command = "certification.expired"
	catalogueReached  Command = "certification.catalogue-changed"
)

// rule says in which states a command may be given, and by whom: staff with any
// of By, and, when Own, a developer for its own entity.
type rule[S comparable] struct {
	command Command
	from    []S
	by      registry.Permission
	own     bool
}

// registrationRules is the table of the registration workflow. Apply also
// begins one, where there is none.
func registrationRules() []rule[registry.EntityState] {
	const registrar = registry.PermRegistrar
	const (
		draft, submitted, checking = registry.EntityDraft, registry.EntitySubmitted, registry.EntityChecking
		registered                 = registry.EntityRegistered
	)
	type states = []registry.EntityState
	return []rule[registry.EntityState]{
		{Apply, states{registry.EntityRejected, registry.EntityLapsed}, registrar, true},
		{Revise, states{draft}, registrar, true},
		{Submit, states{draft}, registrar, true},
		{Withdraw, states{submitted, checking}, registrar, true},
		{Ask, states{submitted, checking}, registrar, false},
		{Reply, states{submitted, checking}, registrar, true},
		{RecordCheck, states{submitted, checking, registered}, registrar, false},
		{Admit, states{checking}, registrar, false},
		{Reject, states{submitted, checking}, registrar, false},
		{TellChange, states{registered}, registrar, true},
		{ConfirmChange, states{registered}, registrar, false},
		{AnswerReview, states{registered}, registrar, true},
		{AcceptTerms, states{submitted, checking, registered}, registrar, true},
		{AddProduct, states{registered}, registrar, true},
		{OpenTest, states{registered}, registrar, true},
		{CancelEntity, states{draft, submitted, checking, registered, registry.EntityRejected, registry.EntityLapsed}, registrar, false},
	}
}

// certificationRules is the table of the certification workflow.
func certificationRules() []rule[registry.CertState] {
	const assessor = registry.PermAssessor
	const (
		draft, self, verifying = registry.CertDraft, registry.CertSelfCertified, registry.CertInVerification
		pvt, white, interim    = registry.CertPVT, registry.CertWhitelisted, registry.CertInterim
		restricted, review     = registry.CertRestricted, registry.CertReviewDue
	)
	type states = []registry.CertState
	live := states{pvt, white, interim, restricted, review}
	all := append(states{draft, self, verifying}, live...)
	return []rule[registry.CertState]{
		{Begin, states{draft}, registry.PermRegistrar | assessor, true},
		{Describe, states{draft}, assessor, true},
		{Answer, append(states{draft}, live...), assessor, true},
		{RequestException, all, assessor, true},
		{ApproveException, all, assessor, false},
		{SubmitCert, append(states{draft}, live...), 0, true},
		{Recall, states{self}, 0, true},
		{SendBack, states{self, verifying}, assessor, false},
		{StartVerification, append(states{self}, live...), assessor, false},
		{Conform, append(states{draft, self, verifying}, live...), assessor, true},
		{ApproveHighRisk, states{self, verifying}, assessor, false},
		{Pilot, states{self, verifying}, assessor, false},
		{PassScenario, states{pvt}, assessor, true},
		{Whitelist, live, assessor, false},
		{Interim, states{draft, pvt}, assessor, false},
		{Restrict, live, assessor, false},
		{RequestReview, states{white, interim, restricted}, assessor, false},
		{AnswerCertReview, states{review}, assessor, true},
		{TellCertChange, live, assessor, true},
		{Announce, live, assessor, false},
		{Reinstate, live, assessor, false},
		{Delist, all, assessor, false},
	}
}

// may refuses a command that the actor may not give, or not in this state; the
// sentence names the state and what may be done next.
func may[S interface {
	comparable
	fmt.Stringer
}](rules []rule[S], a registry.Actor, cmd Command, what string, state S, own bool) error {
	i := slices.IndexFunc(rules, func(r rule[S]) bool { return r.command == cmd })
	if i < 0 {
		panic("casework: no rule for the command " + string(cmd))
	}
	r := &rules[i]
	if !r.lets(a, own) {
		return fmt.Errorf("%w: %s is for %s", registry.ErrForbidden, cmd, r.whom())
	}
	if slices.Contains(r.from, state) {
		return nil
	}
	next := allowed(rules, state)
	if len(next) == 0 {
		return fmt.Errorf("%w: the %s is %s, which is an end state", registry.ErrState, what, state)
	}
	return fmt.Errorf("%w: the %s is %s; next may be %s", registry.ErrState, what, state, strings.Join(next, ", "))
}

func (r *rule[S]) lets(a registry.Actor, own bool) bool {
	return a.Has(r.by) || r.own && own && a.Has(registry.PermDeveloper)
}

func (r *rule[S]) whom() string {
	var words []string
	for _, w := range []string{"registrar", "assessor"} {
		if p, _ := registry.ParsePermission(w); r.by&p != 0 {
			words = append(words, "the "+w)
		}
	}
	if r.own {
		words = append(words, "the entity's own people")
	}
	return strings.Join(words, " or ")
}

// allowed lists the commands there are in a state, without the workflow's name.
func allowed[S comparable](rules []rule[S], state S) []string {
	var out []string
	for _, r := range rules {
		if slices.Contains(r.from, state) {
			_, name, _ := strings.Cut(string(r.command), ".")
			out = append(out, name)
		}
	}
	return out
}

// NextForEntity lists the commands that an actor may give in a state of a registration.
func NextForEntity(a registry.Actor, state registry.EntityState, own bool) []string {
	return nextFor(registrationRules(), a, state, own)
}

// NextForProduct lists the commands that an actor may give in a state of a certification.
func NextForProduct(a registry.Actor, state registry.CertState, own bool) []string {
	return nextFor(certificationRules(), a, state, own)
}

func nextFor[S comparable](rules []rule[S], a registry.Actor, state S, own bool) []string {
	out := []string{}
	for i := range rules {
		if r := &rules[i]; slices.Contains(r.from, state) && r.lets(a, own) {
			_, name, _ := strings.Cut(string(r.command), ".")
			out = append(out, name)
		}
	}
	return out
}
