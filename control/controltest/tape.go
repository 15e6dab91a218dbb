package controltest

import (
	"context"
	"strconv"
	"sync"

	"github.com/dspgate/dspgate/authz"
)

// Tape is a stream of decision records in memory, for control.Feed.
type Tape struct {
	mu      sync.Mutex
	records []authz.Record
}

// Add writes records.
func (t *Tape) Add(records ...authz.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.records = append(t.records, records...)
}

// Tail reads as redisrecord.Store does.
func (t *Tape) Tail(_ context.Context, after string, f func(*authz.Record)) (next string, skipped bool, err error) {
	t.mu.Lock()
	all := t.records
	t.mu.Unlock()
	next = strconv.Itoa(len(all))
	if after == "" {
		return next, false, nil
	}
	from, err := strconv.Atoi(after)
	if err != nil {
		return after, false, err
	}
	for i := range all[from:] {
		f(&all[from+i])
	}
	return next, false, nil
}
