package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz/replay"
	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/envoy/accesslog"
	"github.com/dspgate/dspgate/registry"
)

func newReplayCmd(g *globals) *cobra.Command {
	var zone string
	cmd := &cobra.Command{
		Use: "replay ACCESS-LOG…", Short: "Say what today's register, limits and policies would have made of logged calls",
		Long: `Reads access logs as Envoy writes them here (access_log_file in the sidecar's
envoy section; DIR/access.log of a demo), one line of JSON a call, gzip too, - for
the standard input, and holds every call against the register, limits and
policies of now: who would have been refused, limited or suspended, what those
that were refused then would meet and why, and which callers stray from their past. The past is what the logs hold: callers are only
judged once they show two weeks of it. It also says, by product and service, which
of the fields that monitoring needs the calls lack.

A line that does not read is named on the standard error, and passed over.`,
		Example: "  dspgate replay .run/access.log\n  dspgate replay -o json access.log.2.gz access.log.1.gz access.log",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || slices.Contains(args, "") {
				return usageError("%s takes access logs, or - for the standard input; see --help", cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			z, err := zoneOf(zone)
			if err != nil {
				return err
			}
			return g.replay(cmd, args, z)
		},
	}
	cmd.Flags().StringVar(&zone, "zone", defaultZone, "where the hours of the day are told by")
	return connected(g, "operator", cmd)
}

// replayed is the report with what was read.
type replayed struct {
	Lines     uint64 `json:"lines"`
	Malformed uint64 `json:"malformed"`
	*replay.Report
}

func (g *globals) replay(cmd *cobra.Command, files []string, zone *time.Location) error {
	for _, f := range files { // before anything takes time
		if f != "-" {
			if _, err := os.Stat(f); err != nil {
				return fmt.Errorf("%s: %w", f, pathCause(err))
			}
		}
	}
	c, err := g.connect()
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	view, err := todaysRegister(ctx, c)
	if err != nil {
		return err
	}
	policies, err := todaysPolicies(ctx, c)
	if err != nil {
		return err
	}
	r, err := replay.New(replay.Config{View: view, Policies: policies, Zone: zone, At: registry.At(time.Now())})
	if err != nil {
		return err
	}
	x := replayReader{g: g, in: cmd.InOrStdin(), add: r, progress: progress{w: g.stderr}, latest: time.Now().Add(24 * time.Hour)}
	for _, f := range files {
		if err := x.file(ctx, f); err != nil {
			return err
		}
	}
	if x.progress.drawn > 0 {
		x.progress.clear()
	}
	if x.out.Malformed > namedMax {
		fmt.Fprintf(g.stderr, "and %d more lines that do not read\n", x.out.Malformed-namedMax)
	}
	x.out.Report = r.Report()
	if g.structured() {
		b, err := json.Marshal(&x.out)
		if err != nil {
			return err
		}
		return g.printRaw(b)
	}
	return g.printReplayed(&x.out)
}

func pathCause(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// load reads all records of a kind into a register.
func load[T any](ctx context.Context, c *client.Client, b *registry.Builder, kind registry.Kind, noun string, q url.Values, id func(*T) string) error {
	items, raws, err := client.List[T](ctx, c, client.Path(noun), q, 1<<30)
	if err != nil {
		return err
	}
	for i := range items {
		if err := b.Put(&registry.Record{Kind: kind, ID: id(&items[i]), Revision: 1, Data: raws[i]}); err != nil {
			return fmt.Errorf("%s: %w", noun, err)
		}
	}
	return nil
}

// todaysRegister is the register as the control plane shows it.
func todaysRegister(ctx context.Context, c *client.Client) (*registry.View, error) {
	b := registry.NewBuilder(nil, 0)
	for _, err := range []error{
		load(ctx, c, b, registry.KindEntity, "entities", nil, func(e *registry.Entity) string { return e.ABN.String() }),
		load(ctx, c, b, registry.KindService, "services", nil, func(s *registry.Service) string { return s.Key }),
		load(ctx, c, b, registry.KindProduct, "products", nil, func(p *registry.Product) string { return p.ID }),
		load(ctx, c, b, registry.KindClientApp, "client-apps", nil, func(a *registry.ClientApp) string { return a.ClientID }),
		load(ctx, c, b, registry.KindSubscription, "subscriptions", nil, func(s *registry.Subscription) string { return s.SSID }),
		load(ctx, c, b, registry.KindLimit, "limits", nil, func(l *registry.Limit) string { return l.ID }),
		load(ctx, c, b, registry.KindSuspension, "suspensions", url.Values{"active": {"true"}}, func(s *registry.Suspension) string { return s.ID }),
	} {
		if err != nil {
			return nil, fmt.Errorf("read the register: %w", err)
		}
	}
	return b.View(1, 1)
}

// todaysPolicies are those that are evaluated, in shadow too.
func todaysPolicies(ctx context.Context, c *client.Client) ([]policy.Active, error) {
	items, _, err := client.List[policy.Policy](ctx, c, client.Path("policies"), nil, policy.PoliciesMax)
	var refused *client.Error
	if errors.As(err, &refused) && refused.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the policies: %w", err)
	}
	var out []policy.Active
	for i := range items {
		out = append(out, items[i].Active()...)
	}
	return out, nil
}

// namedMax is how many malformed lines are named.
const namedMax = 1000

// replayReader feeds lines to a replay.
type replayReader struct {
	g        *globals
	in       io.Reader
	add      *replay.Replay
	progress progress
	drawn    time.Time
	latest   time.Time // what is dated later is no record
	out      replayed
}

func (x *replayReader) file(ctx context.Context, name string) error {
	in := x.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, pathCause(err))
		}
		defer f.Close()
		in = f
	}
	b := bufio.NewReaderSize(in, 1<<16)
	if magic, err := b.Peek(2); err == nil && magic[0] == 0x1f && magic[1] == 0x8b {
		z, err := gzip.NewReader(b)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b = bufio.NewReaderSize(z, 1<<16)
	}
	for n := 1; ; n++ {
		line, err := readLine(b)
		if len(bytes.TrimSpace(line)) > 0 {
			x.line(name, n, line)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("%s: line %d: %w", name, n, pathCause(err))
		case ctx.Err() != nil:
			return ctx.Err()
		}
		x.show(name)
	}
}

// readLine reads a line, of which it keeps no more than is ever read.
func readLine(b *bufio.Reader) (line []byte, err error) {
	for {
		part, more, err := b.ReadLine()
		if keep := accesslog.LineMax + 1 - len(line); keep > 0 {
			line = append(line, part[:min(len(part), keep)]...)
		}
		if err != nil || !more {
			return line, err
		}
	}
}

func (x *replayReader) line(name string, n int, line []byte) {
	x.out.Lines++
	c, err := accesslog.ParseLine(line)
	if err == nil && (c.At.After(x.latest) || c.At.Unix() <= 0) {
		err = fmt.Errorf("%w: start_time: lies in the future, or before all logs", accesslog.ErrLine)
	}
	if err != nil {
		if x.out.Malformed++; x.out.Malformed <= namedMax {
			if x.progress.drawn > 0 {
				x.progress.clear()
			}
			fmt.Fprintf(x.g.stderr, "%s: line %d: %v\n", printable(name), n, err)
		}
		return
	}
	x.add.Add(c)
}

// show draws how far it has got, on a terminal, four times a second.
func (x *replayReader) show(name string) {
	if x.out.Lines%1024 != 0 || !x.g.terminal || time.Since(x.drawn) < time.Second/4 {
		return
	}
	x.drawn = time.Now()
	x.progress.draw([]string{fmt.Sprintf("%s: %d lines, %d that do not read", name, x.out.Lines, x.out.Malformed)})
}

func (g *globals) printReplayed(r *replayed) error {
	g.line("%d lines, %d that do not read; calls from %s to %s", r.Lines, r.Malformed, r.From, r.To)
	g.line("then   %s", codes(r.Then))
	g.line("today  %s, of those allowed then", codes(r.Now))
	if r.Shadow > 0 {
		g.line("       %d beyond a limit that only observes", r.Shadow)
	}
	if len(r.Signals) > 0 {
		g.line("signals %s", codes(r.Signals))
	}
	if r.Incomplete {
		g.line("there was more than is kept: figures by product and account are too low")
	}
	g.line("")
	var rows [][]string
	for _, p := range r.Products {
		if len(p.Refused) > 0 || p.Alarms > 0 {
			rows = append(rows, []string{p.ID, fmt.Sprint(p.Calls), fmt.Sprint(p.Allowed), codes(p.Refused), fmt.Sprint(p.Alarms), codes(p.Limits), p.Suspended})
		}
	}
	if err := g.table(g.stdout, []string{"PRODUCT", "CALLS", "ALLOWED", "REFUSED TODAY", "ALARMS", "LIMITS", "SUSPENSION"}, rows); err != nil {
		return err
	}
	if err := g.printRejudged(r.Refused); err != nil {
		return err
	}
	for _, f := range r.Fields {
		g.line("lacking %s %s: of %d calls %s", cmp.Or(f.Product, "-"), cmp.Or(f.Service, "-"), f.Calls, codes(f.Missing))
	}
	for _, a := range r.Alarms {
		g.line("alarm   %s  %s", a.At, a.Text)
	}
	for _, a := range r.Policies {
		shadow := ""
		if a.Shadow {
			shadow = ", in shadow"
		}
		g.line("policy  %s  %s v%d%s: %s %s, %d calls touched: %s", a.At, a.Policy, a.Version, shadow, a.Do, a.Subject, a.Calls, strings.Join(a.Reasons, "; "))
	}
	return nil
}

// printRejudged shows what those that were refused then would meet.
func (g *globals) printRejudged(all []replay.Rejudged) error {
	if len(all) == 0 {
		return nil
	}
	g.line("")
	var rows [][]string
	for _, x := range all {
		rows = append(rows, []string{cmp.Or(x.Product, "-"), fmt.Sprint(x.Calls), x.Then, cmp.Or(x.Now, "unknown"), x.Why})
	}
	return g.table(g.stdout, []string{"PRODUCT", "CALLS", "REFUSED THEN", "TODAY", "WHY"}, rows)
}

// codes are counts by name, the most first.
func codes(m map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b)) })
	var out []string
	for _, n := range names {
		out = append(out, fmt.Sprintf("%s %d", n, m[n]))
	}
	return strings.Join(out, ", ")
}
