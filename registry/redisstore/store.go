// Package redisstore holds the register in Redis: the ledger, the log and the
// roll.
//
// Every key carries one hash tag, so that a Redis Cluster keeps them in one
// slot and every step below is one atomic script: a commit appends to the log
// and writes the records or does neither; a poll records what the sidecar
// holds and reads on.
//
//	{dspgate}:head      hash    rev, epoch, head (sealed)
//	{dspgate}:rec       hash    "product/FP-1001" → record (sealed)
//	{dspgate}:cases     hash    "application/AP-12" → casework (sealed); only control planes read it
//	{dspgate}:log       stream  entry "<revision>-0", field c: the change (sealed)
//	{dspgate}:roll      hash    incarnation and sidecar → when it polled, what it holds
//	{dspgate}:tenure    hash    whose life this is (run ID and replication ID), and whether its roll is whole
//	{dspgate}:claim     hash    the writer's epoch, holder, until
//	{dspgate}:observer  string  the last follower off the roll that polled
//	{dspgate}:guard     string  written beside each script before Redis 7, see runOnce
//	{dspgate}:once:KEY  string  the answer of an Idempotency-Key (encrypted), for a day
//	{dspgate}:step:KEY  hash    what was committed on the way to it (encrypted), for a day
//	{dspgate}:wake, {dspgate}:wake-roll   channels
//
// Redis 6.2 or later. What Redis holds is not believed: records, changes and
// heads are sealed under a key it never sees (registry.Sealer), and a Mirror
// checks them.
package redisstore

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/registry"
)

// Bounds of single replies.
const (
	followBytesMax = 1 << 20 // of changes in one poll, the last one may exceed it
	scanChunk      = 256     // records in one step of a snapshot: a fleet that loads at once must not wait for one another's
	scanTries      = 3       // of one step
	rangeChunk     = 64      // changes in one step of a listing
	rememberFor    = 24 * time.Hour
	answerBytesMax = 1 << 20
	// rollGrace is how long beyond its longest lease a silent sidecar stays on the roll, for people to see.
	rollGrace = time.Hour
)

// Store is the register in one Redis. Any number of goroutines may use it.
type Store struct {
	cfg       Config
	rdb       redis.UniversalClient
	log       *slog.Logger
	version   int         // major*1000+minor; 0 unknown
	localAOF  bool        // the primary itself writes an append-only file
	fsync     atomic.Bool // before every answer
	forgetful atomic.Bool // it kept each commit on disk once, and then no longer did
	pushes    registry.Pushes

	commit, follow, lead, leave, roll, settle, reassert script

	keyHead, keyRec, keyCases, keyLog, keyRoll, keyTenure, keyClaim, keyObserver, keyGuard, keyOnce, keyStep, wake, wakeRoll string
}

var (
	_ registry.Log         = (*Store)(nil)
	_ registry.Pusher      = (*Store)(nil)
	_ registry.Ledger      = (*Store)(nil)
	_ registry.GroupLedger = (*Store)(nil)
	_ registry.RollWaker   = (*Store)(nil)
	_ registry.CaseStore   = (*Store)(nil)
)

func newStore(cfg Config, rdb redis.UniversalClient, log *slog.Logger) *Store {
	p := "{" + cfg.Prefix + "}:"
	return &Store{
		cfg: cfg, rdb: rdb, log: log,
		keyHead: p + "head", keyRec: p + "rec", keyCases: p + "cases", keyLog: p + "log", keyRoll: p + "roll", keyTenure: p + "tenure", keyClaim: p + "claim",
		keyObserver: p + "observer", keyGuard: p + "guard", keyOnce: p + "once:", keyStep: p + "step:", wake: p + "wake", wakeRoll: p + "wake-roll",
	}
}

// Close closes the connections. Contexts of Wake and WakeRoll end on their own.
func (s *Store) Close() error { return s.rdb.Close() }

// Commit implements registry.Ledger.
func (s *Store) Commit(ctx context.Context, fence registry.Epoch, base registry.Mark, c *registry.Change, head *registry.Head) error {
	return s.CommitGroup(ctx, fence, base, []*registry.Change{c}, head)
}

// CommitGroup implements registry.GroupLedger. The same changes committed
// again, as after ErrUncertain, are no conflict.
func (s *Store) CommitGroup(ctx context.Context, fence registry.Epoch, base registry.Mark, changes []*registry.Change, head *registry.Head) error {
	if len(changes) == 0 {
		return nil
	}
	args := []any{uint64(fence), uint64(base.Revision), uint64(head.Revision), uint64(head.Epoch), encodeHead(head), s.cfg.LogMax, s.wake, string(appendDigest(nil, base.Digest)), encodeCaseSum(base.CaseSum)}
	reply, err := s.append(ctx, "commit", &s.commit, []string{s.keyHead, s.keyRec, s.keyLog, s.keyClaim, s.keyCases}, args, changes, head)
	if err != nil || reply == nil {
		return err
	}
	if reply[0] == "fenced" {
		return fmt.Errorf("commit revision %d: %w: epoch %d is over, it is %s now", head.Revision, registry.ErrFenced, fence, reply[1])
	}
	if store, err := strconv.ParseUint(reply[1], 10, 64); err == nil && registry.Revision(store) < base.Revision {
		return fmt.Errorf("commit revision %d: %w: %w: its head is %d", head.Revision, registry.ErrConflict, registry.ErrRewound, store)
	}
	return fmt.Errorf("commit revision %d: %w: the head is %s", head.Revision, registry.ErrConflict, reply[1])
}

// Reassert implements registry.Ledger.
func (s *Store) Reassert(ctx context.Context, store registry.Head, changes []*registry.Change, head *registry.Head) error {
	args := []any{uint64(store.Revision), encodeHead(&store), uint64(head.Revision), uint64(head.Epoch), encodeHead(head), s.wake}
	reply, err := s.append(ctx, "give back", &s.reassert, []string{s.keyHead, s.keyRec, s.keyLog, s.keyCases}, args, changes, head)
	if err != nil {
		return err
	}
	if reply != nil {
		return fmt.Errorf("give back revision %d: %w: the head is not %d any more but %s", head.Revision, registry.ErrConflict, store.Revision, reply[1])
	}
	return nil
}

// append runs a script that appends changes and waits for the replicas. It
// returns the script's refusal, nil when it has appended.
func (s *Store) append(ctx context.Context, doing string, sc *script, keys []string, args []any, changes []*registry.Change, head *registry.Head) ([]string, error) {
	args = append(args, len(changes))
	for i, c := range changes {
		if c.Revision != changes[0].Revision+registry.Revision(i) {
			panic("redisstore: a gap in the changes to append")
		}
		args = append(args, uint64(c.Revision), encodeChange(c), len(c.Puts))
		for j := range c.Puts {
			args = append(args, c.Puts[j].Key(), encodeRecord(&c.Puts[j]))
		}
		args = appendCases(args, c.Cases)
		if c.Keyed == nil {
			args = append(args, 0)
			continue
		}
		keys = append(keys, s.keyStep+c.Keyed.Key)
		args = append(args, len(c.Keyed.Steps), len(keys), int(rememberFor.Seconds()))
		for n, step := range c.Keyed.Steps {
			args = append(args, n, step)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout+s.replicaWait())
	defer cancel()
	val, replicas, err := s.run(ctx, sc, keys, args, s.cfg.Replicas > 0)
	if err != nil {
		return nil, fmt.Errorf("%s revision %d: %w", doing, head.Revision, classify(err, true))
	}
	reply, err := stringsOf(val, 2)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s revision %d: %w: %w", doing, head.Revision, registry.ErrUncertain, err)
	case reply[0] != "committed":
		return reply, nil
	case replicas < s.cfg.Replicas:
		return nil, fmt.Errorf("%s revision %d: %w: %d of %d", doing, head.Revision, registry.ErrNotDurable, replicas, s.cfg.Replicas)
	}
	return nil, nil
}

func (s *Store) replicaWait() time.Duration {
	if s.cfg.Replicas > 0 {
		return s.cfg.ReplicaTimeout
	}
	return 0
}

// Lead implements registry.Ledger; ttl 0 gives the claim up.
func (s *Store) Lead(ctx context.Context, holder string, have registry.Epoch, ttl time.Duration) (registry.Epoch, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	val, _, err := s.run(ctx, &s.lead, []string{s.keyClaim, s.keyHead}, []any{holder, uint64(have), max(ttl, 0).Milliseconds(), rand.IntN(1000)}, false)
	if err != nil {
		return 0, fmt.Errorf("take the writer's claim: %w", classify(err, false))
	}
	reply, ok := val.([]any)
	if !ok || len(reply) < 2 {
		return 0, fmt.Errorf("take the writer's claim: %w: unexpected reply", registry.ErrUnavailable)
	}
	epoch, _ := reply[1].(int64)
	if reply[0] != "held" {
		if len(reply) > 3 {
			return 0, fmt.Errorf("take the writer's claim: %w: %v holds epoch %d for %v ms more", registry.ErrFenced, reply[2], epoch, reply[3])
		}
		return 0, fmt.Errorf("take the writer's claim: %w", registry.ErrFenced)
	}
	return registry.Epoch(epoch), nil
}

// Follow implements registry.Log.
func (s *Store) Follow(ctx context.Context, ack registry.Ack, maxChanges int) (registry.Poll, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	observer := 0
	if ack.Observer {
		observer = 1
	}
	val, _, err := s.run(ctx, &s.follow, []string{s.keyHead, s.keyLog, s.keyRoll, s.keyObserver},
		[]any{memberField(ack.ID, ack.Incarnation), uint64(ack.Revision), encodeMember(&ack), observer, maxChanges, followBytesMax, s.wakeRoll}, false)
	if err != nil {
		return registry.Poll{}, fmt.Errorf("follow the log: %w", classify(err, false))
	}
	reply, err := stringsOf(val, 3)
	if err != nil {
		return registry.Poll{}, fmt.Errorf("follow the log: %w: %w", registry.ErrUnavailable, err)
	}
	var p registry.Poll
	if reply[1] != "" {
		if p.Head, err = decodeHead(reply[1]); err != nil {
			return p, fmt.Errorf("follow the log: %w", err)
		}
	}
	for i, entry := range reply[3:] {
		c, err := decodeChange(entry)
		if err == nil && c.Revision != ack.Revision+registry.Revision(i)+1 {
			err = fmt.Errorf("%w: log entry %d holds revision %d", registry.ErrTampered, ack.Revision+registry.Revision(i)+1, c.Revision)
		}
		if err != nil {
			return p, fmt.Errorf("follow the log: %w", err)
		}
		p.Changes = append(p.Changes, c)
	}
	if reply[2] == "trimmed" && len(p.Changes) == 0 {
		return p, fmt.Errorf("follow the log from %d: %w", ack.Revision, registry.ErrTrimmed)
	}
	return p, nil
}

// Leave implements registry.Log.
func (s *Store) Leave(ctx context.Context, id, incarnation string) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if _, _, err := s.run(ctx, &s.leave, []string{s.keyRoll}, []any{memberField(id, incarnation), s.wakeRoll}, false); err != nil {
		return fmt.Errorf("leave the roll: %w", classify(err, false))
	}
	return nil
}

// Roll implements registry.Ledger.
func (s *Store) Roll(ctx context.Context) (r registry.Roll, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	fsync := 0
	if s.fsync.Load() {
		fsync = 1
	}
	val, _, err := s.run(ctx, &s.roll, []string{s.keyRoll, s.keyTenure, s.keyHead}, []any{rollGrace.Milliseconds(), fsync}, false)
	if err != nil {
		return r, fmt.Errorf("read the roll: %w", classify(err, false))
	}
	reply, err := stringsOf(val, 4)
	if err != nil {
		return r, fmt.Errorf("read the roll: %w: %w", registry.ErrUnavailable, err)
	}
	now, err := strconv.ParseInt(reply[0], 10, 64)
	rev, rerr := strconv.ParseUint(reply[1], 10, 64)
	if err := errors.Join(err, rerr); err != nil {
		return r, fmt.Errorf("read the roll: %w: %w", registry.ErrUnavailable, err)
	}
	r = registry.Roll{At: registry.Time(now), Head: registry.Revision(rev), Tenure: reply[2], Settled: reply[3] == "1"}
	reply = reply[4:]
	r.Members = make([]registry.Member, 0, len(reply)/2)
	for i := 0; i+1 < len(reply); i += 2 {
		m, err := decodeMember(reply[i], reply[i+1])
		if err != nil {
			return registry.Roll{}, fmt.Errorf("read the roll: %w", err)
		}
		r.Members = append(r.Members, m)
	}
	return r, nil
}

// Settle implements registry.Ledger.
func (s *Store) Settle(ctx context.Context, tenure string) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	if _, _, err := s.run(ctx, &s.settle, []string{s.keyTenure}, []any{tenure}, false); err != nil {
		return fmt.Errorf("settle the roll: %w", classify(err, false))
	}
	return nil
}

// Replayed implements registry.Ledger.
func (s *Store) Replayed(ctx context.Context, key string) (k registry.Kept, err error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	client, err := s.client(ctx)
	if err != nil {
		return k, fmt.Errorf("read a stored answer: %w", classify(err, false))
	}
	var answer *redis.StringCmd
	var steps *redis.MapStringStringCmd
	_, err = client.Pipelined(ctx, func(p redis.Pipeliner) error {
		answer, steps = p.Get(ctx, s.keyOnce+key), p.HGetAll(ctx, s.keyStep+key)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return k, fmt.Errorf("read a stored answer: %w", classify(err, false))
	}
	if b, err := answer.Bytes(); err == nil {
		k.Answer = append([]byte{}, b...) // an empty answer is one, and not nil
	}
	for n, step := range steps.Val() {
		i, err := strconv.Atoi(n)
		if err != nil {
			return k, fmt.Errorf("read a stored answer: %w: step %.20q", registry.ErrTampered, n)
		}
		if k.Steps == nil {
			k.Steps = map[int][]byte{}
		}
		k.Steps[i] = []byte(step)
	}
	return k, nil
}

// Remember implements registry.Ledger. The first answer stays.
func (s *Store) Remember(ctx context.Context, key string, answer []byte) error {
	if len(answer) > answerBytesMax {
		return fmt.Errorf("store an answer: %w: %d bytes, at most %d", registry.ErrInvalid, len(answer), answerBytesMax)
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	err := s.rdb.SetArgs(ctx, s.keyOnce+key, answer, redis.SetArgs{Mode: "NX", TTL: rememberFor}).Err()
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("store an answer: %w", classify(err, false))
	}
	return nil
}

// Changes implements registry.Ledger.
func (s *Store) Changes(ctx context.Context, after registry.Revision, maxChanges int) ([]registry.Change, error) {
	var all []registry.Change
	next := after + 1
	for len(all) < maxChanges {
		got, head, err := s.changesFrom(ctx, next, min(maxChanges-len(all), rangeChunk))
		if err != nil {
			return nil, fmt.Errorf("read the log: %w", err)
		}
		for i := range got {
			if id := fmt.Sprintf("%d-0", next); got[i].ID != id {
				return nil, fmt.Errorf("read the log from %d: %w", after, registry.ErrTrimmed)
			}
			entry, _ := got[i].Values["c"].(string)
			c, err := decodeChange(entry)
			if err == nil && c.Revision != next {
				err = fmt.Errorf("%w: log entry %d holds revision %d", registry.ErrTampered, next, c.Revision)
			}
			if err != nil {
				return nil, fmt.Errorf("read the log: %w", err)
			}
			all = append(all, c)
			next++
		}
		if len(got) == 0 {
			if head >= next && len(all) == 0 {
				return nil, fmt.Errorf("read the log from %d: %w", after, registry.ErrTrimmed)
			}
			break
		}
	}
	return all, nil
}

func (s *Store) changesFrom(ctx context.Context, from registry.Revision, n int) ([]redis.XMessage, registry.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	// The head first: an entry appended in between is then no gap.
	head, err := s.rdb.HGet(ctx, s.keyHead, "rev").Uint64()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, 0, classify(err, false)
	}
	got, err := s.rdb.XRangeN(ctx, s.keyLog, fmt.Sprintf("%d-0", from), "+", int64(n)).Result()
	if err != nil {
		return nil, 0, classify(err, false)
	}
	return got, registry.Revision(head), nil
}

// stringsOf reads a reply of strings (nil is "") with at least n of them.
func stringsOf(val any, n int) ([]string, error) {
	list, ok := val.([]any)
	if !ok || len(list) < n {
		return nil, errors.New("unexpected reply")
	}
	out := make([]string, len(list))
	for i, x := range list {
		switch x := x.(type) {
		case string:
			out[i] = x
		case nil:
		default:
			return nil, fmt.Errorf("unexpected reply of %T", x)
		}
	}
	return out, nil
}

// classify says what a failed call means for the register. write: the call was
// a commit; then what was perhaps executed is ErrUncertain, where an answer of
// Redis itself, or no connection at all, says that it was not.
func classify(err error, write bool) error {
	var answered redis.Error
	var dial *net.OpError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answered) && !strings.HasPrefix(answered.Error(), "UNKILLABLE"),
		errors.As(err, &dial) && dial.Op == "dial",
		errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted), errors.Is(err, redis.ErrClosed),
		!write:
		return fmt.Errorf("%w: %w", registry.ErrUnavailable, err)
	}
	return fmt.Errorf("%w: %w", registry.ErrUncertain, err)
}
