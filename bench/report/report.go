// Package report writes what a benchmark measured: a table for people and
// bench/out/NAME.json for programs.
package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is one run of one benchmark.
type Report struct {
	At      time.Time          `json:"at"`
	Machine string             `json:"machine"` // processor, cores, Go version
	Figures map[string]float64 `json:"figures"` // by the contract's names, and more
	Rows    []map[string]any   `json:"rows"`    // one per slice of the run
}

// New starts a report, dated now.
func New() *Report {
	return &Report{At: time.Now().UTC().Truncate(time.Second), Machine: machine(), Figures: map[string]float64{}}
}

func machine() string {
	model := runtime.GOARCH
	if f, err := os.Open("/proc/cpuinfo"); err == nil {
		defer f.Close()
		for s := bufio.NewScanner(f); s.Scan(); {
			if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == "model name" {
				model = strings.TrimSpace(v)
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores, %s", model, runtime.NumCPU(), runtime.Version())
}

// Row adds a row.
func (r *Report) Row(row map[string]any) { r.Rows = append(r.Rows, row) }

// Save writes DIR/NAME.json.
func (r *Report) Save(dir, name string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, name+".json"), append(b, '\n'), 0o644)
}

// Table prints the rows under the columns given, and then the figures.
func (r *Report) Table(w io.Writer, columns ...string) error {
	fmt.Fprintf(w, "%s, %s\n", r.Machine, r.At.Format(time.RFC3339))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, strings.Join(columns, "\t")+"\t")
	for _, row := range r.Rows {
		for _, c := range columns {
			if v, ok := row[c].(float64); ok {
				fmt.Fprintf(t, "%.4g\t", v)
			} else {
				fmt.Fprintf(t, "%v\t", row[c])
			}
		}
		fmt.Fprintln(t)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	names := make([]string, 0, len(r.Figures))
	for n := range r.Figures {
		names = append(names, n)
	}
	slices.Sort(names)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, n := range names {
		fmt.Fprintf(t, "%s\t%.4g\n", n, r.Figures[n])
	}
	return t.Flush()
}
