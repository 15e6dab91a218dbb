package redisstore

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/registry"
)

// caseChunk is how many cases are read in one step of a snapshot.
const caseChunk = 500

// appendCases adds what the scripts want of the casework of one change. A case
// without a body (given back, and replaced by a later change) is only named.
func appendCases(args []any, cases []registry.CaseRecord) []any {
	at := len(args)
	args = append(args, 0)
	n := 0
	for i := range cases {
		if cases[i].Data != nil {
			args = append(args, cases[i].Key(), encodeCase(&cases[i]))
			n++
		}
	}
	args[at] = n
	return args
}

// CaseSnapshot implements registry.CaseStore. put must not write to c.Data.
func (s *Store) CaseSnapshot(ctx context.Context, put func(*registry.CaseRecord) error) error {
	client, err := s.client(ctx)
	if err != nil {
		return fmt.Errorf("read the casework: %w", classify(err, false))
	}
	for cursor, first := uint64(0), true; first || cursor != 0; first = false {
		var pairs []string
		cctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
		pairs, cursor, err = client.HScan(cctx, s.keyCases, cursor, "", caseChunk).Result()
		cancel()
		if err != nil {
			return fmt.Errorf("read the casework: %w", classify(err, false))
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			c, err := decodeCase(pairs[i], pairs[i+1])
			if err == nil {
				err = put(&c)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Cases implements registry.CaseStore.
func (s *Store) Cases(ctx context.Context, keys []string) ([]registry.CaseRecord, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	client, err := s.client(ctx)
	if err != nil {
		return nil, fmt.Errorf("read casework: %w", classify(err, false))
	}
	// In one read of the node that holds the slot: never from a replica behind it.
	vals, err := client.HMGet(ctx, s.keyCases, keys...).Result()
	if err != nil && err != redis.Nil {
		return nil, fmt.Errorf("read casework: %w", classify(err, false))
	}
	out := make([]registry.CaseRecord, 0, len(vals))
	for i, v := range vals {
		val, ok := v.(string)
		if !ok {
			continue
		}
		c, err := decodeCase(keys[i], val)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}
