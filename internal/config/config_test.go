package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type sample struct {
	ID    string `yaml:"id"`
	Lease struct {
		Short time.Duration `yaml:"short"`
		Long  time.Duration `yaml:"long"`
	} `yaml:"lease"`
	Redis   struct{ Addrs []string } `yaml:"redis"`
	Issuers []struct {
		Issuer   string `yaml:"issuer"`
		JWKSFile string `yaml:"jwks_file"`
	} `yaml:"issuers"`
}

func write(t *testing.T, text string) string {
	p := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFileThenEnvironmentThenSet(t *testing.T) {
	var c sample
	c.Lease.Short, c.Lease.Long = time.Second, time.Minute
	path := write(t, "id: a\nlease:\n  short: 3s\nissuers:\n- issuer: x\n")
	err := Load(path, &c, []string{"DSPGATE_ID=b", "DSPGATE_REDIS_ADDRS=[h:1, h:2]", "HOME=/"}, []string{"lease.short=4s", "id=c"})
	if err != nil {
		t.Fatal(err)
	}
	var want sample
	want.ID, want.Lease.Short, want.Lease.Long, want.Redis.Addrs = "c", 4*time.Second, time.Minute, []string{"h:1", "h:2"}
	want.Issuers = append(want.Issuers, struct {
		Issuer   string `yaml:"issuer"`
		JWKSFile string `yaml:"jwks_file"`
	}{Issuer: "x"})
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestBadConfigurationIsNamedWithItsLineAndTheNearestKey(t *testing.T) {
	for name, c := range map[string]struct{ text, set, want string }{
		"top":       {"id: a\nlaese:\n  short: 1s\n", "", `line 2: no such key "laese"; did you mean "lease"?`},
		"nested":    {"lease:\n  shrt: 1s\n", "", `line 2: no such key "shrt"; did you mean "short"?`},
		"in a list": {"issuers:\n- issuer: x\n  jwks_fil: y\n", "", `line 3: no such key "jwks_fil"; did you mean "jwks_file"?`},
		"type":      {"id: a\nlease:\n  short: soon\n", "", "line 3: "},
		"twice":     {"id: a\nid: b\n", "", `line 2: `},
		"syntax":    {"id: [\n", "", "line "},
		"set":       {"", "lease.shrot=1s", `--set lease.shrot: no such key; did you mean "lease.short"?`},
		"set value": {"", "lease.short=x", "--set lease.short: "},
	} {
		var s sample
		var sets []string
		if c.set != "" {
			sets = []string{c.set}
		}
		err := Load(write(t, c.text), &s, nil, sets)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want one line with %s", name, err, c.want)
		}
	}
}

func TestSecretFilesOthersMayReadAreRefused(t *testing.T) {
	p := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(p, []byte(" secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadSecret(p); err != nil || string(b) != "secret" {
		t.Errorf("got %q %v", b, err)
	}
	if err := os.Chmod(p, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSecret(p); err == nil {
		t.Error("a secret readable by others was accepted")
	}
}
