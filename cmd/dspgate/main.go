// Command dspgate is the software register's gate: the sidecar beside Envoy,
// the control plane, a demonstration of both, and the commands of the people
// who operate them or develop against them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
)

// The exit codes are a contract.
const (
	exitDone      = 0
	exitFailed    = 1
	exitUsage     = 2
	exitLapsed    = 3 // done, but a sidecar lapsed
	exitUncertain = 4 // committed, but not complete yet
)

func main() {
	g := &globals{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv,
		terminal: isatty.IsTerminal(os.Stdout.Fd()), errTerminal: isatty.IsTerminal(os.Stderr.Fd()),
	}
	os.Exit(execute(context.Background(), g, os.Args[1:]))
}

// globals are what every command shares: where it writes, and what it was told
// about the control plane.
type globals struct {
	stdin          io.Reader // what a person types; nil: nobody is there
	stdout, stderr io.Writer
	getenv         func(string) string
	terminal       bool // stdout is one: tables
	errTerminal    bool // stderr is one: progress

	output    string // table, json, yaml, or "" for the one that fits stdout
	dir       string
	dirGiven  bool
	as        string
	tokenFile string
}

// execute runs one command line and picks the exit code.
func execute(ctx context.Context, g *globals, args []string) int {
	root := newRootCmd(g)
	root.SetArgs(args)
	root.SetOut(g.stdout)
	root.SetErr(g.stderr)
	err := refuseSecrets(args)
	if err == nil {
		err = root.ExecuteContext(ctx)
	}
	if err == nil {
		return exitDone
	}
	code := exitFailed
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		code = exit.code
	case strings.HasPrefix(err.Error(), "unknown command"):
		code = exitUsage // cobra has no type for it
		err = errors.New(strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", " "))
	}
	if text := err.Error(); text != "" {
		fmt.Fprintf(g.stderr, "dspgate: %s\n", printable(text))
	}
	return code
}

// exitError is an error with an exit code of its own. Its text may be empty:
// then all was said already.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// usageError is a command line or configuration that is wrong: exit code 2.
func usageError(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

func newRootCmd(g *globals) *cobra.Command {
	root := &cobra.Command{
		Use:           "dspgate",
		Short:         "Software register enforcement beside Envoy",
		Long:          "dspgate decides every request through Envoy against a register of products, and runs that register.",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError("%v; see %s --help", err, cmd.CommandPath())
	})
	root.AddGroup(&cobra.Group{ID: "run", Title: "Run:"}, &cobra.Group{ID: "operate", Title: "Operate:"}, &cobra.Group{ID: "register", Title: "Register:"}, &cobra.Group{ID: "assure", Title: "Assure:"})
	add := func(group string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("run", newDemoCmd(g), newControlCmd(g), newSidecarCmd(g), newTokenCmd(g))
	add("operate", newSuspendCmd(g), newLiftCmd(g), newConfirmCmd(g), newSuspensionCmd(g), newIncidentCmd(g), newPolicyCmd(g), newAlarmCmd(g), newSignalCmd(g), newMissingFieldCmd(g), newProtectedCmd(g), newNoticeCmd(g), newDenialCmd(g),
		newExplainCmd(g), newDecisionCmd(g), newEventsCmd(g), newStatusCmd(g), newOverviewCmd(g), newChangeCmd(g), newAuditCmd(g), newReplayCmd(g))
	add("register", newEntityCmd(g), newProductCmd(g), newCertificationCmd(g), newClientAppCmd(g), newCredentialCmd(g),
		newSubscriptionCmd(g), newServiceCmd(g), newLimitCmd(g), newImportCmd(g), newExportCmd(g))
	add("assure", newRequirementCmd(g), newEditionCmd(g), newEvidenceCmd(g), newVerificationCmd(g), newFindingCmd(g), newDrawCmd(g), newAddOnCmd(g), newEcosystemCmd(g), newGapCmd(g), newReportCmd(g), newThreatCmd(g))
	upstream := newUpstreamCmd(g) // one of the demo's processes
	upstream.Hidden = true
	root.AddCommand(upstream, newBenchCmd(g), newVersionCmd(g))
	return root
}

func newVersionCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactArgs(),
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(g.stdout, "dspgate", version())
			return nil
		},
	}
}

// version is the module's version, or the commit it was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				return "devel-" + s.Value[:min(12, len(s.Value))]
			}
		}
		return "devel"
	}
	return v
}

// exactArgs wants exactly the named arguments.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == len(names) && !slices.Contains(args, "") {
			return nil
		}
		if len(names) == 0 {
			return usageError("%s takes no arguments", cmd.CommandPath())
		}
		return usageError("%s takes %s; see --help", cmd.CommandPath(), strings.Join(names, " "))
	}
}

// parent is a command that only holds others.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short,
		Args: cobra.ArbitraryArgs, // answered by RunE, with what there is
		RunE: func(cmd *cobra.Command, args []string) error {
			var names []string
			for _, c := range cmd.Commands() {
				if c.IsAvailableCommand() {
					names = append(names, c.Name())
				}
			}
			if len(args) == 0 {
				return usageError("say what to do: %s %s", cmd.CommandPath(), strings.Join(names, "|"))
			}
			return usageError("%s has no command %q; use one of %s", cmd.CommandPath(), args[0], strings.Join(names, ", "))
		},
	}
	cmd.AddCommand(children...)
	return cmd
}
