package main

import (
	"context"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/redisrecord"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
)

// decisionsOf lets the API read the decision records that sidecars keep in Redis.
func decisionsOf(s *redisrecord.Store) control.Decisions {
	return control.Decisions{
		Find: s.Find,
		Denials: func(ctx context.Context, products []string, holder registry.ABN, limit int) ([]authz.Record, error) {
			return s.Recent(ctx, redisrecord.Filter{Products: products, Holder: holder}, limit)
		},
	}
}
