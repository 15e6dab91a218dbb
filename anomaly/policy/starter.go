package policy

import (
	"context"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Starter is a policy to begin with.
type Starter struct {
	ID, Purpose string
	Rule        Rule
}

// Starters are policies to begin with, in shadow: what they would have done is
// there to be looked at before anybody has them enforced. Each is for one of the
// ways in which callers were misused.
func Starters() []Starter {
	names := func(all ...anomaly.SignalName) (out []string) {
		for _, s := range all {
			out = append(out, s.String())
		}
		return out
	}
	product, app := anomaly.Product.String(), anomaly.ClientApp.String()
	return []Starter{
		{"enumeration", "Slow down who reads about many people it never dealt with and lodges nothing for them.", Rule{
			Condition{Signals: names(anomaly.SignalHarvest, anomaly.SignalSweep, anomaly.SignalNewcomer), Subjects: []string{product}},
			Countermeasure{Do: Throttle, Rate: 1, Minutes: 60},
		}},
		{"stolen-credential", "Stop a client app for an hour that reads as never before, from networks or with software IDs that it never used.", Rule{
			Condition{Signals: names(anomaly.SignalNewNetworks, anomaly.SignalNetworks, anomaly.SignalFanOut, anomaly.SignalRush, anomaly.SignalSweep), Subjects: []string{app}, Signs: 2, Within: 60},
			Countermeasure{Do: Suspend, Minutes: 60},
		}},
		{"fan-out", "Leave only services of low ratings to a product that is called with many software IDs it never used.", Rule{
			Condition{Signals: names(anomaly.SignalFanOut), Subjects: []string{product}, Risk: 3},
			Countermeasure{Do: Restrict, MaxRisk: 2, Minutes: 120},
		}},
		{"release-churn", "Tell of a product that calls in one new version after another.", Rule{
			Condition{Signals: names(anomaly.SignalChurn), Subjects: []string{product}}, Countermeasure{Do: Observe},
		}},
		{"protected-clients", "Tell of every product that deals with a protected client.", Rule{
			Condition{Signals: names(anomaly.SignalProtected), Subjects: []string{product}}, Countermeasure{Do: Observe},
		}},
		{"protected-clients-deny", "Deny the single call about a protected client to services rated 3 and higher.", Rule{
			Condition{Signals: names(anomaly.SignalProtected), Subjects: []string{product}}, Countermeasure{Do: Deny, MinRisk: 3},
		}},
	}
}

// Begin enters policies, in shadow, all in one change. Where there ever was a
// policy it does nothing.
func (d *Desk) Begin(ctx context.Context, a registry.Actor, all []Starter, m registry.Meta) (registry.Outcome, error) {
	if book, err := d.Register.Casebook(); err == nil {
		if _, n := book.Find(registry.Query{Kind: "policy"}); n > 0 {
			return registry.Outcome{Existing: true}, nil // no write, which a control plane that does not lead could not do
		}
	}
	return d.Register.Do(ctx, a, "policy.begin", m.Reason, func(t *registry.Tx) error {
		if err := needWriter(a); err != nil {
			return err
		}
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		if ids, n := book.Find(registry.Query{Kind: "policy", Limit: 1}); n > 0 {
			t.Keep(ids[0], t.View().Revision)
			return nil
		}
		for _, s := range all {
			p := Policy{ID: s.ID, Purpose: s.Purpose}
			if err := p.Check(); err != nil {
				return err
			}
			if err := p.Propose(s.Rule, step(t, m.Reason)); err != nil {
				return err
			}
			if err := registry.PutCase(t, p.ID, p); err != nil {
				return err
			}
		}
		return nil
	})
}
