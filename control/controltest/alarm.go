package controltest

import (
	"context"
	"slices"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
)

// watched is what the watcher told, and what calls lacked.
func (w *World) watched() control.Signals {
	return control.Signals{
		Latest: func(context.Context, int) ([]anomaly.Signal, error) { return w.Signals, nil },
		Of: func(_ context.Context, products []string, n int) (of []anomaly.Signal, err error) {
			v, err := w.Register.View()
			for _, s := range w.Signals {
				if err == nil && len(of) < n && slices.Contains(products, policy.FactsOf(v, s.Subject).Product) {
					of = append(of, s)
				}
			}
			return of, err
		},
		Each: func(_ context.Context, from, to time.Time, visit func(anomaly.Signal) bool) error {
			for _, s := range w.Signals {
				if !s.At.Before(from) && s.At.Before(to) && !visit(s) {
					break
				}
			}
			return nil
		},
		Share: func(string) float64 { return 1 },
		Fields: func(product string) (all []anomaly.FieldTally, ok bool) {
			for _, f := range w.Fields {
				if product == "" || f.Product == product {
					all = append(all, f)
				}
			}
			return all, true
		},
	}
}

// Policy has an operator write a policy.
func (w *World) Policy(id, purpose string, rule policy.Rule) {
	w.t.Helper()
	desk := &policy.Desk{Register: w.Register}
	_, err := desk.Propose(w.t.Context(), registry.Actor{Name: "operator2@agency.example", Permissions: registry.PermOperator}, id, purpose, rule, registry.Meta{})
	must(w.t, err)
}

// Alarm has a policy in shadow raise an alarm about a product, as the engine
// would on a signal.
func (w *World) Alarm(product, reason string) {
	w.t.Helper()
	v, err := w.Register.View()
	must(w.t, err)
	desk := &policy.Desk{Register: w.Register}
	rule := policy.Rule{When: policy.Condition{Signals: []string{"persons"}, Surprise: 3}, Then: policy.Countermeasure{Do: policy.Suspend, Minutes: 30}}
	_, err = desk.Propose(w.t.Context(), registry.Actor{Name: "operator2@agency.example", Permissions: registry.PermOperator}, "enumeration", "slow enumeration", rule, registry.Meta{})
	must(w.t, err)
	s, now := anomaly.Subject{Kind: anomaly.Product, ID: product}, time.Now()
	_, err = desk.Act(w.t.Context(), &policy.Match{
		Active:  policy.Active{Policy: "enumeration", Version: 1, Shadow: true, Rule: rule},
		Subject: s, Facts: policy.FactsOf(v, s), At: now, First: now.Add(-5 * time.Minute), Signals: []string{"persons"}, Reasons: []string{reason},
	}, func(string) float64 { return 1 })
	must(w.t, err)
}
