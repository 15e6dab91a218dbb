//go:build !planted

package main

import (
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
)

// Where planted.go puts its faults, which no build without the tag holds.

func plantMirror(s *redisstore.Store, c registry.MirrorConfig) (registry.Log, registry.MirrorConfig) {
	return s, c
}

func plantRegister(s *redisstore.Store, c registry.RegisterConfig) (registry.Ledger, registry.RegisterConfig) {
	return s, c
}

// plantSkew is the sample upstream's: 0 is the default.
func plantSkew() time.Duration { return 0 }
