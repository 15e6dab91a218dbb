//go:build !linux

package rawio

import "net"

// Conn leaves connections as they are: see rawio_linux.go.
func Conn(nc net.Conn) net.Conn { return nc }
