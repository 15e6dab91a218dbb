package freeport

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
)

// TestPortsAreNotThoseOfOutgoingConnections: such a port is lost, now and
// then, to a connection made between the choice and the child's start.
func TestPortsAreNotThoseOfOutgoingConnections(t *testing.T) {
	b, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Fatal(err)
	}
	low, err := strconv.Atoi(strings.Fields(string(b))[0])
	if err != nil {
		t.Fatal(err)
	}
	if low < first+count {
		t.Fatalf("the kernel gives out ports from %d on; these go up to %d", low, first+count)
	}
	addr, err := Pick()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatalf("picked %s and cannot listen: %v", addr, err)
	}
	ln.Close()
}
