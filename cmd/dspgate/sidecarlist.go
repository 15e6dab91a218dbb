package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
)

// newSidecarListCmd is `dspgate sidecar list`; `dspgate sidecar` itself runs one.
func newSidecarListCmd(g *globals) *cobra.Command {
	return listCmd(g, "operator", "List the sidecars on the roll, and what each holds", []string{"sidecars"}, []column[client.Sidecar]{
		{"SIDECAR", func(s *client.Sidecar) string { return s.ID }},
		{"INCARNATION", func(s *client.Sidecar) string { return s.Incarnation[:min(len(s.Incarnation), 8)] }},
		{"REVISION", func(s *client.Sidecar) string { return revision(s.Revision) }},
		{"BEHIND", func(s *client.Sidecar) string { return strconv.FormatUint(uint64(s.Lag), 10) }},
		{"DIGEST", func(s *client.Sidecar) string {
			switch {
			case s.DigestOK == nil:
				return "unknown"
			case *s.DigestOK:
				return "ok"
			}
			return "DIFFERS"
		}},
		{"LEASE 3-4", func(s *client.Sidecar) string { return lease(s.ShortLeftMS) }},
		{"LEASE 1-2", func(s *client.Sidecar) string { return lease(s.LongLeftMS) }},
		{"LAST POLL", func(s *client.Sidecar) string { return s.PolledAt.String() }},
	})
}

func lease(ms int64) string {
	if ms <= 0 {
		return "lapsed"
	}
	return fmt.Sprintf("%.1fs", (time.Duration(ms) * time.Millisecond).Seconds())
}
