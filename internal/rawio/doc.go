// Package rawio reads and writes sockets without telling Go's scheduler. A
// socket of package net never blocks, so that there is nothing to tell; what
// telling costs is waking the scheduler's watchdog thread after each pause: a
// futex call, a context switch, and then its looks every 20 µs. Waiting is left to
// the poller, and deadlines hold as ever. On systems other than Linux nothing
// changes.
package rawio

import "net"

// Listener gives out connections as Conn makes them.
func Listener(ln net.Listener) net.Listener { return listener{ln} }

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return Conn(c), nil
}
