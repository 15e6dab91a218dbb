package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

func newProductCmd(g *globals) *cobra.Command {
	fields := []field{
		{flag: "name", member: "name", kind: text, usage: "name of the product", needed: true},
		{flag: "owner", member: "owner", kind: text, usage: "ABN of the entity that owns it", needed: true},
		{flag: "chain", member: "chain", kind: list, usage: "ABN of a further entity that delivers it; may be repeated"},
		{flag: "scenario", member: "scenario", kind: number, usage: "deployment scenario, 1 to 6"},
		{flag: "category", member: "category", kind: text, usage: "DSP category, A to E"},
		{flag: "own-abn-only", member: "own_abn_only", kind: toggle, usage: "in-house: acts for its owner and nobody else"},
		{flag: "warn-builds", member: "warn_builds", kind: toggle, usage: "let unregistered builds of registered versions pass with a warning"},
		reasonField,
	}
	return parent("product", "What is certified",
		listCmd(g, "operator", "List products", []string{"products"}, []column[registry.Product]{
			{"PRODUCT", func(p *registry.Product) string { return p.ID }},
			{"NAME", func(p *registry.Product) string { return p.Name }},
			{"OWNER", func(p *registry.Product) string { return p.Owner.String() }},
			{"CERTIFICATION", func(p *registry.Product) string { return p.Certification.State.String() }},
			{"UNTIL", func(p *registry.Product) string { return p.Certification.ValidUntil.String() }},
			{"VERSIONS", func(p *registry.Product) string { return fmt.Sprint(len(p.Versions)) }},
			{"SERVICES", func(p *registry.Product) string { return fmt.Sprint(len(p.Entitlements)) }},
		}, filterFlag{"owner", "owner", "only of the entity with this ABN"}, filterFlag{"entity", "entity", "only what this ABN owns or helps to deliver"},
			filterFlag{"state", "state", "only in this state of certification"}),
		showCmd(g, "operator", "show PRODUCT", "Show a product", []string{"PRODUCT"}, byID("products")),
		writeCmd(g, write{
			use: "create PRODUCT", short: "Enter a product", as: "registrar", names: []string{"PRODUCT"}, fields: fields,
			method: http.MethodPost, path: at("products"), fixed: func(args []string) map[string]any { return map[string]any{"id": args[0]} },
		}),
		writeCmd(g, write{
			use: "update PRODUCT", short: "Change a product", as: "registrar", names: []string{"PRODUCT"}, fields: fields,
			method: http.MethodPut, path: byID("products"), read: byID("products"),
			keep: []string{"name", "owner", "chain", "scenario", "category", "own_abn_only", "warn_builds"},
		}),
		newProductVersionCmd(g),
		newEntitlementCmd(g), newRiskCmd(g),
	)
}

func newProductVersionCmd(g *globals) *cobra.Command {
	fields := []field{
		{flag: "released", member: "released_at", kind: moment, usage: "when it was released"},
		{flag: "support-until", member: "support_until", kind: moment, usage: "refused from then on"},
		{flag: "state", member: "state", kind: text, usage: "active or blocked"},
		{flag: "security-relevant", member: "security_relevant", kind: toggle, usage: "it changes something that matters for security"},
		reasonField,
	}
	versions := func(args []string) string { return client.Path("products", args[0], "versions") }
	return parent("version", "A product's versions",
		showCmd(g, "operator", "list PRODUCT", "List a product's versions", []string{"PRODUCT"}, versions),
		writeCmd(g, write{
			use: "add PRODUCT VERSION", short: "Register a version", as: "registrar", names: []string{"PRODUCT", "VERSION"}, fields: fields,
			method: http.MethodPost, path: versions, fixed: func(args []string) map[string]any { return map[string]any{"version": args[1]} },
		}),
		writeCmd(g, write{
			use: "update PRODUCT VERSION", short: "Block a version, or set when its support ends", as: "registrar", names: []string{"PRODUCT", "VERSION"}, fields: fields,
			method: http.MethodPut, path: func(args []string) string { return client.Path("products", args[0], "versions", args[1]) },
			read: byID("products"), keep: []string{"released_at", "support_until", "state", "security_relevant"},
			part: func(product map[string]any, args []string) (map[string]any, error) {
				versions, _ := product["versions"].([]any)
				for _, v := range versions {
					if version, ok := v.(map[string]any); ok && version["version"] == args[1] {
						return version, nil
					}
				}
				return nil, fmt.Errorf("%s has no version %s", args[0], args[1])
			},
		}),
	)
}

func newEntitlementCmd(g *globals) *cobra.Command {
	one := func(args []string) string { return client.Path("products", args[0], "entitlements", args[1], args[2]) }
	names := []string{"PRODUCT", "ENVIRONMENT", "SERVICE"}
	return parent("entitlement", "The services a product may call",
		showCmd(g, "operator", "list PRODUCT", "List a product's entitlements", []string{"PRODUCT"},
			func(args []string) string { return client.Path("products", args[0], "entitlements") }),
		writeCmd(g, write{
			use: "set PRODUCT ENVIRONMENT SERVICE", short: "Entitle a product to a service", as: "assessor", names: names, method: http.MethodPut, path: one,
			fields: []field{
				{flag: "stage", member: "stage", kind: text, usage: "in PROD: PVT or PROD"},
				{flag: "named-client", member: "named_clients", kind: list, usage: "stage PVT: ABN of a client it may act for; may be repeated"},
				{flag: "from", member: "from", kind: moment, usage: "not before then"},
				{flag: "until", member: "until", kind: moment, usage: "refused from then on"},
				reasonField,
			},
		}),
		writeCmd(g, write{use: "remove PRODUCT ENVIRONMENT SERVICE", short: "Take an entitlement away", as: "assessor", names: names, method: http.MethodDelete, path: one}),
	)
}
