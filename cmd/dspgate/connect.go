package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/dspgate/dspgate/control/client"
)

// Address and token of the control plane come from the environment, a file or
// a running demo, never from the command line, which everybody on the machine
// can read.

const defaultDir = ".run"

// demoRoles are whose token of a demo a command may use.
var demoRoles = []string{"operator", "operator2", "registrar", "assessor", "auditor", "developer"}

// connected adds the flags of a command that calls the control plane. as is
// whose token of a demo it uses when it is not told.
func connected(g *globals, as string, cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	// Kept per command: pflag writes a default at once, and the last would win.
	var output, dir, role, tokenFile string
	f.StringVarP(&output, "output", "o", "", "table, json or yaml (default: a table on a terminal, plain lines otherwise)")
	f.StringVar(&dir, "dir", defaultDir, "folder of a running demo, used unless DSPGATE_URL is set")
	f.StringVar(&role, "as", as, "whose token of the demo: "+strings.Join(demoRoles, ", "))
	f.StringVar(&tokenFile, "token-file", "", "file that holds the token (instead of DSPGATE_TOKEN), readable by you alone")
	_ = cmd.RegisterFlagCompletionFunc("output", fixed("table", "json", "yaml"))
	_ = cmd.RegisterFlagCompletionFunc("as", fixed(demoRoles...))
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		g.output, g.dir, g.as, g.tokenFile = output, dir, role, tokenFile
		g.dirGiven = cmd.Flags().Changed("dir")
		if !slices.Contains([]string{"", "table", "json", "yaml"}, g.output) {
			return usageError("-o %s: use table, json or yaml", g.output)
		}
		return run(cmd, args)
	}
	return cmd
}

func fixed(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// connect makes the client.
func (g *globals) connect() (*client.Client, error) {
	address := g.getenv("DSPGATE_URL")
	if address != "" && g.dirGiven {
		return nil, usageError("both --dir and DSPGATE_URL (%s) say which control plane is meant: leave one out", address)
	}
	var token string
	var err error
	if address == "" {
		if address, token, err = g.demo(); err != nil {
			return nil, err
		}
	} else {
		token = g.getenv("DSPGATE_TOKEN")
	}
	if g.tokenFile != "" {
		if token, err = readTokenFile(g.tokenFile); err != nil {
			return nil, err
		}
	}
	if token == "" {
		return nil, usageError("no token: set DSPGATE_TOKEN, or name a file with --token-file")
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, usageError("the token holds spaces or line breaks: it should be one line and nothing else")
	}
	c, err := client.New(address, token)
	if err != nil {
		return nil, usageError("%v", err)
	}
	return c, nil
}

// demo reads where a running demo is and the token of a role.
func (g *globals) demo() (address, token string, err error) {
	path := filepath.Join(g.dir, "demo.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if !g.dirGiven {
			return "", "", usageError("which control plane? Set DSPGATE_URL and DSPGATE_TOKEN, or start a demo (dspgate demo), or name its folder with --dir")
		}
		return "", "", usageError("no demo runs in %s: there is no %s", g.dir, path)
	}
	if err != nil {
		return "", "", err
	}
	var info map[string]any
	if err := json.Unmarshal(b, &info); err != nil {
		return "", "", fmt.Errorf("%s is not what a demo writes: %w", path, err)
	}
	if !slices.Contains(demoRoles, g.as) {
		return "", "", usageError("--as %s: use one of %s", g.as, strings.Join(demoRoles, ", "))
	}
	address, _ = info["control"].(string)
	token, _ = info[g.as+"_token"].(string)
	if token == "" && g.as == "registrar" {
		token, _ = info["operator_token"].(string) // the demo's operator is its registrar too
	}
	if address == "" || token == "" {
		return "", "", fmt.Errorf("%s names no control plane or no token for %s: start the demo again", path, g.as)
	}
	return address, token, nil
}

func readTokenFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", usageError("token file: %v", err)
	}
	if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
		return "", usageError("token file %s can be read by others: chmod 600 it, and get a new token", path)
	}
	if info.Size() > 4096 {
		return "", usageError("token file %s is larger than a token", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
