// Package freeport picks ports of 127.0.0.1 for processes that cannot pick
// their own.
//
// The ports lie below those that the kernel gives to outgoing connections: once
// a listener is closed for a child to take its place, no connection made
// meanwhile takes the port away.
package freeport

import (
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	first = 20000
	count = 10000
	tries = 100
)

// Listen listens on a free port. Hold the listener while others are picked.
func Listen() (ln net.Listener, err error) {
	for range tries {
		ln, err = net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(first+rand.IntN(count)))
		if err == nil {
			return ln, nil
		}
	}
	return nil, err
}

// Pick finds "127.0.0.1:port" with a port that nobody listens on.
func Pick() (string, error) {
	ln, err := Listen()
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}
