package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

func newSuspensionCmd(g *globals) *cobra.Command {
	return parent("suspension", "What is or was suspended",
		listCmd(g, "operator", "List suspensions, the latest first", []string{"suspensions"}, []column[client.Suspension]{
			{"SUSPENSION", func(s *client.Suspension) string { return s.ID }},
			{"KIND", func(s *client.Suspension) string { return s.Subject.Kind.String() }},
			{"SUBJECT", func(s *client.Suspension) string { return s.Subject.ID }},
			{"HOLDS", func(s *client.Suspension) string { return holds(s) }},
			{"SINCE", func(s *client.Suspension) string { return s.Starts.String() }},
			{"UNTIL", func(s *client.Suspension) string { return s.Expires.String() }},
			{"BY", func(s *client.Suspension) string { return s.ImposedBy }},
			{"REASON", func(s *client.Suspension) string { return s.Reason }},
		}, filterFlag{"kind", "kind", "only of this kind of subject"}, filterFlag{"subject", "subject", "only of the subject with this ID"},
			filterFlag{"product", "product_id", "only of this product and what belongs to it"}, filterFlag{"active", "active", "true: only what holds now; false: only what does not"}),
		showCmd(g, "operator", "show ID", "Show a suspension", []string{"ID"}, byID("suspensions")),
		newSuspensionPreviewCmd(g),
	)
}

// suspensionReach is what a suspension would stop.
type suspensionReach struct {
	Name          string `json:"name"`
	Whole         bool   `json:"whole"`
	Products      int    `json:"products_total"`
	Apps          int    `json:"client_apps"`
	Subscriptions int    `json:"subscriptions"`
	Stopped       []struct {
		Key  string        `json:"key"`
		Risk registry.Risk `json:"risk"`
	} `json:"services_stopped"`
	Left []struct {
		Key string `json:"key"`
	} `json:"services_left"`
}

func newSuspensionPreviewCmd(g *globals) *cobra.Command {
	var emergency bool
	cmd := &cobra.Command{
		Use: "preview KIND ID", Short: "Show what a suspension would stop; nothing is suspended", Args: exactArgs("KIND", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			subject, err := parseSubject(args[0], args[1])
			if err != nil {
				return err
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			body := map[string]any{"subject": subject, "emergency": emergency}
			a, err := client.Do[suspensionReach](cmd.Context(), c, client.Request{Method: http.MethodPost, Path: client.Path("suspensions", "preview"), Body: body})
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printRaw(a.Raw)
			}
			return g.printReach(subject, &a.Data)
		},
	}
	cmd.Flags().BoolVar(&emergency, "emergency", false, "nothing at all may pass, not even receipts")
	return connected(g, "operator", cmd)
}

func (g *globals) printReach(subject registry.SubjectRef, r *suspensionReach) error {
	what := "all calls"
	if !r.Whole {
		what = "the calls it takes part in"
	}
	fmt.Fprintf(g.stdout, "%s %s (%s) would stop %s of %d product(s), with %d client app(s) and %d subscription(s)\n", subject.Kind, subject.ID, printable(r.Name), what, r.Products, r.Apps, r.Subscriptions)
	var rows [][]string
	for _, s := range r.Stopped {
		rows = append(rows, []string{s.Key, fmt.Sprint(s.Risk), "stops"})
	}
	for _, s := range r.Left {
		rows = append(rows, []string{s.Key, "", "goes on"})
	}
	return g.table(g.stdout, []string{"SERVICE", "RISK", "THEN"}, rows)
}

func holds(s *client.Suspension) string {
	switch {
	case s.Active && s.Effect == registry.EffectThrottle:
		return fmt.Sprintf("%d calls/s", s.Rate)
	case s.Active && s.Effect == registry.EffectRestrict:
		return fmt.Sprintf("rated to %d", s.MaxRisk)
	case s.Active && s.Emergency:
		return "emergency"
	case s.Active:
		return "yes"
	case s.LiftedAt != 0:
		return "lifted"
	}
	return "expired"
}

func newNoticeCmd(g *globals) *cobra.Command {
	return parent("notice", "Announcements before something takes effect",
		listCmd(g, "operator", "List notices, the latest first", []string{"notices"}, []column[registry.Notice]{
			{"NOTICE", func(n *registry.Notice) string { return n.ID }},
			{"KIND", func(n *registry.Notice) string { return n.Subject.Kind.String() }},
			{"SUBJECT", func(n *registry.Notice) string { return n.Subject.ID }},
			{"EFFECTIVE", func(n *registry.Notice) string { return n.EffectiveAt.String() }},
			{"REASON", func(n *registry.Notice) string { return n.Reason }},
		}, filterFlag{"kind", "kind", "only of this kind of subject"}, filterFlag{"subject", "subject", "only of the subject with this ID"}),
		showCmd(g, "operator", "show ID", "Show a notice", []string{"ID"}, byID("notices")),
		writeCmd(g, write{
			use: "issue KIND ID", short: "Issue a notice", names: []string{"KIND", "ID"}, method: http.MethodPost, path: at("notices"),
			fixed: func(args []string) map[string]any {
				return map[string]any{"subject": map[string]any{"kind": args[0], "id": args[1]}}
			},
			fields: []field{
				{flag: "reason", member: "reason", kind: text, usage: "why; shown to the one it is for", needed: true},
				{flag: "effective", member: "effective_at", kind: moment, usage: "when it takes effect", needed: true},
			},
		}),
	)
}

func newDenialCmd(g *globals) *cobra.Command {
	return parent("token-denial", "Signing keys and tokens that are refused before they expire",
		listCmd(g, "operator", "List denials", []string{"token-denials"}, []column[registry.Denial]{
			{"DENIAL", func(d *registry.Denial) string { return d.ID }},
			{"SINCE", func(d *registry.Denial) string { return d.At.String() }},
			{"UNTIL", func(d *registry.Denial) string { return d.Expires.String() }},
			{"LIFTED", func(d *registry.Denial) string { return d.Lifted.String() }},
			{"REASON", func(d *registry.Denial) string { return d.Reason }},
		}, filterFlag{"issuer", "issuer", "only of this issuer"}, filterFlag{"active", "active", "true: only what holds now; false: only what does not"}),
		writeCmd(g, write{
			use: "create kid|jti VALUE", short: "Deny a signing key (kid) or one token (jti)", names: []string{"kid|jti", "VALUE"}, method: http.MethodPost, path: at("token-denials"),
			fixed: func(args []string) map[string]any { return map[string]any{"what": args[0], "value": args[1]} },
			fields: []field{
				{flag: "issuer", member: "issuer", kind: text, usage: "iss of the tokens", needed: true},
				{flag: "reason", member: "reason", kind: text, usage: "why; kept in the log", needed: true},
				{flag: "expires", member: "expires_at", kind: moment, usage: "when it ends (default: never)"},
			},
		}),
		writeCmd(g, write{
			use: "lift ID", short: "Lift a denial", as: "operator2", names: []string{"ID"}, method: http.MethodPost, fields: []field{reasonField},
			path: func(args []string) string { return client.Path("token-denials", args[0], "lift") },
		}),
	)
}
