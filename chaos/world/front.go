package world

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
)

// front stands before one Sentinel for one client: it passes everything on, and
// in what comes back puts the client's own links in the place of the servers.
// A Sentinel tells everybody the same address of a primary; only so can the way
// from one process to Redis be cut and not the others.
type front struct {
	ln       net.Listener
	sentinel string
	ports    map[string]string // of servers, to those of the links; not changed once it serves

	mu    sync.Mutex
	conns map[net.Conn]bool // nil when closed
	wg    sync.WaitGroup
}

func startFront(sentinel string) (*front, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &front{ln: ln, sentinel: sentinel, conns: map[net.Conn]bool{}}, nil
}

func (f *front) addr() string { return f.ln.Addr().String() }

func (f *front) serve(ports map[string]string) {
	f.ports = ports
	f.wg.Go(func() {
		for {
			c, err := f.ln.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.carry(c) })
		}
	})
}

func (f *front) close() {
	_ = f.ln.Close()
	f.mu.Lock()
	for c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.wg.Wait()
}

// hold keeps a connection to be closed with the front; false when that is closed.
func (f *front) hold(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		_ = c.Close()
		return false
	}
	f.conns[c] = true
	return true
}

func (f *front) drop(c net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.conns, c)
	_ = c.Close()
}

func (f *front) carry(client net.Conn) {
	if !f.hold(client) {
		return
	}
	defer f.drop(client)
	server, err := net.Dial("tcp", f.sentinel)
	if err != nil || !f.hold(server) {
		return
	}
	defer f.drop(server)
	f.wg.Go(func() {
		_, _ = io.Copy(server, client) // ends with either connection
		_ = server.Close()
	})
	r, w := bufio.NewReader(server), bufio.NewWriter(client)
	for {
		if err := f.rewrite(r, w); err != nil {
			return
		}
		if r.Buffered() == 0 {
			if err := w.Flush(); err != nil {
				return
			}
		}
	}
}

// rewrite passes on one line of the protocol (RESP2), or one bulk string.
func (f *front) rewrite(r *bufio.Reader, w *bufio.Writer) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if line[0] != '$' {
		_, err = w.WriteString(line)
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(line[1:]))
	if err != nil || n > 1<<20 {
		return errors.New("not RESP")
	}
	if n < 0 {
		_, err = w.WriteString(line)
		return err
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return err
	}
	words := strings.Split(string(b[:n]), " ")
	for i, word := range words {
		if p, ok := f.ports[word]; ok {
			words[i] = p
		}
	}
	text := strings.Join(words, " ")
	_, err = fmt.Fprintf(w, "$%d\r\n%s\r\n", len(text), text)
	return err
}
