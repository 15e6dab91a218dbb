package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/translog"
)

// The witness protocol of C2SP tlog-witness, both ends: POST /add-checkpoint
// with "old SIZE", the consistency proof a line for each hash, an empty line and
// the checkpoint.

const (
	witnessBytesMax  = 64 << 10
	witnessHashesMax = 63
	witnessTimeout   = 10 * time.Second
	witnessSizeType  = "text/x.tlog.size"
)

// WitnessClient asks one witness over HTTP.
type WitnessClient struct {
	url      string
	verifier note.Verifier
	http     *http.Client
}

// NewWitnessClient makes the client of the witness at a URL, whose
// cosignatures verifier is of.
func NewWitnessClient(url string, verifier note.Verifier) *WitnessClient {
	return &WitnessClient{strings.TrimSuffix(url, "/"), verifier, &http.Client{
		Timeout:       witnessTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Verifier implements translog.RemoteWitness.
func (c *WitnessClient) Verifier() note.Verifier { return c.verifier }

// AddCheckpoint implements translog.RemoteWitness.
func (c *WitnessClient) AddCheckpoint(ctx context.Context, old int64, proof tlog.TreeProof, checkpoint []byte) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteByte('\n')
	b.Write(checkpoint)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/add-checkpoint", &b)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, witnessBytesMax))
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusOK:
		return body, nil
	case resp.StatusCode == http.StatusConflict && resp.Header.Get("Content-Type") == witnessSizeType:
		size, err := strconv.ParseInt(strings.TrimSpace(string(body)), 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("its size is %q", cut(string(body), 40))
		}
		return nil, &translog.WitnessSizeError{Size: size}
	}
	return nil, fmt.Errorf("it answered %d: %s", resp.StatusCode, cut(strings.TrimSpace(string(body)), 200))
}

// NewWitnessHandler serves a witness.
func NewWitnessHandler(w *translog.Witness, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", func(rw http.ResponseWriter, r *http.Request) {
		old, proof, checkpoint, err := readAddCheckpoint(http.MaxBytesReader(rw, r.Body, witnessBytesMax))
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		line, err := w.AddCheckpoint(old, proof, checkpoint)
		var size *translog.WitnessSizeError
		switch {
		case err == nil:
			_, _ = rw.Write(line) // the log hung up: it asks again
		case errors.As(err, &size):
			rw.Header().Set("Content-Type", witnessSizeType)
			rw.WriteHeader(http.StatusConflict)
			fmt.Fprintf(rw, "%d\n", size.Size)
		case errors.Is(err, translog.ErrSignature):
			http.Error(rw, "the checkpoint is not signed by the log this witness knows", http.StatusForbidden)
		case errors.Is(err, translog.ErrProof):
			log.ErrorContext(r.Context(), "a checkpoint that does not extend the one before was refused", "err", err)
			http.Error(rw, translog.ErrProof.Error(), http.StatusUnprocessableEntity)
		case errors.Is(err, registry.ErrInvalid):
			http.Error(rw, err.Error(), http.StatusBadRequest)
		default:
			log.ErrorContext(r.Context(), "checkpoint not cosigned", "err", err)
			http.Error(rw, "something went wrong here", http.StatusInternalServerError)
		}
	})
	return mux
}

func readAddCheckpoint(r io.Reader) (old int64, proof tlog.TreeProof, checkpoint []byte, err error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return 0, nil, nil, err
	}
	head, checkpoint, ok := bytes.Cut(b, []byte("\n\n"))
	if !ok {
		return 0, nil, nil, errors.New("an empty line goes between the proof and the checkpoint")
	}
	lines := bufio.NewScanner(bytes.NewReader(head))
	if !lines.Scan() {
		return 0, nil, nil, errors.New("the first line is: old SIZE")
	}
	size, ok := strings.CutPrefix(lines.Text(), "old ")
	if old, err = strconv.ParseInt(size, 10, 64); !ok || err != nil || old < 0 || strconv.FormatInt(old, 10) != size {
		return 0, nil, nil, errors.New("the first line is: old SIZE")
	}
	for lines.Scan() {
		h, err := base64.StdEncoding.Strict().DecodeString(lines.Text())
		if err != nil || len(h) != tlog.HashSize || len(proof) == witnessHashesMax {
			return 0, nil, nil, fmt.Errorf("a proof is at most %d lines, each the base64 of 32 bytes", witnessHashesMax)
		}
		proof = append(proof, tlog.Hash(h))
	}
	return old, proof, checkpoint, lines.Err()
}
