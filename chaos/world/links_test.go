package world

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// TestALinkHealsFromEverything breaks a link that is in use, in every way and
// again and again: once healed it carries what is sent, whatever was under way.
func TestALinkHealsFromEverything(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(c, c); c.Close() }() // until the client goes
		}
	}()
	links, err := NewLinks()
	if err != nil {
		t.Fatal(err)
	}
	defer links.Close()
	link, err := links.Add("a link", echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	// Clients that keep connections, and give up on one that is silent.
	end := make(chan struct{})
	var clients sync.WaitGroup
	defer clients.Wait()
	defer close(end)
	for range 4 {
		clients.Go(func() {
			var c net.Conn
			for {
				select {
				case <-end:
					return
				default:
				}
				if c == nil {
					if c, err = net.DialTimeout("tcp", link.Addr(), time.Second); err != nil {
						c = nil
						time.Sleep(time.Millisecond)
						continue
					}
				}
				if !echoes(c, 30*time.Millisecond) {
					c.Close()
					c = nil
				}
			}
		})
	}
	for i := range 70 {
		how := []string{Slow, Cut, Silent, HalfUp, HalfDown, Reset, Lossy}[i%7]
		if err := link.Break(how, 40*time.Millisecond); err != nil {
			t.Fatalf("%d: %s: %v", i, how, err)
		}
		time.Sleep(rand.N(60 * time.Millisecond))
		if err := link.Heal(t.Context()); err != nil {
			t.Fatalf("%d: %s: heal: %v", i, how, err)
		}
		for began := time.Now(); ; {
			c, err := net.DialTimeout("tcp", link.Addr(), time.Second)
			ok := err == nil && echoes(c, time.Second)
			if err == nil {
				c.Close()
			}
			if ok {
				break
			}
			if time.Since(began) > 20*time.Second {
				t.Fatalf("%d: nothing gets through after %s was healed", i, how)
			}
		}
	}
}

// echoes tells whether what is written to a connection comes back in time.
func echoes(c net.Conn, within time.Duration) bool {
	_ = c.SetDeadline(time.Now().Add(within)) // a closed one fails below
	b := []byte("hello")
	if _, err := c.Write(b); err != nil {
		return false
	}
	_, err := io.ReadFull(c, b)
	return err == nil
}
