package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
)

func newStatusCmd(g *globals) *cobra.Command {
	return connected(g, "developer", &cobra.Command{
		Use: "status", Short: "Show a developer how its own entity and products stand",
		Long: "Shows who you are and, for a developer, your own entity, its products with their standing, versions\nand subscriptions, and the last calls that were refused.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := c.Me(cmd.Context())
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printRaw(a.Raw)
			}
			return g.printStatus(&a.Data)
		},
	})
}

func (g *globals) printStatus(me *client.Me) error {
	g.line("%s (%s)", me.Name, strings.Join(me.Permissions, ", "))
	if me.Entity == nil {
		return nil
	}
	g.line("%s, ABN %s: %s", me.Entity.Name, me.Entity.ABN, me.Entity.State)
	if s := me.Entity.Suspension; s != nil {
		g.line("suspended: %s", suspendedText(s))
	}
	for i := range me.Products {
		p := &me.Products[i]
		g.line("")
		g.line("%s %s: %s", p.ID, p.Name, p.Standing)
		if p.Standing != "ok" {
			g.line("  %s", p.Detail)
		}
		if s := p.Suspension; s != nil {
			g.line("  suspended: %s", suspendedText(s))
		}
		until := ""
		if p.Certification.ValidUntil != 0 {
			until = " until " + p.Certification.ValidUntil.String()
		}
		g.line("  certification %s%s", p.Certification.State, until)
		for _, v := range p.Versions {
			support := ""
			if v.SupportUntil != 0 {
				support = ", supported until " + v.SupportUntil.String()
			}
			g.line("  version %s: %s%s", v.Version.Version, v.Standing, support)
		}
		for _, s := range p.Subscriptions {
			nominated := "not nominated by the client"
			if s.Nominated {
				nominated = "nominated"
			}
			g.line("  subscription %s for %s: %s", s.SSID, s.ClientABN, nominated)
		}
		for i := range p.Limits {
			g.line("  limit %s", limitUseText(&p.Limits[i]))
		}
		if p.LimitsNote != "" {
			g.line("  %s", p.LimitsNote)
		}
	}
	if len(me.Signals) > 0 {
		g.line("")
		g.line("unlike their own past (nothing is refused because of this alone):")
		for i := range me.Signals {
			s := &me.Signals[i]
			g.line("  %s %s: %s", s.At, s.ProductID, s.Text)
		}
	}
	if len(me.Denials) == 0 {
		return nil
	}
	g.line("")
	g.line("last refusals (dspgate explain ID says why):")
	var rows [][]string
	for _, d := range me.Denials {
		rows = append(rows, []string{d.ID, d.At.String(), d.Code, d.ProductID, d.Service})
	}
	return g.table(g.stdout, []string{"DECISION", "AT", "CODE", "PRODUCT", "SERVICE"}, rows)
}

func suspendedText(s *client.Suspension) string {
	if s.Expires == 0 {
		return fmt.Sprintf("%s (%s), until lifted", s.Reason, s.ID)
	}
	return fmt.Sprintf("%s (%s), until %s", s.Reason, s.ID, s.Expires)
}

func newChangeCmd(g *globals) *cobra.Command {
	return parent("change", "The log of every change to the register",
		listCmd(g, "auditor", "List changes, oldest first", []string{"changes"}, []column[client.Change]{
			{"REVISION", func(c *client.Change) string { return revision(c.Revision) }},
			{"AT", func(c *client.Change) string { return c.At.String() }},
			{"ACTOR", func(c *client.Change) string { return c.Actor }},
			{"COMMAND", func(c *client.Change) string { return c.Command }},
			{"RECORDS", func(c *client.Change) string { return strings.Join(c.Records, ",") }},
			{"REASON", func(c *client.Change) string { return c.Reason }},
		}, filterFlag{"after", "after", "only what is after this revision"}),
	)
}
