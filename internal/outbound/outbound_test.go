package outbound

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

func TestOnlyPublicAddressesAreDialled(t *testing.T) {
	for addr, want := range map[string]bool{
		"1.1.1.1": true, "8.8.8.8": true, "2606:4700:4700::1111": true, "::ffff:8.8.8.8": true,
		"127.0.0.1": false, "::1": false, "10.1.2.3": false, "192.168.0.1": false, "172.16.0.1": false, "169.254.169.254": false,
		"fe80::1": false, "fc00::1": false, "::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "0.0.0.0": false, "0.1.2.3": false,
		"100.64.0.1": false, "198.18.0.1": false, "224.0.0.1": false, "255.255.255.255": false, "240.0.0.1": false,
		"64:ff9b::a00:1": false, "2002:a00:1::": false, "2001:db8::1": false, "ff02::1": false, "::": false, "203.0.113.9": false,
	} {
		if got := Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: public %t, want %t", addr, got, want)
		}
	}
}

// TestANameThatLeadsInsideIsRefusedAtTheConnect: also one that resolves to us
// only when it is dialled.
func TestANameThatLeadsInsideIsRefusedAtTheConnect(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"localhost", "127.0.0.1", "[::ffff:127.0.0.1]", "127.1.2.3"} {
		c, err := Dialer(5*time.Second)(t.Context(), "tcp", net.JoinHostPort(host, port))
		if !errors.Is(err, ErrNotPublic) && host != "[::ffff:127.0.0.1]" || err == nil {
			t.Errorf("%s: %v", host, err)
		}
		if c != nil {
			c.Close()
		}
	}
	c, err := Dialer(5*time.Second, netip.MustParsePrefix("127.0.0.1/32"))(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		t.Fatalf("allowed and refused: %v", err)
	}
	c.Close()
}
