package ratelimit

import (
	"time"
)

// Options tunes a Limiter.
type Options struct{}

// accountSync is what the sync loop keeps of an account.
type accountSync struct {
	attempts uint64 // spends tried, refused ones too, since the last sync
	queued   bool   // on the loop's list
	changed  bool   // the limit's figures changed
}

// syncer is the loop's part of a Limiter.
type syncer struct{}

// wants tells the loop about an account, when it should know. The caller holds
// the account's mu.
func (l *Limiter) wants(*account, bool) {}

func (l *Limiter) degraded(time.Duration) bool { return false }
