package extauthz

import (
	"io"
	"net"
	"syscall"
	"unsafe"
)

// rawIO reads and writes a socket without telling Go's scheduler. A socket of
// package net never blocks, so that there is nothing to tell; what it costs is
// waking the scheduler's watchdog thread after each pause, a futex call and a
// context switch for every few answers. Waiting is left to the poller, and
// deadlines hold as ever.
type rawIO struct {
	net.Conn
	rc          syscall.RawConn
	read, write func(fd uintptr) bool
	b           []byte
	n           int
	errno       syscall.Errno
}

// newIO makes a rawIO of a socket, and leaves any other connection as it is.
func newIO(nc net.Conn) net.Conn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nc
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return nc
	}
	r := &rawIO{Conn: nc, rc: rc}
	r.read = func(fd uintptr) bool { return r.once(syscall.SYS_READ, fd) }
	r.write = func(fd uintptr) bool { return r.once(syscall.SYS_WRITE, fd) }
	return r
}

// once makes one system call; false when the socket is not ready for it.
func (r *rawIO) once(call, fd uintptr) bool {
	for {
		n, _, errno := syscall.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(r.b))), uintptr(len(r.b)))
		switch errno {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			return false
		case 0:
			r.n = int(n)
		}
		r.errno = errno
		return true
	}
}

func (r *rawIO) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	r.b, r.n, r.errno = b, 0, 0
	if err := r.done(r.rc.Read(r.read)); err != nil {
		return 0, err
	}
	if r.n == 0 {
		return 0, io.EOF
	}
	return r.n, nil
}

func (r *rawIO) Write(b []byte) (written int, err error) {
	for written < len(b) {
		r.b, r.n, r.errno = b[written:], 0, 0
		if err := r.done(r.rc.Write(r.write)); err != nil {
			return written, err
		}
		if r.n == 0 {
			return written, io.ErrUnexpectedEOF
		}
		written += r.n
	}
	return written, nil
}

// done tells how a system call ended; err is that of waiting for it.
func (r *rawIO) done(err error) error {
	r.b = nil
	switch {
	case err != nil:
		return err
	case r.errno == syscall.EPIPE || r.errno == syscall.ECONNRESET:
		return net.ErrClosed // the peer hung up
	case r.errno != 0:
		return r.errno
	}
	return nil
}
