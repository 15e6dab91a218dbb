package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// Feed finds out what happens and tells a live.Hub. What the register says is
// always followed; decisions, signals and the roll only while somebody listens,
// and never by anything that a decision waits for.
type Feed struct {
	Hub      *live.Hub
	Register *registry.Register
	Changes  Changes // nil: no suspensions and no incidents are told
	// Tail is Decisions.Tail; nil: no decisions are told.
	Tail func(ctx context.Context, after string, f func(*authz.Record)) (next string, skipped bool, err error)
	// Signals are the latest signals, the newest first; nil: none are told.
	Signals func(ctx context.Context, n int) ([]anomaly.Signal, error)
	// Every is how often is looked. Default 1s.
	Every time.Duration
	Log   *slog.Logger

	revision registry.Revision // followed so far
	place    string            // in the stream of decisions; "" is not known
	tally    decisionTally
	sidecars map[string]sidecarSeen // nil before the first look
	signals  map[string]bool        // told, of the latest; nil before the first look
	failing  map[string]bool
}

// Bounds on what one look tells.
const (
	feedChanges    = 100
	feedPerProduct = 10 // refusals of one product
	feedDenials    = 200
	feedAllowed    = 5
	feedSignals    = 200
)

type decisionTally struct {
	From    registry.Time  `json:"from"`
	Until   registry.Time  `json:"until"`
	Allowed int            `json:"allowed"`
	Refused int            `json:"refused"`
	Codes   map[string]int `json:"codes"`
	Shown   int            `json:"shown"`
	Partial bool           `json:"partial"`
}

type sidecarSeen struct {
	ID          string            `json:"id"`
	Incarnation string            `json:"incarnation"`
	State       string            `json:"state"`
	Revision    registry.Revision `json:"revision"`
}

// Run tells until ctx ends.
func (f *Feed) Run(ctx context.Context) {
	if f.Every == 0 {
		f.Every = time.Second
	}
	if f.Log == nil {
		f.Log = slog.New(slog.DiscardHandler)
	}
	f.failing = map[string]bool{}
	tick := time.NewTicker(f.Every)
	defer tick.Stop()
	for ctx.Err() == nil {
		changed := f.Register.CasebookChanged()
		f.try(ctx, "changes", f.changes)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-tick.C:
			f.look(ctx)
		}
	}
}

func (f *Feed) look(ctx context.Context) {
	if !f.Hub.Watched() {
		f.place = "" // whoever comes is told from then on
		f.signals = nil
		return
	}
	f.try(ctx, "decisions", f.decisions)
	f.try(ctx, "signals", f.newSignals)
	f.try(ctx, "sidecars", f.roll)
}

// try does one part; what fails is logged once, when it begins.
func (f *Feed) try(ctx context.Context, what string, part func(context.Context) error) {
	looking, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := part(looking)
	if err != nil && ctx.Err() == nil && !f.failing[what] {
		f.Log.WarnContext(ctx, "live events are not told", "of", what, "err", err)
	}
	f.failing[what] = err != nil
}

// tell publishes what all staff with a permission may see, and the owners in
// their words.
func (f *Feed) tell(e live.Event, data, own any) {
	var err error
	if e.Data, err = json.Marshal(data); err == nil && own != nil {
		e.OwnData, err = json.Marshal(own)
	}
	if err != nil {
		f.Log.Error("live event not rendered", "topic", string(e.Topic), "err", err)
		return
	}
	f.Hub.Publish(e)
}

// changes follows the register.
func (f *Feed) changes(ctx context.Context) error {
	v, err := f.Register.View()
	if err != nil || f.Changes == nil {
		return nil // not loaded yet
	}
	if f.revision == 0 || f.revision > v.Revision {
		f.revision = v.Revision
	}
	until := v.Revision
	if book, err := f.Register.Casebook(); err == nil {
		until = min(until, book.Revision()) // the incidents of what comes later are not known yet
	}
	for f.revision < until {
		all, err := f.Changes(ctx, f.revision, feedChanges)
		if errors.Is(err, registry.ErrTrimmed) {
			f.revision = v.Revision
		}
		if err != nil || len(all) == 0 {
			return err
		}
		for i := range all {
			f.change(v, &all[i])
			f.revision = all[i].Revision
		}
	}
	return nil
}

func (f *Feed) change(v *registry.View, c *registry.Change) {
	if c.Command == "import" {
		return // thousands at once are no news
	}
	for i := range c.Puts {
		if p := &c.Puts[i]; p.Kind == registry.KindSuspension {
			if s := v.Suspension(p.ID); s != nil {
				f.suspension(v, c, s)
			}
		}
	}
	for i := range c.Cases {
		if c.Cases[i].Kind != (incident.Incident{}).CaseKind() {
			continue
		}
		if book, err := f.Register.Casebook(); err == nil {
			if x, err := registry.CaseOf[incident.Incident](book, c.Cases[i].ID); err == nil {
				f.incident(c, &x.Body)
			}
		}
	}
}

func (f *Feed) suspension(v *registry.View, c *registry.Change, s *registry.Suspension) {
	now := f.Register.Now()
	what := "imposed"
	switch {
	case s.LiftedAt.Set():
		what = "lifted"
	case s.ConfirmedBy != "":
		what = "confirmed"
	}
	e := live.Event{Topic: live.Suspension, At: c.At, Text: fmt.Sprintf("Suspension of %s %s %s by %s: %s", s.Subject.Kind, s.Subject.ID, what, c.Actor, s.Reason),
		OwnText: fmt.Sprintf("Suspension of %s %s %s: %s", s.Subject.Kind, s.Subject.ID, what, s.Reason)}
	e.Owners, e.Everybody = ownersOf(v, s.Subject)
	full := suspensionView{Suspension: *s, Active: s.Active(now)}
	own := full
	own.ImposedBy, own.ConfirmedBy, own.LiftedBy = "", "", ""
	f.tell(e, full, own)
}

// ownersOf are the entities whose people may know of a subject: as mayKnow says.
func ownersOf(v *registry.View, s registry.SubjectRef) (abns []registry.ABN, everybody bool) {
	product := func(id string) {
		if p := v.Product(id); p != nil {
			abns = append(slices.Clone(p.Chain), p.Owner)
		}
	}
	switch s.Kind {
	case registry.KindEntity:
		if abn, err := registry.ParseABN(s.ID); err == nil {
			abns = append(abns, abn)
		}
	case registry.KindProduct, registry.KindVersion:
		id, _, _ := strings.Cut(s.ID, "@")
		product(id)
	case registry.KindClientApp:
		if a := v.ClientApp(s.ID); a != nil {
			product(a.ProductID)
		}
	case registry.KindSubscription:
		if x := v.Subscription(s.ID); x != nil {
			product(x.ProductID)
		}
	case registry.KindCredential:
		if cr := v.Credential(s.ID); cr != nil {
			abns = append(abns, cr.ABN)
		}
	case registry.KindService:
		everybody = true
	}
	return abns, everybody
}

// incidentEvent is an incident as the stream tells it; the rest is read by who
// may.
type incidentEvent struct {
	ID    string         `json:"id"`
	What  string         `json:"what"`
	State incident.State `json:"state"`
	Drill bool           `json:"drill"`
	Type  incident.Type  `json:"type,omitempty"`
	Level incident.Level `json:"level,omitempty"`
	Title string         `json:"title"`
	Owner string         `json:"owner,omitempty"`
}

func (f *Feed) incident(c *registry.Change, x *incident.Incident) {
	what := strings.TrimPrefix(c.Command, "incident.")
	if n := len(x.Timeline); n > 0 {
		what = x.Timeline[n-1].What
	}
	full := incidentEvent{x.ID, what, x.State, x.Drill, x.Type, x.Level, x.Title, x.Owner}
	own := full
	own.Owner = ""
	text := fmt.Sprintf("Incident %s, %s: %s", x.ID, what, x.Title)
	if x.Drill {
		text = "DRILL – " + text
	}
	e := live.Event{Topic: live.Incident, At: c.At, Text: text, OwnText: text,
		Staff: registry.PermIncidentOfficer | registry.PermOperator | registry.PermAuditor | registry.PermAssessor}
	for _, abn := range []registry.ABN{x.Entity, x.Reporter.Entity} {
		if abn != 0 {
			e.Owners = append(e.Owners, abn)
		}
	}
	f.tell(e, full, own)
}

// decisions tells of refusals, of a few calls that were allowed, and how many
// there were of each.
func (f *Feed) decisions(ctx context.Context) error {
	if f.Tail == nil {
		return nil
	}
	v, err := f.Register.View()
	if err != nil {
		return err
	}
	now := f.Register.Now()
	t := decisionTally{From: f.tally.Until, Until: now, Codes: map[string]int{}}
	of, allowed, begun := map[string]int{}, 0, f.place != ""
	next, skipped, err := f.Tail(ctx, f.place, func(r *authz.Record) {
		t.Codes[r.Reason.String()]++
		show := false
		if r.Reason == authz.OK {
			t.Allowed++
			allowed++
			show = allowed <= feedAllowed
		} else {
			t.Refused++
			of[r.ProductID]++
			show = of[r.ProductID] <= feedPerProduct && t.Shown < feedDenials
		}
		if show {
			t.Shown++
			f.decision(v, r)
		}
	})
	f.place = next
	if begun && (t.Allowed+t.Refused > 0 || skipped) {
		t.Partial = skipped
		text := fmt.Sprintf("%d calls allowed, %d refused", t.Allowed, t.Refused)
		if skipped {
			text += ", and more than could be looked at"
		}
		f.tell(live.Event{Topic: live.Decisions, At: now, Text: text}, t, nil)
	}
	f.tally = t
	return err
}

func (f *Feed) decision(v *registry.View, r *authz.Record) {
	verdict := "refused: " + r.Reason.String()
	if r.Reason == authz.OK {
		verdict = "allowed"
	}
	who := r.ProductID
	if who == "" {
		who = "an unknown caller"
	}
	text := fmt.Sprintf("Call of %s to %s %s", who, r.Service, verdict)
	if r.Service == "" {
		text = fmt.Sprintf("Call of %s %s", who, verdict)
	}
	e := live.Event{Topic: live.Decision, At: r.At, Text: text, OwnText: text}
	if p := v.Product(r.ProductID); p != nil {
		e.Owners = append(slices.Clone(p.Chain), p.Owner)
	}
	f.tell(e, decisionFor(r, true), decisionFor(r, false))
}

// signalEvent is a signal as the stream tells it.
type signalEvent struct {
	Kind     string   `json:"subject_kind"`
	ID       string   `json:"subject_id"`
	Product  string   `json:"product_id,omitempty"`
	Signal   string   `json:"signal"`
	Value    float64  `json:"value"`
	P        float64  `json:"probability"`
	Newcomer bool     `json:"newcomer"`
	Reasons  []string `json:"reasons"`
}

func (f *Feed) newSignals(ctx context.Context) error {
	if f.Signals == nil {
		return nil
	}
	latest, err := f.Signals(ctx, feedSignals)
	if err != nil {
		return err
	}
	v, err := f.Register.View()
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(latest))
	for _, s := range slices.Backward(latest) {
		key := fmt.Sprint(s.Subject.Kind, " ", s.Subject.ID, " ", s.Name, " ", s.At.Unix(), " ", s.Value)
		if f.signals != nil && !f.signals[key] && !seen[key] {
			f.signal(v, &s)
		}
		seen[key] = true
	}
	f.signals = seen
	return nil
}

func (f *Feed) signal(v *registry.View, s *anomaly.Signal) {
	out := signalEvent{s.Subject.Kind.String(), s.Subject.ID, policy.FactsOf(v, s.Subject).Product, s.Name.String(), s.Value, s.P, s.Newcomer, append([]string{}, s.Reasons...)}
	e := live.Event{Topic: live.Signal, At: registry.At(s.At), Text: s.Text(), OwnText: s.Text(),
		Staff: registry.PermIncidentOfficer | registry.PermOperator | registry.PermAuditor | registry.PermAssessor}
	if p := v.Product(out.Product); p != nil {
		e.Owners = append(e.Owners, p.Owner) // what a caller does is its owner's business, not the whole chain's
	}
	f.tell(e, out, out)
}

// roll tells of sidecars that join, lapse, come back, leave, or hold something
// else than the register.
func (f *Feed) roll(ctx context.Context) error {
	all, err := f.Register.Sidecars(ctx)
	if err != nil {
		return err
	}
	now := f.Register.Now()
	seen := make(map[string]sidecarSeen, len(all))
	for i := range all {
		s := sidecarSeen{all[i].ID, all[i].Incarnation, "serving", all[i].Revision}
		switch {
		case all[i].Lapsed:
			s.State = "lapsed"
		case all[i].DigestOK != nil && !*all[i].DigestOK:
			s.State = "wrong-digest"
		}
		key := s.ID + " " + s.Incarnation
		old, known := f.sidecars[key]
		seen[key] = s
		switch {
		case f.sidecars == nil || known && old.State == s.State:
		case !known && s.State == "serving":
			s.State = "joined"
			f.sidecar(s, now, "Sidecar %s joined", s.ID)
		case s.State == "serving":
			s.State = "returned"
			f.sidecar(s, now, "Sidecar %s serves again", s.ID)
		case s.State == "lapsed":
			f.sidecar(s, now, "Sidecar %s lapsed: it has not been heard of, and can only refuse", s.ID)
		default:
			f.sidecar(s, now, "Sidecar %s holds something else than the register says", s.ID)
		}
	}
	for key, old := range f.sidecars {
		if _, there := seen[key]; !there {
			old.State = "left"
			f.sidecar(old, now, "Sidecar %s left", old.ID)
		}
	}
	f.sidecars = seen
	return nil
}

func (f *Feed) sidecar(s sidecarSeen, at registry.Time, format string, id string) {
	f.tell(live.Event{Topic: live.Sidecar, At: at, Text: fmt.Sprintf(format, id)}, s, nil)
}
