package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry/intake"
)

// importLine is one line of an import's answer.
type importLine struct {
	intake.Report
	Summary *intake.Summary `json:"summary"`
	Error   *struct {
		Code, Detail string
	} `json:"error"`
}

// newImportCmd imports a product register.
func newImportCmd(g *globals) *cobra.Command {
	var format string
	var enter, all bool
	var from int
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Import an existing product register, dry unless told otherwise", Args: exactArgs("FILE"),
		Long: "Import reads products from a CSV or JSON file, one a line. Without --enter nothing is entered: what would become of each line is told. " +
			"With it, an import that broke off goes on where it was; done again, it changes nothing. " +
			"With -o json what is told of a line is one line, and the last line sums all up.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if format == "" {
				format = strings.TrimPrefix(filepath.Ext(args[0]), ".")
			}
			if format != string(intake.CSV) && format != string(intake.JSON) {
				return usageError("--format is csv or json; the name of %s says neither", args[0])
			}
			if from < 1 {
				return usageError("--from-line is a number from 1")
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			i := importing{g: g, all: all, first: from, next: from, count: map[intake.Outcome]int{intake.Created: 0, intake.Updated: 0, intake.Unchanged: 0, intake.Refused: 0}}
			return i.run(cmd, c, args[0], format, enter)
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "csv or json; default by the name of the file")
	f.BoolVar(&enter, "enter", false, "enter the products; without it nothing is")
	f.BoolVar(&all, "all", false, "tell of every line, not only of those refused")
	f.IntVar(&from, "from-line", 1, "pass over the lines before this one")
	return connected(g, "registrar", cmd)
}

const (
	// importPatience is for how long an import that broke off is tried again without
	// getting any further: a control plane that was killed is back by then.
	importPatience   = 2 * time.Minute
	importPauseFirst = 100 * time.Millisecond
	importPauseMax   = 2 * time.Second
	// progressEvery is after how many lines the progress is shown on a terminal.
	progressEvery = 1000
)

// importing is an import on its way, over as many connections as it takes.
type importing struct {
	g     *globals
	all   bool
	first int // the line it was told to begin at
	next  int // the first line not reported on yet
	lines int // reported on, over all connections
	count map[intake.Outcome]int
	broke bool // the connection, before the last line; or the control plane is away
}

// run imports over as many connections as it takes, as long as it gets on.
func (i *importing) run(cmd *cobra.Command, c *client.Client, name, format string, enter bool) error {
	pause, reached, since := importPauseFirst, i.next, time.Now()
	for {
		err := i.once(cmd, c, name, format, enter)
		if err == nil || !i.broke {
			return err
		}
		if i.next > reached {
			fmt.Fprintf(i.g.stderr, "the connection broke off after line %d; going on from there\n", i.next-1)
			pause, reached, since = importPauseFirst, i.next, time.Now()
		}
		if time.Since(since) > importPatience || reached == i.first {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return cmd.Context().Err()
		case <-time.After(pause):
			pause = min(2*pause, importPauseMax)
		}
	}
}

func (i *importing) once(cmd *cobra.Command, c *client.Client, name, format string, enter bool) error {
	file, err := os.Open(name)
	if err != nil {
		return usageError("%v", err)
	}
	defer file.Close()
	q := url.Values{"format": {format}, "dry_run": {strconv.FormatBool(!enter)}, "from_line": {strconv.Itoa(i.next)}}
	i.broke = true
	var last *importLine
	err = c.Stream(cmd.Context(), client.Request{Method: http.MethodPost, Path: client.Path("imports"), Query: q}, io.Reader(file), func(b []byte) error {
		var l importLine
		if err := json.Unmarshal(b, &l); err != nil {
			return fmt.Errorf("the answer is not the control plane's: %w", err)
		}
		if l.Summary != nil {
			last = &l
			return nil
		}
		i.next = l.Line + 1
		i.lines++
		i.count[l.Outcome]++
		i.show(&l.Report)
		return nil
	})
	var refused *client.Error
	if errors.As(err, &refused) {
		// The connection before may still be under way there, or nobody is the writer yet.
		i.broke = refused.Status == http.StatusServiceUnavailable || refused.Status == http.StatusConflict
	}
	if err != nil {
		return err
	}
	if last == nil {
		return errors.New("the answer broke off before its end")
	}
	i.broke = last.Error != nil && passing(last.Error.Code)
	return i.finish(last, enter)
}

// passing tells whether the control plane says: not now.
func passing(code string) bool {
	return slices.Contains([]string{"unavailable", "register-unavailable", "not-the-writer", "outcome-unknown", "not-durable"}, code)
}

func (i *importing) show(r *intake.Report) {
	switch {
	case !i.all && r.Outcome != intake.Refused:
	case i.g.structured():
		i.tell(r)
	default:
		fmt.Fprintf(i.g.stdout, "%d\t%s\t%s\t%s\n", r.Line, printable(r.ProductID), r.Outcome, printable(strings.TrimSpace(strings.TrimPrefix(r.Pointer, "/")+" "+r.Detail)))
	}
	if i.g.errTerminal && r.Line%progressEvery == 0 {
		fmt.Fprintf(i.g.stderr, "\r%d lines", r.Line)
	}
}

// tell writes one document for programs: a line of JSON, or YAML after "---".
func (i *importing) tell(v any) {
	b, err := json.Marshal(v)
	if err == nil && i.g.output == "yaml" {
		fmt.Fprintln(i.g.stdout, "---")
		_ = i.g.printRaw(b) // as below
		return
	}
	fmt.Fprintf(i.g.stdout, "%s\n", b) // a reader that went away is told nothing
}

// importSum is the end of what is told to programs.
type importSum struct {
	Summary intake.Summary `json:"summary"`
	// Error is what ended the import before the end of the file; NextLine then says
	// with which --from-line it goes on.
	Error    string `json:"error,omitempty"`
	NextLine int    `json:"next_line,omitempty"`
}

func (i *importing) finish(l *importLine, enter bool) error {
	if i.g.structured() && !i.broke {
		sum := importSum{Summary: intake.Summary{Lines: i.lines, Counts: i.count, DryRun: !enter}}
		if l.Error != nil {
			sum.Error, sum.NextLine = l.Error.Detail, i.next
		}
		i.tell(&sum)
	}
	if i.g.errTerminal {
		fmt.Fprint(i.g.stderr, "\r")
	}
	if l.Error != nil {
		return fmt.Errorf("ended after line %d: %s [%s]", i.next-1, printable(l.Error.Detail), l.Error.Code)
	}
	n := i.count
	verb := "would be"
	if enter {
		verb = "were"
	}
	fmt.Fprintf(i.g.stderr, "%d lines: %d products %s created, %d updated; %d unchanged, %d refused\n", i.lines, n[intake.Created], verb, n[intake.Updated], n[intake.Unchanged], n[intake.Refused])
	if n[intake.Refused] > 0 {
		return &exitError{exitFailed, nil}
	}
	return nil
}

// newExportCmd writes products as an import takes them.
func newExportCmd(g *globals) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "export", Short: "Write all products you may know of, as an import takes them", Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			return c.Download(cmd.Context(), client.Request{Path: client.Path("exports", "products"), Query: url.Values{"format": {format}}}, g.stdout)
		},
	}
	cmd.Flags().StringVar(&format, "format", "csv", "csv or json")
	return connected(g, "registrar", cmd)
}
