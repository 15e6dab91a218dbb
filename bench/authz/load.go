package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The load generator and the upstream are as small as can be: they share the
// processors with what is measured. HTTP/1.1, keep-alive, closed loop.

// slice is what one stretch of load measured.
type slice struct {
	requests, errors int
	took             time.Duration
	p50, p99         time.Duration
}

func (s slice) rate() float64 { return float64(s.requests) / s.took.Seconds() }

// requestsMax bounds a slice, whatever the machine.
const requestsMax = 2_000_000

// load sends each connection's request again and again for a while.
func load(ctx context.Context, addr string, requests [][]byte, d time.Duration) (slice, error) {
	ctx, cancel := context.WithTimeout(ctx, d+10*time.Second)
	defer cancel()
	conns := make([]net.Conn, len(requests))
	for i := range conns {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return slice{}, err
		}
		defer c.Close()
		conns[i] = c
	}
	var total slice
	var mu sync.Mutex
	var all []time.Duration
	var firstErr error
	var wg sync.WaitGroup
	begin := time.Now()
	end := begin.Add(d)
	for i, c := range conns {
		wg.Go(func() {
			lat, bad, err := loop(c, requests[i], end, requestsMax/len(conns))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, lat...)
			total.errors += bad
			if err != nil && firstErr == nil {
				firstErr = err
			}
		})
	}
	wg.Wait()
	total.took = time.Since(begin)
	total.requests = len(all)
	if firstErr != nil {
		return total, firstErr
	}
	if len(all) == 0 {
		return total, errors.New("no answer at all")
	}
	slices.Sort(all)
	total.p50, total.p99 = all[len(all)/2], all[len(all)*99/100]
	return total, nil
}

func loop(c net.Conn, request []byte, end time.Time, most int) (lat []time.Duration, bad int, err error) {
	if err := c.SetDeadline(end.Add(5 * time.Second)); err != nil {
		return nil, 0, err
	}
	lat = make([]time.Duration, 0, 1<<14)
	br := bufio.NewReaderSize(c, 8<<10)
	for start := time.Now(); start.Before(end) && len(lat) < most; {
		if _, err := c.Write(request); err != nil {
			return lat, bad, err
		}
		status, err := readAnswer(br)
		if err != nil {
			return lat, bad, err
		}
		if status != 200 {
			bad++
		}
		now := time.Now()
		lat = append(lat, now.Sub(start))
		start = now
	}
	return lat, bad, nil
}

// readAnswer reads one HTTP/1.1 answer with a Content-Length.
func readAnswer(br *bufio.Reader) (status int, err error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if len(line) < 12 {
		return 0, fmt.Errorf("no status line: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, err
	}
	length := -1
	for {
		if line, err = br.ReadSlice('\n'); err != nil {
			return 0, err
		}
		if len(line) == 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(": ")); bytes.EqualFold(name, []byte("content-length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, err
			}
		}
	}
	if length < 0 {
		return 0, errors.New("an answer without Content-Length")
	}
	_, err = io.CopyN(io.Discard, br, int64(length))
	return status, err
}

// upstream answers every request with the same two bytes, and counts those
// that carry a decision ID.
type upstream struct {
	ln      net.Listener
	arrived atomic.Int64
	decided atomic.Int64
	wg      sync.WaitGroup
}

func startUpstream() (*upstream, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{ln: ln}
	u.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go u.serve(c)
		}
	})
	return u, nil
}

func (u *upstream) close() {
	u.ln.Close()
	u.wg.Wait()
}

func (u *upstream) serve(c net.Conn) {
	defer c.Close()
	br := bufio.NewReaderSize(c, 16<<10)
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	for {
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) == 2 {
				break
			}
			if bytes.HasPrefix(line, []byte("x-dsp-decision-id:")) {
				u.decided.Add(1)
			}
		}
		u.arrived.Add(1)
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
