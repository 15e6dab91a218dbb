package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

const policyHelp = `A policy says what is done about a caller that strays from its past: observe, throttle, restrict or
suspend, for at most 4 h, or deny the single calls about protected clients. Each version begins in shadow, where it says what it would have done; two
people bring it out of it. A rule is a YAML or JSON file:

  when: {signals: [harvest, sweep], surprise: 3, subjects: [product], signs: 2, within_minutes: 60}
  then: {do: throttle, rate: 5, for_minutes: 60, max_products: 3, max_traffic_percent: 10}`

// policyRow is what lists show of a policy.
type policyRow struct {
	ID     string        `json:"id"`
	States []string      `json:"states"`
	Texts  []string      `json:"texts"`
	Effect policy.Effect `json:"effect"`
}

func (p *policyRow) tally() *policy.Tally {
	if p.Effect.Enforced.Alarms > 0 {
		return &p.Effect.Enforced
	}
	return &p.Effect.Shadow
}

func newPolicyCmd(g *globals) *cobra.Command {
	on := func(use, short, what, as string, fields ...field) *cobra.Command {
		return writeCmd(g, write{use: use + " POLICY", short: short, as: as, names: []string{"POLICY"}, fields: fields, method: http.MethodPost,
			path: func(args []string) string { return client.Path("policies", args[0], what) }})
	}
	needed := reasonField
	needed.needed = true
	cmd := parent("policy", "What is done about callers that stray",
		listCmd(g, "operator", "List policies and how well they have done", []string{"policies"}, []column[policyRow]{
			{"POLICY", func(p *policyRow) string { return p.ID }},
			{"STATE", func(p *policyRow) string { return strings.Join(p.States, ",") }},
			{"ALARMS", func(p *policyRow) string { return fmt.Sprint(p.tally().Alarms) }},
			{"CONFIRMED", func(p *policyRow) string { return fmt.Sprint(p.tally().Confirmed) }},
			{"DISMISSED", func(p *policyRow) string { return fmt.Sprint(p.tally().Dismissed) }},
			{"PRECISION", func(p *policyRow) string {
				if x := p.tally().Precision; x != nil {
					return fmt.Sprintf("%.2f", *x)
				}
				return "-"
			}},
			{"RULE", func(p *policyRow) string { return cmpOr(strings.Join(p.Texts, "; "), "-") }},
		}, filterFlag{"state", "state", "enforced, shadow or off"}),
		showCmd(g, "operator", "show POLICY", "Show a policy, its versions and how well it has done", []string{"POLICY"}, byID("policies")),
		newPolicySetCmd(g),
		newPolicyPreviewCmd(g),
		on("enforce", "Ask for the version in shadow to be enforced, or approve that as a second person", "enforce", "operator", needed),
		on("relax", "Put the enforced version back into shadow, at once", "relax", "operator", reasonField),
		on("stop", "End a policy", "stop", "operator", reasonField),
	)
	cmd.Long = cmd.Short + ".\n\n" + policyHelp
	return cmd
}

// readRule reads a rule's file.
func readRule(name string) (body map[string]any, err error) {
	b, err := os.ReadFile(name)
	var path *fs.PathError
	switch {
	case errors.As(err, &path):
		return nil, usageError("%s: %v", name, path.Err)
	case err != nil:
		return nil, usageError("%s: %v", name, err)
	case len(b) > 64<<10:
		return nil, usageError("%s: a rule of %d bytes; at most 64 KiB", name, len(b))
	}
	if err := yaml.Unmarshal(b, &body); err != nil {
		return nil, usageError("%s: %s", name, strings.SplitN(err.Error(), "\n", 2)[0])
	}
	for k := range body {
		if k != "when" && k != "then" {
			return nil, usageError("%s: %q: a rule has when and then", name, k)
		}
	}
	return body, nil
}

func newPolicySetCmd(g *globals) *cobra.Command {
	var purpose, reason string
	cmd := &cobra.Command{
		Use: "set POLICY FILE", Short: "Write a version of a policy, or a new one; it begins in shadow", Args: exactArgs("POLICY", "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := readRule(args[1])
			if err != nil {
				return err
			}
			if purpose != "" {
				body["purpose"] = purpose
			}
			if reason != "" {
				body["reason"] = reason
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[json.RawMessage](cmd.Context(), c, client.Request{Method: http.MethodPut, Path: client.Path("policies", args[0]), Body: body})
			if err != nil {
				return committed(err)
			}
			return g.printOne(a.Raw)
		},
	}
	cmd.Flags().StringVar(&purpose, "purpose", "", "what it is for; needed the first time")
	cmd.Flags().StringVar(&reason, "reason", "", "why this version; kept in the log")
	return connected(g, "operator", cmd)
}

// policyTrial is what a rule would have done.
type policyTrial struct {
	Text      string           `json:"text"`
	From      registry.Time    `json:"from"`
	To        registry.Time    `json:"to"`
	Signals   uint64           `json:"signals"`
	Allowed   uint64           `json:"allowed"`
	Refused   uint64           `json:"refused"`
	Truncated bool             `json:"truncated"`
	Touched   []policy.Touched `json:"touched"`
}

func newPolicyPreviewCmd(g *globals) *cobra.Command {
	var since time.Duration
	cmd := &cobra.Command{
		Use: "preview FILE", Short: "Try a rule on recorded signals and calls: who would have been touched", Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if since <= 0 {
				return usageError("--since is a time to look back, such as 24h")
			}
			body, err := readRule(args[0])
			if err != nil {
				return err
			}
			body["since"] = registry.At(time.Now().Add(-since))
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[policyTrial](cmd.Context(), c, client.Request{Method: http.MethodPost, Path: client.Path("policies", "preview"), Body: body})
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printRaw(a.Raw)
			}
			p := &a.Data
			fmt.Fprintf(g.stdout, "%s\n%d of %d calls would have been refused, by %d signals from %s to %s\n", printable(p.Text), p.Refused, p.Allowed, p.Signals, p.From, p.To)
			if p.Truncated {
				fmt.Fprintln(g.stdout, "there was more than is tried at once; look back less far")
			}
			var rows [][]string
			for i := range p.Touched {
				x := &p.Touched[i]
				rows = append(rows, []string{x.Subject.Kind + " " + x.Subject.ID, cmpOr(x.Product, "-"), string(x.Outcome), fmt.Sprint(x.Alarms), fmt.Sprint(x.Refused), x.FirstAt.String(), cmpOr(x.Why, "-")})
			}
			if rows == nil {
				return nil
			}
			return g.table(g.stdout, []string{"WHO", "PRODUCT", "OUTCOME", "ALARMS", "REFUSED", "FIRST AT", "WHY NOT"}, rows)
		},
	}
	cmd.Flags().DurationVar(&since, "since", 24*time.Hour, "how far to look back")
	return connected(g, "operator", cmd)
}

func newAlarmCmd(g *globals) *cobra.Command {
	one := func(use, short, what string, fields ...field) *cobra.Command {
		return writeCmd(g, write{use: use + " ALARM", short: short, as: "operator", names: []string{"ALARM"}, fields: fields, method: http.MethodPost,
			path: func(args []string) string { return client.Path("alarms", args[0], what) }})
	}
	return parent("alarm", "What policies found",
		listCmd(g, "operator", "List alarms", []string{"alarms"}, []column[policy.Alarm]{
			{"ALARM", func(a *policy.Alarm) string { return a.ID }},
			{"POLICY", func(a *policy.Alarm) string { return a.Policy }},
			{"ABOUT", func(a *policy.Alarm) string { return a.Subject.Kind + " " + a.Subject.ID }},
			{"RAISED", func(a *policy.Alarm) string { return a.RaisedAt.String() }},
			{"OUTCOME", func(a *policy.Alarm) string { return string(a.Outcome) }},
			{"STATE", func(a *policy.Alarm) string { return string(a.State) }},
			{"MEASURE", func(a *policy.Alarm) string { return cmpOr(a.Suspension, "-") }},
			{"INCIDENT", func(a *policy.Alarm) string { return cmpOr(a.Incident, "-") }},
			{"WHY", func(a *policy.Alarm) string { return strings.Join(a.Reasons[:min(1, len(a.Reasons))], "") }},
		}, filterFlag{"state", "state", "open, confirmed or dismissed"}, filterFlag{"policy", "policy", "only of this policy"},
			filterFlag{"product", "product_id", "only of this product"}, filterFlag{"shadow", "shadow", "true: only in shadow; false: only enforced"}, filterFlag{"outcome", "outcome", "only with this outcome"}),
		showCmd(g, "operator", "show ALARM", "Show an alarm", []string{"ALARM"}, byID("alarms")),
		one("confirm", "It was right", "confirm", field{flag: "began", member: "began_at", kind: moment, usage: "when it began, as found out since"}, reasonField),
		one("dismiss", "It was a false alarm", "dismiss", field{flag: "reason", member: "reason", kind: text, usage: "why", needed: true}),
	)
}

// watchSignal is what lists show of a signal.
type watchSignal struct {
	Subject  policy.Caller `json:"subject"`
	Product  string        `json:"product_id"`
	Signal   string        `json:"signal"`
	At       registry.Time `json:"at"`
	Surprise float64       `json:"surprise"`
	Text     string        `json:"text"`
}

// fieldGaps is what lists show of what calls lack.
type fieldGaps struct {
	Product string            `json:"product_id"`
	Service string            `json:"service"`
	Calls   uint64            `json:"calls"`
	Missing map[string]uint64 `json:"missing"`
}

func newSignalCmd(g *globals) *cobra.Command {
	return parent("signal", "What the watcher tells of callers",
		listCmd(g, "operator", "List the latest signals", []string{"signals"}, []column[watchSignal]{
			{"AT", func(s *watchSignal) string { return s.At.String() }},
			{"SIGNAL", func(s *watchSignal) string { return s.Signal }},
			{"PRODUCT", func(s *watchSignal) string { return cmpOr(s.Product, "-") }},
			{"SURPRISE", func(s *watchSignal) string { return fmt.Sprintf("%.1f", s.Surprise) }},
			{"WHAT", func(s *watchSignal) string { return s.Text }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"signal", "signal", "only of this name"}))
}

func newMissingFieldCmd(g *globals) *cobra.Command {
	return parent("missing-field", "What calls do not say that monitoring needs",
		listCmd(g, "developer", "List which of the fields that monitoring needs are missing, by product and service", []string{"missing-fields"}, []column[fieldGaps]{
			{"PRODUCT", func(f *fieldGaps) string { return f.Product }},
			{"SERVICE", func(f *fieldGaps) string { return f.Service }},
			{"CALLS", func(f *fieldGaps) string { return fmt.Sprint(f.Calls) }},
			{"MISSING", func(f *fieldGaps) string { return cmpOr(codes(f.Missing), "-") }},
		}, filterFlag{"product", "product_id", "only of this product"}, filterFlag{"service", "service", "only of this service"},
			filterFlag{"field", "field", "only where this one is missing"}, filterFlag{"complete", "complete", "true: only where none is; false: only where some are"}))
}

func newProtectedCmd(g *globals) *cobra.Command {
	var reason string
	load := &cobra.Command{
		Use: "load FILE", Short: "Replace the list of protected clients by a file of keyed hashes, one a line", Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usageError("--reason is needed: say why, for the log")
			}
			b, err := os.ReadFile(args[0])
			if err != nil {
				return usageError("%v", err)
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[json.RawMessage](cmd.Context(), c, client.Request{
				Method: http.MethodPut, Path: client.Path("protected-clients"), Query: url.Values{"why": {reason}}, Raw: b,
			})
			if err != nil {
				return committed(err)
			}
			return g.printOne(a.Raw)
		},
	}
	load.Flags().StringVar(&reason, "reason", "", "why; kept in the log")
	var kind, key string
	hash := &cobra.Command{
		Use: "hash [FILE]", Short: "Turn identifiers, one a line, into the keyed hashes that the list is made of; they are kept nowhere", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return usageError("%v", err)
				}
				defer f.Close() //nolint:errcheck // only read
				in = f
			}
			return hashIdentifiers(in, g.stdout, kind, key)
		},
	}
	hash.Flags().StringVar(&kind, "kind", "", "what they are, as services name it: tfn, client_abn, software_id")
	hash.Flags().StringVar(&key, "key-file", "", "the sidecars' subject key")
	return parent("protected", "Clients whose every access is looked at",
		showCmd(g, "operator", "show", "Show how many there are and who changed the list", nil, at("protected-clients")), connected(g, "operator", load), hash)
}

// hashIdentifiers writes the hash of each line. What it says of a line that is
// wrong does not hold the line.
func hashIdentifiers(in io.Reader, out io.Writer, kind, keyFile string) error {
	if kind == "" || keyFile == "" {
		return usageError("--kind and --key-file are needed")
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return usageError("%v", err)
	}
	hasher, err := authz.NewSubjectHasher(bytes.TrimSpace(key))
	if err != nil {
		return usageError("%s: %v", keyFile, err)
	}
	w := bufio.NewWriter(out)
	lines := bufio.NewScanner(in)
	for n := 1; lines.Scan(); n++ {
		id := strings.ReplaceAll(strings.TrimSpace(lines.Text()), " ", "")
		if id == "" {
			continue
		}
		if len(id) > 128 {
			return usageError("line %d is no identifier: it is longer than 128 characters", n)
		}
		h := hasher.Sum(kind, id)
		if _, err := w.WriteString(hex.EncodeToString(h[:]) + "\n"); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read the identifiers: %w", err)
	}
	return w.Flush()
}
