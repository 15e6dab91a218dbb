package main

import (
	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
)

func newOverviewCmd(g *globals) *cobra.Command {
	return connected(g, "operator", &cobra.Command{
		Use: "overview", Short: "Show the agency's people what is wrong, and what runs out next",
		Long: "Shows what is open and late, how many suspensions are in force, whether the sidecars are up to date, and the\nclocks that run out next, the first in front.",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := c.Overview(cmd.Context())
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printRaw(a.Raw)
			}
			return g.printOverview(&a.Data)
		},
	})
}

func (g *globals) printOverview(o *client.Overview) error {
	if x := o.Incidents; x != nil {
		g.line("incidents: %d open, %d overdue, %d without an owner", x.Open, x.Overdue, x.Unowned)
	}
	if x := o.Alarms; x != nil {
		g.line("alarms to judge: %d", x.Open)
	}
	g.line("suspensions: %d in force, %d end within a day", o.Suspensions.InForce, o.Suspensions.Ending)
	if x := o.Sidecars; x != nil {
		late := ""
		if x.Stale {
			late = ", and not heard of since"
		}
		g.line("sidecars: %d, %d not up to date (as of %s%s)", x.Total, x.Behind, x.AsOf, late)
	}
	if x := o.Applications; x != nil {
		g.line("applications: %d wait for the agency, %d late", x.Waiting, x.Late)
	}
	if x := o.Assessments; x != nil {
		g.line("assessments: %d products wait, %d late; %d findings answered", x.Waiting, x.Late, x.Answered)
	}
	g.line("products: %d", o.Products)
	if len(o.Runs) == 0 {
		return nil
	}
	g.line("")
	g.line("what runs out next (%d more later):", o.Later)
	var rows [][]string
	for _, r := range o.Runs {
		rows = append(rows, []string{r.Due.String(), r.Kind, r.ID, r.Duty, r.What})
	}
	return g.table(g.stdout, []string{"DUE", "KIND", "ID", "DUTY", "WHAT"}, rows)
}
