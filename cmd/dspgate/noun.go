package main

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

// What the nouns' commands have in common: list, show, create, update.

// filterFlag is a flag of a list command that becomes a query parameter.
type filterFlag struct{ flag, param, usage string }

// listCmd lists records.
func listCmd[T any](g *globals, as, short string, path []string, columns []column[T], filters ...filterFlag) *cobra.Command {
	return listOf(g, "list", nil, as, short, func([]string) []string { return path }, columns, filters...)
}

// listOf lists what arguments name.
func listOf[T any](g *globals, use string, names []string, as, short string, path func(args []string) []string, columns []column[T], filters ...filterFlag) *cobra.Command {
	values := make([]string, len(filters))
	limit := 0
	cmd := &cobra.Command{
		Use: use, Short: short, Args: exactArgs(names...),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			q := url.Values{}
			for i, f := range filters {
				if cmd.Flags().Changed(f.flag) {
					q.Set(f.param, values[i])
				}
			}
			if limit < 0 {
				return usageError("--limit is a number from 1, or 0 for all")
			}
			most := limit
			if most == 0 {
				most = math.MaxInt
			}
			items, raws, err := client.List[T](cmd.Context(), c, client.Path(path(args)...), q, most)
			if err != nil {
				return err
			}
			return printList(g, items, raws, columns)
		},
	}
	for i, f := range filters {
		cmd.Flags().StringVar(&values[i], f.flag, "", f.usage)
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "at most so many; 0 for all")
	return connected(g, as, cmd)
}

// showCmd shows one record; path makes its address of the arguments.
func showCmd(g *globals, as, use, short string, names []string, path func(args []string) string) *cobra.Command {
	return connected(g, as, &cobra.Command{
		Use: use, Short: short, Args: exactArgs(names...),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[json.RawMessage](cmd.Context(), c, client.Request{Path: path(args)})
			if err != nil {
				return err
			}
			return g.printOne(a.Raw)
		},
	})
}

// field is a flag that becomes a member of a body.
type field struct {
	flag, member, kind, usage string
	needed                    bool
}

// The kinds of a field.
const (
	text   = "text"
	number = "number"
	toggle = "toggle" // --flag or --flag=false
	list   = "list"   // may be repeated, or comma-separated
	moment = "moment"
)

type fieldValue struct {
	field
	text   string
	number int
	toggle bool
	list   []string
}

func addFields(cmd *cobra.Command, fields []field) []*fieldValue {
	var out []*fieldValue
	for _, f := range fields {
		v := &fieldValue{field: f}
		switch f.kind {
		case number:
			cmd.Flags().IntVar(&v.number, f.flag, 0, f.usage)
		case toggle:
			cmd.Flags().BoolVar(&v.toggle, f.flag, false, f.usage)
		case list:
			cmd.Flags().StringSliceVar(&v.list, f.flag, nil, f.usage)
		default:
			cmd.Flags().StringVar(&v.text, f.flag, "", f.usage)
		}
		out = append(out, v)
	}
	return out
}

// put sets the members of the flags that were given.
func put(cmd *cobra.Command, fields []*fieldValue, body map[string]any, needed bool) error {
	for _, v := range fields {
		if !cmd.Flags().Changed(v.flag) {
			if v.needed && needed {
				return usageError("--%s is needed: %s", v.flag, v.usage)
			}
			continue
		}
		var value any
		switch v.kind {
		case number:
			value = v.number
		case toggle:
			value = v.toggle
		case list:
			value = v.list
		case moment:
			t, err := parseMoment(v.text)
			if err != nil {
				return usageError("--%s %s: %v", v.flag, v.text, err)
			}
			if value = any(t); t == 0 {
				value = nil
			}
		default:
			value = v.text
		}
		// An empty value takes the member away.
		if value == nil || value == "" || v.kind == list && len(v.list) == 0 {
			delete(body, v.member)
			continue
		}
		body[v.member] = value
	}
	return nil
}

// parseMoment reads an RFC 3339 date-time, a day, "now", a time ago such as
// -90m, or "" for none.
func parseMoment(s string) (registry.Time, error) {
	switch ago, err := time.ParseDuration(s); {
	case s == "":
		return 0, nil
	case s == "now":
		return registry.At(time.Now()), nil
	case err == nil && ago <= 0:
		return registry.At(time.Now().Add(ago)), nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return registry.At(t), nil
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0, fmt.Errorf("write a date-time such as 2027-06-30T17:00:00+10:00, a day such as 2027-06-30 (which begins at 00:00 UTC), now, or how long ago as in -90m")
	}
	return registry.At(t), nil
}

// write is a command that sends a body made of flags.
type write struct {
	use, short string
	as         string
	names      []string // of the arguments
	fields     []field
	method     string
	path       func(args []string) string
	// fixed are members that come from the arguments.
	fixed func(args []string) map[string]any
	// shape makes of the members what the API takes, when that is not flat.
	shape func(body map[string]any) error
	// read, when set, is where the present record is: the members keep names are
	// sent back as they are, unless a flag changes them, with its ETag.
	read func(args []string) string
	// part picks the members to keep out of what was read; nil: all of it.
	part func(record map[string]any, args []string) (map[string]any, error)
	keep []string
	// ends: it stops or ends something, and asks which control plane is meant.
	ends bool
}

func writeCmd(g *globals, w write) *cobra.Command {
	var fields []*fieldValue
	cmd := &cobra.Command{
		Use: w.use, Short: w.short, Args: exactArgs(w.names...),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{}
			req := client.Request{Method: w.method, Path: w.path(args)}
			if w.read == nil {
				if err := put(cmd, fields, body, true); err != nil {
					return err
				}
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			if w.read != nil {
				if req.IfMatch, err = w.readPresent(cmd, c, args, body); err != nil {
					return err
				}
				if err := put(cmd, fields, body, false); err != nil {
					return err
				}
			}
			if w.fixed != nil {
				for k, v := range w.fixed(args) {
					body[k] = v
				}
			}
			if w.shape != nil {
				if err := w.shape(body); err != nil {
					return err
				}
			}
			if w.method != http.MethodDelete {
				req.Body = body
			}
			a, err := client.Do[json.RawMessage](cmd.Context(), c, req)
			if err != nil {
				return committed(err)
			}
			return g.printOne(a.Raw)
		},
	}
	fields = addFields(cmd, w.fields)
	if connected(g, cmpOr(w.as, "operator"), cmd); w.ends {
		return confirming(g, cmd)
	}
	return cmd
}

func (w *write) readPresent(cmd *cobra.Command, c *client.Client, args []string, body map[string]any) (etag string, err error) {
	changed := false
	for _, f := range w.fields {
		changed = changed || cmd.Flags().Changed(f.flag) && f.member != "reason"
	}
	if !changed {
		return "", usageError("nothing to change: see %s --help", cmd.CommandPath())
	}
	a, err := client.Do[map[string]any](cmd.Context(), c, client.Request{Path: w.read(args)})
	if err != nil {
		return "", err
	}
	record := a.Data
	if w.part != nil {
		if record, err = w.part(record, args); err != nil {
			return "", err
		}
	}
	for _, k := range w.keep {
		if v, ok := record[k]; ok {
			body[k] = v
		}
	}
	return a.ETag, nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// committed gives an error after a commit its own exit code.
func committed(err error) error {
	if _, ok := client.NotDurable(err); ok {
		return &exitError{exitUncertain, err}
	}
	return err
}

var reasonField = field{flag: "reason", member: "reason", kind: text, usage: "why; kept in the log"}

func joinRoles[T ~string](roles []T) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, ",")
}

func revision(r registry.Revision) string { return strconv.FormatUint(uint64(r), 10) }

// byID is the address of one record of a noun.
func byID(noun ...string) func([]string) string {
	return func(args []string) string { return client.Path(append(slices.Clone(noun), args[0])...) }
}

func at(path ...string) func([]string) string {
	return func([]string) string { return client.Path(path...) }
}
