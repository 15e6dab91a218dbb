package main

import (
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/registry"
)

func newServiceCmd(g *globals) *cobra.Command {
	fields := []field{
		{flag: "name", member: "name", kind: text, usage: "what people call it"},
		{flag: "method", member: "method", kind: text, usage: "GET, HEAD, POST, PUT, PATCH or DELETE", needed: true},
		{flag: "template", member: "template", kind: text, usage: "path template, such as /lodgments/v1/receipts/{id}", needed: true},
		{flag: "risk", member: "risk", kind: number, usage: "risk rating, 1 to 4", needed: true},
		{flag: "scope", member: "scope", kind: text, usage: "OAuth scope a token must hold"},
		{flag: "while-suspended", member: "available_while_suspended", kind: toggle, usage: "a suspended product may still call it"},
		{flag: "requires-binding", member: "requires_binding", kind: toggle, usage: "a token must be bound to the client certificate"},
		{flag: "client-required", member: "client_required", kind: toggle, usage: "a token must say on whose behalf it acts"},
		{flag: "streaming", member: "streaming", kind: text, usage: "sse, websocket, upload or grpc"},
		reasonField,
	}
	return parent("service", "What may be called",
		listCmd(g, "operator", "List services", []string{"services"}, []column[registry.Service]{
			{"SERVICE", func(s *registry.Service) string { return s.Key }},
			{"RISK", func(s *registry.Service) string { return fmt.Sprint(s.Risk) }},
			{"METHOD", func(s *registry.Service) string { return s.Method }},
			{"TEMPLATE", func(s *registry.Service) string { return s.Template }},
			{"WHILE SUSPENDED", func(s *registry.Service) string { return yes(s.WhileSuspended) }},
		}, filterFlag{"risk", "risk", "only of this risk rating"}),
		showCmd(g, "operator", "show SERVICE", "Show a service", []string{"SERVICE"}, byID("services")),
		writeCmd(g, write{
			use: "create SERVICE", short: "Enter a service", as: "registrar", names: []string{"SERVICE"}, fields: fields,
			method: http.MethodPost, path: at("services"), fixed: func(args []string) map[string]any { return map[string]any{"key": args[0]} },
		}),
		writeCmd(g, write{
			use: "update SERVICE", short: "Change a service", as: "registrar", names: []string{"SERVICE"}, fields: fields,
			method: http.MethodPut, path: byID("services"), read: byID("services"),
			keep: []string{"name", "method", "template", "risk", "scope", "available_while_suspended", "requires_binding", "stamp_verified", "client_required", "subject", "streaming"},
		}),
	)
}
