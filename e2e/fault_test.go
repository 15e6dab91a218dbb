package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFaultCases is X: what happens to a call when a process is gone, stopped or
// talks nonsense. It breaks a demo of its own.
func TestFaultCases(t *testing.T) {
	s := &faulty{ownStack(t), map[string]*exec.Cmd{}}
	t.Cleanup(s.end)
	// In this order: each leaves the demo able to answer again.
	for _, c := range []struct {
		name string
		run  func(*testing.T, *faulty)
	}{
		{"X03 a late ALLOW is not honoured", lateAllow},
		{"X04x a stopped upstream is no stopped authorizer", stoppedUpstream},
		{"X09 the control plane is gone", controlGone},
		{"X01 the sidecar is gone", sidecarGone},
		{"X02x the sidecar drains", sidecarDrains},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, s) })
	}
	t.Run("X05 the sidecar answers nonsense", func(t *testing.T) {
		t.Log("the demo's sidecar gives no such answer: TestAuthorizerFails of envoy/xds puts one in its place that answers with an error, with nothing, OK with no more, no decision ID, another reason than ok, and late, behind the same listener")
	})
}

// unavailable wants the refusal of a call that nobody decided.
func unavailable(t *testing.T, s *faulty, token string) {
	t.Helper()
	before := len(s.arrivals(t))
	a := s.talk(t, fill(get(pathReceipt), token))
	if a.status != 503 {
		t.Fatalf("answered %v", a)
	}
	mustBeProblem(t, a.reply, "authorizer-unavailable", token)
	if n := len(s.arrivals(t)) - before; n != 0 {
		t.Errorf("%d arrivals of calls nobody decided", n)
	}
}

// passes waits until a call passes again; within is how long that may take.
func passes(t *testing.T, s *faulty, within time.Duration) {
	t.Helper()
	token := s.token(t, nil)
	eventually(t, within, "a call to pass again", func() bool {
		return s.talk(t, fill(get(pathReceipt), token)).status == 200
	})
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// lateAllow stops the sidecar, so that it allows only after Envoy has given up.
func lateAllow(t *testing.T, s *faulty) {
	token := s.token(t, nil)
	passes(t, s, 5*time.Second)
	before, allows := len(s.arrivals(t)), s.allows(t)
	pid := s.info.PIDs.Sidecars[0]
	kill(t, pid, syscall.SIGSTOP)
	defer func() { _ = syscall.Kill(pid, syscall.SIGCONT) }()
	for range 3 {
		unavailable(t, s, token)
	}
	kill(t, pid, syscall.SIGCONT)
	// Envoy resets a call it gave up on; what the sidecar still finds in its
	// socket it may allow, to nobody. Only the one that passes may arrive.
	passes(t, s, 5*time.Second)
	arrived, allowed := len(s.arrivals(t))-before, int(s.allows(t)-allows)
	t.Logf("%d allowed, %d of them late", allowed, allowed-arrived)
	if arrived != 1 || allowed < arrived {
		t.Errorf("O1: %d arrivals of %d allowed, want 1", arrived, allowed)
	}
	if n := s.metric(t, s.info.SidecarDebug[0], "accesslog_alarms_total", ""); n != 0 {
		t.Errorf("O1: %v alarms", n)
	}
}

// stoppedUpstream: an upstream that cannot be reached is not blamed on the
// authorizer, and is asked no second time.
func stoppedUpstream(t *testing.T, s *faulty) {
	kill(t, s.info.PIDs.Upstream, syscall.SIGSTOP)
	before := len(s.arrivals(t))
	conn := s.dial(t, nil)
	token := s.token(t, nil)
	if _, err := conn.Write([]byte(fill(get(pathReceipt), token))); err != nil {
		t.Fatal(err)
	}
	// A refusal needs no upstream.
	if a := s.talk(t, bare(pathReceipt)); a.status != 401 {
		t.Errorf("a refusal while the upstream is stopped: %v", a)
	}
	kill(t, s.info.PIDs.Upstream, syscall.SIGCONT)
	eventually(t, 10*time.Second, "the one call to arrive", func() bool { return len(s.arrivals(t)) > before })
	if n := len(s.arrivals(t)) - before; n != 1 {
		t.Errorf("%d arrivals of one call", n)
	}
}

// controlGone: without the control plane decisions go on from the mirror, and
// Envoy keeps its configuration; nothing can be changed, and nothing is lost.
func controlGone(t *testing.T, s *faulty) {
	kill(t, s.info.PIDs.Control, syscall.SIGKILL)
	eventually(t, 5*time.Second, "the control plane to be gone", func() bool {
		resp, err := http.Get(s.info.Control + "/v1/register")
		if err == nil {
			resp.Body.Close()
		}
		return err != nil
	})
	// Past the short lease: the sidecar renews it at Redis, not at the control plane.
	until := time.Now().Add(2500 * time.Millisecond)
	token := s.token(t, nil)
	o := s.watch(t)
	n := 0
	eventually(t, 10*time.Second, "the short lease to have passed", func() bool {
		n++
		if a := s.talk(t, fill(post(pathMembers, "Content-Length: 19\r\n", `{"tfn":"220115957"}`), token)); a.status != 200 {
			t.Fatalf("a call of risk 4 without the control plane: %v", a)
		}
		return time.Now().After(until)
	})
	o.check(n, kookaAgent)
	if !s.ready() {
		t.Error("the sidecar is not ready without the control plane")
	}
	if a := s.talk(t, bare(pathReceipt)); a.status != 401 {
		t.Errorf("no token: %v", a)
	}
	// It comes back by itself with what it knew.
	s.start(t, "control", "control.yaml")
	eventually(t, 20*time.Second, "the control plane again", func() bool {
		resp, err := http.Get(s.info.Control + "/v1/register")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if got := s.api(t, s.info.OperatorToken, "GET", "/v1/products/FP-1003", nil, &struct{}{}); got != http.StatusOK {
		t.Errorf("a product after the restart: %d", got)
	}
}

// sidecarGone kills the sidecar, and starts it again by hand.
func sidecarGone(t *testing.T, s *faulty) {
	token := s.token(t, nil)
	kill(t, s.info.PIDs.Sidecars[0], syscall.SIGKILL)
	for range 3 {
		unavailable(t, s, token)
	}
	// No token, no host, no service: a call nobody decided is refused all the same.
	for _, request := range []string{bare(pathReceipt), bare("/nothing")} {
		if a := s.talk(t, request); a.status != 503 || a.code() != "authorizer-unavailable" {
			t.Errorf("answered %v", a)
		}
	}
	if a := s.talk(t, fill(to("evil.test"), token)); a.status != 404 {
		t.Errorf("an unknown host: %v", a)
	}
	conn := s.h2(t, nil)
	conn.headers(true, append(fields(":method", "POST", ":path", pathChat), "content-type", "application/grpc", "authorization", "Bearer "+token)...)
	if a := conn.answer(); a.status != 200 || a.header.Get("Grpc-Status") != "14" || a.header.Get("X-Request-Id") == "" {
		t.Errorf("a gRPC caller got %v %v", a, a.header)
	}
	conn = s.h2(t, nil)
	conn.headers(false, append(fields(":method", "PUT", ":path", pathBulk), "authorization", "Bearer "+token)...)
	conn.data(true, "abc")
	if a := conn.answer(); a.status != 503 {
		t.Errorf("an upload got %v", a)
	}

	s.start(t, "sidecar", "sidecar-1.yaml")
	eventually(t, 20*time.Second, "the sidecar to be ready", s.ready)
	// The case's own bound.
	passes(t, s, time.Second)
	o := s.watch(t)
	a := s.talk(t, fill(get(pathReceipt), token))
	(&wire{status: []int{200}, arrivals: 1, target: pathReceipt}).judge(t, o, a, token)
	s.conserved(t, o.arrivals)
}

// sidecarDrains: one that is told to end answers what it has and is then as
// good as dead, never open.
func sidecarDrains(t *testing.T, s *faulty) {
	token := s.token(t, nil)
	kill(t, s.again["sidecar"].Process.Pid, syscall.SIGTERM)
	eventually(t, 20*time.Second, "a refusal", func() bool {
		a := s.talk(t, fill(get(pathReceipt), token))
		if a.status != 200 && a.status != 503 {
			t.Errorf("answered %v", a)
		}
		return a.status == 503
	})
	unavailable(t, s, token)
}

// faulty is a demo of which processes were killed and started again by hand.
type faulty struct {
	*stack
	again map[string]*exec.Cmd
}

// start starts one of the demo's processes again, as the demo did.
func (s *faulty) start(t *testing.T, command, config string) {
	t.Helper()
	out, err := os.OpenFile(filepath.Join(s.dir, "log", command+"-again.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(binary(t), command, "--config", filepath.Join(s.dir, config))
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatalf("start %s again: %v", command, err)
	}
	s.again[command] = cmd
}

func (s *faulty) end() {
	for _, cmd := range s.again {
		_ = cmd.Process.Kill() // it may have ended already
		_ = cmd.Wait()
	}
}

// ready tells whether the sidecar says so itself.
func (s *faulty) ready() bool {
	resp, err := http.Get(s.info.SidecarDebug[0] + "/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
