package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/registry"
)

func newCredentialCmd(g *globals) *cobra.Command {
	name := field{flag: "name", member: "name", kind: text, usage: "what people call it"}
	notAfter := field{flag: "not-after", member: "not_after", kind: moment, usage: "when it expires"}
	return parent("credential", "Machine credentials",
		listCmd(g, "operator", "List machine credentials", []string{"credentials"}, []column[registry.Credential]{
			{"THUMBPRINT", func(c *registry.Credential) string { return c.Thumbprint }},
			{"ABN", func(c *registry.Credential) string { return c.ABN.String() }},
			{"NAME", func(c *registry.Credential) string { return c.Name }},
			{"NOT AFTER", func(c *registry.Credential) string { return c.NotAfter.String() }},
		}, filterFlag{"abn", "abn", "only of the entity with this ABN"}),
		showCmd(g, "operator", "show THUMBPRINT", "Show a machine credential", []string{"THUMBPRINT"}, byID("credentials")),
		writeCmd(g, write{
			use: "create THUMBPRINT", short: "Enter a machine credential", as: "registrar", names: []string{"THUMBPRINT"}, method: http.MethodPost, path: at("credentials"),
			fixed:  func(args []string) map[string]any { return map[string]any{"thumbprint": args[0]} },
			fields: []field{{flag: "abn", member: "abn", kind: text, usage: "the entity that holds it", needed: true}, name, notAfter, reasonField},
		}),
		writeCmd(g, write{
			use: "update THUMBPRINT", short: "Change a machine credential's name or expiry", as: "registrar", names: []string{"THUMBPRINT"}, method: http.MethodPut,
			path: byID("credentials"), read: byID("credentials"), keep: []string{"name", "not_after"}, fields: []field{name, notAfter, reasonField},
		}),
	)
}
