package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/registry"
)

func newClientAppCmd(g *globals) *cobra.Command {
	disabled := field{flag: "disabled", member: "disabled", kind: toggle, usage: "calls of it are refused"}
	return parent("client-app", "OAuth client_ids, each bound to a product and an environment",
		listCmd(g, "operator", "List client apps", []string{"client-apps"}, []column[registry.ClientApp]{
			{"CLIENT", func(a *registry.ClientApp) string { return a.ClientID }},
			{"PRODUCT", func(a *registry.ClientApp) string { return a.ProductID }},
			{"ENVIRONMENT", func(a *registry.ClientApp) string { return a.Environment.String() }},
			{"DISABLED", func(a *registry.ClientApp) string { return yes(a.Disabled) }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"environment", "environment", "SANDBOX, EVTE or PROD"}, filterFlag{"owner", "owner", "only of the entity with this ABN"}),
		showCmd(g, "operator", "show CLIENT", "Show a client app", []string{"CLIENT"}, byID("client-apps")),
		writeCmd(g, write{
			use: "create CLIENT", short: "Bind a client_id", as: "registrar", names: []string{"CLIENT"}, method: http.MethodPost, path: at("client-apps"),
			fixed: func(args []string) map[string]any { return map[string]any{"client_id": args[0]} },
			fields: []field{
				{flag: "product", member: "product_id", kind: text, usage: "the product it belongs to", needed: true},
				{flag: "environment", member: "environment", kind: text, usage: "SANDBOX, EVTE or PROD", needed: true},
				disabled, reasonField,
			},
		}),
		writeCmd(g, write{
			use: "update CLIENT", short: "Disable or enable a client app", as: "registrar", names: []string{"CLIENT"}, method: http.MethodPut,
			path: byID("client-apps"), read: byID("client-apps"), fields: []field{disabled, reasonField},
		}),
	)
}
