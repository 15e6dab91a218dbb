package registry

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
)

// ErrKeyReused: an Idempotency-Key came again with another request. It is an ErrConflict. 409.
var ErrKeyReused = fmt.Errorf("%w: the idempotency key was used for another request", ErrConflict)

// flights are the keyed requests under way.
type flights struct {
	mu      sync.Mutex
	running map[string]*flight
}

type flight struct {
	done        chan struct{}
	fingerprint [sha256.Size]byte
	answer      []byte
	err         error
}

// Once does a request at most once for an Idempotency-Key: the second time the
// stored answer comes back and replayed is true. key should name the actor as
// well as what the client sent; fingerprint is the request. ErrKeyReused when
// the key came with another fingerprint. Duplicates that arrive together wait
// for the first. An error of do is returned to those that waited and not
// stored: the request may be tried again.
func (r *Register) Once(ctx context.Context, key string, fingerprint []byte, do func() ([]byte, error)) (answer []byte, replayed bool, err error) {
	// Hashed, so that a client chooses neither the length nor the bytes of a key.
	sum := sha256.Sum256([]byte(key))
	key = hex.EncodeToString(sum[:])
	print := sha256.Sum256(fingerprint)

	r.once.mu.Lock()
	if f := r.once.running[key]; f != nil {
		r.once.mu.Unlock()
		if f.fingerprint != print {
			return nil, false, ErrKeyReused
		}
		select {
		case <-f.done:
			return f.answer, f.err == nil, f.err
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	f := &flight{done: make(chan struct{}), fingerprint: print, err: errors.New("the request ended without an answer")}
	r.once.running[key] = f
	r.once.mu.Unlock()
	defer func() { // also when do panics: the others must not wait for ever
		r.once.mu.Lock()
		delete(r.once.running, key)
		r.once.mu.Unlock()
		close(f.done)
	}()
	f.answer, replayed, f.err = r.onceStored(ctx, key, print, do)
	return f.answer, replayed, f.err
}

func (r *Register) onceStored(ctx context.Context, key string, print [sha256.Size]byte, do func() ([]byte, error)) ([]byte, bool, error) {
	stored, err := r.ledger.Replayed(ctx, key)
	if err != nil {
		return nil, false, fmt.Errorf("look up idempotency key: %w", err)
	}
	if len(stored) >= len(print) {
		if !bytes.Equal(stored[:len(print)], print[:]) {
			return nil, false, ErrKeyReused
		}
		return stored[len(print):], true, nil
	}
	answer, err := do()
	if err != nil {
		return nil, false, err
	}
	// What was done stays done; a client that hangs up now must still find its answer.
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), acceptTimeout)
	defer cancel()
	if err := r.ledger.Remember(rctx, key, append(print[:len(print):len(print)], answer...)); err != nil {
		r.cfg.Log.ErrorContext(ctx, "answer not stored for its idempotency key", "err", err)
	}
	return answer, false, nil
}
