package incident

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/dspgate/dspgate/internal/identifier"
	"github.com/dspgate/dspgate/registry"
)

// What a report may hold; more is refused.
const (
	titleMax       = 200
	textMax        = 20_000
	subjectsMax    = 1000
	indicatorsMax  = 500
	ssidsMax       = 10_000
	dataTypesMax   = 50
	actionsMax     = 200
	timelineMax    = 5000
	clockSkewLimit = 5 * time.Minute
)

// Check tells everything that is wrong with a report or an incident, each as a
// registry.FieldError; nil when it may be raised. now is the agency's clock.
func (x *Incident) Check(now registry.Time) error {
	var errs []error
	add := func(pointer, format string, args ...any) {
		errs = append(errs, registry.Field(pointer, format, args...))
	}
	switch {
	case strings.TrimSpace(x.Title) == "":
		add("/title", "say in one line what happened")
	case len(x.Title) > titleMax:
		add("/title", "at most %d characters", titleMax)
	}
	if !slices.Contains(Types(), x.Type) {
		add("/type", "%q is no type of incident; use one of %s", cut(string(x.Type)), join(Types()))
	}
	if x.Level != "" && x.Level.rank() == 0 {
		add("/level", "%q is no level; use one of %s", cut(string(x.Level)), join(Levels()))
	}
	if !slices.Contains(Channels(), x.Channel) {
		add("/channel", "%q is no channel; use one of %s", cut(string(x.Channel)), join(Channels()))
	}
	errs = append(errs, x.checkTimes(now)...)
	if x.Exposure.Records < 0 {
		add("/exposure/records", "cannot be negative; leave it out when nobody knows yet")
	}
	for i, s := range x.Subjects {
		if s.Kind == registry.NoKind || s.ID == "" {
			add(fmt.Sprintf("/subjects/%d", i), "needs a kind and an id, such as product and FP-1003")
		}
	}
	for i, ind := range x.Indicators {
		if err := ind.check(); err != nil {
			add(fmt.Sprintf("/indicators/%d", i), "%v", err)
		}
	}
	for _, b := range []struct {
		pointer string
		n, max  int
	}{
		{"/subjects", len(x.Subjects), subjectsMax}, {"/indicators", len(x.Indicators), indicatorsMax},
		{"/exposure/ssids", len(x.Exposure.SSIDs), ssidsMax}, {"/exposure/data_types", len(x.Exposure.DataTypes), dataTypesMax},
		{"/treatment", len(x.Treatment), actionsMax}, {"/requests", len(x.Requests), actionsMax}, {"/timeline", len(x.Timeline), timelineMax},
	} {
		if b.n > b.max {
			add(b.pointer, "at most %d entries; there are %d", b.max, b.n)
		}
	}
	errs = append(errs, x.checkTexts()...)
	return errors.Join(errs...)
}

func (x *Incident) checkTimes(now registry.Time) (errs []error) {
	soon := now + registry.Time(clockSkewLimit/time.Millisecond)
	for _, t := range []struct {
		pointer string
		at      registry.Time
	}{{"/occurred_at", x.OccurredAt}, {"/aware_at", x.AwareAt}, {"/reported_at", x.ReportedAt}} {
		if t.at > soon {
			errs = append(errs, registry.Field(t.pointer, "lies in the future: %s", t.at))
		}
	}
	if !x.AwareAt.Set() {
		errs = append(errs, registry.Field("/aware_at", "say when it became known; the clocks run from it"))
	}
	if x.OccurredAt.Set() && x.AwareAt.Set() && x.AwareAt < x.OccurredAt {
		errs = append(errs, registry.Field("/aware_at", "%s is before it happened (occurred_at %s)", x.AwareAt, x.OccurredAt))
	}
	if x.AwareAt.Set() && x.ReportedAt.Set() && x.ReportedAt+registry.Time(clockSkewLimit/time.Millisecond) < x.AwareAt {
		errs = append(errs, registry.Field("/reported_at", "%s is before it became known (aware_at %s)", x.ReportedAt, x.AwareAt))
	}
	return errs
}

// checkTexts refuses texts that are too long, hold control characters that
// could fool a log or a terminal, or hold a tax file number.
func (x *Incident) checkTexts() (errs []error) {
	texts := [][2]string{
		{"/title", x.Title}, {"/description", x.Description}, {"/reporter/name", x.Reporter.Name}, {"/reporter/email", x.Reporter.Email},
		{"/level_reason", x.LevelReason}, {"/cause", x.Cause}, {"/done", x.Done}, {"/lessons", x.Lessons}, {"/exposure/file_format", x.Exposure.FileFormat},
	}
	for i, a := range x.Treatment {
		texts = append(texts, [2]string{fmt.Sprintf("/treatment/%d/what", i), a.What})
	}
	for i, r := range x.Requests {
		texts = append(texts, [2]string{fmt.Sprintf("/requests/%d/what", i), r.What})
	}
	for i, d := range x.Exposure.DataTypes {
		texts = append(texts, [2]string{fmt.Sprintf("/exposure/data_types/%d", i), d})
	}
	if x.Appeal != nil {
		texts = append(texts, [2]string{"/appeal/grounds", x.Appeal.Grounds})
	}
	for _, t := range texts {
		if err := CheckText(t[1]); err != nil {
			errs = append(errs, registry.Field(t[0], "%v", err))
		}
	}
	return errs
}

// CheckText refuses a text nobody should keep: too long, with control
// characters, or with a valid tax file number in it.
func CheckText(s string) error {
	if len(s) > textMax {
		return fmt.Errorf("at most %d characters", textMax)
	}
	for _, r := range s {
		if r == unicode.ReplacementChar || misleads(r) {
			return errors.New("holds a control character, an invisible one, or is no UTF-8")
		}
	}
	if identifier.HoldsTFN(s) {
		return errors.New("holds a number that is a valid tax file number; leave it out, here and everywhere")
	}
	return nil
}

// misleads tells whether a character changes how its neighbours are read: control
// characters, and those of format (Unicode's Cf), which turn the order of letters
// round or take no room at all.
func misleads(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Cf, r)
}

func (i *Indicator) check() error {
	if len(i.Value) == 0 || len(i.Value) > 500 {
		return errors.New("needs a value of at most 500 characters")
	}
	switch i.Kind { // an address or a hash can look like a tax file number and is none
	case "ip":
		if _, err := netip.ParsePrefix(i.Value); err == nil {
			return nil
		}
		if _, err := netip.ParseAddr(i.Value); err != nil {
			return fmt.Errorf("%q is no IP address or prefix", cut(i.Value))
		}
	case "sha256":
		if len(i.Value) != 64 || strings.Trim(strings.ToLower(i.Value), "0123456789abcdef") != "" {
			return errors.New("a SHA-256 is 64 hexadecimal digits")
		}
	case "host", "session", "user-agent":
		return CheckText(i.Value)
	default:
		return fmt.Errorf("%q is no kind of indicator; use ip, host, sha256, session or user-agent", cut(i.Kind))
	}
	return nil
}

// CanClose tells what is still missing before the incident may close.
func (x *Incident) CanClose() error {
	var errs []error
	if strings.TrimSpace(x.Cause) == "" {
		errs = append(errs, registry.Field("/cause", "needed to close: what made it possible"))
	}
	if strings.TrimSpace(x.Done) == "" {
		errs = append(errs, registry.Field("/done", "needed to close: what was done about it"))
	}
	for i, a := range x.Treatment {
		if !a.Done.Set() {
			errs = append(errs, registry.Field(fmt.Sprintf("/treatment/%d", i), "is not done: %s", cut(a.What)))
		}
	}
	if x.Exposure.Breach() && !x.Notified.Assessed.Set() {
		errs = append(errs, registry.Field("/notified/assessed", "a data breach needs the decision whether it is eligible before it closes"))
	}
	if x.Notified.Eligible && !x.Notified.OAIC.Set() {
		errs = append(errs, registry.Field("/notified/oaic", "an eligible data breach is notified before it closes"))
	}
	return errors.Join(errs...)
}

func cut(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}

func join[T ~string](all []T) string {
	words := make([]string, len(all))
	for i, w := range all {
		words[i] = string(w)
	}
	return strings.Join(words, ", ")
}
