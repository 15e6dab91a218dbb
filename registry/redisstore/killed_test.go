package redisstore_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

const (
	killedRedis  = "DSPGATE_TEST_KILLED_REDIS"  // address of the Redis that the child writes to
	killedTimers = "DSPGATE_TEST_KILLED_TIMERS" // set: the child fires timers and writes nothing else
	killedOnce   = "DSPGATE_TEST_KILLED_ONCE"   // set: the child does one keyed request, and dies before it is answered
)

// reminder is casework with a due-date.
type reminder struct {
	Dues  []registry.Due `json:"dues"`
	Fired int            `json:"fired"`
}

func (reminder) CaseKind() registry.CaseKind { return "reminder" }
func (r reminder) CaseDues() []registry.Due  { return r.Dues }

// caseTypes are the types of casework of these tests.
func caseTypes() []registry.CaseType {
	return []registry.CaseType{registry.CaseTypeOf[ledger](), registry.CaseTypeOf[reminder]()}
}

// fireReminders fires timers, as many as it is given bytes on its standard
// input, for as long as the process lives.
func fireReminders(ctx context.Context, r *registry.Register) error {
	grant := bufio.NewReader(os.Stdin)
	r.RunTimers(ctx, map[registry.CaseKind]registry.FireFunc{"reminder": func(t *registry.Tx, id string, d registry.Due) error {
		c, err := registry.TxCase[reminder](t, id)
		if err != nil {
			return err
		}
		if _, err := grant.ReadByte(); err != nil {
			return err
		}
		fmt.Println(id)
		return registry.PutCase(t, id, reminder{Fired: c.Body.Fired + 1})
	}})
	return nil
}

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
	r := registry.NewRegister(lethal{s}, mirror, seal, registry.RegisterConfig{Holder: "one", Cases: caseTypes()})
	go func() { _ = mirror.Run(ctx) }()
	go func() { _ = r.Run(ctx) }()
	for {
		_, err := r.Casebook()
		if _, verr := r.View(); err == nil && verr == nil && r.Writing() {
			break
		}
		time.Sleep(2 * time.Millisecond)
	}
	if os.Getenv(killedTimers) != "" {
		return fireReminders(ctx, r)
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
	if os.Getenv(killedOnce) != "" {
		_, _, err := keyedRequest(ctx, r, "request")
		return fmt.Errorf("answered, which it must not live to do: %w", err)
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

// lethal is a store by which a control plane dies when it is about to keep an
// answer: what the request did is committed, and nobody was told.
type lethal struct{ *redisstore.Store }

func (lethal) Remember(context.Context, string, []byte) error {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// keyedRequest makes two products and a secret for an Idempotency-Key, in three
// commands of which one is refused.
func keyedRequest(ctx context.Context, r *registry.Register, fingerprint string) (answer string, replayed bool, err error) {
	registrar := registry.Actor{Name: "registrar", Permissions: registry.PermRegistrar}
	b, replayed, err := r.Once(ctx, "registrar key", []byte(fingerprint), func(ctx context.Context) ([]byte, error) {
		one, err := r.CreateProduct(ctx, registrar, registry.Product{ID: "ONCE-1", Name: "Once", Owner: sample.Wattlebird}, registry.Meta{})
		if err != nil {
			return nil, err
		}
		if _, err := r.CreateProduct(ctx, registrar, registry.Product{ID: "FP-1001", Name: "There already", Owner: sample.Wattlebird}, registry.Meta{}); err == nil {
			return nil, errors.New("made twice")
		}
		secret := registry.Secret(ctx, "test")
		two, err := r.CreateProduct(ctx, registrar, registry.Product{ID: "ONCE-2", Name: "Secret " + secret, Owner: sample.Wattlebird}, registry.Meta{})
		if err != nil {
			return nil, err
		}
		return fmt.Appendf(nil, "%d %d %s", one.Revision, two.Revision, secret), nil
	})
	return string(b), replayed, err
}

// TestAKeyedRequestThatWasKilledIsDoneOnce kills a control plane between its last
// commit and the keeping of the answer; the request that comes again, to another
// control plane, is told what was done, and does nothing.
func TestAKeyedRequestThatWasKilledIsDoneOnce(t *testing.T) {
	srv := redistest.Start(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), killedRedis+"="+srv.Addr, killedOnce+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the control plane was to be killed: %v", err)
	}
	s := open(t, redisstore.Config{Addrs: []string{srv.Addr}})
	m := registry.NewMirror(s, registrytest.Sealer(t), registry.MirrorConfig{ID: "two", Observer: true})
	r := registry.NewRegister(s, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", Cases: caseTypes()})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	go func() { _ = m.Run(ctx); done <- struct{}{} }()
	go func() { _ = r.Run(ctx); done <- struct{}{} }()
	defer func() { cancel(); <-done; <-done }()
	until(t, "the register can be written", func() bool {
		_, err := r.View()
		_, cerr := r.Casebook()
		return err == nil && cerr == nil && r.Writing()
	})
	before, err := r.View()
	if err != nil {
		t.Fatal(err)
	}
	if before.Product("ONCE-1") == nil || before.Product("ONCE-2") == nil {
		t.Fatal("the request was not done")
	}
	if _, _, err := keyedRequest(ctx, r, "another request"); !errors.Is(err, registry.ErrKeyReused) {
		t.Errorf("another request under the key: %v", err)
	}
	first, _, err := keyedRequest(ctx, r, "request")
	if err != nil {
		t.Fatal(err)
	}
	var one, two registry.Revision
	var secret string
	if _, err := fmt.Sscan(first, &one, &two, &secret); err != nil {
		t.Fatal(err)
	}
	after, err := r.View()
	if err != nil {
		t.Fatal(err)
	}
	if after.Revision != before.Revision || two != before.Revision || one >= two || after.Product("ONCE-2").Name != "Secret "+secret {
		t.Errorf("%q at revision %d, then %d; the product is %q", first, before.Revision, after.Revision, after.Product("ONCE-2").Name)
	}
	if again, replayed, err := keyedRequest(ctx, r, "request"); err != nil || !replayed || again != first {
		t.Errorf("the third time: %q, replayed %t, %v; want %q", again, replayed, err, first)
	}
	for _, key := range strings.Fields(srv.Must("KEYS", "{dspgate}:*")) {
		if kind := srv.Must("TYPE", key); strings.Contains(kind, "string") && strings.Contains(srv.Must("GET", key), secret) {
			t.Errorf("%s holds the secret", key)
		}
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
	r := registry.NewRegister(s, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "one", Cases: caseTypes()})
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

// TestTimersOfAKilledControlPlaneFireOnce kills the one place that fires
// due-dates while they fire, again and again, until all have fired.
func TestTimersOfAKilledControlPlaneFireOnce(t *testing.T) {
	srv := redistest.Start(t)
	const n = 300
	writeReminders(t, srv, n)
	left := n
	for round := 0; left > 0; round++ {
		if round == 60 {
			t.Fatalf("%d due-dates never fired", left)
		}
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), killedRedis+"="+srv.Addr, killedTimers+"=1")
		cmd.Stderr = os.Stderr
		grants := min(100+70*round, left)
		cmd.Stdin = io.MultiReader(strings.NewReader(strings.Repeat(".", grants)), blocks{t.Context()})
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for fired := 0; fired < grants && lines.Scan(); fired++ { // planned, and perhaps committed
		}
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait() // killed
		open, twice := reminders(t, srv)
		if twice != 0 {
			t.Fatalf("%d due-dates fired more than once by round %d", twice, round)
		}
		if done := left - open; done > grants {
			t.Fatalf("%d fired, %d were let", done, grants)
		}
		left = open
	}
}

// blocks is a standard input that gives nothing more.
type blocks struct{ ctx context.Context }

func (b blocks) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, io.EOF
}

func writeReminders(t *testing.T, srv *redistest.Server, n int) {
	t.Helper()
	w := registrytest.NewWriter(t, open(t, redisstore.Config{Addrs: []string{srv.Addr}}))
	var all []any
	for i := range n {
		data, err := json.Marshal(reminder{Dues: []registry.Due{{What: "remind", At: registry.At(time.Now()) - registry.Time(i)}}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, registry.CaseRecord{Kind: "reminder", ID: fmt.Sprintf("R-%d", i), Data: data})
	}
	w.Put(all...)
	if _, err := open(t, redisstore.Config{Addrs: []string{srv.Addr}}).Lead(t.Context(), "writer", w.Epoch, 0); err != nil {
		t.Fatal(err)
	}
}

// reminders counts, in Redis itself, those not fired yet and those fired more than once.
func reminders(t *testing.T, srv *redistest.Server) (notYet, twice int) {
	t.Helper()
	s, err := redisstore.Open(t.Context(), redisstore.Config{Addrs: []string{srv.Addr}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	err = s.CaseSnapshot(t.Context(), func(c *registry.CaseRecord) error {
		var r reminder
		if err := json.Unmarshal(c.Data, &r); err != nil {
			return err
		}
		if len(r.Dues) > 0 {
			notYet++
		}
		if r.Fired > 1 {
			twice++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return notYet, twice
}
