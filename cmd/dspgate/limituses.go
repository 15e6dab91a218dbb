package main

import (
	"context"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/redisrecord"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/ratelimit/redisshare"
)

// limitUsesTimeout bounds a reading: a page with figures missing is better than
// no page.
const limitUsesTimeout = 2 * time.Second

// limitUses reads what limits are at from the state the sidecars spend from,
// and what they refused from the records.
func limitUses(pool *redisshare.Pool, records *redisrecord.Store) control.LimitUses {
	return func(ctx context.Context, limits []*ratelimit.Limit) ([]control.LimitUse, error) {
		ctx, cancel := context.WithTimeout(ctx, limitUsesTimeout)
		defer cancel()
		now := time.Now()
		used, err := pool.Usage(ctx, now, limits)
		if err != nil {
			return nil, err
		}
		accounts := make([]string, len(limits))
		for i, l := range limits {
			accounts[i] = authz.AccountOf(l)
		}
		refused, err := records.LimitCounts(ctx, now, accounts)
		if err != nil {
			return nil, err
		}
		out := make([]control.LimitUse, len(limits))
		for i := range out {
			out[i] = control.LimitUse{Used: used[i].Used, Refused: refused[i].Refused, Shadow: refused[i].Shadow}
		}
		return out, nil
	}
}
