package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// requirementRow is a requirement as it is listed.
type requirementRow struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Subject string   `json:"subject"`
	Because string   `json:"because"`
	How     []string `json:"how"`
	Level   struct {
		Strength string `json:"strength"`
		Minimum  string `json:"minimum"`
	} `json:"level"`
}

func newRequirementCmd(g *globals) *cobra.Command {
	bound := connected(g, "developer", &cobra.Command{
		Use: "product PRODUCT", Short: "What binds a product, why, and how to meet it", Args: exactArgs("PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[struct {
				Category     string           `json:"category"`
				Because      string           `json:"category_because"`
				Requirements []requirementRow `json:"requirements"`
			}](cmd.Context(), c, client.Request{Path: client.Path("products", args[0], "requirements")})
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printOne(a.Raw)
			}
			fmt.Fprintf(g.stdout, "Category %s: %s\n", a.Data.Category, printable(a.Data.Because))
			for _, r := range a.Data.Requirements {
				fmt.Fprintf(g.stdout, "\n%s %s (%s)\n  %s\n  %s\n", r.ID, printable(r.Title), r.Level.Strength, printable(r.Level.Minimum), printable(r.Because))
				for _, h := range r.How {
					fmt.Fprintf(g.stdout, "  - %s\n", printable(h))
				}
			}
			return nil
		},
	})
	return parent("requirement", "The requirement catalogue",
		listCmd(g, "developer", "List the catalogue", []string{"requirements"}, []column[requirementRow]{
			{"REQUIREMENT", func(r *requirementRow) string { return r.ID }},
			{"TITLE", func(r *requirementRow) string { return r.Title }},
			{"OF", func(r *requirementRow) string { return r.Subject }},
		}, filterFlag{"catalogue", "catalogue", "version; default the one in force"}, filterFlag{"of", "subject_kind", "entity or product"}),
		bound,
		showCmd(g, "developer", "matrix", "Who registers and who self-certifies", nil, at("role-matrix")),
	)
}

func newGapCmd(g *globals) *cobra.Command {
	return connected(g, "developer", &cobra.Command{
		Use: "gap WANTED GIVEN", Short: "How far what is shown under one standard serves for another", Args: exactArgs("WANTED", "GIVEN"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[certification.Gap](cmd.Context(), c, client.Request{Path: client.Path("gap-analyses"), Query: url.Values{"wanted": {args[0]}, "given": {args[1]}}})
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printOne(a.Raw)
			}
			var rows [][]string
			for _, r := range a.Data.Rows {
				rows = append(rows, []string{r.Control, r.Title, string(r.Coverage), r.Wanted, r.Given})
			}
			return g.table(g.stdout, []string{"CONTROL", "TITLE", "COVERAGE", args[0], args[1]}, rows)
		},
	})
}

func newEvidenceCmd(g *globals) *cobra.Command {
	return parent("evidence", "What is shown for a product",
		listCmd(g, "developer", "List evidence", []string{"evidence"}, []column[assurance.Evidence]{
			{"EVIDENCE", func(e *assurance.Evidence) string { return e.ID }},
			{"PRODUCT", func(e *assurance.Evidence) string { return e.ProductID }},
			{"TYPE", func(e *assurance.Evidence) string { return string(e.Type) }},
			{"FOR", func(e *assurance.Evidence) string { return strings.Join(e.Requirements, ",") }},
			{"EXPIRES", func(e *assurance.Evidence) string { return e.Expires.String() }},
			{"ACCEPTED", func(e *assurance.Evidence) string { return e.Approved.String() }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"requirement", "requirement", "only for this requirement"}, filterFlag{"type", "type", "only of this type"}),
		showCmd(g, "developer", "show EVIDENCE", "Show a piece of evidence", []string{"EVIDENCE"}, byID("evidence")),
		newEvidenceSubmitCmd(g),
		connected(g, "developer", &cobra.Command{
			Use: "get EVIDENCE FILE", Short: "Write what a piece of evidence holds into a new file", Args: exactArgs("EVIDENCE", "FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return g.getFile(cmd, client.Path("evidence", args[0], "content"), args[1])
			},
		}),
		writeCmd(g, write{use: "approve EVIDENCE", short: "Accept evidence", as: "assessor", names: []string{"EVIDENCE"}, fields: []field{reasonField}, method: http.MethodPost,
			path: func(args []string) string { return client.Path("evidence", args[0], "approve") }}),
	)
}

// getFile downloads into a file that is not there yet.
func (g *globals) getFile(cmd *cobra.Command, path, name string) error {
	c, err := g.connect()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := c.Download(cmd.Context(), client.Request{Path: path}, &b); err != nil {
		return err
	}
	return writeNew(name, b.Bytes())
}

// writeNew writes a file that is not there yet.
func writeNew(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return usageError("%v", err)
	}
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

func newEvidenceSubmitCmd(g *globals) *cobra.Command {
	var typ, note, issued, expires string
	var requirements []string
	cmd := &cobra.Command{
		Use: "submit PRODUCT FILE", Short: "Hand evidence in", Args: exactArgs("PRODUCT", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := os.Stat(args[1])
			if err != nil {
				return usageError("%v", err)
			}
			if info.IsDir() || info.Size() > certification.EvidenceBytesMax {
				return usageError("%s is no file of at most %d MiB", args[1], certification.EvidenceBytesMax>>20)
			}
			b, err := os.ReadFile(args[1])
			if err != nil {
				return err
			}
			q := url.Values{"type": {typ}}
			if len(requirements) > 0 {
				q.Set("requirements", strings.Join(requirements, ","))
			}
			if note != "" {
				q.Set("note", note)
			}
			for name, text := range map[string]string{"issued_at": issued, "expires_at": expires} {
				at, err := parseMoment(text)
				if err != nil {
					return usageError("%s: %v", name, err)
				}
				if at.Set() {
					q.Set(name, at.String())
				}
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[json.RawMessage](cmd.Context(), c, client.Request{Method: http.MethodPost, Path: client.Path("products", args[0], "evidence"), Query: q, Raw: b})
			if err != nil {
				return committed(err)
			}
			return g.printOne(a.Raw)
		},
	}
	f := cmd.Flags()
	f.StringVar(&typ, "type", "", "what it is, such as certificate, policy, sample-log")
	f.StringSliceVar(&requirements, "for", nil, "a requirement that it is for; may be repeated")
	f.StringVar(&issued, "issued", "", "when it was issued")
	f.StringVar(&expires, "expires", "", "until when it says that it holds")
	f.StringVar(&note, "note", "", "a word to the assessor")
	return connected(g, "developer", cmd)
}

// waitingRow is what waits for an assessor, as it is listed.
type waitingRow struct {
	ProductID    string        `json:"product_id"`
	State        string        `json:"state"`
	Category     string        `json:"category"`
	Basis        string        `json:"verification_basis"`
	Verification string        `json:"verification_id"`
	Due          registry.Time `json:"due_at"`
	Risk         struct {
		Score int    `json:"score"`
		Level string `json:"level"`
	} `json:"risk"`
}

func newVerificationCmd(g *globals) *cobra.Command {
	step := func(what string) func([]string) string {
		return func(args []string) string { return client.Path("verifications", args[0], what) }
	}
	return parent("verification", "Looks at what products show",
		listCmd(g, "assessor", "List verifications", []string{"verifications"}, []column[assurance.Verification]{
			{"VERIFICATION", func(v *assurance.Verification) string { return v.ID }},
			{"PRODUCT", func(v *assurance.Verification) string { return v.ProductID }},
			{"BASIS", func(v *assurance.Verification) string { return string(v.Basis) }},
			{"STATE", func(v *assurance.Verification) string { return v.State() }},
			{"RISK", func(v *assurance.Verification) string { return fmt.Sprint(v.Risk.Score) }},
			{"OPENED", func(v *assurance.Verification) string { return v.Opened.String() }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"state", "state", "open or closed"}, filterFlag{"period", "period", "only of this draw"}),
		listOf(g, "queue", nil, "assessor", "List what waits for an assessor, the riskiest first", func([]string) []string { return []string{"assessments"} }, []column[waitingRow]{
			{"PRODUCT", func(w *waitingRow) string { return w.ProductID }},
			{"STATE", func(w *waitingRow) string { return w.State }},
			{"CATEGORY", func(w *waitingRow) string { return w.Category }},
			{"BASIS", func(w *waitingRow) string { return w.Basis }},
			{"VERIFICATION", func(w *waitingRow) string { return w.Verification }},
			{"RISK", func(w *waitingRow) string { return fmt.Sprintf("%d %s", w.Risk.Score, w.Risk.Level) }},
			{"DUE", func(w *waitingRow) string { return w.Due.String() }},
		}, filterFlag{"state", "state", "only in this state"}),
		showCmd(g, "assessor", "show VERIFICATION", "Show a verification", []string{"VERIFICATION"}, byID("verifications")),
		writeCmd(g, write{use: "open PRODUCT", short: "Open a verification", as: "assessor", names: []string{"PRODUCT"}, method: http.MethodPost, path: at("verifications"),
			fields: []field{{flag: "requirement", member: "requirements", kind: list, usage: "to look at; default all that apply"}, {flag: "basis", member: "basis", kind: text, usage: "why; default ad hoc"}, reasonField},
			fixed:  func(args []string) map[string]any { return map[string]any{"product_id": args[0]} }}),
		writeCmd(g, write{use: "test VERIFICATION REQUIREMENT", short: "Record what came of one test", as: "assessor", names: []string{"VERIFICATION", "REQUIREMENT"}, method: http.MethodPost, path: step("tests"),
			fields: []field{
				{flag: "method", member: "method", kind: text, usage: "control-tested, documents-read or automated", needed: true},
				{flag: "outcome", member: "outcome", kind: text, usage: "pass or fail", needed: true},
				{flag: "note", member: "note", kind: text, usage: "a word"},
				{flag: "evidence", member: "evidence", kind: list, usage: "that was looked at; may be repeated"},
				{flag: "finding", member: "finding", kind: text, usage: "of a fail: what the developer is told"},
				{flag: "severity", member: "severity", kind: text, usage: "of a fail: low, medium or high"},
				{flag: "due", member: "due_at", kind: moment, usage: "of a fail: by when it must be mended"},
				reasonField,
			},
			fixed: func(args []string) map[string]any { return map[string]any{"requirement": args[1]} }}),
		writeCmd(g, write{use: "close VERIFICATION", short: "Close a verification", as: "assessor", names: []string{"VERIFICATION"}, method: http.MethodPost, path: step("close"),
			fields: []field{{flag: "summary", member: "summary", kind: text, usage: "what came of it", needed: true}, reasonField}}),
	)
}

func newFindingCmd(g *globals) *cobra.Command {
	step := func(what string) func([]string) string {
		return func(args []string) string { return client.Path("findings", args[0], what) }
	}
	note := field{flag: "note", member: "note", kind: text, usage: "what was seen", needed: true}
	return parent("finding", "What products do not meet",
		listCmd(g, "assessor", "List findings", []string{"findings"}, []column[assurance.Finding]{
			{"FINDING", func(f *assurance.Finding) string { return f.ID }},
			{"PRODUCT", func(f *assurance.Finding) string { return f.ProductID }},
			{"REQUIREMENT", func(f *assurance.Finding) string { return f.Requirement }},
			{"SEVERITY", func(f *assurance.Finding) string { return f.Severity }},
			{"STATE", func(f *assurance.Finding) string { return string(f.State) }},
			{"DUE", func(f *assurance.Finding) string { return f.Due.String() }},
			{"TEXT", func(f *assurance.Finding) string { return f.Text }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"state", "state", "open, answered or closed"}, filterFlag{"severity", "severity", "low, medium or high"}, filterFlag{"overdue", "overdue", "true: only what is past its due date"}),
		showCmd(g, "assessor", "show FINDING", "Show a finding", []string{"FINDING"}, byID("findings")),
		writeCmd(g, write{use: "raise PRODUCT", short: "Raise a finding", as: "assessor", names: []string{"PRODUCT"}, method: http.MethodPost, path: at("findings"),
			fields: []field{
				{flag: "requirement", member: "requirement", kind: text, usage: "that is not met", needed: true},
				{flag: "finding", member: "finding", kind: text, usage: "what the developer is told", needed: true},
				{flag: "severity", member: "severity", kind: text, usage: "low, medium or high"},
				{flag: "due", member: "due_at", kind: moment, usage: "by when it must be mended"},
				reasonField,
			},
			fixed: func(args []string) map[string]any { return map[string]any{"product_id": args[0]} }}),
		writeCmd(g, write{use: "answer FINDING", short: "Say that a finding is mended", as: "developer", names: []string{"FINDING"}, method: http.MethodPost, path: step("answer"),
			fields: []field{{flag: "response", member: "response", kind: text, usage: "what was done", needed: true}, {flag: "evidence", member: "evidence", kind: list, usage: "that shows it; may be repeated"}, reasonField}}),
		writeCmd(g, write{use: "close FINDING", short: "Close a finding that is mended", as: "assessor", names: []string{"FINDING"}, method: http.MethodPost, path: step("close"), fields: []field{note, reasonField}}),
		writeCmd(g, write{use: "reopen FINDING", short: "Send an answer back", as: "assessor", names: []string{"FINDING"}, method: http.MethodPost, path: step("reopen"),
			fields: []field{note, {flag: "due", member: "due_at", kind: moment, usage: "another due date"}, reasonField}}),
	)
}

// drawRow is a draw as it is listed.
type drawRow struct {
	Period     string        `json:"period"`
	Commitment string        `json:"commitment"`
	Drawn      registry.Time `json:"drawn_at"`
	Candidates int           `json:"candidates"`
	Selected   int           `json:"selected"`
}

func newDrawCmd(g *globals) *cobra.Command {
	return parent("draw", "The published selection for verification",
		listCmd(g, "assessor", "List draws", []string{"draws"}, []column[drawRow]{
			{"PERIOD", func(d *drawRow) string { return d.Period }},
			{"COMMITMENT", func(d *drawRow) string { return d.Commitment }},
			{"DRAWN", func(d *drawRow) string { return d.Drawn.String() }},
			{"CANDIDATES", func(d *drawRow) string { return fmt.Sprint(d.Candidates) }},
			{"SELECTED", func(d *drawRow) string { return fmt.Sprint(d.Selected) }},
		}),
		showCmd(g, "assessor", "show PERIOD", "Show a draw", []string{"PERIOD"}, byID("draws")),
		writeCmd(g, write{use: "commit PERIOD", short: "Commit to the seed of a draw", as: "assessor", names: []string{"PERIOD"}, fields: []field{reasonField}, method: http.MethodPost, path: at("draws"),
			fixed: func(args []string) map[string]any { return map[string]any{"period": args[0]} }}),
		writeCmd(g, write{use: "run PERIOD", short: "Make the draw and open the verifications", as: "assessor", names: []string{"PERIOD"}, fields: []field{reasonField}, method: http.MethodPost,
			path: func(args []string) string { return client.Path("draws", args[0], "draw") }}),
		connected(g, "assessor", &cobra.Command{
			Use: "get PERIOD FILE", Short: "Write the published draw into a new file", Args: exactArgs("PERIOD", "FILE"),
			RunE: func(cmd *cobra.Command, args []string) error {
				return g.getFile(cmd, client.Path("draws", args[0], "document"), args[1])
			},
		}),
		&cobra.Command{
			Use: "verify FILE COMMITMENT", Short: "Compute a published draw again, offline", Args: exactArgs("FILE", "COMMITMENT"),
			RunE: func(_ *cobra.Command, args []string) error {
				b, err := os.ReadFile(args[0])
				if err != nil {
					return usageError("%v", err)
				}
				var d certification.Draw
				if err := json.Unmarshal(b, &d); err != nil {
					return fmt.Errorf("%s is no published draw: %w", args[0], err)
				}
				if err := d.Verify(args[1]); err != nil {
					return err
				}
				fmt.Fprintf(g.stdout, "the draw of %s is as it was published: %d candidates, %d selected\n", printable(d.Period), len(d.Outcome), len(d.Selected()))
				return nil
			},
		},
	)
}

// addOnRow is an add-on as it is listed.
type addOnRow struct {
	ID          string `json:"id"`
	ProductID   string `json:"product_id"`
	Name        string `json:"name"`
	Developer   string `json:"developer"`
	Connections uint64 `json:"connections"`
	Listed      bool   `json:"must_be_listed"`
	Mark        string `json:"mark"`
}

func newAddOnCmd(g *globals) *cobra.Command {
	fields := []field{
		{flag: "name", member: "name", kind: text, usage: "name of the add-on", needed: true},
		{flag: "by", member: "developer", kind: text, usage: "whoever offers it", needed: true},
		{flag: "contact", member: "contact", kind: text, usage: "its developer's e-mail address, told of incidents"},
		{flag: "connections", member: "connections", kind: number, usage: "how many clients use it"},
		{flag: "client-list", member: "client_list_access", kind: toggle, usage: "it reads an agent's list of clients"},
		{flag: "assessed", member: "assessed_at", kind: moment, usage: "when its developer last assessed itself"},
		{flag: "ssid", member: "ssids", kind: list, usage: "a subscription through which it reaches the agency; may be repeated"},
		reasonField,
	}
	return parent("add-on", "Third parties' apps that use a product's API",
		listCmd(g, "developer", "List add-ons", []string{"add-ons"}, []column[addOnRow]{
			{"ADD-ON", func(a *addOnRow) string { return a.ID }},
			{"PRODUCT", func(a *addOnRow) string { return a.ProductID }},
			{"NAME", func(a *addOnRow) string { return a.Name }},
			{"BY", func(a *addOnRow) string { return a.Developer }},
			{"CONNECTIONS", func(a *addOnRow) string { return fmt.Sprint(a.Connections) }},
			{"LISTED", func(a *addOnRow) string { return yes(a.Listed) }},
			{"MARK", func(a *addOnRow) string { return a.Mark }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"listed", "listed", "yes: only those that must be listed"}),
		showCmd(g, "developer", "show ADD-ON", "Show an add-on", []string{"ADD-ON"}, byID("add-ons")),
		writeCmd(g, write{use: "declare PRODUCT", short: "Declare an add-on", as: "developer", names: []string{"PRODUCT"}, fields: fields, method: http.MethodPost, path: at("add-ons"),
			fixed: func(args []string) map[string]any { return map[string]any{"product_id": args[0]} }}),
		writeCmd(g, write{use: "change ADD-ON", short: "Change what is declared", as: "developer", names: []string{"ADD-ON"}, fields: fields, method: http.MethodPut, path: byID("add-ons"), read: byID("add-ons"),
			keep: []string{"name", "developer", "contact", "connections", "client_list_access", "assessed_at", "ssids"}}),
		writeCmd(g, write{use: "remove ADD-ON", short: "Take an add-on off the list", as: "developer", names: []string{"ADD-ON"}, method: http.MethodDelete, path: byID("add-ons")}),
		writeCmd(g, write{use: "suspend ADD-ON", ends: true, short: "Suspend every subscription of an add-on", names: []string{"ADD-ON"}, method: http.MethodPost,
			path: func(args []string) string { return client.Path("add-ons", args[0], "suspend") },
			fields: []field{
				{flag: "reason", member: "reason", kind: text, usage: "why; kept in the log", needed: true},
				{flag: "emergency", member: "emergency", kind: toggle, usage: "nothing at all may pass"},
				{flag: "until", member: "expires_at", kind: moment, usage: "when it ends"},
				{flag: "incident", member: "incident_id", kind: text, usage: "the incident it is for"},
			}}),
	)
}

func newEcosystemCmd(g *globals) *cobra.Command {
	return parent("ecosystem", "The questionnaire about a product's ecosystem",
		showCmd(g, "developer", "show PRODUCT", "Show the questions and how they stand", []string{"PRODUCT"}, func(args []string) string { return client.Path("products", args[0], "ecosystem") }),
		writeCmd(g, write{use: "answer PRODUCT QUESTION", short: "Answer one question", as: "developer", names: []string{"PRODUCT", "QUESTION"}, method: http.MethodPut,
			path: func(args []string) string { return client.Path("products", args[0], "ecosystem", "answers", args[1]) },
			fields: []field{
				{flag: "value", member: "values", kind: list, usage: "the answer; may be repeated where several may be chosen", needed: true},
				{flag: "note", member: "note", kind: text, usage: "a word"}, reasonField,
			}}),
	)
}
