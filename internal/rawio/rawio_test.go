package rawio_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dspgate/dspgate/internal/rawio"
)

// pair is a connection accepted by a Listener, and its plain peer.
func pair(t *testing.T) (c, peer net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ln = rawio.Listener(ln)
	defer ln.Close()
	accepted := make(chan error, 1)
	go func() {
		var err error
		c, err = ln.Accept()
		accepted <- err
	}()
	if peer, err = net.Dial("unix", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := <-accepted; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer
}

// TestBothWaysAtOnce sends more each way than the socket holds, so that reads
// and writes both have to wait, while the other goes on.
func TestBothWaysAtOnce(t *testing.T) {
	c, peer := pair(t)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB
	errs := make(chan error, 3)
	go func() { _, err := c.Write(sent); errs <- err }()
	go func() { _, err := peer.Write(sent); errs <- err }()
	go func() {
		got := make([]byte, len(sent))
		_, err := io.ReadFull(peer, got)
		if err == nil && !bytes.Equal(got, sent) {
			err = errors.New("written wrongly")
		}
		errs <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("read wrongly, or not at all: %v", err)
	}
	for range 3 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if n, err := c.Read(nil); n != 0 || err != nil {
		t.Fatalf("a read of nothing: %d, %v", n, err)
	}
}

func TestTheEndsOfAConnection(t *testing.T) {
	c, peer := pair(t)
	if err := c.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("after the deadline: %v", err)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	peer.Close()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Fatalf("after the peer hung up: %v", err)
	}
	if _, err := c.Write([]byte("x")); err == nil {
		t.Fatal("written to a peer that hung up")
	}

	c, _ = pair(t)
	read := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); read <- err }()
	c.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}

// TestOthersAreLeftAsTheyAre: what is no socket has nothing to read raw.
func TestOthersAreLeftAsTheyAre(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if rawio.Conn(a) != a {
		t.Fatal("a pipe was wrapped")
	}
}
