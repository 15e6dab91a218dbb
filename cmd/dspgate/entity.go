package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/registry"
)

func newEntityCmd(g *globals) *cobra.Command {
	fields := []field{
		{flag: "name", member: "name", kind: text, usage: "legal name", needed: true},
		{flag: "role", member: "roles", kind: list, usage: "D, SP, CP or IHD; may be repeated"},
		{flag: "contact", member: "contact", kind: text, usage: "e-mail of the developer sign-in"},
		reasonField,
	}
	return parent("entity", "Businesses that registered", append(registrationCmds(g),
		listCmd(g, "operator", "List entities", []string{"entities"}, []column[registry.Entity]{
			{"ABN", func(e *registry.Entity) string { return e.ABN.String() }},
			{"NAME", func(e *registry.Entity) string { return e.Name }},
			{"ROLES", func(e *registry.Entity) string { return joinRoles(e.Roles) }},
			{"STATE", func(e *registry.Entity) string { return e.State.String() }},
		}, filterFlag{"state", "state", "only in this state"}, filterFlag{"name", "name", "only with this in the name"}),
		showCmd(g, "operator", "show ABN", "Show an entity", []string{"ABN"}, byID("entities")),
		newEntitySignalsCmd(g),
		writeCmd(g, write{
			use: "create ABN", short: "Enter an entity", as: "registrar", names: []string{"ABN"}, fields: fields,
			method: http.MethodPost, path: at("entities"), fixed: func(args []string) map[string]any { return map[string]any{"abn": args[0]} },
		}),
		writeCmd(g, write{
			use: "update ABN", short: "Change an entity", as: "registrar", names: []string{"ABN"}, fields: fields,
			method: http.MethodPut, path: byID("entities"), read: byID("entities"), keep: []string{"name", "roles", "contact"},
		}),
	)...)
}
