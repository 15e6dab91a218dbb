package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/internal/config"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/translog"
)

// auditConfig is the audit log of a control plane.
type auditConfig struct {
	// KeyFile holds the key that signs checkpoints, as `dspgate audit key` makes
	// it; the same for every control plane. Without one there is no audit log.
	KeyFile string `yaml:"key_file"`
	// Witnesses are asked to cosign every checkpoint.
	Witnesses []witnessConfig `yaml:"witnesses"`
}

type witnessConfig struct {
	// URL is where the witness answers POST /add-checkpoint.
	URL string `yaml:"url"`
	// Key is the witness's public key, as a signed note names it.
	Key string `yaml:"key"`
}

// openAudit makes the audit log; nil when none is configured.
func openAudit(cfg controlConfig, store *redisstore.Store, reg prometheus.Registerer, log *slog.Logger) (*translog.Log, error) {
	if cfg.Audit.KeyFile == "" {
		return nil, nil
	}
	signer, verifier, err := readNoteKey(cfg.Audit.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("audit.key_file: %w", err)
	}
	forked := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "audit_forked_total", Help: "Times the stored audit log was found not to extend what was signed before; appends are refused meanwhile.",
	})
	reg.MustRegister(forked)
	tc := translog.Config{
		Signer: signer, Verifier: verifier, StateFile: filepath.Join(cfg.StateDir, cfg.ID+".audit"), Log: log,
		OnForked: func(error) { forked.Inc() },
	}
	for i, w := range cfg.Audit.Witnesses {
		v, err := fnote.NewVerifierForCosignatureV1(w.Key)
		if err != nil || w.URL == "" {
			return nil, usageError("audit.witnesses[%d]: needs a url and a key such as name+1a2b3c4d+AT…", i)
		}
		tc.Witnesses = append(tc.Witnesses, control.NewWitnessClient(w.URL, v))
	}
	l, err := translog.New(store.Audit(), tc)
	if err != nil {
		return nil, err
	}
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "audit_entries", Help: "Entries of the audit log's newest checkpoint.",
	}, func() float64 {
		st, err := l.State()
		if err != nil {
			return 0
		}
		return float64(st.Size)
	}))
	return l, nil
}

// readNoteKey reads a signing key and derives its verifier. The signature of a
// probe tells whether they belong together.
func readNoteKey(path string) (note.Signer, note.Verifier, error) {
	b, err := config.ReadSecret(path)
	if err != nil {
		return nil, nil, err
	}
	signer, verifier, err := fnote.NewEd25519SignerVerifier(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, nil, errors.New("holds no signing key; make one with: dspgate audit key NAME FILE")
	}
	return signer, verifier, nil
}

// makeNoteKey writes a new signing key to path and its public half to path+".pub".
func makeNoteKey(name, path string) (public string, err error) {
	private, public, err := note.GenerateKey(nil, name)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	_, werr := f.WriteString(private + "\n")
	if err := errors.Join(werr, f.Close()); err != nil {
		return "", err
	}
	return public, writeFile(path+".pub", []byte(public+"\n"), 0o644)
}
