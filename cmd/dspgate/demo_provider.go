package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/internal/sandboxop"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/sample"
)

// The demo's identity provider: real OpenID Connect, fictional people, one
// password for all of them, made new for each folder.

const consoleClientID = "dspgate-console"

// demoPeople are the agency's staff and the contact of every sample entity.
func demoPeople() []sandboxop.Person {
	people := []sandboxop.Person{
		{Email: "operator@agency.example", Name: "Olive Operator", Roles: []string{"operator", "incident-officer", "registrar"}},
		{Email: "operator2@agency.example", Name: "Otto Operator", Roles: []string{"operator", "registrar"}},
		{Email: "registrar@agency.example", Name: "Rhea Registrar", Roles: []string{"registrar"}},
		{Email: "assessor@agency.example", Name: "Asa Assessor", Roles: []string{"assessor"}},
		{Email: "assessor2@agency.example", Name: "Ari Assessor", Roles: []string{"assessor"}},
		{Email: "officer@agency.example", Name: "Ines Incident", Roles: []string{"incident-officer"}},
		{Email: "auditor@agency.example", Name: "Abel Auditor", Roles: []string{"auditor"}},
	}
	for _, r := range sample.Records(time.Now()) {
		if e, ok := r.(registry.Entity); ok {
			people = append(people, sandboxop.Person{Email: e.Contact, Name: e.Name})
		}
	}
	return append(people, sandboxop.Person{Email: "newcomer@elsewhere.example", Name: "Nia Newcomer"})
}

// startProvider runs the provider in this process and notes what the control
// plane must know of it.
func (d *demo) startProvider(ctx context.Context) error {
	for _, name := range []string{"console.secret", "console.password"} {
		if _, err := os.Stat(d.path("key", name)); err == nil {
			continue
		}
		secret := randomHex(16)
		if name == "console.password" {
			secret = secret[:12] // typed by people, for a provider on loopback
		}
		if err := writeFile(d.path("key", name), []byte(secret+"\n"), 0o600); err != nil {
			return err
		}
	}
	read := func(name string) (string, error) {
		b, err := os.ReadFile(d.path("key", name))
		return strings.TrimSpace(string(b)), err
	}
	secret, err1 := read("console.secret")
	password, err2 := read("console.password")
	ln, err3 := d.listenAsBefore("provider")
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	d.info.SignIn, d.info.ConsolePassword = "http://"+ln.Addr().String(), password
	h, err := sandboxop.New(sandboxop.Config{
		Issuer: d.info.SignIn, ClientID: consoleClientID, ClientSecret: secret,
		RedirectURI: d.info.Control + signin.PathCallback, Password: password, People: demoPeople(),
	})
	if err != nil {
		ln.Close()
		return err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { srv.Close() })
	go func() {
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(d.out, "identity provider:", err)
		}
	}()
	return nil
}

// listenAsBefore listens where the demo did in this folder at its last start, if
// that is free: the address is in tokens and in bookmarks.
func (d *demo) listenAsBefore(name string) (net.Listener, error) {
	kept := d.path("issuer", name+".address")
	addr := "127.0.0.1:0"
	if b, err := os.ReadFile(kept); err == nil {
		addr = string(b)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, err
		}
	}
	if err := writeFile(kept, []byte(ln.Addr().String()), 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}
