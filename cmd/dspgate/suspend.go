package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/registry"
)

const (
	waitDefault  = 5 * time.Second
	waitMax      = 5 * time.Second
	progressStep = 300 * time.Millisecond
)

// subjectKinds are the kinds a suspension may name.
var subjectKinds = []string{"entity", "product", "version", "client-app", "credential", "subscription", "service"}

// waitFlags are --wait and --timeout.
type waitFlags struct {
	on      bool
	timeout time.Duration
}

func (w *waitFlags) add(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.on, "wait", false, "wait until every sidecar holds it; exit code 3 when one lapsed, 4 when it is not complete")
	cmd.Flags().DurationVar(&w.timeout, "timeout", waitDefault, "how long to wait, at most 5s")
}

func (w *waitFlags) check(cmd *cobra.Command) error {
	if w.timeout < 0 || w.timeout > waitMax {
		return usageError("--timeout %s: at most %s", w.timeout, waitMax)
	}
	if cmd.Flags().Changed("timeout") && !w.on {
		return usageError("--timeout goes with --wait")
	}
	return nil
}

func newSuspendCmd(g *globals) *cobra.Command {
	var s client.Suspend
	var expires time.Duration
	var w waitFlags
	var maxRisk int
	cmd := &cobra.Command{
		Use: "suspend KIND ID", Short: "Suspend an entity, product, version, client app, credential, subscription or service",
		Long: "Suspends a subject from this instant on every sidecar. KIND is one of " + strings.Join(subjectKinds, ", ") + ";\n" +
			"a version is named PRODUCT@VERSION. One person may suspend for at most 4 h, which is also the default;\n" +
			"a second confirms (dspgate confirm) up to 72 h; longer needs a notice that has taken effect.",
		Example: `  dspgate suspend product FP-1003 --reason "credential found on a paste site" --wait`,
		Args:    exactArgs("KIND", "ID"),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return subjectKinds, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if s.Subject, err = parseSubject(args[0], args[1]); err != nil {
				return err
			}
			if s.Reason == "" {
				return usageError("--reason is needed: say why, for the log and the one who is suspended")
			}
			if err := w.check(cmd); err != nil {
				return err
			}
			if err := curb(cmd, &s, maxRisk); err != nil {
				return err
			}
			if cmd.Flags().Changed("expires") {
				if expires <= 0 {
					return usageError("--expires %s: a suspension ends after it begins; write 4h", expires)
				}
				s.Expires = registry.At(time.Now().Add(expires))
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			return g.enforce(cmd.Context(), c, "suspended", w, func(ctx context.Context, cw client.Wait) (client.Answer[client.Suspension], error) {
				return c.Suspend(ctx, s, cw)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Reason, "reason", "", "why; kept in the log and shown to the one who is suspended")
	f.BoolVar(&s.Emergency, "emergency", false, "nothing at all may pass, not even receipts")
	f.Int64Var(&s.Rate, "throttle", 0, "do not stop it: let so many calls a second pass, over all sidecars")
	f.IntVar(&maxRisk, "restrict", 0, "do not stop it: leave it the services rated so or lower, 1 to 3")
	f.DurationVar(&expires, "expires", 0, "how long it lasts (default 4h)")
	f.StringVar(&s.NoticeID, "notice", "", "notice that announced it")
	f.StringVar(&s.IncidentID, "incident", "", "incident it belongs to")
	w.add(cmd)
	return confirming(g, connected(g, "operator", cmd))
}

// curb turns a suspension into a throttle or a restriction, where a flag says so.
func curb(cmd *cobra.Command, s *client.Suspend, maxRisk int) error {
	throttle, restrict := cmd.Flags().Changed("throttle"), cmd.Flags().Changed("restrict")
	switch {
	case throttle && restrict:
		return usageError("--throttle and --restrict are two suspensions; impose one after the other")
	case throttle && s.Rate < 1:
		return usageError("--throttle %d: at least 1 call a second", s.Rate)
	case restrict && (maxRisk < 1 || maxRisk > 3):
		return usageError("--restrict %d: a rating from 1 to 3", maxRisk)
	case throttle:
		s.Effect = registry.EffectThrottle
	case restrict:
		s.Effect, s.MaxRisk = registry.EffectRestrict, registry.Risk(maxRisk)
	}
	return nil
}

func newLiftCmd(g *globals) *cobra.Command {
	var reason string
	var w waitFlags
	cmd := &cobra.Command{
		Use: "lift ID | lift KIND ID", Short: "Lift a suspension",
		Long:    "Lifts a suspension, named by its own ID or by what is suspended. The one who imposed it may not lift it.",
		Example: "  dspgate lift SU-57 --reason \"credential replaced\"\n  dspgate lift product FP-1003 --reason \"credential replaced\"",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 || slices.Contains(args, "") {
				return usageError("dspgate lift takes the ID of a suspension, or KIND ID of what is suspended; see --help")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if reason == "" {
				return usageError("--reason is needed: say why, for the log")
			}
			if err := w.check(cmd); err != nil {
				return err
			}
			var subject registry.SubjectRef
			if len(args) == 2 {
				var err error
				if subject, err = parseSubject(args[0], args[1]); err != nil {
					return err
				}
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			id := args[0]
			if len(args) == 2 {
				if id, err = activeSuspension(cmd.Context(), c, subject); err != nil {
					return err
				}
			}
			return g.enforce(cmd.Context(), c, "lifted", w, func(ctx context.Context, cw client.Wait) (client.Answer[client.Suspension], error) {
				return c.Lift(ctx, id, reason, cw)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept in the log")
	w.add(cmd)
	return connected(g, "operator", cmd)
}

func newConfirmCmd(g *globals) *cobra.Command {
	var reason, expires string
	var w waitFlags
	cmd := &cobra.Command{
		Use: "confirm ID", Short: "Confirm a suspension that another person imposed, and extend it",
		Long: "Confirms a suspension, which then lasts up to 72 h from when it was imposed. It takes a second person.",
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			until, err := parseMoment(expires)
			if err != nil {
				return usageError("--until %s: %v", expires, err)
			}
			if err := w.check(cmd); err != nil {
				return err
			}
			c, err := g.connect()
			if err != nil {
				return err
			}
			return g.enforce(cmd.Context(), c, "confirmed", w, func(ctx context.Context, cw client.Wait) (client.Answer[client.Suspension], error) {
				return c.Confirm(ctx, args[0], reason, until, cw)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why; kept in the log")
	cmd.Flags().StringVar(&expires, "until", "", "when it ends (default: 72 h after it was imposed)")
	w.add(cmd)
	return connected(g, "operator2", cmd)
}

func parseSubject(kind, id string) (s registry.SubjectRef, err error) {
	if !slices.Contains(subjectKinds, kind) {
		return s, usageError("%q cannot be suspended: KIND is one of %s", kind, strings.Join(subjectKinds, ", "))
	}
	if err := s.Kind.UnmarshalText([]byte(kind)); err != nil {
		return s, usageError("%v", err)
	}
	if kind == "entity" { // people write ABNs with spaces
		abn, err := registry.ParseABN(id)
		if err != nil {
			return s, usageError("entity %s: %v", id, err)
		}
		id = abn.String()
	}
	s.ID = id
	return s, nil
}

// activeSuspension finds the one suspension that holds of a subject.
func activeSuspension(ctx context.Context, c *client.Client, s registry.SubjectRef) (string, error) {
	query := map[string][]string{"kind": {s.Kind.String()}, "subject": {s.ID}, "active": {"true"}}
	all, _, err := client.List[client.Suspension](ctx, c, client.Path("suspensions"), query, 100)
	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return "", fmt.Errorf("%s %s is not suspended", s.Kind, s.ID)
	case len(all) > 1:
		var ids []string
		for i := range all {
			ids = append(ids, all[i].ID)
		}
		return "", fmt.Errorf("%s %s is suspended %d times: lift each by its ID (%s)", s.Kind, s.ID, len(all), strings.Join(ids, ", "))
	}
	return all[0].ID, nil
}

// enforce sends a command about a suspension, waits if asked to, showing on a
// terminal whom it waits for, and says how it went; the exit code too.
func (g *globals) enforce(ctx context.Context, c *client.Client, did string, w waitFlags, send func(context.Context, client.Wait) (client.Answer[client.Suspension], error)) error {
	live := w.on && g.errTerminal && !g.structured()
	began := time.Now()
	a, err := send(ctx, client.Wait{On: w.on && !live, Timeout: w.timeout})
	if e, ok := client.NotDurable(err); ok {
		if uErr := json.Unmarshal(e.Data, &a.Data); uErr == nil {
			a.Raw, a.Created = e.Data, true // whether it was there before is not said
			if pErr := g.showSuspension(&a, did); pErr != nil {
				return pErr
			}
		}
		return &exitError{exitUncertain, err}
	}
	if err != nil {
		return err
	}
	if live {
		if a, err = g.follow(ctx, c, a, w.timeout, began); err != nil {
			return err
		}
	}
	if err := g.showSuspension(&a, did); err != nil {
		return err
	}
	if w.on {
		return verdict(a.Data.Enforcement)
	}
	return nil
}

// follow asks again and again how far a suspension has come, and shows a line for
// each sidecar that is waited for.
func (g *globals) follow(ctx context.Context, c *client.Client, a client.Answer[client.Suspension], timeout time.Duration, began time.Time) (client.Answer[client.Suspension], error) {
	id := a.Data.ID
	shown := progress{w: g.stderr}
	for {
		left := timeout - time.Since(began)
		next, err := c.Suspension(ctx, id, client.Wait{On: true, Timeout: max(0, min(left, progressStep)).Round(time.Millisecond)})
		if err != nil {
			shown.clear()
			return a, &exitError{exitUncertain, fmt.Errorf("%s is committed, but how far it has come is unknown: %w", id, err)}
		}
		next.Created = a.Created
		a = next
		e := a.Data.Enforcement
		if e == nil {
			e = &client.Enforcement{}
			a.Data.Enforcement = e
		}
		e.ElapsedMS = time.Since(began).Milliseconds()
		if e.Complete || time.Since(began) >= timeout {
			shown.clear()
			return a, nil
		}
		shown.draw(laggards(e))
	}
}

func lastLease(s registry.SidecarState) (last registry.Time) {
	for _, t := range s.Until {
		last = max(last, t)
	}
	return last
}

// verdict turns how far it has come into the exit code.
func verdict(e *client.Enforcement) error {
	if e == nil || !e.Complete {
		pending := 0
		if e != nil {
			for _, s := range e.Sidecars {
				if s.State == registry.Pending {
					pending++
				}
			}
		}
		return &exitError{exitUncertain, fmt.Errorf("committed, but not complete yet: %d sidecar(s) have not acknowledged it, and may serve the older register until their leases end", pending)}
	}
	var lapsed []string
	for _, s := range e.Sidecars {
		if s.State == registry.Lapsed {
			lapsed = append(lapsed, s.ID)
		}
	}
	if lapsed != nil {
		return &exitError{exitLapsed, fmt.Errorf("done; silent and therefore refusing everything: %s", strings.Join(lapsed, ", "))}
	}
	return nil
}

func (g *globals) showSuspension(a *client.Answer[client.Suspension], did string) error {
	if g.structured() {
		return g.printRaw(a.Raw)
	}
	s := &a.Data
	if !a.Created && did == "suspended" {
		did = "suspended already"
	}
	line := fmt.Sprintf("%s %s %s %s", s.ID, s.Subject.Kind, s.Subject.ID, did)
	switch {
	case s.LiftedAt != 0:
	case s.Expires == 0:
		line += ", until lifted"
	default:
		line += ", until " + s.Expires.String()
	}
	if s.Emergency {
		line += " (emergency)"
	}
	fmt.Fprintln(g.stdout, printable(line))
	e := s.Enforcement
	if e == nil {
		return nil
	}
	held := 0
	var rows [][]string
	for _, x := range e.Sidecars {
		until := ""
		switch x.State {
		case registry.Acknowledged:
			held++
		case registry.Pending:
			until = "may serve until " + lastLease(x).String()
		}
		rows = append(rows, []string{x.ID, x.State, revision(x.Revision), until})
	}
	fmt.Fprintf(g.stdout, "%d of %d sidecars hold it after %d ms\n", held, len(e.Sidecars), e.ElapsedMS)
	if len(e.P1OnlyServices) > 0 && s.LiftedAt == 0 {
		fmt.Fprintf(g.stdout, "calls allowed before may still reach services that verify no admission stamp: %s\n", printable(strings.Join(e.P1OnlyServices, ", ")))
	}
	if len(e.Sidecars) == 0 {
		fmt.Fprintln(g.stderr, "no sidecar is on the roll: nothing serves, or nothing can be seen to")
	}
	if held == len(e.Sidecars) && !g.terminal || len(rows) == 0 {
		return nil
	}
	return g.table(g.stdout, []string{"SIDECAR", "STATE", "REVISION", ""}, rows)
}
