package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

func newCertificationCmd(g *globals) *cobra.Command {
	one := func(args []string) string { return client.Path("products", args[0], "certification") }
	return parent("certification", "How far products are certified",
		listCmd(g, "operator", "List products by certification", []string{"products"}, []column[registry.Product]{
			{"PRODUCT", func(p *registry.Product) string { return p.ID }},
			{"STATE", func(p *registry.Product) string { return p.Certification.State.String() }},
			{"FROM", func(p *registry.Product) string { return p.Certification.ValidFrom.String() }},
			{"UNTIL", func(p *registry.Product) string { return p.Certification.ValidUntil.String() }},
		}, filterFlag{"state", "state", "only in this state"}),
		showCmd(g, "operator", "show PRODUCT", "Show a product's certification", []string{"PRODUCT"}, one),
		writeCmd(g, write{
			use: "set PRODUCT STATE", short: "Set a product's certification", as: "assessor", names: []string{"PRODUCT", "STATE"},
			method: http.MethodPut, path: one, fixed: func(args []string) map[string]any { return map[string]any{"state": args[1]} },
			fields: []field{
				{flag: "valid-from", member: "valid_from", kind: moment, usage: "not before then (default: now)"},
				{flag: "valid-until", member: "valid_until", kind: moment, usage: "refused from then on (default: after 12 months)"},
				{flag: "max-risk", member: "max_risk", kind: number, usage: "Restricted: the highest service rating left"},
				reasonField,
			},
		}),
	)
}
