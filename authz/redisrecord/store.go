// Package redisrecord keeps decision records in Redis for a day, so that any
// control plane can say why one call was decided as it was.
//
// Records lie in one stream, a batch to an entry, trimmed by age and by number.
// A record is found by the time inside its ID. The last denials of each product
// are kept apart, in a short list per registered product, for its developer.
// Records are for people: no decision ever reads them.
package redisrecord

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// Options tunes a Store. The zero value of each field takes the default.
type Options struct {
	// Key is the stream; the lists of denials are Key:denied:PRODUCT. Default
	// dspgate:decisions.
	Key string
	// Keep is for how long a record is kept at least, unless EntriesMax is
	// reached first. Default 24 h.
	Keep time.Duration
	// EntriesMax bounds the stream, whatever the rate: each entry holds 1 to 100
	// records of 60 to 200 bytes. A full one costs about 6 KB, one of an idle
	// sidecar 250 bytes. Default 200,000.
	EntriesMax int64
	// DeniedMax is how many denials are kept per product. Default 20.
	DeniedMax int
}

// Store reads and writes records. Safe for concurrent use, Write by one
// Recorder.
type Store struct {
	rdb redis.UniversalClient
	o   Options
	n   int // calls of Write that succeeded; Write's own, as what follows
	p   packer
	buf []byte
}

// New makes a Store; it does not connect.
func New(rdb redis.UniversalClient, o Options) *Store {
	if o.Key == "" {
		o.Key = "dspgate:decisions"
	}
	if o.Keep == 0 {
		o.Keep = 24 * time.Hour
	}
	if o.EntriesMax == 0 {
		o.EntriesMax = 200_000
	}
	if o.DeniedMax == 0 {
		o.DeniedMax = 20
	}
	return &Store{rdb: rdb, o: o}
}

const (
	fieldFirst = "f" // the least decision ID of the batch
	fieldLast  = "l" // the greatest
	fieldBatch = "b"

	entryMax  = 100 // records in an entry: Find reads whole entries
	trimEvery = 16  // calls of Write between trims by number
)

// Write implements authz.Sink: one round trip for the batch, in entries of up to
// 100 records. Redis appends what comes at once to its file at once: with
// appendfsync always that costs as much for ten entries as for one.
func (s *Store) Write(ctx context.Context, batch []authz.Record) error {
	if len(batch) == 0 {
		return nil
	}
	pipe := s.rdb.Pipeline()
	minID := strconv.FormatInt(time.Now().Add(-s.o.Keep).UnixMilli(), 10)
	s.buf = s.buf[:0]
	for entry := range slices.Chunk(batch, entryMax) {
		first, last := entry[0].ID, entry[0].ID
		for i := range entry {
			if id := entry[i].ID; string(id[:]) < string(first[:]) {
				first = id
			} else if string(id[:]) > string(last[:]) {
				last = id
			}
		}
		at := len(s.buf)
		s.buf = s.p.pack(s.buf, entry) // may move it, which leaves the earlier entries what they are
		pipe.XAdd(ctx, &redis.XAddArgs{
			Stream: s.o.Key,
			MinID:  minID,
			Approx: true,
			Values: []any{fieldFirst, first.String(), fieldLast, last.String(), fieldBatch, s.buf[at:len(s.buf):len(s.buf)]},
		})
	}
	// XADD trims by one strategy at a time; the bound on number is the one that
	// keeps the register's memory safe under a flood.
	if s.n%trimEvery == 0 {
		pipe.XTrimMaxLenApprox(ctx, s.o.Key, s.o.EntriesMax, 0)
	}
	s.denied(ctx, pipe, batch)
	s.countLimits(ctx, pipe, batch)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("write %d decision records: %w", len(batch), err)
	}
	s.n++
	return nil
}

// denied keeps the last denials of each product of the batch. Only registered
// products have one, so that nobody outside can make keys.
func (s *Store) denied(ctx context.Context, pipe redis.Pipeliner, batch []authz.Record) {
	by := map[string][]any{}
	for i := range slices.Backward(batch) { // the newest, should there be too many
		r := &batch[i]
		if r.Reason == authz.OK || r.ProductID == "" || len(by[r.ProductID]) >= s.o.DeniedMax {
			continue
		}
		by[r.ProductID] = append(by[r.ProductID], pack(nil, batch[i:i+1]))
	}
	for product, packed := range by {
		slices.Reverse(packed) // LPUSH puts its last argument first
		key := s.deniedKey(product)
		pipe.LPush(ctx, key, packed...)
		pipe.LTrim(ctx, key, 0, int64(s.o.DeniedMax-1))
		pipe.Expire(ctx, key, s.o.Keep)
	}
}

func (s *Store) deniedKey(product string) string { return s.o.Key + ":denied:" + product }

// find returns the batches of a part of the stream that may hold an ID, and
// where to go on ("" at the end), so that Redis does not send a minute's
// records to have one looked at.
var find = redis.NewScript(`
local found, last = {}, ''
local page = redis.call('XRANGE', KEYS[1], ARGV[1], ARGV[2], 'COUNT', ARGV[3])
for _, entry in ipairs(page) do
  local v = entry[2]
  if v[1] == 'f' and v[3] == 'l' and v[5] == 'b' and v[2] <= ARGV[4] and ARGV[4] <= v[4] then
    found[#found + 1] = v[6]
  end
  last = entry[1]
end
if #page < tonumber(ARGV[3]) then last = '' end
return {last, found}`)

// The clocks of the sidecars and of Redis may differ by clockSkew either way.
const (
	clockSkew = 10 * time.Second
	findPage  = 128
)

// Find finds the record of a decision; registry.ErrNotFound when there is none
// (never was, dropped, trimmed, or not written yet: records take about 200 ms).
func (s *Store) Find(ctx context.Context, id authz.DecisionID) (*authz.Record, error) {
	at := id.Time()
	// Most records are written within a second; the rest when Redis came back.
	near, far := at.Add(2*time.Second), at.Add(authz.RecordLateMax+clockSkew)
	for _, span := range [...][2]time.Time{
		{at.Add(-time.Second), near}, {near, far}, {at.Add(-clockSkew), at.Add(-time.Second)},
	} {
		r, err := s.findIn(ctx, id, span[0], span[1])
		if r != nil || err != nil {
			return r, err
		}
	}
	return nil, fmt.Errorf("decision %s: %w", id, registry.ErrNotFound)
}

func (s *Store) findIn(ctx context.Context, id authz.DecisionID, from, to time.Time) (*authz.Record, error) {
	start := strconv.FormatInt(max(from.UnixMilli(), 0), 10)
	end := strconv.FormatInt(max(to.UnixMilli(), 0), 10)
	for start != "" {
		reply, err := find.Run(ctx, s.rdb, []string{s.o.Key}, start, end, findPage, id.String()).Slice()
		if err != nil {
			return nil, fmt.Errorf("find decision %s: %w", id, err)
		}
		if len(reply) != 2 {
			return nil, fmt.Errorf("find decision %s: %w", id, errFormat)
		}
		last, _ := reply[0].(string)
		found, _ := reply[1].([]any)
		for _, b := range found {
			packed, _ := b.(string)
			var hit *authz.Record
			if err := unpack([]byte(packed), func(r *authz.Record) bool {
				if r.ID == id {
					hit = r
				}
				return hit == nil
			}); err != nil {
				return nil, fmt.Errorf("find decision %s: %w", id, err)
			}
			if hit != nil {
				return hit, nil
			}
		}
		if start = last; start != "" {
			start = "(" + start
		}
	}
	return nil, nil
}

// Filter says whose denials are asked for.
type Filter struct {
	// Products are IDs of registered products: an entity's own, for its developer.
	Products []string
	// Holder, when set, leaves only denials of calls made with this entity's
	// credentials.
	Holder registry.ABN
}

// productsMax bounds what one call of Recent reads.
const productsMax = 200

// ErrFilter: a filter of no product, or of more than 200.
var ErrFilter = errors.New("redisrecord: filter of 1 to 200 products")

// Recent lists the last denials of some products, newest first, at most limit
// and at most Options.DeniedMax of each product.
func (s *Store) Recent(ctx context.Context, f Filter, limit int) ([]authz.Record, error) {
	if len(f.Products) == 0 || len(f.Products) > productsMax {
		return nil, ErrFilter
	}
	pipe := s.rdb.Pipeline()
	lists := make([]*redis.StringSliceCmd, len(f.Products))
	for i, p := range f.Products {
		lists[i] = pipe.LRange(ctx, s.deniedKey(p), 0, int64(s.o.DeniedMax-1))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("recent denials: %w", err)
	}
	var all []authz.Record
	for _, l := range lists {
		for _, packed := range l.Val() {
			if err := unpack([]byte(packed), func(r *authz.Record) bool {
				if f.Holder == 0 || r.Holder == f.Holder {
					all = append(all, *r)
				}
				return true
			}); err != nil {
				return nil, fmt.Errorf("recent denials: %w", err)
			}
		}
	}
	slices.SortFunc(all, func(a, b authz.Record) int { return strings.Compare(b.ID.String(), a.ID.String()) })
	all = slices.CompactFunc(all, func(a, b authz.Record) bool { return a.ID == b.ID }) // a batch written twice
	if len(all) > limit {
		all = all[:max(limit, 0)]
	}
	return all, nil
}
