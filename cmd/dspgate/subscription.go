package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

func newSubscriptionCmd(g *globals) *cobra.Command {
	nominate := func(args []string) string { return client.Path("subscriptions", args[0], "nominate") }
	nominated := func(is bool) func([]string) map[string]any {
		return func([]string) map[string]any { return map[string]any{"nominated": is} }
	}
	return parent("subscription", "Clients' subscriptions to products (SSIDs)",
		listCmd(g, "operator", "List subscriptions", []string{"subscriptions"}, []column[registry.Subscription]{
			{"SSID", func(s *registry.Subscription) string { return s.SSID }},
			{"PRODUCT", func(s *registry.Subscription) string { return s.ProductID }},
			{"CLIENT ABN", func(s *registry.Subscription) string { return s.ClientABN.String() }},
			{"NOMINATED", func(s *registry.Subscription) string { return yes(s.Nominated) }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"client-abn", "client_abn", "only for this client"}),
		showCmd(g, "operator", "show SSID", "Show a subscription", []string{"SSID"}, byID("subscriptions")),
		writeCmd(g, write{
			use: "create SSID", short: "Enter a subscription", as: "registrar", names: []string{"SSID"}, method: http.MethodPost, path: at("subscriptions"),
			fixed: func(args []string) map[string]any { return map[string]any{"ssid": args[0]} },
			fields: []field{
				{flag: "product", member: "product_id", kind: text, usage: "the product", needed: true},
				{flag: "client-abn", member: "client_abn", kind: text, usage: "the client", needed: true},
				{flag: "nominated", member: "nominated", kind: toggle, usage: "the client told the agency of it"},
				reasonField,
			},
		}),
		writeCmd(g, write{use: "nominate SSID", short: "The client told the agency of this SSID", as: "registrar", names: []string{"SSID"}, method: http.MethodPost, path: nominate, fixed: nominated(true), fields: []field{reasonField}}),
		writeCmd(g, write{use: "withdraw SSID", short: "The client took the nomination back", as: "registrar", names: []string{"SSID"}, method: http.MethodPost, path: nominate, fixed: nominated(false), fields: []field{reasonField}}),
	)
}
