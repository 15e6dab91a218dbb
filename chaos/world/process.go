package world

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is one child process, or the place of one that was killed.
type Process struct {
	Name string

	path string
	args []string
	log  string
	in   *os.File // what the child reads as its standard input; nil for nothing
	out  *os.File // where its standard output goes instead of the log; nil for the log

	mu      sync.Mutex // guards what follows
	env     []string   // beside this program's own, from the next start on
	cmd     *exec.Cmd  // nil when it never ran
	done    chan struct{}
	stopped bool // by SIGSTOP
}

// Start starts a program whose output goes to DIR/NAME.log.
func Start(dir, name, path string, args ...string) (*Process, error) {
	p := newProcess(dir, name, path, args...)
	return p, p.Restart()
}

func newProcess(dir, name, path string, args ...string) *Process {
	return &Process{Name: name, path: path, args: args, log: filepath.Join(dir, name+".log")}
}

// StartPiped starts a program with its standard input and output given.
func StartPiped(dir, name string, in, out *os.File, path string, args ...string) (*Process, error) {
	p := &Process{Name: name, path: path, args: args, log: filepath.Join(dir, name+".log"), in: in, out: out}
	return p, p.Restart()
}

// SetEnv adds variables to the environment of the program from its next start
// on, in the place of those added before.
func (p *Process) SetEnv(env ...string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.env = env
}

// Restart starts the program again, after Kill.
func (p *Process) Restart() error {
	p.Kill()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.path, p.args...)
	p.mu.Lock()
	cmd.Env = append(os.Environ(), p.env...)
	p.mu.Unlock()
	cmd.Stdout, cmd.Stderr = log, log
	if p.in != nil {
		cmd.Stdin = p.in
	}
	if p.out != nil {
		cmd.Stdout = p.out
	}
	// A group of its own, so that Ctrl-C reaches only the program that started it,
	// which ends it in order; and it ends when that program is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.done, p.stopped = cmd, done, false
	p.mu.Unlock()
	go func() {
		_ = cmd.Wait() // killed, as a rule
		close(done)
	}()
	return nil
}

// PID is the process ID; 0 when it never ran.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Running tells whether the process has not ended.
func (p *Process) Running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Pause stops the process (SIGSTOP); Resume lets it go on. One that has ended
// is left alone.
func (p *Process) Pause() { p.signal(syscall.SIGSTOP, true) }

// Resume continues a process that was paused.
func (p *Process) Resume() { p.signal(syscall.SIGCONT, false) }

func (p *Process) signal(s syscall.Signal, stopped bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && p.cmd.Process.Signal(s) == nil {
		p.stopped = stopped
	}
}

// Paused tells whether the process was paused and not resumed.
func (p *Process) Paused() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stopped
}

// Kill ends the process at once (SIGKILL), if it runs.
func (p *Process) Kill() { p.end(syscall.SIGKILL, 0) }

// Stop asks the process to end (SIGTERM) and kills it after grace.
func (p *Process) Stop(grace time.Duration) { p.end(syscall.SIGTERM, grace) }

func (p *Process) end(s syscall.Signal, grace time.Duration) {
	p.mu.Lock()
	cmd, done := p.cmd, p.done
	p.stopped = false
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	// A process that is stopped must run to end. Errors: it has ended already.
	_ = cmd.Process.Signal(s)
	_ = cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-done:
		return
	case <-time.After(grace):
	}
	_ = cmd.Process.Kill()
	<-done
}

// Await polls until ready returns nil, the process ends, or ctx does; the error
// shows the end of the log.
func (p *Process) Await(ctx context.Context, ready func(context.Context) error) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		if !p.Running() {
			return fmt.Errorf("%s ended: %s", p.Name, p.Tail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w (%w); its log ends: %s", p.Name, err, ctx.Err(), p.Tail())
		case <-tick.C:
		}
	}
}

// Tail is the end of the log.
func (p *Process) Tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-1500):]))
}

// FindRedis is $DSPGATE_REDIS, then redis-server on PATH, then .tools/redis-server
// in this folder or one above it.
func FindRedis() (string, error) {
	if p := os.Getenv("DSPGATE_REDIS"); p != "" {
		return p, nil
	}
	if p, err := exec.LookPath("redis-server"); err == nil {
		return p, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		p := filepath.Join(dir, ".tools", "redis-server")
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no redis-server on PATH: set DSPGATE_REDIS, or run `make tools`")
		}
	}
}
