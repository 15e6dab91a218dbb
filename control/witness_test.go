package control_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry/translog"
	"github.com/dspgate/dspgate/registry/translog/translogtest"
)

// TestWitnessOverHTTP: a log has its checkpoints cosigned over the network, and
// everything else that is sent to the witness is refused with the protocol's status.
func TestWitnessOverHTTP(t *testing.T) {
	logKey, logPub, err := note.GenerateKey(nil, "audit.example")
	if err != nil {
		t.Fatal(err)
	}
	witKey, witPub, err := note.GenerateKey(nil, "witness.example")
	if err != nil {
		t.Fatal(err)
	}
	signer, err1 := note.NewSigner(logKey)
	verifier, err2 := note.NewVerifier(logPub)
	cosigner, err3 := fnote.NewSignerForCosignatureV1(witKey)
	coverifier, err4 := fnote.NewVerifierForCosignatureV1(witPub)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		t.Fatal(err)
	}
	w := translog.NewWitness(verifier, cosigner, filepath.Join(t.TempDir(), "state"))
	srv := httptest.NewServer(control.NewWitnessHandler(w, slog.New(slog.DiscardHandler)))
	defer srv.Close()
	l, err := translog.New(&translogtest.Memory{}, translog.Config{
		Signer: signer, Verifier: verifier, WitnessEvery: 1,
		Witnesses: []translog.RemoteWitness{control.NewWitnessClient(srv.URL+"/", coverifier)},
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, l.Run)
	for i := range 3 {
		if err := l.Append(context.Background(), translog.Leaf{Kind: translog.KindRead, Actor: "a"}, translog.Leaf{Kind: translog.KindRead, Actor: "b"}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the checkpoint is cosigned", func() bool {
			n, err := note.Open(l.Cosigned(), note.VerifierList(verifier, coverifier))
			return err == nil && len(n.Sigs) == 2 && strings.Contains(n.Text, []string{"\n2\n", "\n4\n", "\n6\n"}[i])
		})
	}
	signed, _, err := l.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		status     int
	}{
		{"nothing", "", 400}, {"no proof", "old 6\n", 400}, {"size", "old -1\n\n" + string(signed), 400}, {"padded size", "old 06\n\n" + string(signed), 400},
		{"hash", "old 2\nnot base64\n\n" + string(signed), 400}, {"too many", "old 2\n" + strings.Repeat("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", 64) + "\n" + string(signed), 400},
		{"another size", "old 2\n\n" + string(signed), 409}, {"not signed", "old 6\n\naudit.example\n7\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n", 403},
		{"same again", "old 6\n\n" + string(signed), 200},
	} {
		resp, err := http.Post(srv.URL+"/add-checkpoint", "text/plain", strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status {
			t.Errorf("%s: %d, want %d", c.name, resp.StatusCode, c.status)
		}
	}
}
