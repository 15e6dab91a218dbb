package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry/incident"
)

// incidentView is what lists show of an incident.
type incidentView struct {
	incident.Incident
	Clocks []incident.Clock `json:"clocks"`
}

// noticeTo is who would be told; the text is in the JSON.
type noticeTo struct {
	Audience string `json:"audience"`
	Name     string `json:"name"`
	Contact  string `json:"contact"`
	Subject  string `json:"subject"`
}

const incidentHelp = `Report first, complete later: what cannot be raised yet is kept as a draft, and the answer names it.
A first report needs a title, a type and when it became known (--aware).`

func newIncidentCmd(g *globals) *cobra.Command {
	on := func(what string) func([]string) string {
		return func(args []string) string { return client.Path("incidents", args[0], what) }
	}
	do := func(use, short, what string, fields ...field) *cobra.Command {
		return writeCmd(g, write{
			use: use + " ID", short: short, as: "operator", names: []string{"ID"}, fields: fields,
			method: http.MethodPost, path: on(what), shape: shapeReport,
		})
	}
	cmd := parent("incident", "What went wrong, and what is done about it",
		listCmd(g, "operator", "List incidents", []string{"incidents"}, []column[incidentView]{
			{"INCIDENT", func(x *incidentView) string { return x.ID }},
			{"STATE", func(x *incidentView) string { return string(x.State) + drillMark(x.Drill) }},
			{"LEVEL", func(x *incidentView) string { return cmpOr(string(x.Level), "-") }},
			{"TYPE", func(x *incidentView) string { return cmpOr(string(x.Type), "-") }},
			{"REPORTED", func(x *incidentView) string { return x.ReportedAt.String() }},
			{"CLOCKS", func(x *incidentView) string { return clocksText(x.Clocks) }},
			{"OWNER", func(x *incidentView) string { return cmpOr(x.Owner, "-") }},
			{"TITLE", func(x *incidentView) string { return x.Title }},
		},
			filterFlag{"state", "state", "draft, reported, triaged, contained, treated, closed, dismissed or appealed"},
			filterFlag{"level", "level", "low, medium or high"}, filterFlag{"type", "type", "only of this type"},
			filterFlag{"product", "product_id", "only about this product"}, filterFlag{"live", "live", "true: only what there is still something to do about"}),
		showCmd(g, "operator", "show ID", "Show an incident, its clocks and what may follow", []string{"ID"}, byID("incidents")),
		writeCmd(g, write{
			use: "raise", short: "Report an incident", as: "operator", method: http.MethodPost, path: at("incidents"), shape: shapeReport,
			fields: append([]field{
				{flag: "channel", member: "channel", kind: text, usage: "api (default), console, email, signal or phone"},
				{flag: "drill", member: "drill", kind: toggle, usage: "go through everything and touch nothing"},
			}, reportFields(true)...),
		}),
		do("amend", "Add what is known since", "amend", reportFields(false)...),
		do("triage", "Give an incident its level and its owner", "triage",
			field{flag: "level", member: "level", kind: text, usage: "low, medium or high (default: what the exposure says)"},
			field{flag: "owner", member: "owner", kind: text, usage: "who works on it (default: you)"}, reasonField),
		do("contain", "Stop the harm: suspend from the incident, or say how else", "contain",
			field{flag: "suspend", member: "suspend", kind: text, usage: "suspend KIND:ID, such as product:FP-1003"},
			field{flag: "emergency", member: "emergency", kind: toggle, usage: "nothing at all may pass"},
			field{flag: "suspension", member: "suspension_id", kind: text, usage: "a suspension that was imposed from this incident"},
			field{flag: "how", member: "how", kind: text, usage: "the reason, or how else it was contained"}),
		do("notify", "Send the notices (see preview)", "notify",
			field{flag: "to", member: "audiences", kind: list, usage: "entity, chain, intermediary, user", needed: true}),
		listOf(g, "preview ID", []string{"ID"}, "operator", "Who would be told what", func(args []string) []string { return []string{"incidents", args[0], "notices"} }, []column[noticeTo]{
			{"TO", func(n *noticeTo) string { return n.Audience }},
			{"NAME", func(n *noticeTo) string { return n.Name }},
			{"CONTACT", func(n *noticeTo) string { return cmpOr(n.Contact, "by post") }},
			{"SUBJECT", func(n *noticeTo) string { return n.Subject }},
		}),
		do("close", "Close an incident", "close",
			field{flag: "cause", member: "cause", kind: text, usage: "what made it possible", needed: true},
			field{flag: "done", member: "done", kind: text, usage: "what was done about it", needed: true},
			field{flag: "lessons", member: "lessons", kind: text, usage: "published without names"}),
		do("dismiss", "It is no incident, or the same as another", "dismiss",
			field{flag: "reason", member: "reason", kind: text, usage: "why", needed: true},
			field{flag: "same-as", member: "same_as", kind: text, usage: "the incident that goes on"}),
	)
	cmd.Long = cmd.Short + ".\n\n" + incidentHelp
	return cmd
}

func reportFields(first bool) []field {
	return []field{
		{flag: "title", member: "title", kind: text, usage: "one line, without names", needed: first},
		{flag: "type", member: "type", kind: text, usage: strings.Join(typeWords(), ", ")},
		{flag: "description", member: "description", kind: text, usage: "what happened; no tax file numbers"},
		{flag: "entity", member: "entity", kind: text, usage: "the ABN it concerns"},
		{flag: "occurred", member: "occurred_at", kind: moment, usage: "when it happened"},
		{flag: "aware", member: "aware_at", kind: moment, usage: "when it became known"},
		{flag: "subject", member: "subjects", kind: list, usage: "what it concerns, KIND:ID; may be repeated"},
		{flag: "exposed", member: "exposed", kind: list, usage: "tfn, bank, identity, fraud, taxpayer; may be repeated"},
		{flag: "records", member: "records", kind: number, usage: "how many people's records"},
		{flag: "ssid", member: "ssids", kind: list, usage: "subscriptions exposed; may be repeated"},
	}
}

func typeWords() (words []string) {
	for _, t := range incident.Types() {
		words = append(words, string(t))
	}
	return words
}

// shapeReport makes subjects and the exposure of the flat members.
func shapeReport(body map[string]any) error {
	if s, ok := body["suspend"].(string); ok {
		kind, id, found := strings.Cut(s, ":")
		if !found {
			return usageError("--suspend %s: write KIND:ID, such as product:FP-1003", s)
		}
		delete(body, "suspend")
		body["subject"] = map[string]any{"kind": kind, "id": id}
	}
	if all, ok := body["subjects"].([]string); ok {
		var refs []map[string]any
		for _, s := range all {
			kind, id, found := strings.Cut(s, ":")
			if !found {
				return usageError("--subject %s: write KIND:ID, such as product:FP-1003", s)
			}
			refs = append(refs, map[string]any{"kind": kind, "id": id})
		}
		body["subjects"] = refs
	}
	exposure := map[string]any{}
	if all, ok := body["exposed"].([]string); ok {
		for _, w := range all {
			switch w {
			case "tfn", "bank", "identity", "fraud", "taxpayer":
				exposure[w] = true
			default:
				return usageError("--exposed %s: use tfn, bank, identity, fraud or taxpayer", w)
			}
		}
		delete(body, "exposed")
	}
	for _, m := range []string{"records", "ssids"} {
		if v, ok := body[m]; ok {
			exposure[m] = v
			delete(body, m)
		}
	}
	if len(exposure) > 0 {
		body["exposure"] = exposure
	}
	return nil
}

func drillMark(drill bool) string {
	if drill {
		return " (drill)"
	}
	return ""
}

// clocksText tells the most urgent duty that is not done.
func clocksText(all []incident.Clock) string {
	text := "-"
	for _, c := range all {
		switch c.Status {
		case incident.Overdue:
			return fmt.Sprintf("%s OVERDUE", c.Duty)
		case incident.Soon:
			text = fmt.Sprintf("%s soon", c.Duty)
		case incident.Running:
			if text == "-" && c.Deadline().Set() {
				text = fmt.Sprintf("%s by %s", c.Duty, c.Deadline())
			}
		}
	}
	return text
}
