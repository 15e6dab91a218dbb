// Package redistest starts real Redis servers for tests.
//
// The binary is $DSPGATE_REDIS, or redis-server on the PATH. Each server listens
// on a free port of 127.0.0.1, keeps its files in a directory of its own and
// writes an append-only file with fsync always, so that a test may kill it and
// start it again. It ends with the test.
package redistest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dspgate/dspgate/internal/freeport"
)

// Server is one Redis process, or the place of one that was killed.
type Server struct {
	Addr string // 127.0.0.1:port, the same over restarts
	Port int
	Dir  string

	t     testing.TB
	args  []string
	whole bool          // args are the whole command line
	cmd   *exec.Cmd     // nil when killed
	ended chan struct{} // closed when cmd has ended
}

// Binary is the redis-server that Start runs. It fails the test when there is none.
func Binary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("DSPGATE_REDIS"); path != "" {
		return path
	}
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal("no redis-server on the PATH; install it or set DSPGATE_REDIS")
	}
	return path
}

// Start starts a server and waits until it answers. Arguments are settings as
// on the command line, such as "--maxmemory", "2mb".
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, Dir: tempDir(t), args: args}
	s.start()
	return s
}

// tempDir is a directory that goes with the test. testing's own does not wait for
// a child of Redis that was killed a moment ago, and writes until it notices.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "redistest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			if err = os.RemoveAll(dir); err == nil || time.Now().After(deadline) {
				break
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

// StartSentinel starts a Sentinel that watches a primary under a name, and
// alone decides that it is down.
func StartSentinel(t testing.TB, name string, primary *Server) *Server {
	t.Helper()
	s := &Server{t: t, Dir: tempDir(t), whole: true}
	conf := fmt.Sprintf("bind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 1\nsentinel down-after-milliseconds %s 300\nsentinel failover-timeout %s 2000\n",
		s.Dir, name, primary.Port, name, name)
	if err := os.WriteFile(s.Dir+"/sentinel.conf", []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	s.args = []string{s.Dir + "/sentinel.conf", "--sentinel"}
	s.start()
	return s
}

// StartCluster starts a Redis Cluster of one node that holds every slot.
func StartCluster(t testing.TB) *Server {
	t.Helper()
	s := Start(t, "--cluster-enabled", "yes")
	slots := []string{"CLUSTER", "ADDSLOTS"}
	for i := range 16384 {
		slots = append(slots, strconv.Itoa(i))
	}
	s.Must(slots...)
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if reply, err := s.Do("SET", "probe", "1"); err == nil && reply == "+OK" {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster never came up")
		}
	}
}

func (s *Server) start() {
	s.t.Helper()
	s.t.Cleanup(s.Kill)
	for range 5 { // a free port may be gone by the time it is used
		s.Port = freePort(s.t)
		s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(s.Port))
		if s.run() == nil {
			return
		}
	}
	s.t.Fatalf("redis-server does not start:\n%s", s.output())
}

func freePort(t testing.TB) int {
	l, err := freeport.Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *Server) run() error {
	args := append([]string{
		"--port", strconv.Itoa(s.Port), "--bind", "127.0.0.1", "--dir", s.Dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
		"--unixsocket", s.Dir + "/sock", "--repl-diskless-sync-delay", "0", "--daemonize", "no",
	}, s.args...)
	if s.whole {
		args = append(s.args, "--port", strconv.Itoa(s.Port))
	}
	out, err := os.OpenFile(s.Dir+"/output", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = out.Close() }() // the process has its own
	cmd := exec.Command(Binary(s.t), args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // killed, as a rule
		close(ended)
	}()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		select {
		case <-ended:
			s.cmd = nil
			return fmt.Errorf("redis-server ended")
		case <-time.After(5 * time.Millisecond):
		}
		if reply, err := s.Do("PING"); err == nil && (reply == "+PONG" || strings.HasPrefix(reply, "-NOAUTH")) {
			return nil // up, if only for users with a password
		}
	}
	s.Kill()
	return fmt.Errorf("redis-server does not answer")
}

// Do sends one command on a connection of its own and returns the first line
// of the reply. It is for tests that look at Redis from outside.
func (s *Server) Do(args ...string) (string, error) {
	c, err := net.DialTimeout("tcp", s.Addr, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	if _, err := c.Write(b.Bytes()); err != nil {
		return "", err
	}
	reply := make([]byte, 0, 256)
	for buf := make([]byte, 256); !bytes.Contains(reply, []byte("\r\n")); {
		n, err := c.Read(buf)
		if err != nil {
			return "", err
		}
		reply = append(reply, buf[:n]...)
	}
	line, _, _ := strings.Cut(string(reply), "\r\n")
	return line, nil
}

// Must is Do that fails the test on an error or an error reply.
func (s *Server) Must(args ...string) string {
	s.t.Helper()
	reply, err := s.Do(args...)
	if err != nil || strings.HasPrefix(reply, "-") {
		s.t.Fatalf("%s: %s %v", strings.Join(args, " "), reply, err)
	}
	return reply
}

// Kill ends the server as a power cut would (SIGKILL), if it runs.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) // with the child that rewrites its file; it may have ended by itself
	<-s.ended
	s.cmd = nil
}

func (s *Server) output() string {
	b, _ := os.ReadFile(s.Dir + "/output") // empty when it never ran
	return string(b)
}

// Restart starts the server again on its port and its files, after Kill.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.run(); err != nil {
		s.t.Fatalf("restart: %v\n%s", err, s.output())
	}
}

// Pause stops the process (SIGSTOP) without closing its connections; Resume
// lets it go on.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume continues a paused server.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Socket is the path of the server's Unix socket.
func (s *Server) Socket() string { return s.Dir + "/sock" }
