package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"

	"github.com/goccy/go-yaml"
)

// column is one column of a table.
type column[T any] struct {
	head string
	cell func(*T) string
}

// printList writes a listing: a table on a terminal, one line of tab-separated
// values an item otherwise, or what -o asks for.
func printList[T any](g *globals, items []T, raws []json.RawMessage, columns []column[T]) error {
	switch g.output {
	case "json", "yaml":
		if raws == nil {
			raws = []json.RawMessage{}
		}
		b, err := json.Marshal(raws)
		if err != nil {
			return err
		}
		return g.printRaw(b)
	}
	var rows [][]string
	for i := range items {
		row := make([]string, len(columns))
		for k, c := range columns {
			row[k] = c.cell(&items[i])
		}
		rows = append(rows, row)
	}
	var heads []string
	for _, c := range columns {
		heads = append(heads, c.head)
	}
	if len(rows) == 0 && g.terminal {
		fmt.Fprintln(g.stderr, "nothing found")
		return nil
	}
	return g.table(g.stdout, heads, rows)
}

// table aligns columns under their heads, or writes plain lines.
func (g *globals) table(w io.Writer, heads []string, rows [][]string) error {
	if g.output == "" && !g.terminal {
		for _, row := range rows {
			for i := range row {
				row[i] = printable(row[i])
			}
			if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
				return err
			}
		}
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, strings.TrimRight(strings.Join(heads, "\t"), "\t"))
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(row, "\t"), "\t"))
	}
	return tw.Flush()
}

// printOne writes one record: as YAML for people, or what -o asks for.
func (g *globals) printOne(raw json.RawMessage) error { return g.printRaw(raw) }

func (g *globals) printRaw(raw json.RawMessage) error {
	if g.output == "json" {
		var b bytes.Buffer
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := g.stdout.Write(b.Bytes())
		return err
	}
	b, err := yaml.JSONToYAML(raw)
	if err != nil {
		return fmt.Errorf("as YAML: %w", err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i := range lines {
		lines[i] = printable(lines[i])
	}
	_, err = fmt.Fprintln(g.stdout, strings.Join(lines, "\n"))
	return err
}

// structured tells whether the output is for programs.
func (g *globals) structured() bool { return g.output == "json" || g.output == "yaml" }

// line prints one line for people; nothing in it can move their cursor.
func (g *globals) line(format string, args ...any) {
	fmt.Fprintln(g.stdout, printable(fmt.Sprintf(format, args...)))
}

// printable replaces what would move a terminal's cursor, change its colours or
// break the line: names in the register are written by others.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, s)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
