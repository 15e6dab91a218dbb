package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// editionRow is a version as it is listed.
type editionRow struct {
	ID          string        `json:"id"`
	State       string        `json:"state"`
	Effective   registry.Time `json:"effective_at"`
	ProposedBy  string        `json:"proposed_by"`
	PublishedBy string        `json:"published_by"`
	Reach       struct {
		Phase string `json:"phase"`
	} `json:"reach"`
}

// affectedRow is one product or entity that a version asks something of.
type affectedRow struct {
	ProductID string        `json:"product_id"`
	ABN       registry.ABN  `json:"abn"`
	Name      string        `json:"name"`
	State     string        `json:"state"`
	DueBy     registry.Time `json:"due_by"`
	Reopens   []struct {
		Requirement string `json:"requirement"`
	} `json:"reopens"`
}

func newEditionCmd(g *globals) *cobra.Command {
	step := func(what string) func([]string) string {
		return func(args []string) string { return client.Path("editions", args[0], what) }
	}
	of := func(what string) func([]string) map[string]any {
		return func([]string) map[string]any { return map[string]any{"of": what} }
	}
	note := field{flag: "note", member: "note", kind: text, usage: "what changes, for people"}
	return parent("edition", "Versions of the requirement catalogue and of the terms",
		listCmd(g, "assessor", "List versions", []string{"editions"}, []column[editionRow]{
			{"EDITION", func(e *editionRow) string { return e.ID }},
			{"STATE", func(e *editionRow) string { return e.State }},
			{"EFFECTIVE", func(e *editionRow) string { return e.Effective.String() }},
			{"PROPOSED BY", func(e *editionRow) string { return e.ProposedBy }},
			{"PUBLISHED BY", func(e *editionRow) string { return e.PublishedBy }},
			{"REACHED", func(e *editionRow) string { return e.Reach.Phase }},
		}, filterFlag{"of", "of", "catalogue or terms"}, filterFlag{"state", "state", "proposed, published or withdrawn"}),
		showCmd(g, "assessor", "show EDITION", "Show a version, and how far it has got", []string{"EDITION"}, byID("editions")),
		&cobra.Command{
			Use: "draft CATALOGUE-FILE QUESTIONNAIRE-FILE", Short: "Write the built-in catalogue and its questionnaire into new files, to make the next version of", Args: exactArgs("CATALOGUE-FILE", "QUESTIONNAIRE-FILE"),
			RunE: func(_ *cobra.Command, args []string) error {
				catalogue, questionnaire, err := certification.Documents()
				if err != nil {
					return err
				}
				if err := writeNew(args[0], catalogue); err != nil {
					return err
				}
				return writeNew(args[1], questionnaire)
			},
		},
		writeCmd(g, write{use: "propose-catalogue", short: "Propose a version of the requirement catalogue", as: "assessor", method: http.MethodPost, path: at("editions"),
			fields: []field{
				{flag: "catalogue", member: "catalogue", kind: text, usage: "YAML file of the requirements", needed: true},
				{flag: "questionnaire", member: "questionnaire", kind: text, usage: "YAML file of the questionnaire that asks about them", needed: true}, note, reasonField,
			},
			shape: readText("catalogue", "questionnaire"), fixed: of("catalogue")}),
		writeCmd(g, write{use: "propose-terms VERSION", short: "Propose a version of the terms", as: "registrar", names: []string{"VERSION"}, method: http.MethodPost, path: at("editions"),
			fields: []field{
				{flag: "terms", member: "terms", kind: text, usage: "file with the terms", needed: true},
				{flag: "declaration", member: "declaration", kind: text, usage: "file with the declaration", needed: true},
				{flag: "effective", member: "effective_at", kind: moment, usage: "from when they bind (default: at once)"},
				{flag: "grace", member: "grace_days", kind: number, usage: "days to accept them, for who accepted earlier ones"}, note, reasonField,
			},
			shape: readText("terms", "declaration"), fixed: func(args []string) map[string]any { return map[string]any{"of": "terms", "version": args[0]} }}),
		listOf(g, "affected EDITION", []string{"EDITION"}, "assessor", "Whom a version asks something of, before or after it is published",
			func(args []string) []string { return []string{"editions", args[0], "affected"} }, []column[affectedRow]{
				{"PRODUCT", func(a *affectedRow) string { return a.ProductID }},
				{"OWNER", func(a *affectedRow) string { return a.ABN.String() }},
				{"NAME", func(a *affectedRow) string { return a.Name }},
				{"STATE", func(a *affectedRow) string { return a.State }},
				{"DUE BY", func(a *affectedRow) string { return a.DueBy.String() }},
				{"REOPENS", func(a *affectedRow) string {
					var ids []string
					for _, r := range a.Reopens {
						ids = append(ids, r.Requirement)
					}
					return joinRoles(ids)
				}},
			}),
		writeCmd(g, write{use: "publish EDITION", short: "Publish what somebody else proposed", as: "operator", names: []string{"EDITION"}, fields: []field{reasonField}, method: http.MethodPost, path: step("publish"), ends: true}),
		writeCmd(g, write{use: "withdraw EDITION", short: "Take a proposal back", as: "assessor", names: []string{"EDITION"}, fields: []field{reasonField}, method: http.MethodPost, path: step("withdraw")}),
	)
}
