package main

import (
	"fmt"
	"net/http"
	"strings"

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
			return cmpOr(strings.Trim(l.Environment.String()+" "+l.Stage.String(), " "), "anywhere")
		}},
		{"SHADOW", func(l *registry.Limit) string { return yes(l.Shadow) }},
	}
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
