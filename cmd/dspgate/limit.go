package main

import (
	"fmt"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

const limitHelp = `A limit has a subject and a name. SUBJECT is tier:NAME, entity:ABN, product:ID, subscription:SSID,
client-app:ID or service:KEY; what a tier says holds for each of its products, and a limit of a
subject's own stands in the place of the tier's of the same name.`

// limitFields are the flags of a limit.
func limitFields() []field {
	return []field{
		{flag: "kind", member: "kind", kind: text, usage: "rate, concurrency, quota or clients (distinct people or clients a day)"},
		{flag: "amount", member: "amount", kind: number, usage: "calls a second, calls at once, calls a period, or clients a day", needed: true},
		{flag: "burst", member: "burst", kind: number, usage: "of a rate: how many at once (default: the amount)"},
		{flag: "period", member: "period", kind: text, usage: "of a quota: day or month, from midnight"},
		{flag: "zone", member: "zone", kind: text, usage: "time zone of the period (default " + registry.ZoneDefault + ")"},
		{flag: "service", member: "service", kind: text, usage: "only calls of this service"},
		{flag: "environment", member: "environment", kind: text, usage: "only calls in SANDBOX, EVTE or PROD"},
		{flag: "stage", member: "stage", kind: text, usage: "only calls under PVT or PROD terms, in PROD"},
		{flag: "per", member: "per", kind: text, usage: "of a tier: whose account each is: entity, product, subscription or client-app (default product)"},
		{flag: "shadow", member: "shadow", kind: toggle, usage: "only observe: count what it would refuse"},
		reasonField,
	}
}

func newLimitCmd(g *globals) *cobra.Command {
	byName := func(args []string) string { return client.Path("limits", args[0]+":"+args[1]) }
	names := []string{"SUBJECT", "NAME"}
	cmd := parent("limit", "How much each may spend",
		listCmd(g, "operator", "List limits", []string{"limits"}, limitColumns(),
			filterFlag{"kind", "kind", "only of this kind of subject"}, filterFlag{"subject", "subject", "only of the subject with this ID"},
			filterFlag{"product", "product_id", "only of this product, its subscriptions and client apps"}, filterFlag{"removed", "removed", "true: those that were taken away"}),
		showCmd(g, "operator", "show SUBJECT NAME", "Show a limit", names, byName),
		writeCmd(g, write{
			use: "set SUBJECT NAME", short: "Set a limit", as: "operator", names: names, fields: limitFields(),
			method: http.MethodPut, path: byName,
		}),
		writeCmd(g, write{use: "remove SUBJECT NAME", short: "Take a limit away", as: "operator", names: names, method: http.MethodDelete, path: byName}),
		newProductLimitsCmd(g),
		newLimitPreviewCmd(g),
		newTierCmd(g),
	)
	cmd.Long = cmd.Short + ".\n\n" + limitHelp
	return cmd
}

func newTierCmd(g *globals) *cobra.Command {
	type tier struct {
		ID       string           `json:"id"`
		Limits   []registry.Limit `json:"limits"`
		Products uint64           `json:"products"`
	}
	return parent("tier", "The tiers of limits that products are in",
		listCmd(g, "operator", "List tiers", []string{"tiers"}, []column[tier]{
			{"TIER", func(t *tier) string { return t.ID }},
			{"PRODUCTS", func(t *tier) string { return fmt.Sprint(t.Products) }},
			{"LIMITS", func(t *tier) string {
				var names []string
				for i := range t.Limits {
					names = append(names, t.Limits[i].Name)
				}
				return strings.Join(names, ",")
			}},
		}),
		writeCmd(g, write{
			use: "assign PRODUCT TIER", short: "Put a product into a tier", as: "operator", names: []string{"PRODUCT", "TIER"}, fields: []field{reasonField},
			method: http.MethodPut, path: func(args []string) string { return client.Path("products", args[0], "tier") },
			fixed: func(args []string) map[string]any { return map[string]any{"tier": args[1]} },
		}),
	)
}

func limitColumns() []column[registry.Limit] {
	return []column[registry.Limit]{
		{"SUBJECT", func(l *registry.Limit) string { return l.Subject.Kind.String() + ":" + l.Subject.ID }},
		{"NAME", func(l *registry.Limit) string { return l.Name }},
		{"LIMIT", limitText},
		{"SERVICE", func(l *registry.Limit) string { return cmpOr(l.Service, "any") }},
		{"WHERE", func(l *registry.Limit) string {
			return cmpOr(where(l.Environment, l.Stage), "anywhere")
		}},
		{"SHADOW", func(l *registry.Limit) string { return yes(l.Shadow) }},
	}
}

// where is the environment and stage that a limit is for, in as few words as
// tell them apart: the stage of a whitelisted product has its environment's name.
func where(e registry.Environment, s registry.Stage) string {
	if e.String() == s.String() {
		return e.String()
	}
	return strings.TrimSpace(e.String() + " " + s.String())
}

// limitText is what a limit says, for people: "50/s, burst 100".
func limitText(l *registry.Limit) string {
	switch l.Kind {
	case registry.LimitRate:
		return fmt.Sprintf("%d/s, burst %d", l.Amount, l.Burst)
	case registry.LimitConcurrency:
		return fmt.Sprintf("%d at once", l.Amount)
	case registry.LimitClients:
		return fmt.Sprintf("%d clients/%s", l.Amount, l.Period)
	}
	return fmt.Sprintf("%d/%s", l.Amount, l.Period)
}

// preview is what a proposed limit would have done.
type preview struct {
	From      registry.Time `json:"from"`
	To        registry.Time `json:"to"`
	Decisions uint64        `json:"decisions"`
	Calls     uint64        `json:"calls"`
	Refused   uint64        `json:"refused"`
	Truncated bool          `json:"truncated"`
	Accounts  []struct {
		Account string        `json:"account"`
		Calls   uint64        `json:"calls"`
		Refused uint64        `json:"refused"`
		First   registry.Time `json:"first_refused_at"`
	} `json:"accounts"`
}

func newLimitPreviewCmd(g *globals) *cobra.Command {
	var fields []*fieldValue
	var since time.Duration
	cmd := &cobra.Command{
		Use: "preview SUBJECT NAME", Short: "Replay recorded decisions against a proposed limit: who would have been refused", Args: exactArgs("SUBJECT", "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			subject, err := registry.ParseLimitSubject(args[0])
			if err != nil {
				return usageError("%v", err)
			}
			if since <= 0 {
				return usageError("--since is a time to look back, such as 1h")
			}
			body := map[string]any{"subject": subject, "name": args[1], "since": registry.At(time.Now().Add(-since))}
			if err := put(cmd, fields, body, true); err != nil {
				return err
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[preview](cmd.Context(), c, client.Request{Method: http.MethodPost, Path: client.Path("limits", "preview"), Body: body})
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printRaw(a.Raw)
			}
			return g.printPreview(&a.Data)
		},
	}
	fields = addFields(cmd, limitFields())
	cmd.Flags().DurationVar(&since, "since", time.Hour, "how far to look back")
	return connected(g, "operator", cmd)
}

func (g *globals) printPreview(p *preview) error {
	fmt.Fprintf(g.stdout, "%d of %d calls would have been refused, of %d decisions from %s to %s\n", p.Refused, p.Calls, p.Decisions, p.From, p.To)
	if p.Truncated {
		fmt.Fprintln(g.stdout, "there were more decisions than are replayed at once; look back less far")
	}
	if len(p.Accounts) == 0 {
		return nil
	}
	var rows [][]string
	for _, x := range p.Accounts {
		rows = append(rows, []string{x.Account, fmt.Sprint(x.Refused), fmt.Sprint(x.Calls), x.First.String()})
	}
	return g.table(g.stdout, []string{"WHO", "REFUSED", "OF CALLS", "FIRST AT"}, rows)
}

// limitUseText is what one limit is at, in a line:
// "abr-rate (abr.lookup, PROD): 50/s, burst 100; 3 used, 97 left".
func limitUseText(u *client.LimitUse) string {
	var b strings.Builder
	of := cmpOr(u.Service, "any service")
	if at := where(u.Environment, u.Stage); at != "" {
		of += ", " + at
	}
	fmt.Fprintf(&b, "%s (%s): %s", u.Name, of, limitText(&registry.Limit{Kind: u.Kind, Amount: u.Amount, Burst: u.Burst, Period: u.Period}))
	if u.Used != nil {
		fmt.Fprintf(&b, "; %d used, %d left", *u.Used, *u.Remaining)
	}
	if u.Resets != 0 {
		fmt.Fprintf(&b, " until %s", u.Resets)
	}
	if whose, _, _ := strings.Cut(u.Account, ":"); whose != "product" {
		fmt.Fprintf(&b, "; of %s", strings.TrimSuffix(u.Account, ":"+u.Name))
	}
	if u.Refused > 0 {
		fmt.Fprintf(&b, "; refused %d today", u.Refused)
	}
	if u.Shadow {
		fmt.Fprintf(&b, "; only observed, would have refused %d today", u.Observed)
	}
	return b.String()
}

func newProductLimitsCmd(g *globals) *cobra.Command {
	figure := func(n *int64) string {
		if n == nil {
			return "unknown"
		}
		return fmt.Sprint(*n)
	}
	columns := []column[client.LimitUse]{
		{"ACCOUNT", func(u *client.LimitUse) string { return u.Account }},
		{"LIMIT", func(u *client.LimitUse) string {
			return limitText(&registry.Limit{Kind: u.Kind, Amount: u.Amount, Burst: u.Burst, Period: u.Period})
		}},
		{"SERVICE", func(u *client.LimitUse) string { return cmpOr(u.Service, "any") }},
		{"USED", func(u *client.LimitUse) string { return figure(u.Used) }},
		{"LEFT", func(u *client.LimitUse) string { return figure(u.Remaining) }},
		{"RESETS", func(u *client.LimitUse) string { return u.Resets.String() }},
		{"REFUSED TODAY", func(u *client.LimitUse) string { return fmt.Sprint(u.Refused) }},
		{"SHADOW", func(u *client.LimitUse) string {
			if !u.Shadow {
				return "no"
			}
			return fmt.Sprintf("would have refused %d today", u.Observed)
		}},
	}
	return connected(g, "operator", &cobra.Command{
		Use: "use PRODUCT", Short: "Show every limit of a product and what it is at, over all sidecars", Args: exactArgs("PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			items, raws, err := client.List[client.LimitUse](cmd.Context(), c, client.Path("products", args[0], "limits"), nil, math.MaxInt)
			if err != nil {
				return err
			}
			return printList(g, items, raws, columns)
		},
	})
}
