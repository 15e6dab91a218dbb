package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dspgate/dspgate/authz/token/issue"
)

// The demo's sandbox issuer: PEM keys in DIR/issuer, their public halves as a
// JWKS at the issuer's URL. A key added to the folder, or taken away, is seen
// at the next fetch.

// demoAlgorithms are what the demo's issuer signs with, a key for each; the
// first is what `dspgate token` takes unless told otherwise.
var demoAlgorithms = []string{"ES256", "RS256", "PS256", "EdDSA"}

func issuerKeyPath(dir, alg string) string { return filepath.Join(dir, "issuer", alg+".pem") }

func (d *demo) startIssuer(ctx context.Context) error {
	d.info.IssuerKeys = d.path("issuer")
	for _, alg := range demoAlgorithms {
		path := issuerKeyPath(d.dir, alg)
		if _, err := os.Stat(path); err == nil {
			continue
		}
		s, err := issue.Generate("demo-"+alg, alg)
		if err != nil {
			return err
		}
		if err := s.Save(path); err != nil {
			return err
		}
	}
	// The issuer's name is in its tokens and in the sidecars' configuration, so
	// that it should stay the same from start to start where the port is free.
	addr := "127.0.0.1:0"
	if b, err := os.ReadFile(d.path("issuer", "address")); err == nil {
		addr = string(b)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return err
		}
	}
	if err := writeFile(d.path("issuer", "address"), []byte(ln.Addr().String()), 0o600); err != nil {
		return err
	}
	d.info.Issuer = "http://" + ln.Addr().String()
	srv := &http.Server{Handler: d.issuerHandler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(d.out, "token issuer:", err)
		}
	}()
	return nil
}

func (d *demo) issuerHandler() http.Handler {
	mux := http.NewServeMux()
	jwks := func(w http.ResponseWriter, r *http.Request) {
		b, err := issuerJWKS(d.path("issuer"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Header().Set("Cache-Control", "max-age=60")
		_, _ = w.Write(b) // fails only when the client hung up
	}
	mux.HandleFunc("GET /{$}", jwks)
	mux.HandleFunc("GET /jwks.json", jwks)
	mux.HandleFunc("GET /.well-known/jwks.json", jwks)
	// RFC 8414 metadata, for clients that look for the key set that way.
	mux.HandleFunc("GET /.well-known/oauth-authorization-server", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": d.info.Issuer, "jwks_uri": d.info.Issuer}) // fails only when the client hung up
	})
	return mux
}

func issuerJWKS(dir string) ([]byte, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, err
	}
	slices.Sort(paths)
	var signers []*issue.Signer
	for _, p := range paths {
		s, err := issue.Load(p)
		if err != nil {
			return nil, err
		}
		signers = append(signers, s)
	}
	return issue.JWKS(signers...)
}
