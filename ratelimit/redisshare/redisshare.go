// Package redisshare is the pool of limits in Redis.
//
// Each request of a sidecar is one call of one script, which is atomic. All keys
// have one hash tag, so a Redis Cluster keeps them on one shard:
//
//	dspgate:{limits}:fleet     who has a seat, and the counters
//	dspgate:{limits}:hot       which limits have a record
//	dspgate:{limits}:notices   what every sidecar should hear of, the last thousand
//	dspgate:{limits}:r:ID      a limit's record; ID@PERIOD of a calendar limit
//	dspgate:{limits}:s:ID@DAY  keyed hashes of the subjects counted that day, the first ones
//	dspgate:{limits}:s:ID@DAY:more  a sketch of those beyond
//
// Records of rates and concurrency caps go when nobody uses the limit; those of
// calendar limits 40 days after their last use. Nothing here reads Redis's
// clock but the expiry of what is long out of use.
package redisshare

import (
	"context"
	"crypto/sha1"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	rl "github.com/dspgate/dspgate/ratelimit"
)

//go:embed sync.lua
var syncLua string

// Options says where the pool is. The zero value takes the defaults.
type Options struct {
	// Prefix starts every key; what is in braces is the hash tag. Default
	// dspgate:{limits}.
	Prefix string
	// Channel carries the hints between sidecars. Default {dspgate}:limits.
	Channel string
	// SubjectsExact is how many distinct subjects of one limit and day are counted
	// exactly. Those beyond are counted by a HyperLogLog of Redis, 12 KiB however
	// many they are, with a standard error of 0.81 % of them. Default 65536.
	SubjectsExact int
}

// Pool implements ratelimit.Pool, ratelimit.Waker and Reader's side for whoever
// shows the figures. Safe for concurrent use.
type Pool struct {
	rdb     redis.UniversalClient
	prefix  string
	channel string
	exact   int
	sha     string
}

// New makes a Pool; it does not connect. The client must not retry by itself
// (redisstore.Dial's does not): a request sent twice is one too many.
func New(rdb redis.UniversalClient, o Options) *Pool {
	if o.Prefix == "" {
		o.Prefix = "dspgate:{limits}"
	}
	if o.Channel == "" {
		o.Channel = "{dspgate}:limits"
	}
	if o.SubjectsExact == 0 {
		o.SubjectsExact = 65536
	}
	sum := sha1.Sum([]byte(syncLua)) // EVALSHA's name for it, no signature
	return &Pool{rdb: rdb, prefix: o.Prefix, channel: o.Channel, exact: o.SubjectsExact, sha: hex.EncodeToString(sum[:])}
}

// ErrReply: the script answered what it never does.
var ErrReply = errors.New("redisshare: unexpected reply")

// Sync implements ratelimit.Pool.
func (p *Pool) Sync(ctx context.Context, req *rl.Request) (*rl.Reply, error) {
	keys, args := p.pack(req)
	val, err := p.rdb.EvalSha(ctx, p.sha, keys, args...).Result()
	if err != nil && redis.HasErrorPrefix(err, "NOSCRIPT") {
		val, err = p.rdb.Eval(ctx, syncLua, keys, args...).Result()
	}
	if err != nil {
		return nil, fmt.Errorf("limits: ask Redis: %w", err)
	}
	rep, err := unpack(val, req)
	if err != nil {
		return nil, err
	}
	return rep, nil
}

func name(id, period string) string {
	if period == "" {
		return id
	}
	return id + "@" + period
}

// A field is never empty, so that what is packed by spaces can be taken apart.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func undash(s string) string {
	if s == "-" {
		return ""
	}
	return s
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (p *Pool) pack(req *rl.Request) (keys []string, args []any) {
	keys = append(make([]string, 0, 3+2*len(req.Items)), p.prefix+":fleet", p.prefix+":hot", p.prefix+":notices")
	args = append(make([]any, 0, 16+4*len(req.Claims)+20*len(req.Items)),
		p.channel, req.Seat, req.Tenure, req.Beat, req.Parts, bit(req.Dead), bit(req.Leave), req.Notice, bit(req.Fleet), bit(req.Whole), req.Born/1000, p.exact, req.Until, len(req.Claims)) // microseconds: Lua counts in 53 bits
	for _, c := range req.Claims {
		args = append(args, c.Tenure, c.Beat, bit(c.Gone), c.Over)
	}
	args = append(args, len(req.Items))
	for i := range req.Items {
		it := &req.Items[i]
		n := name(it.ID, it.Period)
		keys = append(keys, p.prefix+":r:"+n, p.prefix+":s:"+n)
		args = append(args, it.ID, dash(it.Period), it.Begin, int(it.Kind), it.Version, it.Total.Rate, it.Total.Cap,
			it.Held.Rate, it.Held.Cap, it.Returned, it.Spent, it.Level, it.Demand, it.Ask, it.AskCap, it.Into,
			bit(it.Standing)+2*bit(it.Nag)+4*bit(it.Idle), it.Open, it.Again, len(it.Subjects))
		for j := range it.Subjects {
			args = append(args, it.Subjects[j][:])
		}
	}
	return keys, args
}

// reader takes a reply apart; after the first surprise it only returns zeros.
type reader struct{ bad bool }

func (r *reader) list(v any, n int) []any {
	l, ok := v.([]any)
	if !ok || n >= 0 && len(l) != n {
		r.bad = true
		return make([]any, max(n, 0))
	}
	return l
}

func (r *reader) int(v any) int64 {
	switch v := v.(type) {
	case int64:
		return v
	case string:
		n, err := strconv.ParseInt(v, 10, 64)
		if err == nil {
			return n
		}
	}
	r.bad = true
	return 0
}

func (r *reader) text(v any) string {
	s, ok := v.(string)
	r.bad = r.bad || !ok
	return s
}

func unpack(val any, req *rl.Request) (*rl.Reply, error) {
	var r reader
	top := r.list(val, 11)
	rep := &rl.Reply{
		Tenure: uint64(r.int(top[0])), Parts: int(r.int(top[1])), Index: int(r.int(top[2])), Spent: r.int(top[3]) != 0,
		Stale: r.int(top[5]) != 0, Notice: uint64(r.int(top[7])), SpentUntil: r.int(top[10]),
	}
	for _, v := range r.list(top[4], -1) {
		id, period, _ := strings.Cut(r.text(v), " ")
		rep.Hot = append(rep.Hot, rl.HotLimit{ID: id, Period: undash(period)})
	}
	for _, v := range r.list(top[6], -1) {
		rep.Notices = append(rep.Notices, r.notice(r.text(v)))
	}
	for _, v := range r.list(top[8], -1) {
		s := r.list(v, 6)
		rep.Seats = append(rep.Seats, rl.Seat{Tenure: uint64(r.int(s[0])), Beat: uint64(r.int(s[1])), Absent: r.int(s[2]) != 0, Name: r.text(s[3]), Gone: r.int(s[4]) != 0, Over: r.int(s[5])})
	}
	for _, v := range r.list(top[9], -1) {
		rep.Items = append(rep.Items, r.item(v))
	}
	if r.bad || rep.Tenure == req.Tenure && !rep.Stale && len(rep.Items) != len(req.Items) {
		return nil, ErrReply
	}
	return rep, nil
}

func (r *reader) item(v any) rl.ItemReply {
	f := r.list(v, 14)
	it := rl.ItemReply{
		Epoch: uint64(r.int(f[0])), Version: uint64(r.int(f[1])),
		Total: rl.Share{Rate: r.int(f[2]), Cap: r.int(f[3])}, Held: rl.Share{Rate: r.int(f[4]), Cap: r.int(f[5])},
		Granted: r.int(f[6]), Target: r.int(f[7]), Free: r.int(f[8]), Room: r.int(f[9]), Rest: r.int(f[10]),
		Demand: r.int(f[11]), Short: r.int(f[12]) != 0,
	}
	for _, k := range r.list(f[13], -1) {
		it.Known = append(it.Known, r.int(k) != 0)
	}
	return it
}

func (r *reader) notice(s string) rl.Notice {
	f := strings.Fields(s)
	if len(f) != 10 {
		r.bad = true
		return rl.Notice{}
	}
	return rl.Notice{
		Seq: uint64(r.int(f[0])), Epoch: uint64(r.int(f[1])), ID: f[2], Period: undash(f[3]), Cold: f[4] == "1",
		Kind: rl.Kind(r.int(f[5])), Version: uint64(r.int(f[6])), Total: rl.Share{Rate: r.int(f[7]), Cap: r.int(f[8])}, Demand: r.int(f[9]),
	}
}

// Wake implements ratelimit.Waker.
func (p *Pool) Wake(ctx context.Context, ring func(rl.Hint)) {
	sub := p.rdb.Subscribe(ctx, p.channel)
	defer func() { _ = sub.Close() }() // its connection goes either way
	for {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-sub.Channel():
			if !ok {
				return
			}
			if h, ok := hint(m.Payload); ok {
				ring(h)
			}
		}
	}
}

func hint(s string) (h rl.Hint, ok bool) {
	f := strings.Fields(s)
	switch {
	case len(f) == 1 && f[0] == "*":
		return rl.Hint{}, true
	case len(f) == 2 && f[0] == "T":
		n, err := strconv.ParseUint(f[1], 10, 64)
		return rl.Hint{Tenure: n}, err == nil && n != 0
	case len(f) == 4 && f[0] == "R":
		n, err := strconv.ParseInt(f[3], 10, 64)
		return rl.Hint{ID: f[1], Period: undash(f[2]), Demand: n}, err == nil
	}
	return h, false
}
