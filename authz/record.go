package authz

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Record is what is kept of one decision, for the one who asks why. It holds
// no path, no header, no token and no identifier of a client or person but as
// a keyed hash.
type Record struct {
	ID          DecisionID           `json:"id"`
	At          registry.Time        `json:"at"` // by the sidecar's clock
	Reason      Reason               `json:"reason"`
	Revision    registry.Revision    `json:"revision"` // of the register it was decided on
	Environment registry.Environment `json:"environment,omitempty"`
	Service     string               `json:"service,omitempty"` // key; "" when no route was found
	Route       string               `json:"route,omitempty"`   // "GET /lodgments/v1/receipts/{id}"
	ProductID   string               `json:"product_id,omitempty"`
	Version     string               `json:"version,omitempty"`
	ClientID    string               `json:"client_id,omitempty"` // of the client app, when it is registered
	Holder      registry.ABN         `json:"holder_abn,omitempty"`
	ClientHash  Hash                 `json:"client_hash,omitzero"` // of the client's ABN
	SSIDHash    Hash                 `json:"software_id_hash,omitzero"`
	// SubjectHash is of the person or client the call concerned.
	SubjectHash Hash `json:"subject_hash,omitzero"`
	// Limit is the account of the limit that refused; Shadow that of one that only
	// would have, were it enforced.
	Limit  string `json:"limit,omitempty"`
	Shadow string `json:"shadow_limit,omitempty"`
	// Suspension decided, or with reason ok was passed by because the service is
	// available while suspended.
	Suspension string `json:"suspension_id,omitempty"`
	Sidecar    string `json:"sidecar_id"`

	// NetworkHash is of where the call came from. It is for counting, and is not
	// kept.
	NetworkHash Hash `json:"-"`
}

// Hash is a keyed hash (SubjectHasher); zero when there was nothing to hash.
type Hash [16]byte

// MarshalText is lower-case hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText accepts what MarshalText writes.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) != hex.EncodedLen(len(h)) {
		return errors.New("a hash is 32 hexadecimal digits")
	}
	_, err := hex.Decode(h[:], b)
	return err
}

// MarshalText is the reason's code.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText accepts exactly the codes.
func (r *Reason) UnmarshalText(b []byte) error {
	v, ok := ParseReason(string(b))
	if !ok {
		return errors.New("no such reason")
	}
	*r = v
	return nil
}

// Sink is where records go, at most RecordBatch at once. It must not keep the
// slice. An error means that none of them was kept, and they are offered again.
type Sink interface {
	Write(ctx context.Context, batch []Record) error
}

// Bounds on how records wait.
const (
	RecordBatch    = 1024                   // records at most in one Write
	RecordDelay    = 200 * time.Millisecond // a record waits no longer for others to join it
	RecordLateMax  = 2 * time.Minute        // what could not be written for so long is dropped: a search by time would miss it
	recordQueue    = 1 << 14                // records waiting at most, over all shards (some 2.5 MB)
	recordWake     = 512                    // a shard wakes the writer every so many records
	recordDrainMax = 3 * time.Second        // for writing what is left at the end
	hashesMax      = 4096
)

// Recorder queues decision records on their way to a Sink. Record never blocks
// and does not allocate: when the queue is full the record is dropped and
// counted. The queue is split in shards, so that the callers share no lock and
// seldom a cache line.
type Recorder struct {
	sidecar string
	hasher  *SubjectHasher
	shards  []ring
	wake    chan struct{}
	running atomic.Bool
	written atomic.Uint64
	late    atomic.Uint64
}

// NewRecorder makes a Recorder for a sidecar. The hasher's key must be that of
// all sidecars, so that one client has one hash.
func NewRecorder(sidecar string, hasher *SubjectHasher) *Recorder {
	n := 1
	for n < runtime.GOMAXPROCS(0) && n < 8 {
		n *= 2
	}
	x := &Recorder{sidecar: sidecar, hasher: hasher, shards: make([]ring, n), wake: make(chan struct{}, 1)}
	for i := range x.shards {
		x.shards[i].init(recordQueue / n)
	}
	return x
}

// pending is a Decision as it waits: pointers into Views, which are immutable,
// for as long as it waits and no longer.
type pending struct {
	id          DecisionID
	reason      Reason
	environment registry.Environment
	at          registry.Time
	revision    registry.Revision
	app         *registry.ClientApp
	product     *registry.Product
	service     *registry.Service
	suspension  *registry.Suspension
	holder      registry.ABN
	client      registry.ABN
	ssid        string
	version     string
	subject     Hash
	network     [6]byte
	refused     *PlanItem
	shadowed    *PlanItem
}

// Record queues the record of a decision.
func (x *Recorder) Record(d *Decision) {
	s := &x.shards[rand.Uint32()%uint32(len(x.shards))]
	pos, ok := s.push(d)
	if !ok {
		s.dropped.Add(1)
		return
	}
	if pos%recordWake == recordWake-1 {
		select {
		case x.wake <- struct{}{}:
		default:
		}
	}
}

// Written is how many records the Sink has taken.
func (x *Recorder) Written() uint64 { return x.written.Load() }

// Dropped is how many records were lost: the queue was full, or the Sink
// refused them for longer than RecordLateMax or at the end.
func (x *Recorder) Dropped() uint64 {
	n := x.late.Load()
	for i := range x.shards {
		n += x.shards[i].dropped.Load()
	}
	return n
}

// Run moves records to the sink until ctx ends, and then what is still queued,
// for at most three seconds. It may run once, and after the last call of Record
// has returned it returns only when nothing is queued or the time is up.
func (x *Recorder) Run(ctx context.Context, sink Sink) {
	if x.running.Swap(true) {
		panic("authz: Recorder.Run twice")
	}
	w := writer{x: x, sink: sink, batch: make([]Record, 0, RecordBatch), hashes: map[hashKey]Hash{}, routes: map[route]string{}}
	tick := time.NewTicker(RecordDelay)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-x.wake:
			w.move(ctx, false)
		case <-tick.C:
			w.move(ctx, true)
		}
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordDrainMax)
	defer cancel()
	w.move(end, true)
	x.late.Add(uint64(len(w.batch)))
	var left pending
	for i := range x.shards { // what the time did not suffice for
		for x.shards[i].pop(&left) {
			x.late.Add(1)
		}
	}
}

// writer is the one goroutine that empties the queue.
type writer struct {
	x      *Recorder
	sink   Sink
	batch  []Record
	hashes map[hashKey]Hash // of clients seen lately; hashing costs more than all the rest
	routes map[route]string // Record.Route of services seen lately
}

type route struct{ method, template string }

type hashKey struct {
	abn     registry.ABN
	ssid    string
	network [6]byte
}

// move empties the queue into the sink. A batch that is not full is left for
// later unless all is asked for.
func (w *writer) move(ctx context.Context, all bool) {
	if len(w.batch) == RecordBatch && !w.write(ctx) { // left over when ctx ended
		return
	}
	var p pending
	for i := range w.x.shards {
		for w.x.shards[i].pop(&p) {
			w.batch = append(w.batch, w.record(&p))
			if len(w.batch) == RecordBatch && !w.write(ctx) {
				return
			}
		}
	}
	if all && len(w.batch) > 0 {
		w.write(ctx)
	}
}

// write offers the batch until it is taken, too old, or ctx ends; false in the
// last case alone, when the batch is kept.
func (w *writer) write(ctx context.Context) bool {
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := w.sink.Write(ctx, w.batch)
		if err == nil {
			w.x.written.Add(uint64(len(w.batch)))
			break
		}
		if oldest := w.batch[0].At; time.Since(oldest.Std()) > RecordLateMax {
			w.x.late.Add(uint64(len(w.batch)))
			break
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(pause):
		}
	}
	clear(w.batch)
	w.batch = w.batch[:0]
	return true
}

func (w *writer) record(p *pending) Record {
	r := Record{
		ID: p.id, At: p.at, Reason: p.reason, Revision: p.revision, Environment: p.environment,
		Version: p.version, Holder: p.holder, Sidecar: w.x.sidecar, SubjectHash: p.subject,
	}
	if p.service != nil {
		r.Service = p.service.Key
		r.Route = w.route(route{p.service.Method, p.service.Template})
	}
	if p.app != nil {
		r.ClientID, r.ProductID = p.app.ClientID, p.app.ProductID
	}
	if p.product != nil {
		r.ProductID = p.product.ID
	}
	if p.suspension != nil {
		r.Suspension = p.suspension.ID
	}
	if p.refused != nil {
		r.Limit = p.refused.Account
	}
	if p.shadowed != nil {
		r.Shadow = p.shadowed.Account
	}
	if p.client != 0 {
		r.ClientHash = w.hash(hashKey{abn: p.client}, "client_abn", p.client.String)
	}
	if p.network != [6]byte{} {
		r.NetworkHash = w.hash(hashKey{network: p.network}, "network", func() string { return hex.EncodeToString(p.network[:]) })
	}
	if p.ssid != "" {
		r.SSIDHash = w.hash(hashKey{ssid: p.ssid}, "software_id", func() string { return p.ssid })
	}
	return r
}

func (w *writer) route(k route) string {
	s, ok := w.routes[k]
	if !ok {
		if len(w.routes) >= hashesMax {
			clear(w.routes)
		}
		s = k.method + " " + k.template
		w.routes[k] = s
	}
	return s
}

func (w *writer) hash(k hashKey, kind string, id func() string) Hash {
	h, ok := w.hashes[k]
	if !ok {
		if len(w.hashes) >= hashesMax {
			clear(w.hashes)
		}
		h = Hash(w.x.hasher.Sum(kind, id()))
		w.hashes[k] = h
	}
	return h
}

// ring is a bounded queue of many producers and one consumer (Vyukov's): a
// slot's sequence number says whose turn it is, so that neither side waits for
// the other.
type ring struct {
	tail    atomic.Uint64
	_       [56]byte
	dropped atomic.Uint64
	_       [56]byte
	head    uint64 // the consumer's own
	slots   []slot
	_       [32]byte
}

type slot struct {
	// turn is the position whose producer may write the slot, or that position
	// plus one once it is written.
	turn atomic.Uint64
	pending
}

func (q *ring) init(n int) {
	if n&(n-1) != 0 {
		panic(fmt.Sprintf("authz: %d slots are no power of two", n))
	}
	q.slots = make([]slot, n)
	for i := range q.slots {
		q.slots[i].turn.Store(uint64(i))
	}
}

// push copies a decision into the queue and returns its position; false when
// the queue is full.
func (q *ring) push(d *Decision) (uint64, bool) {
	mask := uint64(len(q.slots) - 1)
	pos := q.tail.Load()
	for {
		s := &q.slots[pos&mask]
		switch ahead := int64(s.turn.Load() - pos); {
		case ahead < 0:
			return 0, false // not emptied since the last time round
		case ahead == 0 && q.tail.CompareAndSwap(pos, pos+1):
			s.pending = pending{
				id: d.ID, reason: d.Reason, environment: d.Environment, at: registry.At(d.At), revision: d.Revision,
				app: d.App, product: d.Product, service: d.Service, suspension: d.Suspension,
				holder: d.Holder, client: d.ClientABN, ssid: d.SSID, version: d.Version,
				subject: d.SubjectHash, network: d.Network, refused: d.Refused, shadowed: d.Shadowed,
			}
			s.turn.Store(pos + 1)
			return pos, true
		}
		pos = q.tail.Load()
	}
}

// pop moves the oldest record out; false when there is none.
func (q *ring) pop(p *pending) bool {
	s := &q.slots[q.head&uint64(len(q.slots)-1)]
	if s.turn.Load() != q.head+1 {
		return false
	}
	*p = s.pending
	s.pending = pending{} // or an idle sidecar would hold on to old Views
	s.turn.Store(q.head + uint64(len(q.slots)))
	q.head++
	return true
}
