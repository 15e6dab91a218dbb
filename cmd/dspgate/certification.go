package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

func newCertificationCmd(g *globals) *cobra.Command {
	do := func(as, use, short, what string, shape func(map[string]any) error, fields ...field) *cobra.Command {
		return writeCmd(g, write{
			use: use + " PRODUCT", short: short, as: as, names: []string{"PRODUCT"}, fields: fields, method: http.MethodPost, shape: shape,
			path: func(args []string) string { return client.Path("certifications", args[0], what) },
		})
	}
	const (
		developer = "developer"
		assessor  = "assessor"
	)
	needed := func(flag, member, kind, usage string) field {
		return field{flag: flag, member: member, kind: kind, usage: usage, needed: true}
	}
	services := field{flag: "service", member: "services", kind: list, usage: "service keys; may be repeated"}
	why := needed("reason", "reason", text, "why; kept, and told to the owner")
	decisions := needed("decision", "decisions", list, "the decision of each call, as in x-dsp-decision-id; may be repeated")
	deployment := []field{
		services,
		{flag: "client-controlled", member: "client_controlled", kind: toggle, usage: "the client runs it on machines of its own"},
		{flag: "commercial", member: "commercial", kind: toggle, usage: "it is sold"},
		{flag: "hosting", member: "hosting", kind: text, usage: "where and with whom"},
		{flag: "offshore", member: "offshore", kind: toggle, usage: "any part is hosted outside Australia"},
		{flag: "authentication", member: "authentication", kind: text, usage: "how its users sign in"},
		{flag: "sending-service", member: "sending_service", kind: toggle, usage: "it transmits for others"},
		{flag: "records", member: "records", kind: number, usage: "unique client records"},
	}
	return parent("certification", "How far products are certified",
		listCmd(g, "operator", "List products by certification", []string{"products"}, []column[registry.Product]{
			{"PRODUCT", func(p *registry.Product) string { return p.ID }},
			{"STATE", func(p *registry.Product) string { return p.Certification.State.String() }},
			{"FROM", func(p *registry.Product) string { return p.Certification.ValidFrom.String() }},
			{"UNTIL", func(p *registry.Product) string { return p.Certification.ValidUntil.String() }},
		}, filterFlag{"state", "state", "only in this state"}),
		showCmd(g, "operator", "show PRODUCT", "Show a product's certification, and what may be done next", []string{"PRODUCT"}, byID("certifications")),
		showCmd(g, developer, "questions PRODUCT", "Show the questions, each marked as answered so far", []string{"PRODUCT"},
			func(args []string) string { return client.Path("certifications", args[0], "questions") }),
		do(developer, "begin", "Begin the self-certification of a Draft", "begin", nil, reasonField),
		do(developer, "describe", "Declare how a Draft is built and run", "describe", nil, deployment...),
		do(developer, "answers", "Answer questions", "answers", readJSON("answers"), needed("file", "answers", text, "JSON file: an object of answers by question ID")),
		do(developer, "request-exception", "Ask that a requirement may fail, for a time", "exceptions", nil,
			needed("requirement", "requirement", text, "which"), needed("control", "compensating_control", text, "what does instead what it is for"),
			needed("expires", "expires_at", moment, "in 12 months at most"), reasonField),
		do(assessor, "approve-exception", "Approve an exception", "approve-exception", nil, needed("requirement", "requirement", text, "which"), reasonField),
		do(developer, "submit", "Sign the self-certification", "submit", nil,
			needed("by", "name", text, "who declares that it is true"), field{flag: "position", member: "position", kind: text, usage: "of whoever declares"}, reasonField),
		do(developer, "recall", "Take a self-certification back", "recall", nil, reasonField),
		do(assessor, "send-back", "Give a self-certification back to be mended", "send-back", nil, why),
		do(assessor, "start-verification", "Begin to verify a self-certification", "start-verification", nil,
			field{flag: "requirement", member: "requirements", kind: list, usage: "only these; may be repeated"}, reasonField),
		do(developer, "conform", "Record a conformance run in EVTE", "conformance-runs", nil, decisions, reasonField),
		do(assessor, "approve-high-risk", "Approve services of a high rating for the pilot", "approve-high-risk", nil, needed("service", "services", list, "service keys; may be repeated"), reasonField),
		do(assessor, "pilot", "Accept a product into production verification testing", "pilot", nil,
			needed("client", "named_clients", list, "ABNs of the clients it may act for, 5 at most"), services,
			field{flag: "until", member: "until", kind: moment, usage: "in 28 days at most"}, reasonField),
		do(developer, "scenarios", "Record the pilot's scenarios", "scenarios", nil, decisions, reasonField),
		do(assessor, "approve", "Whitelist a product", "approve", nil, services, reasonField),
		do(assessor, "interim", "Approve for a time with something still owed", "interim", nil,
			needed("basis", "basis", text, "grandfathered or conditional"), needed("owes", "owed", list, "requirements still to be shown"), services, reasonField),
		do(assessor, "restrict", "Take services from a live product, or cap their rating", "restrict", nil,
			field{flag: "max-risk", member: "max_risk", kind: number, usage: "the highest risk rating left"},
			field{flag: "remove", member: "remove", kind: list, usage: "services to take away"}, why),
		do(assessor, "request-review", "Ask for a review out of turn", "request-review", nil, why),
		do(developer, "answer-review", "Answer a review", "answer-review", nil, needed("note", "note", text, "what to say")),
		do(developer, "change", "Tell of a change in how the product is built, run or used", "tell-change", nil, deployment...),
		do(assessor, "announce-suspension", "Announce a suspension", "announce-suspension", nil,
			field{flag: "effective", member: "effective_at", kind: moment, usage: "when (default: in 28 days)"}, why),
		do(assessor, "reinstate", "End what was announced, suspended or restricted", "reinstate", nil, reasonField),
		confirming(g, do(assessor, "delist", "End a product's certification for good (a second assessor says so too)", "delist", nil, why)),
	)
}
