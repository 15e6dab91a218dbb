package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control/client"
)

func newExplainCmd(g *globals) *cobra.Command {
	return connected(g, "operator", &cobra.Command{
		Use: "explain DECISION-ID | CODE", Short: "Say why a call was decided as it was, or what a code means",
		Long: "Says why one call was decided as it was. The decision's ID is in the body of a refusal (id) and, for\n" +
			"a call let through, in the x-dsp-decision-id header that the upstream gets. Of a code, such as\n" +
			"product-suspended, it says what it means and what to do about it.",
		Args: exactArgs("DECISION-ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			if _, err := authz.ParseDecisionID(args[0]); err != nil && strings.Contains(args[0], "-") {
				return g.explainCode(cmd.Context(), c, args[0])
			}
			a, err := c.Explain(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printRaw(a.Raw)
			}
			g.printExplanation(&a.Data)
			return nil
		},
	})
}

// explainCode says what the code of a refusal means.
func (g *globals) explainCode(ctx context.Context, c *client.Client, code string) error {
	a, err := c.Problem(ctx, code)
	if err != nil {
		return err
	}
	if g.structured() {
		return g.printRaw(a.Raw)
	}
	p := &a.Data
	g.line("%d %s: %s", p.Status, p.Code, p.Title)
	g.line("%s", p.Detail)
	g.line("")
	g.line("to do      %s", p.Remedy)
	again := "no: something has to change first"
	if p.Again {
		again = "yes, later: after Retry-After when there was one"
	}
	g.line("again      %s", again)
	g.line("who helps  the %s", p.Who)
	return nil
}

func (g *globals) printExplanation(e *client.Explanation) {
	d := &e.Decision
	verdict := "refused"
	if d.Allowed {
		verdict = "allowed"
	}
	g.line("%s  %s: %s (%d %s)", d.ID, verdict, e.Title, d.Status, d.Code)
	g.line("%s", e.Detail)
	g.line("")
	var call []string
	for _, x := range []struct{ name, value string }{
		{"", d.Route}, {"service ", d.Service}, {"in ", d.Environment.String()}, {"product ", d.ProductID}, {"version ", d.Version},
		{"client app ", d.ClientID}, {"credential of ", d.Holder.String()},
	} {
		if x.value != "" {
			call = append(call, x.name+x.value)
		}
	}
	g.line("call       %s", cmp.Or(strings.Join(call, ", "), "nothing of it was recognised"))
	g.line("decided    %s on revision %d%s", d.At, d.Revision, cmp.Or(prefixed(" by ", d.Sidecar), ""))
	if s := e.Suspension; s != nil {
		g.line("suspension %s of %s %s: %s", s.ID, s.Subject.Kind, s.Subject.ID, s.Reason)
	}
	if d.Limit != "" {
		g.line("limit      %s had nothing left for it", d.Limit)
	}
	if d.Shadow != "" {
		g.line("limit      %s, only observed, would have refused it", d.Shadow)
	}
	for _, f := range e.Register {
		note := ""
		if f.Changed {
			note = fmt.Sprintf(" (changed since, at revision %d", f.Revision)
			if f.Change != nil {
				note += fmt.Sprintf(": %s by %s", f.Change.Command, f.Change.Actor)
			}
			note += ")"
		}
		g.line("register   %s %s: %s%s", f.Kind, f.ID, f.Says, note)
	}
	g.line("now        %s", e.Now.Detail)
	if e.Remedy != "" {
		g.line("to do      %s", e.Remedy)
	}
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func newDecisionCmd(g *globals) *cobra.Command {
	return parent("decision", "Decisions about calls",
		listCmd(g, "operator", "List the latest refusals of a product", []string{"decisions"}, []column[client.Decision]{
			{"DECISION", func(d *client.Decision) string { return d.ID }},
			{"AT", func(d *client.Decision) string { return d.At.String() }},
			{"CODE", func(d *client.Decision) string { return d.Code }},
			{"SERVICE", func(d *client.Decision) string { return d.Service }},
			{"CLIENT", func(d *client.Decision) string { return d.ClientID }},
			{"VERSION", func(d *client.Decision) string { return d.Version }},
		}, filterFlag{"product", "product_id", "the product"}),
		showCmd(g, "operator", "show DECISION-ID", "Show a decision's record", []string{"DECISION-ID"}, byID("decisions")),
	)
}
