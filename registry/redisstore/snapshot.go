package redisstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/registry"
)

// Snapshot implements registry.Log. The next chunk is on its way while one is
// put. put must not write to r.Data: it is Redis's reply itself.
func (s *Store) Snapshot(ctx context.Context, put func(*registry.Record) error) (registry.Head, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := s.client(ctx)
	if err != nil {
		return registry.Head{}, fmt.Errorf("load the snapshot: %w", classify(err, false))
	}
	head, err := s.readHead(ctx, client)
	if err != nil {
		return head, fmt.Errorf("load the snapshot: %w", err)
	}
	chunks := make(chan scanned)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.scan(ctx, client, chunks)
	}()
	defer func() { cancel(); <-done }()
	for c := range chunks {
		if c.err != nil {
			return head, fmt.Errorf("load the snapshot: %w", c.err)
		}
		var r registry.Record
		for i := 0; i+1 < len(c.pairs); i += 2 {
			if err := decodeRecord(c.pairs[i], c.pairs[i+1], &r); err != nil {
				return head, fmt.Errorf("load the snapshot: %w", err)
			}
			if err := put(&r); err != nil {
				return head, err
			}
		}
	}
	return head, ctx.Err()
}

type scanned struct {
	pairs []string
	err   error
}

// scan sends the whole hash of records, chunk by chunk, and closes the channel
// when it is through; an error is sent as the last.
func (s *Store) scan(ctx context.Context, client redis.Cmdable, chunks chan<- scanned) {
	defer close(chunks)
	var cursor uint64
	for {
		var c scanned
		var next uint64
		// A step that took too long is asked for again, not the whole: where hundreds
		// load from a busy Redis, nobody would come to an end otherwise.
		for try := 0; try == 0 || c.err != nil && try < scanTries && ctx.Err() == nil; try++ {
			cctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
			c.pairs, next, c.err = client.HScan(cctx, s.keyRec, cursor, "", scanChunk).Result()
			cancel()
		}
		cursor, c.err = next, classify(c.err, false)
		select {
		case chunks <- c:
		case <-ctx.Done():
			return
		}
		if c.err != nil || cursor == 0 {
			return
		}
	}
}

func (s *Store) readHead(ctx context.Context, client redis.Cmdable) (registry.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	body, err := client.HGet(ctx, s.keyHead, "head").Result()
	if errors.Is(err, redis.Nil) {
		return registry.Head{}, nil // the empty register
	}
	if err != nil {
		return registry.Head{}, classify(err, false)
	}
	return decodeHead(body)
}

// Wake implements registry.Log.
func (s *Store) Wake(ctx context.Context) <-chan struct{} {
	return s.subscribe(ctx, s.wake, 1, s.notePush)
}

// WakeRoll implements registry.RollWaker.
func (s *Store) WakeRoll(ctx context.Context) <-chan struct{} {
	return s.subscribe(ctx, s.wakeRoll, rollWakesMax, func(string) {})
}

// rollWakesMax is how many acknowledgements are kept until the roll's reader has
// counted them.
const rollWakesMax = 4096

// subscribe forwards messages as wake-ups, of which up to keep wait to be taken, until ctx ends. A subscription made
// anew after a lost connection is one too: messages went by meanwhile. note
// gets each message before its wake-up.
func (s *Store) subscribe(ctx context.Context, channel string, keep int, note func(string)) <-chan struct{} {
	wake := make(chan struct{}, keep)
	sub := s.rdb.Subscribe(ctx, channel)
	go func() {
		defer func() { _ = sub.Close() }() // nothing is lost with it
		messages := sub.ChannelWithSubscriptions()
		for {
			select {
			case <-ctx.Done():
				return
			case m, open := <-messages:
				if !open {
					return
				}
				if m, ok := m.(*redis.Message); ok {
					note(m.Payload)
				}
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		}
	}()
	return wake
}
