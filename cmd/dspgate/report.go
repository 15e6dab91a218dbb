package main

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

func newReportCmd(g *globals) *cobra.Command {
	return parent("report", "What the automated checks found",
		listCmd(g, "assessor", "List reports", []string{"reports"}, []column[assurance.Report]{
			{"REPORT", func(r *assurance.Report) string { return r.ID }},
			{"PRODUCT", func(r *assurance.Report) string { return r.ProductID }},
			{"AT", func(r *assurance.Report) string { return r.At.String() }},
			{"BY", func(r *assurance.Report) string { return r.By }},
			{"OUTCOMES", func(r *assurance.Report) string { return outcomes(r.Results) }},
			{"FINDINGS", func(r *assurance.Report) string { return strings.Join(r.Findings, ",") }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"owner", "owner", "only of the entity with this ABN"}),
		showCmd(g, "assessor", "show REPORT", "Show a report", []string{"REPORT"}, byID("reports")),
		writeCmd(g, write{use: "run PRODUCT", short: "Run the automated checks now", as: "assessor", names: []string{"PRODUCT"}, method: http.MethodPost,
			path: func(args []string) string { return client.Path("products", args[0], "reports") },
			fields: []field{
				{flag: "endpoint", member: "endpoint", kind: text, usage: "address to check, https://…; default the declared one"},
				{flag: "jwks", member: "jwks_url", kind: text, usage: "address of the key set, https://…"}, reasonField,
			}}),
	)
}

// outcomes counts how checks came out: "3 pass, 1 fail".
func outcomes(all []assurance.Result) string {
	var words []string
	for _, o := range []string{"pass", "warn", "fail", "unknown"} {
		n := 0
		for _, r := range all {
			if r.Outcome == o {
				n++
			}
		}
		if n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, o))
		}
	}
	return strings.Join(words, ", ")
}

// threatRow is a threat analysis as it is listed.
type threatRow struct {
	ID        string        `json:"id"`
	ProductID string        `json:"product_id"`
	Title     string        `json:"title"`
	At        registry.Time `json:"at"`
	By        string        `json:"by"`
}

func newThreatCmd(g *globals) *cobra.Command {
	return parent("threat-analysis", "Threat analyses that developers hand in",
		listCmd(g, "developer", "List threat analyses", []string{"threat-analyses"}, []column[threatRow]{
			{"ANALYSIS", func(r *threatRow) string { return r.ID }},
			{"PRODUCT", func(r *threatRow) string { return r.ProductID }},
			{"AT", func(r *threatRow) string { return r.At.String() }},
			{"BY", func(r *threatRow) string { return r.By }},
			{"TITLE", func(r *threatRow) string { return r.Title }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"owner", "owner", "only of the entity with this ABN"}),
		showCmd(g, "developer", "show ANALYSIS", "Show a threat analysis, the worst threats first", []string{"ANALYSIS"}, byID("threat-analyses")),
		writeCmd(g, write{use: "submit PRODUCT", short: "Hand a threat analysis in", as: "developer", names: []string{"PRODUCT"}, method: http.MethodPost, path: at("threat-analyses"),
			fields: []field{
				{flag: "title", member: "title", kind: text, usage: "what it is of", needed: true},
				{flag: "scope", member: "scope", kind: text, usage: "what was looked at", needed: true},
				{flag: "method", member: "method", kind: text, usage: "such as STRIDE or ISO/IEC 27005"},
				{flag: "threats", member: "threats", kind: text, usage: "JSON file with a list of {title, scenario, likelihood, impact, treatment, control}"},
				{flag: "evidence", member: "evidence", kind: list, usage: "content address of the analysis, handed in as evidence; may be repeated"}, reasonField,
			},
			shape: readJSON("threats"), fixed: func(args []string) map[string]any { return map[string]any{"product_id": args[0]} }}),
	)
}

// newEntitySignalsCmd lists what an entity shares with others.
func newEntitySignalsCmd(g *globals) *cobra.Command {
	return listOf(g, "signals ABN", []string{"ABN"}, "assessor", "What an entity shares with others, evidence or a contact: a sign of fraud, and no proof",
		func(args []string) []string { return []string{"entities", args[0], "signals"} }, []column[assurance.Signal]{
			{"SIGNAL", func(s *assurance.Signal) string { return s.Kind }},
			{"EVIDENCE", func(s *assurance.Signal) string { return s.Evidence }},
			{"OTHERS", func(s *assurance.Signal) string {
				var others []string
				for _, abn := range s.Others {
					others = append(others, abn.String())
				}
				return strings.Join(others, ",")
			}},
			{"SAYS", func(s *assurance.Signal) string { return s.Say }},
		})
}

// newRiskCmd shows what a product's risk is made of.
func newRiskCmd(g *globals) *cobra.Command {
	return connected(g, "assessor", &cobra.Command{
		Use: "risk PRODUCT", Short: "A product's risk profile, each contribution shown", Args: exactArgs("PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[certification.RiskProfile](cmd.Context(), c, client.Request{Path: client.Path("products", args[0], "risk")})
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printOne(a.Raw)
			}
			fmt.Fprintf(g.stdout, "%s: %d points, %d inputs not known (model %s)\n", a.Data.Level, a.Data.Score, a.Data.Unknown, printable(a.Data.Model))
			var rows [][]string
			for _, x := range a.Data.Contributions {
				value := "-"
				if x.Value != nil {
					value = fmt.Sprintf("%.4g", *x.Value)
				}
				rows = append(rows, []string{fmt.Sprint(x.Points), x.Input, value, x.Because})
			}
			return g.table(g.stdout, []string{"POINTS", "INPUT", "VALUE", "BECAUSE"}, rows)
		},
	})
}
