package redisstore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// TestDeployedRedisServesTheRegister runs the register on a Redis with the
// settings and the users that we tell people to start from.
func TestDeployedRedisServesTheRegister(t *testing.T) {
	const dir = "../../deploy/redis/"
	conf, err := os.ReadFile(dir + "redis.conf")
	if err != nil {
		t.Fatal(err)
	}
	acl, err := os.ReadFile(dir + "users.acl")
	if err != nil {
		t.Fatal(err)
	}
	// Alone it has no replica, and may not ask for one.
	args := []string{}
	for line := range strings.Lines(string(conf)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		switch {
		case !ok, name == "#", name == "bind", name == "port", name == "min-replicas-to-write":
			continue
		case name == "aclfile":
			value = filepath.Join(t.TempDir(), value)
			users := strings.NewReplacer("SIDECAR-PASSWORD", "s1", "CONTROL-PASSWORD", "c1").Replace(string(acl))
			if err := os.WriteFile(value, []byte(users), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, "--"+name, strings.Trim(value, `"`))
	}
	srv := redistest.Start(t, args...)
	as := func(user, password string) (*redisstore.Store, error) {
		file := filepath.Join(t.TempDir(), "password")
		if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return redisstore.Open(t.Context(), redisstore.Config{Addrs: []string{srv.Addr}, Username: user, PasswordFile: file}, nil)
	}
	control, err := as("control", "c1")
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	registrytest.NewWriter(t, control).Put(product("FP-1", "a"))
	sidecar, err := as("sidecar", "s1")
	if err != nil {
		t.Fatal(err)
	}
	defer sidecar.Close()
	if head := headOf(t, sidecar); head.Revision != 1 {
		t.Errorf("the sidecar reads revision %d", head.Revision)
	}
	poll, err := sidecar.Follow(t.Context(), registry.Ack{ID: "gate-1", Incarnation: strings.Repeat("ab", 16)}, 10)
	if err != nil || len(poll.Changes) != 1 {
		t.Errorf("the sidecar follows: %+v, %v", poll, err)
	}
	if _, err := as("sidecar", "wrong"); err == nil {
		t.Error("a wrong password is let in")
	}
}
