package redisrecord

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/authz"
)

// LimitCount is how often a limit refused on one day, fleet-wide.
type LimitCount struct {
	Refused uint64
	Shadow  uint64 // would have, were it enforced
}

// limitCountsKeep is how long a day's counts are kept.
const limitCountsKeep = 72 * time.Hour

func (s *Store) limitsKey(day string) string { return s.o.Key + ":limits:" + day }

// LimitDay names the day an instant is counted under: UTC, since the limits of
// one caller may have days of several zones.
func LimitDay(at time.Time) string { return at.UTC().Format(time.DateOnly) }

// countLimits adds up what the limits of a batch refused. Accounts are of
// limits of the register, so that nobody outside can make fields.
func (s *Store) countLimits(ctx context.Context, pipe redis.Pipeliner, batch []authz.Record) {
	type field struct{ day, name string }
	counts := map[field]int64{}
	for i := range batch {
		r := &batch[i]
		if r.Limit == "" && r.Shadow == "" {
			continue
		}
		day := LimitDay(r.At.Std())
		if r.Limit != "" {
			counts[field{day, "r " + r.Limit}]++
		}
		if r.Shadow != "" {
			counts[field{day, "s " + r.Shadow}]++
		}
	}
	days := map[string]bool{}
	for f, n := range counts {
		pipe.HIncrBy(ctx, s.limitsKey(f.day), f.name, n)
		days[f.day] = true
	}
	for day := range days {
		pipe.Expire(ctx, s.limitsKey(day), limitCountsKeep)
	}
}

// LimitCounts reads how often the limits of some accounts refused on the day of
// an instant, in the order of the accounts.
func (s *Store) LimitCounts(ctx context.Context, at time.Time, accounts []string) ([]LimitCount, error) {
	out := make([]LimitCount, len(accounts))
	if len(accounts) == 0 {
		return out, nil
	}
	fields := make([]string, 0, 2*len(accounts))
	for _, a := range accounts {
		fields = append(fields, "r "+a, "s "+a)
	}
	values, err := s.rdb.HMGet(ctx, s.limitsKey(LimitDay(at)), fields...).Result()
	if err != nil {
		return nil, fmt.Errorf("counts of limits: %w", err)
	}
	number := func(v any) uint64 {
		text, _ := v.(string)
		n, _ := strconv.ParseUint(text, 10, 64) // a field that is not there counts nothing
		return n
	}
	for i := range out {
		out[i] = LimitCount{Refused: number(values[2*i]), Shadow: number(values[2*i+1])}
	}
	return out, nil
}

// eachPage is how many entries, of up to 100 records, are read at once.
const eachPage = 50

// Each calls f with every record made between two instants, about in the order
// they were written, until it returns false. A record may come twice: a batch
// whose write was in doubt is written again.
func (s *Store) Each(ctx context.Context, from, to time.Time, f func(*authz.Record) bool) error {
	start := strconv.FormatInt(max(from.Add(-clockSkew).UnixMilli(), 0), 10)
	end := strconv.FormatInt(max(to.Add(authz.RecordLateMax+clockSkew).UnixMilli(), 0), 10)
	first, last := from.UnixMilli(), to.UnixMilli()
	for {
		page, err := s.rdb.XRangeN(ctx, s.o.Key, start, end, eachPage).Result()
		if err != nil {
			return fmt.Errorf("read decision records: %w", err)
		}
		for _, entry := range page {
			packed, _ := entry.Values[fieldBatch].(string)
			more := true
			if err := unpack([]byte(packed), func(r *authz.Record) bool {
				if at := int64(r.At); at >= first && at < last {
					more = f(r)
				}
				return more
			}); err != nil {
				return fmt.Errorf("read decision records: entry %s: %w", entry.ID, err)
			}
			if !more {
				return nil
			}
		}
		if len(page) < eachPage {
			return nil
		}
		start = "(" + page[len(page)-1].ID
	}
}
