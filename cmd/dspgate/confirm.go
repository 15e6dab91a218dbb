package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// confirming makes a command that stops or ends something ask which control
// plane is meant, when that is not on this machine: one who has production's
// address in the environment and means the test system must not find out from
// the callers. On a terminal the name is typed; elsewhere --on says it.
func confirming(g *globals, cmd *cobra.Command) *cobra.Command {
	var on string
	cmd.Flags().StringVar(&on, "on", "", "the host name of the control plane that is meant; needed for one that is not on this machine, unless it is typed when asked")
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := g.confirm(on, cmd.CommandPath()); err != nil {
			return err
		}
		return run(cmd, args)
	}
	return cmd
}

// confirm holds the control plane in the environment against the one that is meant.
func (g *globals) confirm(on, command string) error {
	u, err := url.Parse(g.getenv("DSPGATE_URL"))
	if err != nil || u.Host == "" {
		if on != "" {
			return usageError("--on goes with DSPGATE_URL: a demo is on this machine")
		}
		return nil // connect tells what is wrong with it
	}
	host := u.Hostname()
	switch {
	case on != "" && !strings.EqualFold(on, host):
		return usageError("DSPGATE_URL is of %s, and --on says %s: nothing was done", printable(host), printable(on))
	case on != "" || isLoopback(host):
		return nil
	case !g.terminal || g.stdin == nil:
		return usageError("%s acts on %s, which is not on this machine: say so with --on %s", command, printable(host), printable(host))
	}
	fmt.Fprintf(g.stderr, "%s acts on %s. Type its name to go on: ", command, printable(host))
	line, err := bufio.NewReader(io.LimitReader(g.stdin, 1024)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if !strings.EqualFold(strings.TrimSpace(line), host) {
		return usageError("that is not its name: nothing was done")
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// refuseSecrets tells of what must not stand on a command line: everybody on the
// machine can read it, and so can whoever reads the shell's history.
func refuseSecrets(args []string) error {
	for _, a := range args {
		name, _, _ := strings.Cut(strings.ToLower(a), "=")
		switch name {
		case "--token", "--bearer", "--password", "--authorization":
			return usageError("%s: no secret goes on the command line, where others can read it; set DSPGATE_TOKEN or use --token-file, and get a new token if this was a real one", name)
		case "--insecure", "--insecure-skip-verify", "--tls-skip-verify", "--no-verify", "-k":
			return usageError("%s: the control plane's certificate is always verified; if its issuer is your own, name it in SSL_CERT_FILE", name)
		}
		if word := strings.TrimSpace(a); strings.HasPrefix(strings.ToLower(word), "bearer ") || strings.HasPrefix(word, "eyJ") && strings.Count(word, ".") == 2 {
			return usageError("an argument looks like a token: none goes on the command line, where others can read it; get a new one if it was real")
		}
	}
	return nil
}
