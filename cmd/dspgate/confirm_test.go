package main

import (
	"bytes"
	"strings"
	"testing"
)

// C13: nothing secret goes on a command line, the control plane's certificate is
// always verified, and what ends something in production is confirmed by name.
func TestC13SecretsAndSwitchesAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{"entity", "list", "--token", "sekret"},
		{"entity", "list", "--token=sekret"},
		{"entity", "list", "--password", "sekret"},
		{"entity", "list", "--insecure"},
		{"entity", "list", "-k"},
		{"entity", "show", "eyJhbGciOi.eyJzdWIi.sekret"},
		{"entity", "show", "Bearer sekret"},
	} {
		var out, errs bytes.Buffer
		g := &globals{stdout: &out, stderr: &errs, getenv: func(string) string { return "" }}
		if code := execute(t.Context(), g, args); code != exitUsage || strings.Contains(errs.String()+out.String(), "sekret") || strings.Contains(errs.String(), "unknown flag") {
			t.Errorf("%v: exit %d, %s", args, code, errs.String())
		}
	}
	var errs bytes.Buffer
	g := &globals{stdout: &errs, stderr: &errs, getenv: func(k string) string {
		return map[string]string{"DSPGATE_URL": "http://control.agency.example", "DSPGATE_TOKEN": "t"}[k]
	}}
	if code := execute(t.Context(), g, []string{"entity", "list"}); code != exitUsage || !strings.Contains(errs.String(), "in the clear") {
		t.Errorf("http to elsewhere: exit %d, %s", code, errs.String())
	}
}

func TestC13WhatEndsSomethingElsewhereIsConfirmedByName(t *testing.T) {
	const production = "https://control.agency.invalid:8443"
	run := func(url, typed string, terminal bool, args ...string) (int, string) {
		var out, errs bytes.Buffer
		g := &globals{stdout: &out, stderr: &errs, terminal: terminal, getenv: func(k string) string {
			return map[string]string{"DSPGATE_URL": url, "DSPGATE_TOKEN": "t"}[k]
		}}
		if typed != "" {
			g.stdin = strings.NewReader(typed)
		}
		return execute(t.Context(), g, args), errs.String()
	}
	commands := [][]string{
		{"suspend", "product", "FP-1003", "--reason", "x"},
		{"entity", "cancel", "65000000101", "--reason", "x"},
		{"certification", "delist", "FP-1003", "--reason", "x"},
		{"edition", "publish", "catalogue-2027.1"},
		{"add-on", "suspend", "AO-1", "--reason", "x"},
	}
	for _, c := range commands {
		if code, errs := run(production, "", false, c...); code != exitUsage || !strings.Contains(errs, "--on control.agency.invalid") {
			t.Errorf("%v unconfirmed: exit %d, %s", c, code, errs)
		}
		if code, errs := run(production, "", false, append(c, "--on", "control.test.invalid")...); code != exitUsage || !strings.Contains(errs, "nothing was done") {
			t.Errorf("%v of another: exit %d, %s", c, code, errs)
		}
		if code, errs := run(production, "test\n", true, c...); code != exitUsage || !strings.Contains(errs, "nothing was done") {
			t.Errorf("%v, another name typed: exit %d, %s", c, code, errs)
		}
		// Confirmed, it goes on as far as a host that is nowhere.
		for _, ok := range []struct {
			typed string
			more  []string
		}{{"Control.Agency.Invalid\n", nil}, {"", []string{"--on", "control.agency.invalid"}}} {
			if code, errs := run(production, ok.typed, ok.typed != "", append(c, ok.more...)...); code == exitUsage || strings.Contains(errs, "nothing was done") {
				t.Errorf("%v confirmed: exit %d, %s", c, code, errs)
			}
		}
	}
	p := newPlane(t, map[string][]string{"POST /v1/certifications/FP-1003/delist": {`200 {"data":{}}`}})
	if code, _, errs := p.dspgate(t, nil, "certification", "delist", "FP-1003", "--reason", "x"); code != 0 {
		t.Errorf("on this machine: exit %d, %s", code, errs)
	}
}
