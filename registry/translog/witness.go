package translog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
)

// RemoteWitness cosigns checkpoints (C2SP tlog-witness). The HTTP client of it
// is in control.
type RemoteWitness interface {
	// AddCheckpoint offers a checkpoint with the proof that it extends the tree
	// with old leaves, which the witness should have cosigned last. It returns the
	// signature lines; a *WitnessSizeError when the witness is at another size.
	AddCheckpoint(ctx context.Context, old int64, proof tlog.TreeProof, checkpoint []byte) ([]byte, error)
	// Verifier is of the witness's cosignatures.
	Verifier() note.Verifier
}

// WitnessSizeError says how large the tree is that a witness has cosigned last.
type WitnessSizeError struct{ Size int64 }

func (e *WitnessSizeError) Error() string { return fmt.Sprintf("the witness is at size %d", e.Size) }

// Cosigned is the newest checkpoint that every witness has cosigned; nil while
// there is none, or no witness is configured.
func (l *Log) Cosigned() []byte {
	l.cosigned.Lock()
	defer l.cosigned.Unlock()
	return l.cosigned.newest
}

// askWitnesses has each new checkpoint cosigned.
func (l *Log) askWitnesses(ctx context.Context) {
	tick := time.NewTicker(l.cfg.WitnessEvery)
	defer tick.Stop()
	var done int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		st, err := l.State()
		if err != nil || st.Size == done || st.Size == 0 {
			continue
		}
		if err := l.cosign(ctx, st); err != nil {
			l.cfg.Log.WarnContext(ctx, "checkpoint not cosigned", "size", st.Size, "err", err)
			continue
		}
		done = st.Size
	}
}

func (l *Log) cosign(ctx context.Context, st State) error {
	signed := bytes.Clone(st.Checkpoint)
	for i, w := range l.cfg.Witnesses {
		line, err := l.ask(ctx, i, w, st)
		if err != nil {
			return fmt.Errorf("witness %s: %w", w.Verifier().Name(), err)
		}
		signed = append(signed, line...)
	}
	verifiers := []note.Verifier{l.cfg.Verifier}
	for _, w := range l.cfg.Witnesses {
		verifiers = append(verifiers, w.Verifier())
	}
	n, err := note.Open(signed, note.VerifierList(verifiers...))
	if err != nil {
		return err
	}
	for _, v := range verifiers {
		if !hasSignature(n, v) {
			return fmt.Errorf("%w: %s", ErrUnwitness, v.Name())
		}
	}
	l.cosigned.Lock()
	l.cosigned.newest = signed
	l.cosigned.Unlock()
	return nil
}

func (l *Log) ask(ctx context.Context, i int, w RemoteWitness, st State) ([]byte, error) {
	for range 2 {
		old := l.cosigned.sizes[i]
		var proof tlog.TreeProof
		var err error
		if old > 0 {
			if proof, err = l.proveTree(ctx, st, old); err != nil {
				return nil, err
			}
		}
		line, err := w.AddCheckpoint(ctx, old, proof, st.Checkpoint)
		var at *WitnessSizeError
		if errors.As(err, &at) && at.Size != old {
			if at.Size > st.Size {
				return nil, fmt.Errorf("%w: it has seen %d leaves, there are %d", ErrForked, at.Size, st.Size)
			}
			l.cosigned.sizes[i] = at.Size
			continue
		}
		if err == nil {
			l.cosigned.sizes[i] = st.Size
		}
		return line, err
	}
	return nil, errors.New("the witness says another size each time")
}

// Witness cosigns the checkpoints of one log, each only when it extends all
// that it has cosigned before. It keeps the last in a file.
type Witness struct {
	log    note.Verifier
	signer note.Signer
	path   string

	mu sync.Mutex
}

// NewWitness makes a witness of the log that a verifier is of. signer makes
// cosignatures (formats/note.NewSignerForCosignatureV1).
func NewWitness(log note.Verifier, signer note.Signer, path string) *Witness {
	return &Witness{log: log, signer: signer, path: path}
}

// What AddCheckpoint refuses.
var (
	// ErrProof: the checkpoint does not extend the one cosigned last.
	ErrProof = errors.New("the proof does not show that the checkpoint extends the one cosigned last")
)

// AddCheckpoint cosigns a checkpoint and returns the signature line. The new
// state is on the disk before it does.
func (w *Witness) AddCheckpoint(old int64, proof tlog.TreeProof, checkpoint []byte) ([]byte, error) {
	tree, err := OpenCheckpoint(checkpoint, w.log)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	last, err := w.last()
	if err != nil {
		return nil, err
	}
	switch {
	case old != last.N:
		return nil, &WitnessSizeError{last.N}
	case tree.N < last.N:
		return nil, fmt.Errorf("%w: %d is before %d", registry.ErrInvalid, tree.N, last.N)
	case last.N > 0 && tlog.CheckTree(proof, tree.N, tree.Hash, last.N, last.Hash) != nil,
		last.N == 0 && len(proof) > 0:
		return nil, ErrProof
	}
	if err := writeState(w.path, checkpoint); err != nil {
		return nil, err
	}
	n, err := note.Open(checkpoint, note.VerifierList(w.log))
	if err != nil {
		return nil, err
	}
	before := len(n.Text) + 1
	n.Sigs, n.UnverifiedSigs = nil, nil
	signed, err := note.Sign(n, w.signer)
	if err != nil {
		return nil, err
	}
	return signed[before:], nil
}

func (w *Witness) last() (tlog.Tree, error) {
	b, err := os.ReadFile(w.path)
	if errors.Is(err, fs.ErrNotExist) {
		return tlog.Tree{}, nil
	}
	if err != nil {
		return tlog.Tree{}, err
	}
	var checkpoint string
	if err := json.Unmarshal(b, &checkpoint); err != nil {
		return tlog.Tree{}, fmt.Errorf("%s: %w", w.path, err)
	}
	return OpenCheckpoint([]byte(checkpoint), w.log)
}
