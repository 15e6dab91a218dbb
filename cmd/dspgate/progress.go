package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

const (
	progressRows    = 10 // laggards shown by name
	progressColumns = 79 // longer lines would wrap, and not be drawn over
)

// progress is a block of lines at the end of a terminal, drawn over itself.
type progress struct {
	w     io.Writer
	drawn int // lines
}

func (p *progress) draw(lines []string) {
	var b strings.Builder
	b.WriteString(strings.Repeat("\x1b[A\r\x1b[K", p.drawn))
	for _, l := range lines {
		if r := []rune(printable(l)); len(r) > progressColumns {
			l = string(r[:progressColumns-1]) + "…"
		} else {
			l = string(r)
		}
		b.WriteString(l + "\n")
	}
	fmt.Fprint(p.w, b.String())
	p.drawn = len(lines)
}

func (p *progress) clear() { p.draw(nil) }

// laggards is a line for each sidecar that is waited for: what it holds, and
// until when it may serve by that, by risk rating.
func laggards(e *client.Enforcement) []string {
	held, lines := 0, []string{""}
	for _, s := range e.Sidecars {
		switch s.State {
		case registry.Acknowledged:
			held++
		case registry.Pending:
			lines = append(lines, fmt.Sprintf("  %s at %d: ratings 3-4 until %s, 1-2 until %s at the latest", s.ID, s.Revision,
				clock(max(s.Until[3], s.Until[4])), clock(max(s.Until[1], s.Until[2]))))
		}
	}
	if more := len(lines) - 1 - progressRows; more > 0 {
		lines = append(lines[:1+progressRows], fmt.Sprintf("  and %d more", more))
	}
	lines[0] = fmt.Sprintf("%.1fs, %d of %d sidecars hold it, waiting for", float64(e.ElapsedMS)/1000, held, len(e.Sidecars))
	return lines
}

func clock(t registry.Time) string { return t.Std().Local().Format(time.TimeOnly) }
