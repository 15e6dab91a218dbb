package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/registry/translog"
)

// The audit log: exported, checked offline, witnessed.

func newAuditCmd(g *globals) *cobra.Command {
	return parent("audit", "The log of every change and every reading of personal data",
		newAuditListCmd(g), newAuditCheckpointCmd(g), newAuditExportCmd(g), newAuditVerifyCmd(g), newAuditKeyCmd(g), newAuditWitnessCmd(g))
}

type auditCheckpoint struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Checkpoint string `json:"checkpoint"`
	Cosigned   string `json:"cosigned"`
}

type auditEntry struct {
	Index int64  `json:"index"`
	Leaf  string `json:"leaf"`
}

func newAuditListCmd(g *globals) *cobra.Command {
	leaf := func(e *auditEntry) translog.Leaf {
		l, err := translog.ParseLeaf([]byte(e.Leaf))
		if err != nil {
			return translog.Leaf{Kind: "unreadable"}
		}
		return l
	}
	return listCmd(g, "auditor", "List entries, the oldest first", []string{"audit", "entries"}, []column[auditEntry]{
		{"INDEX", func(e *auditEntry) string { return strconv.FormatInt(e.Index, 10) }},
		{"AT", func(e *auditEntry) string { return leaf(e).At.String() }},
		{"KIND", func(e *auditEntry) string { return leaf(e).Kind }},
		{"ACTOR", func(e *auditEntry) string { return leaf(e).Actor }},
		{"COMMAND", func(e *auditEntry) string { return leaf(e).Command }},
		{"SUBJECTS", func(e *auditEntry) string { return strings.Join(leaf(e).Subjects, " ") }},
	}, filterFlag{"after", "after", "leave out so many from the beginning"})
}

func newAuditCheckpointCmd(g *globals) *cobra.Command {
	return connected(g, "auditor", &cobra.Command{
		Use: "checkpoint", Short: "Print the newest signed checkpoint, to be kept",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := g.connect()
			if err != nil {
				return err
			}
			a, err := client.Do[auditCheckpoint](cmd.Context(), c, client.Request{Path: client.Path("audit", "checkpoint")})
			if err != nil {
				return err
			}
			if g.structured() {
				return g.printRaw(a.Raw)
			}
			fmt.Fprint(g.stdout, cmp.Or(a.Data.Cosigned, a.Data.Checkpoint))
			return nil
		},
	})
}

func newAuditExportCmd(g *globals) *cobra.Command {
	return connected(g, "auditor", &cobra.Command{
		Use: "export FILE", Short: "Write all entries and the checkpoint to a file, for audit verify",
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			c, err := g.connect()
			if err != nil {
				return err
			}
			head, err := client.Do[auditCheckpoint](cmd.Context(), c, client.Request{Path: client.Path("audit", "checkpoint")})
			if err != nil {
				return err
			}
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			w := bufio.NewWriter(f)
			if err := translog.WriteExport(w, []byte(head.Data.Checkpoint)); err != nil {
				return err
			}
			// The log may have grown since: what the checkpoint covers, and no more.
			for n := int64(0); n < head.Data.Size; {
				most := min(head.Data.Size-n, 100)
				q := url.Values{"after": {strconv.FormatInt(n, 10)}, "limit": {strconv.FormatInt(most, 10)}}
				a, err := client.Do[[]auditEntry](cmd.Context(), c, client.Request{Path: client.Path("audit", "entries"), Query: q})
				if err != nil {
					return err
				}
				if len(a.Data) == 0 {
					return fmt.Errorf("entries end at %d of %d", n, head.Data.Size)
				}
				for _, e := range a.Data[:min(int64(len(a.Data)), most)] {
					if err := translog.WriteEntry(w, translog.Entry{Index: e.Index, Leaf: []byte(e.Leaf)}); err != nil {
						return err
					}
					n++
				}
			}
			if err := w.Flush(); err != nil {
				return err
			}
			fmt.Fprintf(g.stdout, "%d entries of %s written to %s\n", head.Data.Size, printable(head.Data.Origin), args[0])
			return nil
		},
	})
}

func newAuditVerifyCmd(g *globals) *cobra.Command {
	var key string
	var earlier, witnesses []string
	cmd := &cobra.Command{
		Use: "verify FILE", Short: "Check an export offline",
		Long: "Computes the tree from the entries of an export and holds it against the signed checkpoint in it, against\n" +
			"checkpoints kept from earlier (--checkpoint), and asks for the cosignatures of witnesses (--witness).\n" +
			"It needs the log's public key and nothing else: no network, no control plane.",
		Args: exactArgs("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			if key == "" {
				return usageError("name the file with the log's public key: --key audit.key.pub")
			}
			c := translog.Check{}
			var err error
			if c.Log, err = readVerifier(key, note.NewVerifier); err != nil {
				return err
			}
			for _, path := range earlier {
				b, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				c.Earlier = append(c.Earlier, b)
			}
			for _, path := range witnesses {
				v, err := readVerifier(path, fnote.NewVerifierForCosignatureV1)
				if err != nil {
					return err
				}
				c.Witnesses = append(c.Witnesses, v)
			}
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			rep, err := translog.Verify(f, c)
			if err != nil {
				return fmt.Errorf("%s: NOT genuine: %w", args[0], err)
			}
			g.printReport(rep, len(c.Witnesses))
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "file with the log's public key")
	f.StringArrayVar(&earlier, "checkpoint", nil, "file with a checkpoint kept from earlier; may be repeated")
	f.StringArrayVar(&witnesses, "witness", nil, "file with a witness's public key; may be repeated")
	return cmd
}

func (g *globals) printReport(rep *translog.Report, witnesses int) {
	fmt.Fprintf(g.stdout, "genuine: %d entries, root %v\n", rep.Tree.N, rep.Tree.Hash)
	fmt.Fprintf(g.stdout, "changes of the register up to revision %d, none missing\n", rep.Revision)
	var kinds []string
	for k, n := range rep.Kinds {
		kinds = append(kinds, fmt.Sprintf("%s %d", printable(k), n))
	}
	slices.Sort(kinds)
	fmt.Fprintf(g.stdout, "by kind: %s\n", strings.Join(kinds, ", "))
	if rep.Extended > 0 {
		fmt.Fprintf(g.stdout, "extends each of %d earlier checkpoints\n", rep.Extended)
	}
	if witnesses > 0 {
		fmt.Fprintf(g.stdout, "cosigned by each of %d witnesses\n", witnesses)
	}
}

func readVerifier[V note.Verifier](path string, parse func(string) (V, error)) (v V, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	if v, err = parse(strings.TrimSpace(string(b))); err != nil {
		return v, usageError("%s holds no public key such as name+1a2b3c4d+AT…", path)
	}
	return v, nil
}

func newAuditKeyCmd(g *globals) *cobra.Command {
	return &cobra.Command{
		Use: "key NAME FILE", Short: "Make a key for a log or a witness: FILE, and FILE.pub for everybody",
		Args: exactArgs("NAME", "FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			public, err := makeNoteKey(args[0], args[1])
			if err != nil {
				return err
			}
			fmt.Fprintln(g.stdout, public)
			return nil
		},
	}
}

// newAuditWitnessCmd runs a witness. Whoever runs it should be somebody else
// than who runs the log.
func newAuditWitnessCmd(g *globals) *cobra.Command {
	var addr, logKey, key, state string
	cmd := &cobra.Command{
		Use: "witness", Short: "Run a witness: cosign a log's checkpoints as long as each extends the one before",
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if logKey == "" || key == "" || state == "" {
				return usageError("a witness needs --log-key, --key and --state")
			}
			v, err := readVerifier(logKey, note.NewVerifier)
			if err != nil {
				return err
			}
			secret, err := config.ReadSecret(key)
			if err != nil {
				return err
			}
			s, err := fnote.NewSignerForCosignatureV1(string(secret))
			if err != nil {
				return usageError("%s holds no signing key; make one with: dspgate audit key NAME FILE", key)
			}
			ctx, cancel := untilSignal(cmd.Context())
			defer cancel()
			log := newLogger(os.Stderr)
			ln, err := listen(addr)
			if err != nil {
				return err
			}
			srv := control.NewHTTPServer(control.NewWitnessHandler(translog.NewWitness(v, s, state), log), log)
			go func() {
				<-ctx.Done()
				srv.Close()
			}()
			fmt.Fprintf(g.stdout, "witness of %s on %s\n", v.Name(), ln.Addr())
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&addr, "listen", "127.0.0.1:8082", "address")
	f.StringVar(&logKey, "log-key", "", "file with the log's public key")
	f.StringVar(&key, "key", "", "file with the witness's own key")
	f.StringVar(&state, "state", "", "file that keeps the checkpoint cosigned last")
	return cmd
}
