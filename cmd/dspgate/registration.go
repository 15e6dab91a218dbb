package main

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
)

// fileBytesMax bounds a form or answers read from a file.
const fileBytesMax = 64 << 10

// readFiles puts what files hold in the place of their names.
func readFiles(members []string, as func(path string, b []byte) (any, error)) func(map[string]any) error {
	return func(body map[string]any) error {
		for _, member := range members {
			path, ok := body[member].(string)
			if !ok {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return usageError("%v", err)
			}
			if len(b) > fileBytesMax {
				return usageError("%s has %d bytes; at most %d", path, len(b), fileBytesMax)
			}
			if body[member], err = as(path, b); err != nil {
				return err
			}
		}
		return nil
	}
}

func readJSON(members ...string) func(map[string]any) error {
	return readFiles(members, func(path string, b []byte) (v any, err error) {
		if err := json.Unmarshal(b, &v); err != nil {
			return nil, usageError("%s is no JSON: %v", path, err)
		}
		return v, nil
	})
}

func readText(members ...string) func(map[string]any) error {
	return readFiles(members, func(path string, b []byte) (any, error) {
		if !utf8.Valid(b) {
			return nil, usageError("%s is no UTF-8 text", path)
		}
		return string(b), nil
	})
}

// registrationCmds are the commands of an entity's registration.
func registrationCmds(g *globals) []*cobra.Command {
	do := func(use, short, what string, fields ...field) *cobra.Command {
		return writeCmd(g, write{
			use: use + " ABN", short: short, as: "registrar", names: []string{"ABN"}, fields: fields, method: http.MethodPost,
			path: func(args []string) string { return client.Path("registrations", args[0], what) },
		})
	}
	form := field{flag: "form", member: "form", kind: text, usage: "JSON file with the form", needed: true}
	note := field{flag: "note", member: "note", kind: text, usage: "what to say", needed: true}
	why := field{flag: "reason", member: "reason", kind: text, usage: "why; kept, and told", needed: true}
	return []*cobra.Command{
		showCmd(g, "registrar", "registration ABN", "Show an entity's registration, its clocks and what may be done next", []string{"ABN"}, byID("registrations")),
		listOf(g, "registrations", nil, "registrar", "List registrations", func([]string) []string { return []string{"registrations"} }, []column[registrationRow]{
			{"ABN", func(r *registrationRow) string { return r.ABN.String() }},
			{"NAME", func(r *registrationRow) string { return r.Case.Form.Name }},
			{"STATE", func(r *registrationRow) string { return r.State.String() }},
			{"WAITS FOR", func(r *registrationRow) string { return r.waits() }},
		}, filterFlag{"clock", "clock", "agency or applicant: only what waits for them, what is due first in front"}, filterFlag{"search", "q", "only with these words"}),
		showCmd(g, "registrar", "terms", "Show the terms that an applicant accepts", nil, at("registration-terms")),
		writeCmd(g, write{
			use: "apply ABN", short: "Begin an application", as: "registrar", names: []string{"ABN"}, fields: []field{form, reasonField}, shape: readJSON("form"),
			method: http.MethodPost, path: at("registrations"), fixed: func(args []string) map[string]any { return map[string]any{"abn": args[0]} },
		}),
		writeCmd(g, write{
			use: "revise ABN", short: "Replace the form of a draft", as: "registrar", names: []string{"ABN"}, fields: []field{form, reasonField}, shape: readJSON("form"),
			method: http.MethodPut, path: byID("registrations"),
		}),
		do("submit", "Accept the terms, declare, and hand the draft in", "submit",
			field{flag: "terms", member: "terms_version", kind: text, usage: "the version accepted", needed: true},
			field{flag: "by", member: "name", kind: text, usage: "who accepts and declares", needed: true}, reasonField),
		do("withdraw", "Take an application back into a draft", "withdraw", reasonField),
		do("ask", "Ask the applicant something", "ask", field{flag: "question", member: "question", kind: text, usage: "the question", needed: true}),
		do("reply", "Answer the oldest open question", "reply", field{flag: "answer", member: "answer", kind: text, usage: "the answer", needed: true}),
		writeCmd(g, write{
			use: "check ABN CHECK pass|fail", short: "Record the outcome, and only the outcome, of an eligibility check", as: "registrar",
			names: []string{"ABN", "CHECK", "pass|fail"}, method: http.MethodPost,
			fields: []field{
				{flag: "of", member: "subject", kind: text, usage: "a principal's id (default: the entity)"},
				{flag: "source", member: "source", kind: text, usage: "who or what checked", needed: true},
				{flag: "expires", member: "expires_at", kind: moment, usage: "when it has to be checked again (default: in a year)"}, reasonField,
			},
			path:  func(args []string) string { return client.Path("registrations", args[0], "checks") },
			fixed: func(args []string) map[string]any { return map[string]any{"check": args[1], "outcome": args[2]} },
		}),
		do("admit", "Register an entity whose checks have passed", "admit", reasonField),
		do("reject", "Reject an application", "reject",
			field{flag: "trigger", member: "trigger", kind: text, usage: "applicant-not-authorised, business-not-legitimate, obligations-not-satisfied, history-check-not-satisfied, purpose-or-intent, false-statement or no-reply", needed: true}, reasonField),
		do("change", "Tell of a change", "changes",
			field{flag: "name", member: "name", kind: text, usage: "another legal name"}, field{flag: "role", member: "roles", kind: list, usage: "all roles from now on"},
			field{flag: "note", member: "note", kind: text, usage: "anything else"}),
		do("confirm-changes", "Put the changes that were told into the register", "confirm-changes", reasonField),
		do("answer-review", "Say that what is registered is still so", "answer-review", note),
		do("accept-terms", "Accept the terms in force, which a new version asks for", "accept-terms",
			field{flag: "terms", member: "terms_version", kind: text, usage: "the version accepted", needed: true},
			field{flag: "by", member: "name", kind: text, usage: "who accepts and declares", needed: true}, reasonField),
		writeCmd(g, write{
			use: "add-product ABN", short: "Enter another product of a registered entity, with its test environments", as: "developer", names: []string{"ABN"}, method: http.MethodPost,
			fields: []field{
				{flag: "name", member: "name", kind: text, usage: "name of the product", needed: true},
				{flag: "scenario", member: "scenario", kind: number, usage: "deployment scenario, 1 to 6", needed: true},
				{flag: "chain", member: "chain", kind: list, usage: "ABN of a further entity that delivers it; may be repeated"}, reasonField,
			},
			path: func(args []string) string { return client.Path("registrations", args[0], "products") },
		}),
		writeCmd(g, write{
			use: "open-test ABN PRODUCT", short: "Open the test environments of a product that was entered without", as: "developer", names: []string{"ABN", "PRODUCT"}, method: http.MethodPost,
			fields: []field{reasonField},
			path:   func(args []string) string { return client.Path("registrations", args[0], "test-environments") },
			fixed:  func(args []string) map[string]any { return map[string]any{"product_id": args[1]} },
		}),
		confirming(g, do("cancel", "End an entity, and all that is under it, for good (a second registrar says so too)", "cancel", why)),
	}
}

// registrationRow is a registration as it is listed.
type registrationRow struct {
	ABN   registry.ABN          `json:"abn"`
	State registry.EntityState  `json:"state"`
	Case  casework.Registration `json:"case"`
}

// waits tells of the clocks that run.
func (r *registrationRow) waits() string {
	var all []string
	for _, c := range r.Case.Clocks {
		if !c.Ended.Set() {
			all = append(all, c.On+" to "+c.Name+" by "+c.Due.String())
		}
	}
	return strings.Join(all, "; ")
}
