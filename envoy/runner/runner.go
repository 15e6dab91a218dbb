// Package runner runs a real Envoy as a child process: for the demo, the
// benchmarks and the tests.
//
// A Process is started with a bootstrap that points at a sidecar's discovery
// service. It listens only where that configuration says and is ready once it
// has its listeners.
package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/envoy/xds"
)

// ErrNoBinary: there is no Envoy on this machine.
var ErrNoBinary = errors.New("no envoy binary found; set DSPGATE_ENVOY, or run `make tools`")

// Options says how to run an Envoy.
type Options struct {
	// Binary is the path of the binary. Default: Find().
	Binary string
	// Dir is a folder for the bootstrap, the log (envoy.log) and the address of
	// the admin page. It must exist.
	Dir string
	// Bootstrap is what the Envoy starts from. NodeID defaults to "envoy",
	// Admin to a port of 127.0.0.1 that the kernel chooses.
	Bootstrap xds.BootstrapConfig
	// Concurrency is the number of worker threads. Default: one per core.
	Concurrency int
	// LogLevel is trace, debug, info, warning, error, critical or off. Default warning.
	LogLevel string
}

// Process is a running Envoy.
type Process struct {
	cmd   *exec.Cmd
	dir   string
	admin string
	done  chan struct{} // closed once the process has ended
	err   error         // of Wait; read after done
	http  http.Client
}

// Find looks for an Envoy binary: $DSPGATE_ENVOY, then .tools/envoy in this
// folder or one above it, then PATH.
func Find() (string, error) {
	if path := os.Getenv("DSPGATE_ENVOY"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("DSPGATE_ENVOY: %w", err)
		}
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, ".tools", "envoy")
		if fi, err := os.Stat(path); err == nil && !fi.IsDir() {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	path, err := exec.LookPath("envoy")
	if err != nil {
		return "", ErrNoBinary
	}
	return path, nil
}

// Start starts an Envoy and returns as soon as its admin page answers; it need
// not be ready. The caller ends it with Stop or Kill.
func Start(ctx context.Context, o Options) (*Process, error) {
	if o.Binary == "" {
		bin, err := Find()
		if err != nil {
			return nil, err
		}
		o.Binary = bin
	}
	if o.Bootstrap.NodeID == "" {
		o.Bootstrap.NodeID = "envoy"
	}
	if o.Bootstrap.Admin == "" {
		o.Bootstrap.Admin = "127.0.0.1:0"
	}
	boot, err := xds.Bootstrap(o.Bootstrap)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(o.Dir, "envoy.json")
	if err := os.WriteFile(path, boot, 0o600); err != nil {
		return nil, err
	}
	adminFile := filepath.Join(o.Dir, "envoy.admin")
	if err := os.Remove(adminFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "envoy.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	level := o.LogLevel
	if level == "" {
		level = "warning"
	}
	args := []string{
		"--config-path", path, "--admin-address-path", adminFile, "--log-level", level,
		// Several may run side by side.
		"--disable-hot-restart",
	}
	if o.Concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(o.Concurrency))
	}
	p := &Process{cmd: exec.Command(o.Binary, args...), dir: o.Dir, done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	// A group of its own: Ctrl-C at the terminal is for the program that started
	// it, which then stops it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start envoy: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	if err := p.findAdmin(ctx, adminFile); err != nil {
		p.Kill()
		return nil, err
	}
	return p, nil
}

// findAdmin waits for Envoy to write where its admin page is.
func (p *Process) findAdmin(ctx context.Context, file string) error {
	for {
		b, err := os.ReadFile(file)
		if err == nil && len(b) > 0 {
			p.admin = string(b)
			p.http.Transport = &http.Transport{DisableKeepAlives: true, DialContext: p.dialAdmin}
			return nil
		}
		if err := p.pause(ctx); err != nil {
			return fmt.Errorf("envoy's admin page: %w", err)
		}
	}
}

func (p *Process) dialAdmin(ctx context.Context, _, _ string) (net.Conn, error) {
	var d net.Dialer
	if strings.HasPrefix(p.admin, "/") {
		return d.DialContext(ctx, "unix", p.admin)
	}
	return d.DialContext(ctx, "tcp", p.admin)
}

// pause waits a little, unless the process or the context ends.
func (p *Process) pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.done:
		return fmt.Errorf("envoy ended (%w); its last words: %s", p.exit(), p.LogTail(2000))
	case <-time.After(10 * time.Millisecond):
		return nil
	}
}

func (p *Process) exit() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// PID is the process ID.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed once the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Admin is the URL of the admin page, or the path of its Unix socket.
func (p *Process) Admin() string {
	if strings.HasPrefix(p.admin, "/") {
		return p.admin
	}
	return "http://" + p.admin
}

// Get fetches a page of the admin interface, such as "/stats?filter=http".
func (p *Process) Get(ctx context.Context, path string) (string, error) {
	status, body, err := p.get(ctx, path)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("admin page %s: status %d", path, status)
	}
	return body, err
}

func (p *Process) get(ctx context.Context, path string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://admin"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	return resp.StatusCode, string(b), err
}

// Ready waits until Envoy has its listeners and serves.
func (p *Process) Ready(ctx context.Context) error {
	for {
		if status, _, err := p.get(ctx, "/ready"); err == nil && status == http.StatusOK {
			return nil
		}
		if err := p.pause(ctx); err != nil {
			return fmt.Errorf("envoy not ready: %w", err)
		}
	}
}

// Listeners says where Envoy listens: listener name → "IP:port".
func (p *Process) Listeners(ctx context.Context) (map[string]string, error) {
	body, err := p.Get(ctx, "/listeners?format=json")
	if err != nil {
		return nil, err
	}
	var page struct {
		ListenerStatuses []struct {
			Name         string
			LocalAddress struct {
				SocketAddress struct {
					Address   string
					PortValue int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(body), &page); err != nil {
		return nil, fmt.Errorf("admin page /listeners: %w", err)
	}
	out := map[string]string{}
	for _, l := range page.ListenerStatuses {
		a := l.LocalAddress.SocketAddress
		out[l.Name] = net.JoinHostPort(a.Address, strconv.Itoa(a.PortValue))
	}
	return out, nil
}

// Signal sends a signal, such as SIGSTOP.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop ends the process in order, and by force when ctx ends first. It returns
// once the process has ended.
func (p *Process) Stop(ctx context.Context) {
	if p.Signal(syscall.SIGTERM) == nil {
		select {
		case <-p.done:
			return
		case <-ctx.Done():
		}
	}
	p.Kill()
}

// Kill ends the process at once and returns when it has ended.
func (p *Process) Kill() {
	// An error means that it has ended already.
	_ = p.cmd.Process.Kill()
	<-p.done
}

// LogTail returns the last bytes of Envoy's log.
func (p *Process) LogTail(n int) string {
	b, err := os.ReadFile(filepath.Join(p.dir, "envoy.log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}
