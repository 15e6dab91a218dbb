package redisshare

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	rl "github.com/dspgate/dspgate/ratelimit"
)

// Usage is what the fleet has left of a limit, at most about a second old.
type Usage struct {
	Limit *rl.Limit
	// Remaining is how many requests, or subjects, may pass now; Used what is taken
	// of the burst, the amount, or the calls at once.
	Remaining, Used int64
	// Demand is requests a second that the fleet was asked for, refused ones too.
	Demand float64
	// Reset is when the limit is whole again: the end of the period, or when the
	// bucket has filled.
	Reset time.Time
}

// Usage reads limits, in one round trip. A limit without a record is whole.
func (p *Pool) Usage(ctx context.Context, now time.Time, limits []*rl.Limit) ([]Usage, error) {
	if len(limits) == 0 {
		return nil, nil
	}
	cmds := make([]*redis.StringCmd, len(limits))
	_, err := p.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i, l := range limits {
			period, _, _ := l.Period(now)
			cmds[i] = pipe.HGet(ctx, p.prefix+":r:"+name(l.ID, period), "h")
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("limits: read usage: %w", err)
	}
	out := make([]Usage, len(limits))
	for i, l := range limits {
		_, _, end := l.Period(now)
		total := l.Total()
		u := Usage{Limit: l, Remaining: l.Capacity(), Reset: end}
		head, err := cmds[i].Result()
		switch {
		case errors.Is(err, redis.Nil):
		case err != nil:
			return nil, fmt.Errorf("limits: read usage of %s: %w", l.ID, err)
		default:
			// "epoch version kind rate cap freerate freecap tok demand level gen", and
			// more that is the pool's own; the figures may be newer here than the record's.
			f, err := numbers(head, 11)
			if err != nil {
				return nil, fmt.Errorf("limits: read usage of %s: %w", l.ID, err)
			}
			left := min(max(f[7]+f[9]+total.Cap-f[4], 0), total.Cap)
			u.Remaining = left / rl.Micro
			u.Demand = float64(f[8]) / rl.Micro
			if l.Kind == rl.Rate && total.Rate > 0 {
				u.Reset = now.Add(time.Duration(float64(total.Cap-left) / float64(total.Rate) * 1e9))
			}
		}
		if u.Reset.IsZero() {
			u.Reset = now
		}
		u.Used = l.Capacity() - u.Remaining
		out[i] = u
	}
	return out, nil
}

// numbers reads at least n of them.
func numbers(s string, n int) ([]int64, error) {
	f := strings.Fields(s)
	if len(f) < n {
		return nil, ErrReply
	}
	out := make([]int64, len(f))
	for i := range f {
		v, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return nil, ErrReply
		}
		out[i] = v
	}
	return out, nil
}
