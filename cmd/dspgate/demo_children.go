package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// child is one process of the demo.
type child struct {
	name string
	cmd  *exec.Cmd
	log  string        // path of its output
	done chan struct{} // closed when it has ended
	err  error         // how it ended; read after done
}

// family starts the demo's processes and ends them, last started first. Each
// is a process group of its own, so that Ctrl-C reaches only the demo, and is
// told to end by the kernel when the demo itself is killed.
type family struct {
	logDir string
	starts chan func()

	mu       sync.Mutex
	children []*child
	stopping bool
	ended    func(*child) // hears of a child that ends by itself
}

func newFamily(logDir string, ended func(*child)) *family {
	f := &family{logDir: logDir, starts: make(chan func()), ended: ended}
	// Pdeathsig is sent when the *thread* that started the child ends, so all
	// children are started by one thread, which stays as long as the process.
	go func() {
		runtime.LockOSThread()
		for start := range f.starts {
			start()
		}
	}()
	return f
}

// start starts a program with its output going to a log file.
func (f *family) start(name, path string, args, env []string) (*child, error) {
	logPath := filepath.Join(f.logDir, name+".log")
	out, err := os.OpenFile(logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	c := &child{name: name, cmd: cmd, log: logPath, done: make(chan struct{})}
	started := make(chan error, 1)
	f.starts <- func() { started <- cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	f.mu.Lock()
	f.children = append(f.children, c)
	f.mu.Unlock()
	go func() {
		c.err = cmd.Wait()
		close(c.done)
		f.mu.Lock()
		stopping := f.stopping
		f.mu.Unlock()
		if !stopping && f.ended != nil {
			f.ended(c)
		}
	}()
	return c, nil
}

// pid is the process ID.
func (c *child) pid() int { return c.cmd.Process.Pid }

// stop ends all children: SIGTERM, last started first, and SIGKILL to one that
// takes longer than grace.
func (f *family) stop(grace time.Duration) {
	f.mu.Lock()
	f.stopping = true
	children := f.children
	f.mu.Unlock()
	for i := len(children) - 1; i >= 0; i-- {
		c := children[i]
		// A child that was stopped (SIGSTOP) must run to end.
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
		if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			continue
		}
		select {
		case <-c.done:
		case <-time.After(grace):
			_ = c.cmd.Process.Kill()
			<-c.done
		}
	}
}

// await polls until ready returns nil, the child ends or the time is over; the
// error shows the end of the child's log.
func (c *child) await(ctx context.Context, within time.Duration, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return fmt.Errorf("%s ended at its start: %s", c.name, c.lastLog())
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %v (%w); its log ends: %s", c.name, within, err, c.lastLog())
		case <-tick.C:
		}
	}
}

// lastLog is the last line of the child's output, for a one-line error.
func (c *child) lastLog() string {
	f, err := os.Open(c.log)
	if err != nil {
		return "no log"
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 4096 {
		if _, err := f.Seek(-4096, io.SeekEnd); err != nil {
			return "no log"
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "no log"
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(lines[len(lines)-1])
}
