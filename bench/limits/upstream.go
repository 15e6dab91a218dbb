package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// callBytes is what the upstream is sent of a call: when it was decided, Unix
// milliseconds, 0 when that is not known.
const callBytes = 8

// arrival is a call that reached the upstream.
type arrival struct {
	At      time.Duration // CLOCK_BOOTTIME
	Decided int64         // Unix milliseconds
}

// runUpstream notes when each admitted call arrives, and writes it all down
// when its one client has hung up.
func runUpstream(socket, file string) error {
	ln, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	defer ln.Close()
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	clock := registry.NewBootClock()
	var all []arrival
	in := bufio.NewReaderSize(conn, 64*callBytes)
	for {
		var b [callBytes]byte
		if _, err := io.ReadFull(in, b[:]); err != nil {
			break
		}
		all = append(all, arrival{At: clock(), Decided: int64(binary.LittleEndian.Uint64(b[:]))})
	}
	f, err := os.Create(file + ".part")
	if err != nil {
		return err
	}
	out := bufio.NewWriter(f)
	for _, a := range all {
		fmt.Fprintln(out, int64(a.At), a.Decided)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(file+".part", file)
}

// upstream is the way to it.
type upstream struct {
	mu   sync.Mutex
	conn net.Conn
	err  error
}

// arrive sends an admitted call on.
func (u *upstream) arrive(decided int64) {
	var b [callBytes]byte
	binary.LittleEndian.PutUint64(b[:], uint64(decided))
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, err := u.conn.Write(b[:]); err != nil && u.err == nil {
		u.err = err
	}
}

// readArrivals reads what the upstream wrote.
func readArrivals(file string) (all []arrival, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewReader(f)
	for {
		var a arrival
		var at int64
		if _, err := fmt.Fscanln(in, &at, &a.Decided); err == io.EOF { //nolint:errorlint // Fscanln returns it bare
			return all, nil
		} else if err != nil {
			return nil, err
		}
		a.At = time.Duration(at)
		all = append(all, a)
	}
}
