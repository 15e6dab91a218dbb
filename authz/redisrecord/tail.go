package redisrecord

import (
	"context"
	"fmt"

	"github.com/dspgate/dspgate/authz"
)

// tailEntries bounds what one call of Tail reads: so many entries of up to 100
// records.
const tailEntries = 64

// Tail calls f with the records written after a place in the stream, and returns
// the place to go on from. From "" it reads nothing and returns the end. Where
// more were written than it reads at once, it goes on from the end, and says so:
// who watches sees a part of a flood, and is never behind it.
func (s *Store) Tail(ctx context.Context, after string, f func(*authz.Record)) (next string, skipped bool, err error) {
	if after == "" {
		next, err = s.end(ctx, "0-0")
		return next, false, err
	}
	page, err := s.rdb.XRangeN(ctx, s.o.Key, "("+after, "+", tailEntries).Result()
	if err != nil {
		return after, false, fmt.Errorf("read decision records: %w", err)
	}
	next = after
	for _, entry := range page {
		next = entry.ID
		packed, _ := entry.Values[fieldBatch].(string)
		if err := unpack([]byte(packed), func(r *authz.Record) bool { f(r); return true }); err != nil {
			return next, false, fmt.Errorf("read decision records: entry %s: %w", entry.ID, err)
		}
	}
	if len(page) < tailEntries {
		return next, false, nil
	}
	end, err := s.end(ctx, next)
	return end, end != next, err
}

func (s *Store) end(ctx context.Context, otherwise string) (string, error) {
	last, err := s.rdb.XRevRangeN(ctx, s.o.Key, "+", "-", 1).Result()
	switch {
	case err != nil:
		return otherwise, fmt.Errorf("read decision records: %w", err)
	case len(last) == 0:
		return otherwise, nil
	}
	return last[0].ID, nil
}
