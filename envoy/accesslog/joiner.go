package accesslog

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/authz"
)

// Alarm is why a request that reached an upstream should not have, out of a
// closed set.
type Alarm uint8

// The alarms.
const (
	// NoDecision: it went round the authorizer.
	NoDecision Alarm = iota
	// UnknownDecision: this sidecar never allowed it, or it was forwarded twice.
	UnknownDecision
	// DeniedForwarded: the decision was to refuse.
	DeniedForwarded
	nAlarms
)

var alarmWords = [nAlarms]string{"no-decision", "unknown-decision", "denied-forwarded"}

func (a Alarm) String() string { return alarmWords[a] }

// JoinerConfig bounds a Joiner.
type JoinerConfig struct {
	// Open is how many ALLOWs may wait for their log entry. Beyond it the oldest
	// facts are not known: further ALLOWs are not tracked, and requests without a
	// known one raise no alarm until LostAfter has passed. 48 bytes each.
	// Default 131072.
	Open int `yaml:"open"`
	// LostAfter is how long an ALLOW waits for its entry, or for the next sign of
	// life of a long stream (Envoy gives one every 5 s). Default 30s.
	LostAfter time.Duration `yaml:"lost_after"`

	// Start is when this process began: decisions from before are another's, and
	// are excused. Default: now.
	Start time.Time `yaml:"-"`
	// Log hears of alarms; nil discards.
	Log *slog.Logger `yaml:"-"`
	// Metrics gets the counters; nil keeps them to Counts.
	Metrics prometheus.Registerer `yaml:"-"`
}

// Joiner holds each ALLOW until the access log says what became of it. Safe for
// concurrent use; Allowed is on the request path.
type Joiner struct {
	lostAfter int64 // ms
	startedMs int64
	log       *slog.Logger
	shards    [nShards]shard

	forwarded    atomic.Uint64
	notForwarded [nCauses]atomic.Uint64
	alarms       [nAlarms]atomic.Uint64
	untracked    atomic.Uint64
	excused      atomic.Uint64
	refused      atomic.Uint64
	malformed    atomic.Uint64
	lastAlarm    [nAlarms]atomic.Int64 // ms of the last one logged
}

const nShards = 64

// NewJoiner makes a Joiner. It fails only when its metrics are registered
// already.
func NewJoiner(cfg JoinerConfig) (*Joiner, error) {
	if cfg.Open <= 0 {
		cfg.Open = 131072
	}
	if cfg.LostAfter <= 0 {
		cfg.LostAfter = 30 * time.Second
	}
	if cfg.Start.IsZero() {
		cfg.Start = time.Now()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	j := &Joiner{lostAfter: cfg.LostAfter.Milliseconds(), startedMs: cfg.Start.UnixMilli(), log: cfg.Log}
	slots := 8
	for slots*3/4*nShards < cfg.Open {
		slots *= 2
	}
	for i := range j.shards {
		j.shards[i].slots = make([]slot, slots)
	}
	if cfg.Metrics != nil {
		if err := cfg.Metrics.Register(collector{j}); err != nil {
			return nil, fmt.Errorf("access log metrics: %w", err)
		}
	}
	return j, nil
}

// Allowed remembers an ALLOW before it is answered. It takes one of 64 locks,
// each held for some tens of nanoseconds, and does not allocate.
func (j *Joiner) Allowed(id authz.DecisionID, at time.Time) {
	h := id.Hash()
	s := &j.shards[h%nShards]
	ms := at.UnixMilli()
	s.mu.Lock()
	ok := s.put(h/nShards, id, ms)
	if !ok {
		s.blindUntil = ms + j.lostAfter
	}
	s.mu.Unlock()
	if !ok {
		j.untracked.Add(1)
	}
}

// Consume joins an entry to its decision. It implements Consumer.
func (j *Joiner) Consume(e *Entry) {
	known, blind := j.settle(e)
	switch {
	case known && e.Alive:
	case known && e.Reached:
		j.forwarded.Add(1)
	case known:
		j.notForwarded[e.cause()].Add(1)
	case !e.Reached:
		// A refusal, or an ALLOW that was given up as lost already.
		j.refused.Add(1)
	case e.Decision.IsZero():
		j.alarm(NoDecision, e)
	case e.Reason != authz.OK:
		j.alarm(DeniedForwarded, e)
	case blind || j.excuse(e):
		j.excused.Add(1)
	default:
		j.alarm(UnknownDecision, e)
	}
}

// settle takes the decision out, or keeps it alive; blind means that it may have
// been forgotten for want of room.
func (j *Joiner) settle(e *Entry) (known, blind bool) {
	if e.Decision.IsZero() || e.Reason != authz.OK {
		return false, false
	}
	h := e.Decision.Hash()
	s := &j.shards[h%nShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := s.find(h/nShards, e.Decision); i >= 0 {
		if e.Alive {
			// Counted from the entry's own times: the clock of this process is the
			// clock of Envoy, they share a machine.
			s.slots[i].ms = max(s.slots[i].ms, e.Start.Add(e.Duration).UnixMilli())
		} else {
			s.remove(i)
		}
		return true, false
	}
	return false, e.Decision.Time().UnixMilli() <= s.blindUntil
}

// excuse tells whether a decision may well have been an ALLOW that is no longer
// known: it is from before this process, or so old that it was given up.
func (j *Joiner) excuse(e *Entry) bool {
	at := e.Decision.Time().UnixMilli()
	end := e.Start.Add(e.Duration).UnixMilli()
	return at < j.startedMs || end-at >= j.lostAfter
}

// alarm counts, and logs once a second for each kind.
func (j *Joiner) alarm(a Alarm, e *Entry) {
	n := j.alarms[a].Add(1)
	now := e.Start.Add(e.Duration).UnixMilli()
	last := j.lastAlarm[a].Load()
	if now-last < 1000 && last != 0 || !j.lastAlarm[a].CompareAndSwap(last, now) {
		return
	}
	j.log.Error("a request reached an upstream without exactly one ALLOW",
		"cause", a.String(), "decision", e.Decision, "service", e.Service, "status", e.Status, "start", e.Start, "so_far", n)
}

// Run gives up, once a second, the ALLOWs whose entry did not come. It returns
// nil when ctx ends.
func (j *Joiner) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			j.sweep(now)
		}
	}
}

func (j *Joiner) sweep(now time.Time) {
	before := now.UnixMilli() - j.lostAfter
	for i := range j.shards {
		s := &j.shards[i]
		s.mu.Lock()
		n := s.expire(before)
		s.mu.Unlock()
		j.notForwarded[Lost].Add(uint64(n))
	}
}

// Counts is what became of the decisions so far.
type Counts struct {
	Forwarded    uint64            // ALLOWs that reached an upstream
	NotForwarded map[string]uint64 // ALLOWs that did not, by cause
	Alarms       map[string]uint64 // requests that should not have, by cause
	Untracked    uint64            // ALLOWs there was no room for
	Excused      uint64            // forwarded, decision no longer known
	Refused      uint64            // entries of requests that were refused
	Malformed    uint64            // messages that did not decode
	Open         int               // ALLOWs waiting
}

// Counts reads the counters. It visits every shard.
func (j *Joiner) Counts() Counts {
	c := Counts{
		Forwarded: j.forwarded.Load(), NotForwarded: map[string]uint64{}, Alarms: map[string]uint64{},
		Untracked: j.untracked.Load(), Excused: j.excused.Load(), Refused: j.refused.Load(), Malformed: j.malformed.Load(),
	}
	for i := range nCauses {
		c.NotForwarded[i.String()] = j.notForwarded[i].Load()
	}
	for i := range nAlarms {
		c.Alarms[i.String()] = j.alarms[i].Load()
	}
	for i := range j.shards {
		s := &j.shards[i]
		s.mu.Lock()
		c.Open += s.n
		s.mu.Unlock()
	}
	return c
}

// shard is an open-addressing table of a fixed size: len(slots) is a power of
// two and a quarter of it stays free.
type shard struct {
	mu         sync.Mutex
	slots      []slot
	n          int
	blindUntil int64 // ms; an unknown decision made before it may have been one there was no room for
	_          [16]byte
}

type slot struct {
	id   authz.DecisionID
	used bool
	ms   int64 // of the ALLOW, or of the last sign of life
}

func (s *shard) put(h uint64, id authz.DecisionID, ms int64) bool {
	if s.n >= len(s.slots)*3/4 {
		return false
	}
	mask := uint64(len(s.slots) - 1)
	i := h & mask
	for s.slots[i].used {
		if s.slots[i].id == id {
			return true
		}
		i = (i + 1) & mask
	}
	s.slots[i] = slot{id, true, ms}
	s.n++
	return true
}

// find returns the slot of an ID, -1 when it is not there.
func (s *shard) find(h uint64, id authz.DecisionID) int {
	mask := uint64(len(s.slots) - 1)
	for i := h & mask; s.slots[i].used; i = (i + 1) & mask {
		if s.slots[i].id == id {
			return int(i)
		}
	}
	return -1
}

// remove empties a slot and moves up what had to step over it (Knuth 6.4 R).
func (s *shard) remove(i int) {
	mask := uint64(len(s.slots) - 1)
	hole := uint64(i)
	for k := (hole + 1) & mask; s.slots[k].used; k = (k + 1) & mask {
		home := s.slots[k].id.Hash() / nShards & mask
		if (k-home)&mask >= (k-hole)&mask {
			s.slots[hole] = s.slots[k]
			hole = k
		}
	}
	s.slots[hole] = slot{}
	s.n--
}

func (s *shard) expire(before int64) (n int) {
	if s.n == 0 {
		return 0
	}
	for i := 0; i < len(s.slots); i++ {
		for s.slots[i].used && s.slots[i].ms < before {
			s.remove(i) // may move another into this slot
			n++
		}
	}
	return n
}
