// Package live passes on what happens as it happens: decisions, signals,
// incidents, suspensions and sidecars that fall behind.
//
// A Hub keeps the latest events in a ring, and every listener has a bounded
// queue of its own: who reads too slowly loses events and is told how many,
// and never holds up the others or whoever publishes. Nothing here is kept
// beyond the process: what must not be missed stands in the register and in the
// audit log.
//
// An event is written once for staff and once for the entities it concerns, and
// what a listener may not see is not counted, numbered or hinted at: the IDs of
// events are sealed, so that gaps between them tell nothing of others.
package live

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Topic is what an event is about, out of a closed set.
type Topic string

// The topics.
const (
	Decision   Topic = "decision"   // a call that was refused, or a sample of those allowed
	Decisions  Topic = "decisions"  // how many were decided how, about every second
	Signal     Topic = "signal"     // the watcher says that a caller strays
	Incident   Topic = "incident"   // raised or changed
	Suspension Topic = "suspension" // imposed, confirmed or lifted
	Sidecar    Topic = "sidecar"    // joined, lapsed, came back, left
)

// Topics are all topics.
func Topics() []Topic { return []Topic{Decision, Decisions, Signal, Incident, Suspension, Sidecar} }

// Event is something that happened. It does not change once it is published.
type Event struct {
	Topic Topic
	At    registry.Time
	// Text is the event in one sentence, for staff; Data its members.
	Text string
	Data json.RawMessage
	// Staff are those of the agency who may see it; 0: all of them.
	Staff registry.Permission
	// OwnText and OwnData are the same for the people of the entities in Owners,
	// who are told no more than is theirs. Everybody: for those of any entity.
	OwnText   string
	OwnData   json.RawMessage
	Owners    []registry.ABN
	Everybody bool
}

// Shown is an event as one listener sees it.
type Shown struct {
	ID    string          `json:"id" doc:"Where to go on from: send it as Last-Event-ID."`
	Topic Topic           `json:"topic" doc:"decision, decisions, signal, incident, suspension or sidecar."`
	At    registry.Time   `json:"at"`
	Text  string          `json:"text" doc:"In one sentence."`
	Data  json.RawMessage `json:"data" doc:"What it is about; its members depend on the topic."`
}

// Gap says that events are missing before what comes next.
type Gap struct {
	// Missed is how many of those the listener may see; nil when nobody knows.
	Missed *uint64 `json:"missed,omitempty"`
	// Reason: slow (it read too slowly), late (it came back too late), restarted
	// (the control plane that it heard from is another, or began anew).
	Reason string `json:"reason"`
}

// Bounds of a Hub.
const (
	ringMax   = 2048 // events kept to go on from
	queueMax  = 256  // events waiting for one listener
	Listeners = 128  // at once
	PerActor  = 8    // of one person or program
	lingers   = 2 * time.Minute
	// For is for how long one stream goes on: who still may listen begins another,
	// and a sign-in that ended does not listen on.
	For = 10 * time.Minute
)

// ErrFull: as many listen already as there may be.
var ErrFull = errors.New("too many listen already")

// Hub takes events and passes them on. Safe for concurrent use.
type Hub struct {
	seal  cipher.Block
	epoch uint64 // of this process
	now   func() time.Time

	mu        sync.Mutex
	ring      []*numbered // the latest, oldest first
	last      uint64
	listeners map[*Listener]struct{}
	watched   time.Time // when somebody listened last
	closed    bool
}

type numbered struct {
	Event
	number uint64
}

// NewHub makes a Hub.
func NewHub() *Hub {
	var key [24]byte
	_, _ = rand.Read(key[:]) // never fails, says crypto/rand
	block, err := aes.NewCipher(key[:16])
	if err != nil {
		panic("live: " + err.Error()) // 16 bytes are a key
	}
	return &Hub{seal: block, epoch: binary.BigEndian.Uint64(key[16:]), now: time.Now, listeners: map[*Listener]struct{}{}}
}

func (h *Hub) id(number uint64) string {
	var b [aes.BlockSize]byte
	binary.BigEndian.PutUint64(b[:8], h.epoch)
	binary.BigEndian.PutUint64(b[8:], number)
	h.seal.Encrypt(b[:], b[:])
	return hex.EncodeToString(b[:])
}

// number opens an ID; false for one of another process, or none at all.
func (h *Hub) number(id string) (uint64, bool) {
	b, err := hex.DecodeString(id)
	if err != nil || len(b) != aes.BlockSize {
		return 0, false
	}
	h.seal.Decrypt(b, b)
	return binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[:8]) == h.epoch
}

// show is the event as an actor may see it; false for nothing.
func (h *Hub) show(e *numbered, a registry.Actor) (Shown, bool) {
	s := Shown{ID: h.id(e.number), Topic: e.Topic, At: e.At, Text: e.Text, Data: e.Data}
	switch {
	case a.Staff():
		return s, e.Staff == 0 || a.Has(e.Staff)
	case a.Has(registry.PermDeveloper) && a.Entity != 0 && e.OwnData != nil && (e.Everybody || slices.Contains(e.Owners, a.Entity)):
		s.Text, s.Data = e.OwnText, e.OwnData
		return s, true
	}
	return Shown{}, false
}

// Publish passes an event on. It never waits.
func (h *Hub) Publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	n := &numbered{e, h.last}
	if len(h.ring) == ringMax {
		copy(h.ring, h.ring[1:])
		h.ring = h.ring[:ringMax-1]
	}
	h.ring = append(h.ring, n)
	for l := range h.listeners {
		if s, ok := h.wanted(l, n); ok {
			l.push(s)
		}
	}
}

func (h *Hub) wanted(l *Listener, n *numbered) (Shown, bool) {
	if len(l.topics) > 0 && !slices.Contains(l.topics, n.Topic) {
		return Shown{}, false
	}
	return h.show(n, l.actor)
}

// Latest are the last events that an actor may see, the newest first.
func (h *Hub) Latest(a registry.Actor, topics []Topic, max int) []Shown {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watched = h.now() // who looks now and then keeps the feed going
	out := []Shown{}
	l := &Listener{actor: a, topics: topics}
	for _, n := range slices.Backward(h.ring) {
		if s, ok := h.wanted(l, n); ok && len(out) < max {
			out = append(out, s)
		}
	}
	return out
}

// Watched tells whether somebody listens, or did a short while ago and may come
// back: what is costly to find out is only found out then.
func (h *Hub) Watched() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.listeners) > 0 || !h.watched.IsZero() && h.now().Sub(h.watched) < lingers
}

// Listen begins to listen, after the event with an ID that was heard before; ""
// begins now. The caller must Stop.
func (h *Hub) Listen(a registry.Actor, topics []Topic, after string) (*Listener, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	same := 0
	for l := range h.listeners {
		if l.actor.Name == a.Name {
			same++
		}
	}
	if h.closed || len(h.listeners) >= Listeners || same >= PerActor {
		return nil, ErrFull
	}
	l := &Listener{hub: h, actor: a, topics: topics, wake: make(chan struct{}, 1), over: make(chan struct{})}
	if after != "" {
		h.replay(l, after)
	}
	h.listeners[l] = struct{}{}
	h.watched = h.now()
	return l, nil
}

// replay gives a listener what it has missed, as far as the ring reaches.
func (h *Hub) replay(l *Listener, after string) {
	number, ours := h.number(after)
	first := h.last + 1
	if len(h.ring) > 0 {
		first = h.ring[0].number
	}
	switch {
	case !ours:
		l.gap = &Gap{Reason: "restarted"}
		number = 0
	case number+1 < first:
		l.gap = &Gap{Reason: "late"}
	}
	for _, n := range h.ring {
		if s, ok := h.wanted(l, n); ok && n.number > number {
			l.queue = append(l.queue, s) // the ring bounds it
		}
	}
	if l.gap != nil || len(l.queue) > 0 {
		l.wake <- struct{}{}
	}
}

// Close ends every listener; nobody may listen afterwards.
func (h *Hub) Close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for l := range h.listeners {
		close(l.over)
		delete(h.listeners, l)
	}
}

// Listener is one who listens. Its methods are for one goroutine.
type Listener struct {
	hub    *Hub
	actor  registry.Actor
	topics []Topic
	wake   chan struct{} // capacity 1
	over   chan struct{} // closed by Close

	// The hub's, under its lock.
	gap    *Gap // before the queue
	queue  []Shown
	missed uint64 // after the queue
}

func (l *Listener) push(s Shown) {
	if l.missed > 0 || len(l.queue) >= queueMax {
		l.missed++
	} else {
		l.queue = append(l.queue, s)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Wake gets a value when there is something to take; Over is closed when there
// will be nothing more.
func (l *Listener) Wake() <-chan struct{} { return l.wake }

// Over is closed when the hub closes.
func (l *Listener) Over() <-chan struct{} { return l.over }

// Take takes what there is: a gap before the events, the events, and a gap after
// them.
func (l *Listener) Take() (before *Gap, events []Shown, after *Gap) {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	before, events = l.gap, l.queue
	if l.missed > 0 {
		missed := l.missed
		after = &Gap{Missed: &missed, Reason: "slow"}
	}
	l.gap, l.queue, l.missed = nil, nil, 0
	return before, events, after
}

// Stop ends listening.
func (l *Listener) Stop() {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	delete(l.hub.listeners, l)
	l.hub.watched = l.hub.now()
}
