package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
)

// eventsShown is how many of the latest are listed.
const eventsShown = 50

func newEventsCmd(g *globals) *cobra.Command {
	var follow bool
	var topics []string
	cmd := &cobra.Command{
		Use: "events", Short: "What happens, as it happens: refusals, signals, incidents, suspensions, sidecars",
		Long: "Lists the latest events, or with --follow tells of each as it happens, until it is interrupted. Of calls it tells the refusals,\n" +
			"a few of those allowed, and how many there were. A developer hears of its own entity. A stream that breaks off is gone on\n" +
			"with where it was; where something is missing, a line of the topic gap says so. With -o json each line is one event.",
		Example: "  dspgate events --follow --topics incident,suspension -o json",
		Args:    exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			if follow {
				ctx, cancel := untilSignal(cmd.Context())
				defer cancel()
				return c.Follow(ctx, topics, g.printEvent)
			}
			q := url.Values{}
			if len(topics) > 0 {
				q.Set("topics", strings.Join(topics, ","))
			}
			items, raws, err := client.List[client.Event](cmd.Context(), c, client.Path("events", "latest"), q, eventsShown)
			if err != nil {
				return err
			}
			slices.Reverse(items)
			slices.Reverse(raws)
			return printList(g, items, raws, []column[client.Event]{
				{"AT", func(e *client.Event) string { return e.At.String() }},
				{"TOPIC", func(e *client.Event) string { return e.Topic }},
				{"WHAT", func(e *client.Event) string { return e.Text }},
			})
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until interrupted")
	cmd.Flags().StringSliceVar(&topics, "topics", nil, "decision, decisions, signal, incident, suspension, sidecar (default: all)")
	return connected(g, "operator", cmd)
}

// printEvent prints one line, at once.
func (g *globals) printEvent(e client.Event) error {
	if !g.structured() {
		_, err := fmt.Fprintf(g.stdout, "%s  %-10s  %s\n", clock(e.At), e.Topic, printable(e.Text))
		return err
	}
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if g.output == "yaml" {
		if _, err := fmt.Fprintln(g.stdout, "---"); err != nil {
			return err
		}
		return g.printRaw(b)
	}
	_, err = fmt.Fprintf(g.stdout, "%s\n", b)
	return err
}
