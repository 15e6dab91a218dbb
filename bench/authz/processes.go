package main

import (
	"bytes"
	"context"
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
)

// process is a child of the benchmark.
type process struct {
	cmd  *exec.Cmd
	name string
	log  string
	done chan struct{}
}

func start(dir, name, path string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...), name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// A group of its own, so that Ctrl-C ends it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process, by force if it takes more than three seconds.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// await polls until ok, the process ends, or ctx does.
func (p *process) await(ctx context.Context, what string, ok func() bool) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; its log ends: %s", what, ctx.Err(), p.tail())
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, p.tail())
		case <-tick.C:
		}
	}
	return nil
}

func (p *process) tail() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(bytes.TrimSpace(b[max(0, len(b)-1500):]))
}

// ticksPerSecond is USER_HZ, which Linux fixes at 100 for user space.
const ticksPerSecond = 100

// cpu is the time a process and its threads have spent on a processor, in user
// and kernel mode (proc(5), fields 14 and 15 of stat).
func cpu(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0, errors.New("/proc/PID/stat has too few fields")
	}
	var ticks int64
	for _, s := range f[11:13] {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// rss is the resident memory of a process in MB (10⁶ bytes), now and at its peak.
func rss(pid int) (now, peak float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, v, _ := strings.Cut(line, ":")
		f := strings.Fields(v)
		if name != "VmRSS" && name != "VmHWM" {
			continue
		}
		kib, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			return 0, 0, err
		}
		if name == "VmRSS" {
			now = kib * 1024 / 1e6
		} else {
			peak = kib * 1024 / 1e6
		}
	}
	return now, peak, nil
}

// findRedis is $DSPGATE_REDIS, then .tools/redis-server, then PATH.
func findRedis() (string, error) {
	if p := os.Getenv("DSPGATE_REDIS"); p != "" {
		return p, nil
	}
	if p, err := exec.LookPath("redis-server"); err == nil {
		return p, nil
	}
	p, err := filepath.Abs(".tools/redis-server")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(p); err != nil {
		return "", errors.New("no redis-server on PATH: set DSPGATE_REDIS, or run `make tools`")
	}
	return p, nil
}

func startRedis(ctx context.Context, dir string) (*process, string, error) {
	bin, err := findRedis()
	if err != nil {
		return nil, "", err
	}
	data := filepath.Join(dir, "redis")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, "", err
	}
	socket := filepath.Join(dir, "redis.sock")
	p, err := start(dir, "redis", bin, "--port", "0", "--unixsocket", socket, "--dir", data,
		"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction")
	if err != nil {
		return nil, "", err
	}
	err = p.await(ctx, "redis", func() bool {
		c, err := net.Dial("unix", socket)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	if err != nil {
		p.stop()
		return nil, "", err
	}
	return p, socket, nil
}

// get fetches a page over a Unix socket.
func get(ctx context.Context, socket, path string) (status int, body string, err error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://debug"+path, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp.StatusCode, string(b), err
}
