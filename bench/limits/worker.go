package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

// arrivals calls f with each arrival of a run, in order: when, counted from the
// beginning, and at which worker. All workers make up the same.
func (s *spec) arrivals(f func(at time.Duration, worker int)) {
	r := rand.New(rand.NewPCG(s.Seed, 7))
	weights := make([]float64, s.Workers)
	for at := time.Duration(0); ; {
		at += time.Duration(r.ExpFloat64() / (s.Rate * s.Load) * 1e9)
		if at >= s.For {
			return
		}
		var sum float64
		for i := range weights {
			weights[i] = s.weight(i, at.Seconds())
			sum += weights[i]
		}
		x, w := r.Float64()*sum, 0
		for ; w < s.Workers-1 && x > weights[w]; w++ {
			x -= weights[w]
		}
		f(at, w)
	}
}

// weight is how much of the load a worker gets, relative to the others.
func (s *spec) weight(worker int, seconds float64) float64 {
	switch s.Workload {
	case "zipf": // the second gets half of what the first does, the third a third
		return 1 / float64(worker+1)
	case "shifting": // nine tenths go to three of the workers, others every eight seconds
		if (3*int(seconds/8)+worker)%s.Workers < 3 {
			return 1
		}
		return 0.05
	case "bursty": // four fifths go to two of the workers, others every 200 ms
		if (int(seconds/0.2)*7+worker)%s.Workers < 2 {
			return 4
		}
	}
	return 0.25
}

// record is what a worker writes down of a verdict: 16 bytes.
type record struct {
	At     time.Duration // CLOCK_BOOTTIME of the verdict
	Kind   uint32        // index of the design, or callsOf + it
	Passed uint32        // 1 or 0, or the calls so far
}

const callsOf = 100

// journal writes records at once, so that a killed worker's are not lost.
type journal struct {
	mu sync.Mutex
	f  *os.File
}

func (j *journal) write(r record) {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], uint64(r.At))
	binary.LittleEndian.PutUint32(b[8:], r.Kind)
	binary.LittleEndian.PutUint32(b[12:], r.Passed)
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, err := j.f.Write(b[:]); err != nil {
		panic(err)
	}
}

// runWorker is one sidecar: it meets its arrivals until the run is over.
func runWorker(id, file string) error {
	n, err := strconv.Atoi(id)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s spec
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	// As the sidecar holds its state folder: nobody else can be this one.
	lock, err := os.OpenFile(filepath.Join(s.Dir, "lock-"+id), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(s.Dir, fmt.Sprintf("log-%s-%d", id, os.Getpid())), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	j := &journal{f: log}
	rdb, err := redisstore.Dial(redisstore.Config{Addrs: []string{s.Redis}, Timeout: time.Second})
	if err != nil {
		return err
	}
	defer func() { _ = rdb.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	all, wait, err := designs(ctx, s, id, rdb)
	if err != nil {
		return err
	}
	defer wait()
	defer cancel()
	return s.meet(n, all, j)
}

// meet puts each arrival of a worker to every design.
func (s *spec) meet(worker int, all []design, j *journal) error {
	clock := registry.NewBootClock()
	var pending sync.WaitGroup
	var slow atomic.Int64
	told := make([]uint32, len(all))
	var tellAt time.Duration
	tell := func(now time.Duration) {
		for i, d := range all {
			if calls := uint32(d.calls()); calls != told[i] {
				told[i] = calls
				j.write(record{now, callsOf + uint32(i), calls})
			}
		}
		tellAt = now + 100*time.Millisecond
	}
	s.arrivals(func(at time.Duration, w int) {
		if w != worker {
			return
		}
		due := s.Begin + at
		now := clock()
		if now-due > time.Second {
			return // before this process was: nobody was there to be asked
		}
		if now < due {
			time.Sleep(due - now)
			now = clock()
		}
		for i, d := range all {
			if !d.blocks() {
				passed := d.decide(now)
				j.write(record{now, uint32(i), bit(passed)})
				continue
			}
			if slow.Add(1) > 5000 { // nobody waits for ever
				slow.Add(-1)
				j.write(record{now, uint32(i), 0})
				continue
			}
			pending.Go(func() {
				defer slow.Add(-1)
				passed := d.decide(now)
				j.write(record{clock(), uint32(i), bit(passed)})
			})
		}
		if now >= tellAt {
			tell(now)
		}
	})
	pending.Wait()
	tell(clock())
	return nil
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// readLog reads what a worker wrote; of a killed one the last record may be half.
func readLog(file string, f func(record)) error {
	h, err := os.Open(file)
	if err != nil {
		return err
	}
	defer h.Close()
	r := bufio.NewReader(h)
	var b [16]byte
	for {
		for i := range b {
			c, err := r.ReadByte()
			if err != nil {
				return nil
			}
			b[i] = c
		}
		f(record{
			At:   time.Duration(binary.LittleEndian.Uint64(b[:])),
			Kind: binary.LittleEndian.Uint32(b[8:]), Passed: binary.LittleEndian.Uint32(b[12:]),
		})
	}
}

var errNobody = errors.New("no arrival was met")
