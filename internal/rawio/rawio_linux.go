package rawio

import (
	"io"
	"net"
	"sync"
	"syscall"
	"unsafe"
)

// conn reads and writes by RawSyscall. Like any net.Conn it may be used by
// several goroutines at once.
type conn struct {
	net.Conn
	rc        syscall.RawConn
	in, out   half
	inf, outf func(fd uintptr) bool
}

// half is the system call under way in one direction.
type half struct {
	mu    sync.Mutex
	b     []byte
	n     int
	errno syscall.Errno
}

// Conn makes such a connection of a socket, and leaves any other as it is. What
// it returns does not show the socket beneath: nothing else may read it.
func Conn(nc net.Conn) net.Conn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nc
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nc
	}
	c := &conn{Conn: nc, rc: rc}
	c.inf = func(fd uintptr) bool { return c.in.once(syscall.SYS_READ, fd) }
	c.outf = func(fd uintptr) bool { return c.out.once(syscall.SYS_WRITE, fd) }
	return c
}

// once makes one system call; false when the socket is not ready for it.
func (h *half) once(call, fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(h.b))), uintptr(len(h.b)))
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		case 0:
			h.n = int(n)
		}
		h.errno = errno
		return true
	}
}

// begin is called with the lock held.
func (h *half) begin(b []byte) { h.b, h.n, h.errno = b, 0, 0 }

// done tells how a system call ended; err is that of waiting for it.
func (h *half) done(err error) error {
	h.b = nil
	switch {
	case err != nil:
		return err
	case h.errno == syscall.EPIPE || h.errno == syscall.ECONNRESET:
		return net.ErrClosed // the peer hung up
	case h.errno != 0:
		return h.errno
	}
	return nil
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	h := &c.in
	h.mu.Lock()
	defer h.mu.Unlock()
	h.begin(b)
	if err := h.done(c.rc.Read(c.inf)); err != nil {
		return 0, err
	}
	if h.n == 0 {
		return 0, io.EOF
	}
	return h.n, nil
}

func (c *conn) Write(b []byte) (written int, err error) {
	h := &c.out
	h.mu.Lock()
	defer h.mu.Unlock()
	for written < len(b) {
		h.begin(b[written:])
		if err := h.done(c.rc.Write(c.outf)); err != nil {
			return written, err
		}
		if h.n == 0 {
			return written, io.ErrUnexpectedEOF
		}
		written += h.n
	}
	return written, nil
}
