package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// The load generator and the upstream share the processors with what is
// measured, and every microsecond they take dilutes the comparison. So both
// are one thread on epoll: HTTP/1.1, keep-alive, closed loop. The upstream is
// served while a load runs, which is when requests arrive.

// slice is what one stretch of load measured.
type slice struct {
	requests, errors int
	took             time.Duration
	p50, p99         time.Duration
}

func (s slice) rate() float64 { return float64(s.requests) / s.took.Seconds() }

// requestsMax bounds a slice, whatever the machine; stallMax ends one in which
// nothing is answered any more.
const (
	requestsMax = 2_000_000
	stallMax    = 5 * time.Second
	bufBytes    = 16 << 10
)

// engine is the load generator with its upstream.
type engine struct {
	epoll, ln int
	addr      string    // of the upstream
	conns     []*socket // by file descriptor

	arrived, decided int64 // requests at the upstream, and those with a decision ID

	// Of the slice that runs.
	end     time.Time
	open    int // requests without an answer yet
	bad     int
	badText string // the first of all slices, whole
	latency []time.Duration
}

// socket is a connection: a client's, with a request to send, or the upstream's.
type socket struct {
	fd      int
	request []byte // nil at the upstream
	sent    time.Time
	buf     []byte
	n       int
}

func newEngine() (e *engine, err error) {
	e = &engine{epoll: -1, ln: -1}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	if e.ln, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, err
	}
	if err = unix.Bind(e.ln, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return nil, err
	}
	if err = unix.Listen(e.ln, 1024); err != nil {
		return nil, err
	}
	sa, err := unix.Getsockname(e.ln)
	if err != nil {
		return nil, err
	}
	e.addr = fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port)
	return e, unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, e.ln, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(e.ln)})
}

func (e *engine) close() {
	for _, s := range e.conns {
		if s != nil {
			e.drop(s)
		}
	}
	for _, fd := range []int{e.ln, e.epoll} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (e *engine) add(fd int, request []byte) (*socket, error) {
	if err := errors.Join(
		unix.SetNonblock(fd, true),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}),
	); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	s := &socket{fd: fd, request: request, buf: make([]byte, bufBytes)}
	for len(e.conns) <= fd {
		e.conns = append(e.conns, nil)
	}
	e.conns[fd] = s
	return s, nil
}

func (e *engine) drop(s *socket) {
	e.conns[s.fd] = nil
	_ = unix.Close(s.fd)
}

// load sends each connection's request again and again for a while.
func (e *engine) load(ctx context.Context, addr string, requests [][]byte, d time.Duration) (slice, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return slice{}, err
	}
	clients := make([]*socket, 0, len(requests))
	defer func() {
		for _, s := range clients {
			if e.conns[s.fd] == s {
				e.drop(s)
			}
		}
	}()
	for _, r := range requests {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return slice{}, err
		}
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
			_ = unix.Close(fd)
			return slice{}, fmt.Errorf("connect: %w", err)
		}
		s, err := e.add(fd, r)
		if err != nil {
			return slice{}, err
		}
		clients = append(clients, s)
	}
	begin := time.Now()
	e.end, e.bad, e.open, e.latency = begin.Add(d), 0, 0, e.latency[:0]
	for _, s := range clients {
		if err := e.send(s, begin); err != nil {
			return slice{}, err
		}
	}
	if err := e.loop(ctx); err != nil {
		return slice{}, err
	}
	r := slice{requests: len(e.latency), errors: e.bad, took: time.Since(begin)}
	slices.Sort(e.latency)
	r.p50, r.p99 = e.latency[r.requests/2], e.latency[r.requests*99/100]
	return r, nil
}

// loop runs until every request that was sent is answered.
func (e *engine) loop(ctx context.Context) error {
	events := make([]unix.EpollEvent, 256)
	progress := time.Now()
	for e.open > 0 {
		n, err := unix.EpollWait(e.epoll, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		now := time.Now()
		if n > 0 {
			progress = now
		} else if now.Sub(progress) > stallMax {
			return fmt.Errorf("%d requests are not answered", e.open)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, ev := range events[:max(n, 0)] {
			fd := int(ev.Fd)
			if fd == e.ln {
				if err := e.accept(); err != nil {
					return err
				}
				continue
			}
			if s := e.conns[fd]; s != nil {
				if err := e.readable(s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (e *engine) accept() error {
	for {
		fd, _, err := unix.Accept4(e.ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		if _, err := e.add(fd, nil); err != nil {
			return err
		}
	}
}

func (e *engine) send(s *socket, now time.Time) error {
	s.sent = now
	e.open++
	return write(s.fd, s.request)
}

// write writes all at once: what is sent here is smaller than any socket buffer.
func write(fd int, b []byte) error {
	n, err := unix.Write(fd, b)
	if err == nil && n < len(b) {
		err = errors.New("short write")
	}
	return err
}

func (e *engine) readable(s *socket) error {
	n, err := unix.Read(s.fd, s.buf[s.n:])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil || n == 0:
		e.drop(s)
		if s.request != nil {
			return fmt.Errorf("a client's connection ended: %w", errors.Join(err, errors.New("end of file")))
		}
		return nil // Envoy may close its own when it likes
	}
	s.n += n
	used := 0
	for {
		b := s.buf[used:s.n]
		head := bytes.Index(b, []byte("\r\n\r\n"))
		if head < 0 {
			break
		}
		head += 4
		if s.request == nil {
			used += head
			if err := e.serve(s, b[:head]); err != nil {
				return err
			}
			continue
		}
		status, length, err := parse(b[:head])
		if err != nil {
			return err
		}
		if len(b) < head+length {
			break
		}
		used += head + length
		if status != 200 && e.badText == "" {
			e.badText = string(b[:head+length])
		}
		if err := e.answered(s, status); err != nil {
			return err
		}
	}
	s.n = copy(s.buf, s.buf[used:s.n])
	if s.n == len(s.buf) {
		return errors.New("a message larger than the buffer")
	}
	return nil
}

// upstreamAnswer is what every request gets.
var upstreamAnswer = []byte("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

func (e *engine) serve(s *socket, head []byte) error {
	e.arrived++
	if bytes.Contains(head, []byte("\r\nx-dsp-decision-id: ")) {
		e.decided++
	}
	return write(s.fd, upstreamAnswer)
}

func (e *engine) answered(s *socket, status int) error {
	now := time.Now()
	e.open--
	e.latency = append(e.latency, now.Sub(s.sent))
	if status != 200 {
		e.bad++
	}
	if now.Before(e.end) && len(e.latency) < requestsMax {
		return e.send(s, now)
	}
	return nil
}

// parse reads what is needed of an answer's head, as Envoy writes it.
func parse(head []byte) (status, length int, err error) {
	if len(head) < 12 {
		return 0, 0, fmt.Errorf("no status line: %q", head)
	}
	if status, err = strconv.Atoi(string(head[9:12])); err != nil {
		return 0, 0, err
	}
	name := []byte("\r\ncontent-length: ")
	i := bytes.Index(head, name)
	if i < 0 {
		return 0, 0, errors.New("an answer without content-length")
	}
	v := head[i+len(name):]
	length, err = strconv.Atoi(string(v[:bytes.IndexByte(v, '\r')]))
	return status, length, err
}
