package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// What a case needs to run a sidecar of its own: the demo's configuration with
// a change, in the place of the demo's sidecar or beside it.

// sidecarConfig writes the demo's first sidecar's configuration, edited.
func (s *stack) sidecarConfig(t testing.TB, edit func(cfg, issuer map[string]any)) string {
	t.Helper()
	return s.config(t, "sidecar-1.yaml", func(cfg map[string]any) { edit(cfg, cfg["issuers"].([]any)[0].(map[string]any)) })
}

// config writes a configuration of the demo's, edited.
func (s *stack) config(t testing.TB, name string, edit func(map[string]any)) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	var cfg map[string]any
	if err := yaml.Unmarshal(b, &cfg); err != nil {
		t.Fatal(err)
	}
	edit(cfg)
	if b, err = yaml.Marshal(cfg); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// process is one that a case started itself.
type process struct {
	*exec.Cmd
	done chan struct{}
	out  *lockedBuffer
}

// run starts a program that ends with the test.
func run(t testing.TB, name string, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(name, args...), done: make(chan struct{}), out: &lockedBuffer{}}
	p.Stdout, p.Stderr = p.out, p.out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait() // how it ended is in its state
		close(p.done)
	}()
	t.Cleanup(func() {
		if t.Failed() {
			text := p.out.String()
			t.Logf("%s:\n%s", name, text[max(0, len(text)-4000):])
		}
		_ = p.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case <-p.done:
		case <-time.After(10 * time.Second):
			_ = p.Process.Kill() // it may have ended
			<-p.done
		}
	})
	return p
}

// end kills a process that is not our child and waits until it is gone.
func end(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, fmt.Sprintf("process %d has ended", pid), func() bool {
		return syscall.Kill(pid, 0) == syscall.ESRCH
	})
}

// replaceSidecar ends the demo's first sidecar and starts another in its place.
func (s *stack) replaceSidecar(t testing.TB, sig syscall.Signal, edit func(cfg, issuer map[string]any)) *process {
	t.Helper()
	path := s.sidecarConfig(t, edit)
	end(t, s.info.PIDs.Sidecars[0], sig)
	p := run(t, binary(t), "sidecar", "--config", path)
	s.info.PIDs.Sidecars[0] = p.Process.Pid
	return p
}

// statusOf is the status of a GET, 0 when there is no answer.
func statusOf(url string) int {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// ready waits until a sidecar is ready to serve.
func (s *stack) ready(t testing.TB, debug string) {
	t.Helper()
	eventually(t, 15*time.Second, "the sidecar is ready", func() bool { return statusOf(debug+"/readyz") == 200 })
}

// elsewhere says that a row runs below this level, and fails when that test is
// not there any more.
func elsewhere(t testing.TB, file, test string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "func "+test+"(t *testing.T)") {
		t.Errorf("%s has no %s: this row runs nowhere", file, test)
	}
}
