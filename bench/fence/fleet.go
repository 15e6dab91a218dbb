package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/dspgate/dspgate/chaos/world"
)

// member is one follower process as the benchmark sees it.
type member struct {
	*world.Process
	id  string
	in  *os.File
	out *bufio.Reader
}

// fleet is all of them, told the same at the same time.
type fleet []*member

// startFleet starts n followers of the Redis at addr; the last one reaches it
// by way of another address.
func startFleet(dir, key, addr, lastAddr string, n int) (fleet, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var all fleet
	for i := range n {
		if i == n-1 {
			addr = lastAddr
		}
		m := &member{id: fmt.Sprintf("follower-%03d", i+1)}
		childIn, in, err := os.Pipe()
		if err != nil {
			return all, err
		}
		out, childOut, err := os.Pipe()
		if err != nil {
			return all, errors.Join(err, childIn.Close(), in.Close())
		}
		m.in, m.out = in, bufio.NewReaderSize(out, 1<<16)
		m.Process, err = world.StartPiped(dir, m.id, childIn, childOut, self, "follower", m.id, addr, key)
		// They are the child's now.
		if err = errors.Join(err, childIn.Close(), childOut.Close()); err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

func (f fleet) close() {
	for _, m := range f {
		m.Kill()
		_ = m.in.Close() // nothing is lost with it
	}
}

// ask sends a line and reads the line that answers it.
func (m *member) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(m.in, line); err != nil {
		return "", fmt.Errorf("%s: %w: %s", m.id, err, m.Tail())
	}
	answer, err := m.out.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", m.id, err, m.Tail())
	}
	return answer, nil
}

// all asks every member at once.
func (f fleet) all(line string) ([]string, error) {
	answers, errs := make([]string, len(f)), make([]error, len(f))
	var wg sync.WaitGroup
	for i, m := range f {
		wg.Go(func() { answers[i], errs[i] = m.ask(line) })
	}
	wg.Wait()
	return answers, errors.Join(errs...)
}

// floor measures the bare fan-out: what n followers of a stream take to hear
// of something and to say so.
type floor struct {
	redis   *world.Server
	fleet   fleet
	payload string
	next    int
}

// once sends n entries in one go and returns how long each took until the last
// follower had written back, in order.
func (f *floor) once(ctx context.Context, n int) ([]time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	rdb := f.redis.Client()
	first := f.next + 1
	f.next += n
	from := "0"
	if last, err := rdb.XRevRangeN(ctx, floorBack, "+", "-", 1).Result(); err != nil {
		return nil, err
	} else if len(last) > 0 {
		from = last[0].ID
	}
	conn := rdb.Conn()                  // reading must not wait for a connection to be made
	defer func() { _ = conn.Close() }() // nothing is lost with it
	if err := conn.Ping(ctx).Err(); err != nil {
		return nil, err
	}

	began := time.Now()
	sent := make(chan error, 1)
	go func() {
		p := rdb.Pipeline()
		for i := range n {
			p.Do(ctx, "XADD", floorOut, "MAXLEN", "~", "4096", "*", "n", first+i, "c", f.payload)
		}
		_, err := p.Exec(ctx)
		sent <- err
	}()
	took := make([]time.Duration, 0, n)
	have := make(map[string]int, len(f.fleet))
	low := 0 // entries that all have
	for low < n {
		got, err := conn.Do(ctx, "XREAD", "COUNT", "4096", "BLOCK", "1000", "STREAMS", floorBack, from).Result()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("floor: %d of %d followers answered: %w", len(have), len(f.fleet), ctx.Err())
		}
		if err != nil {
			continue // nothing yet
		}
		at := time.Since(began)
		if from, err = noteBack(got, have); err != nil {
			return nil, err
		}
		if len(have) < len(f.fleet) {
			continue
		}
		lowest := first + n
		for _, v := range have {
			lowest = min(lowest, v)
		}
		for low < n && first+low <= lowest {
			took = append(took, at)
			low++
		}
	}
	return took, <-sent
}

// noteBack takes in what came back: XREAD's reply of one stream.
func noteBack(reply any, have map[string]int) (last string, err error) {
	streams, ok := reply.([]any)
	if !ok || len(streams) != 1 {
		return "", errors.New("unexpected reply to XREAD")
	}
	stream, ok := streams[0].([]any)
	if !ok || len(stream) != 2 {
		return "", errors.New("unexpected reply to XREAD")
	}
	entries, _ := stream[1].([]any)
	for _, e := range entries {
		pair, ok := e.([]any)
		if !ok || len(pair) != 2 {
			return "", errors.New("unexpected entry")
		}
		fields, ok := pair[1].([]any)
		if !ok || len(fields) != 4 {
			return "", errors.New("unexpected entry")
		}
		n, err := strconv.Atoi(fmt.Sprint(fields[3]))
		if err != nil {
			return "", err
		}
		have[fmt.Sprint(fields[1])] = n
		last = fmt.Sprint(pair[0])
	}
	return last, nil
}
