package redisstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

// ledger is casework that must agree with the product it is about.
type ledger struct {
	Product string `json:"product"`
	Name    string `json:"name"`
}

func (ledger) CaseKind() registry.CaseKind { return "ledger" }

const killedRedis = "DSPGATE_TEST_KILLED_REDIS" // address of the Redis that the child writes to

// TestMain is also the control plane that gets killed.
func TestMain(m *testing.M) {
	if addr := os.Getenv(killedRedis); addr != "" {
		if err := writeUntilKilled(addr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeUntilKilled commits one command after the other, each of which changes
// three products and their cases, and prints what was acknowledged.
func writeUntilKilled(addr string) error {
	ctx := context.Background()
	s, err := redisstore.Open(ctx, redisstore.Config{Addrs: []string{addr}}, nil)
	if err != nil {
		return err
	}
	seal, err := registry.NewSealer([]byte("a register key for tests, 32 bytes or more"))
	if err != nil {
		return err
	}
	mirror := registry.NewMirror(s, seal, registry.MirrorConfig{ID: "one", Observer: true})
	r := registry.NewRegister(s, mirror, seal, registry.RegisterConfig{Holder: "one", Cases: []registry.CaseType{registry.CaseTypeOf[ledger]()}})
	go func() { _ = mirror.Run(ctx) }()
	go func() { _ = r.Run(ctx) }()
	for {
		_, err := r.Casebook()
		if _, verr := r.View(); err == nil && verr == nil && r.Writing() {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	v, err := r.View()
	if err != nil {
		return err
	}
	if v.Revision == 0 {
		if _, err := r.Import(ctx, sample.Actor(), sample.Records(time.Now()), registry.Meta{}); err != nil {
			return err
		}
	}
	registrar := registry.Actor{Name: "registrar", Permissions: registry.PermRegistrar}
	for {
		out, err := r.Do(ctx, registrar, "ledger.write", "", func(t *registry.Tx) error {
			for _, id := range []string{"FP-1001", "FP-1002", "FP-1003"} {
				p := *t.View().Product(id)
				p.Name = fmt.Sprintf("name %d", t.Revision())
				if err := t.PutProduct(p); err != nil {
					return err
				}
				if err := registry.PutCase(t, id, ledger{Product: id, Name: p.Name}); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		fmt.Println(out.Revision)
	}
}

// TestAControlPlaneThatIsKilledLeavesNothingHalfDone kills the writer with
// SIGKILL in the middle of its commits, again and again.
func TestAControlPlaneThatIsKilledLeavesNothingHalfDone(t *testing.T) {
	srv := redistest.Start(t)
	var acknowledged registry.Revision
	for round := range 6 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedRedis+"="+srv.Addr)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := range 5 + 11*round {
			if !lines.Scan() {
				t.Fatalf("the control plane ended by itself after %d commands", n)
			}
		}
		_ = cmd.Process.Kill()
		for {
			var rev registry.Revision
			if _, err := fmt.Sscan(lines.Text(), &rev); err == nil {
				acknowledged = max(acknowledged, rev)
			}
			if !lines.Scan() {
				break
			}
		}
		_ = cmd.Wait() // killed
		checkWhole(t, srv, acknowledged)
	}
}

// checkWhole reads what Redis holds as another control plane would.
func checkWhole(t *testing.T, srv *redistest.Server, acknowledged registry.Revision) {
	t.Helper()
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	m := registry.NewMirror(s, registrytest.Sealer(t), registry.MirrorConfig{ID: "reader", Observer: true})
	r := registry.NewRegister(s, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", Cases: []registry.CaseType{registry.CaseTypeOf[ledger]()}})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { _ = m.Run(ctx); done <- struct{}{} }()
	go func() { _ = r.Run(ctx); done <- struct{}{} }()
	defer func() { cancel(); <-done; <-done }()
	until(t, "the casework is loaded", func() bool { _, err := r.Casebook(); return err == nil })
	book, err := r.Casebook()
	if err != nil {
		t.Fatal(err)
	}
	if book.Revision() < acknowledged {
		t.Errorf("the register is at %d; %d was acknowledged", book.Revision(), acknowledged)
	}
	names := map[string]bool{}
	for _, id := range []string{"FP-1001", "FP-1002", "FP-1003"} {
		c, err := registry.CaseOf[ledger](book, id)
		if err != nil {
			t.Fatal(err)
		}
		p := book.View.Product(id)
		if c.Body.Name != p.Name {
			t.Errorf("%s is %q in the register and %q in its case", id, p.Name, c.Body.Name)
		}
		names[p.Name] = true
	}
	if len(names) != 1 {
		b, _ := json.Marshal(names)
		t.Errorf("a command was half done: %s", b)
	}
	if n := strings.Count(srv.Must("HLEN", "{dspgate}:cases"), "3"); n == 0 {
		t.Error("cases that nobody wrote")
	}
}
