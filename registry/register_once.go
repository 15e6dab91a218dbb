package registry

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
)

// ErrKeyReused: an Idempotency-Key came again with another request. It is an ErrConflict; the API answers 422.
var ErrKeyReused = fmt.Errorf("%w: the idempotency key was used for another request", ErrConflict)

// Kept is what a store has of one Idempotency-Key.
type Kept struct {
	Answer []byte         // nil when there is none yet
	Steps  map[int][]byte // the commands done on the way to it
}

// Keyed is what a change keeps of the Idempotency-Key whose request made it, in
// its own atomic step: a control plane that dies before it has answered leaves
// behind what was done, and the request that comes again does the rest. The log
// does not hold it: after a failover it is given back by the control plane that
// made the change, not by another.
type Keyed struct {
	Key   string
	Steps map[int][]byte
}

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
//
// do gets a context for its commands. Each that commits keeps in the same step
// that it is done; when the request comes again without an answer having been
// stored, for its control plane died or the answer was an error, those commands
// are not done again: they answer that they are done, with what there is now.
// do must give the same commands in the same order.
//
// What the store keeps of it is encrypted under a key made of the register's and
// of key, which the store never sees.
func (r *Register) Once(ctx context.Context, key string, fingerprint []byte, do func(context.Context) ([]byte, error)) (answer []byte, replayed bool, err error) {
	o, err := newOnce(r.sealer, key, fingerprint)
	if err != nil {
		return nil, false, err
	}
	r.once.mu.Lock()
	if f := r.once.running[o.key]; f != nil {
		r.once.mu.Unlock()
		if f.fingerprint != o.print {
			return nil, false, ErrKeyReused
		}
		select {
		case <-f.done:
			return f.answer, f.err == nil, f.err
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	f := &flight{done: make(chan struct{}), fingerprint: o.print, err: errors.New("the request ended without an answer")}
	r.once.running[o.key] = f
	r.once.mu.Unlock()
	defer func() { // also when do panics: the others must not wait for ever
		r.once.mu.Lock()
		delete(r.once.running, o.key)
		r.once.mu.Unlock()
		close(f.done)
	}()
	f.answer, replayed, f.err = r.onceStored(ctx, o, do)
	return f.answer, replayed, f.err
}

func (r *Register) onceStored(ctx context.Context, o *once, do func(context.Context) ([]byte, error)) ([]byte, bool, error) {
	kept, err := r.ledger.Replayed(ctx, o.key)
	if err == nil && kept.Answer != nil {
		answer, err := o.open(answerName, kept.Answer)
		return answer, err == nil, err
	}
	if err == nil {
		err = o.recall(kept.Steps)
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up idempotency key: %w", err)
	}
	answer, err := do(context.WithValue(ctx, onceKey{}, o))
	if err != nil {
		return nil, false, err
	}
	// What was done stays done; a client that hangs up now must still find its answer.
	rctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), acceptTimeout)
	defer cancel()
	if err := r.ledger.Remember(rctx, o.key, o.seal(answerName, answer)); err != nil {
		r.cfg.Log.ErrorContext(ctx, "answer not stored for its idempotency key", "err", err)
	}
	return answer, false, nil
}

type onceKey struct{}

// once is a keyed request being done.
type once struct {
	key   string // in the store
	print [sha256.Size]byte
	aead  cipher.AEAD

	mu   sync.Mutex // a request's commands come one after the other, as a rule
	seed []byte     // of the secrets that the request makes
	was  []onceStep // done by an earlier try
	did  []onceStep // by this one
	kept int        // how many of did are kept
}

// onceStep is one command of a keyed request. The zero step failed, and is to be
// done again.
type onceStep struct {
	Command  string   `json:"command"`
	Revision Revision `json:"revision,omitempty"` // to Await
	ID       string   `json:"id,omitempty"`
	Existing bool     `json:"existing,omitempty"`
	Other    bool     `json:"other_revision,omitempty"` // refused: the record had another revision
	Seed     []byte   `json:"seed"`
}

const answerName = "answer"

func newOnce(s *Sealer, key string, fingerprint []byte) (*once, error) {
	// Hashed, so that a client chooses neither the length nor the bytes of a key.
	sum := sha256.Sum256([]byte(key))
	secret := s.derive('i', key)
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	o := &once{key: hex.EncodeToString(sum[:]), print: sha256.Sum256(fingerprint), aead: aead, seed: make([]byte, sha256.Size)}
	_, _ = rand.Read(o.seed) // never fails
	return o, nil
}

// seal encrypts what is kept under a name, with the fingerprint before it.
func (o *once) seal(name string, data []byte) []byte {
	return o.aead.Seal(nil, nil, append(o.print[:len(o.print):len(o.print)], data...), []byte(o.key+name))
}

func (o *once) open(name string, sealed []byte) ([]byte, error) {
	plain, err := o.aead.Open(nil, nil, sealed, []byte(o.key+name))
	if err != nil || len(plain) < len(o.print) {
		return nil, fmt.Errorf("%w: what is kept for an idempotency key: %w", ErrUnavailable, ErrTampered)
	}
	if [sha256.Size]byte(plain) != o.print {
		return nil, ErrKeyReused
	}
	return plain[len(o.print):], nil
}

// recall reads what an earlier try did.
func (o *once) recall(steps map[int][]byte) error {
	for n := 0; n < len(steps); n++ {
		sealed, ok := steps[n]
		if !ok {
			return fmt.Errorf("%w: step %d of an idempotency key: %w", ErrUnavailable, n, ErrTampered)
		}
		plain, err := o.open(strconv.Itoa(n), sealed)
		if err != nil {
			return err
		}
		var x onceStep
		if err := json.Unmarshal(plain, &x); err != nil {
			return fmt.Errorf("%w: step %d of an idempotency key: %w", ErrUnavailable, n, ErrTampered)
		}
		o.was, o.seed = append(o.was, x), x.Seed
	}
	return nil
}

// begin is the next command: what an earlier try made of it, if that counts.
func (o *once) begin(command string) (was onceStep, done bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.did)
	if n >= len(o.was) {
		return onceStep{}, false
	}
	was = o.was[n]
	if was.Command != command { // it goes another way now
		o.was = o.was[:n]
		return onceStep{}, false
	}
	return was, was.Revision != 0 || was.Other
}

// keeps is what the change of the next command keeps: that it is done, and the
// steps before it that no change kept.
func (o *once) keeps(x onceStep) *Keyed {
	o.mu.Lock()
	defer o.mu.Unlock()
	k := &Keyed{Key: o.key, Steps: map[int][]byte{}}
	for i, step := range append(o.did[o.kept:len(o.did):len(o.did)], x) {
		step.Seed = o.seed
		b, _ := json.Marshal(step) // never fails
		n := o.kept + i
		k.Steps[n] = o.seal(strconv.Itoa(n), b)
	}
	return k
}

// end notes what became of a command.
func (o *once) end(command string, ans answer, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	x := onceStep{Command: command}
	switch {
	case err == nil, errors.Is(err, ErrNotDurable):
		x.Revision, x.ID, x.Existing = ans.revision, ans.id, ans.existing
	case errors.Is(err, ErrPrecondition):
		x.Other = true
	}
	o.did = append(o.did, x)
	if ans.changed {
		o.kept = len(o.did)
	}
}

// sendOnce sends a command of a keyed request, unless it is done already.
func (r *Register) sendOnce(ctx context.Context, o *once, c *command) (answer, error) {
	was, done := o.begin(c.name)
	switch {
	case done && was.Other:
		err := fmt.Errorf("%s: %w", c.name, ErrPrecondition)
		o.end(c.name, answer{}, err)
		return answer{}, err
	case done:
		// Through the writer, which makes sure that the change is still there and
		// as durable as is asked for.
		c.plan = func(t *Tx) error {
			if c.cases {
				if _, err := t.Casebook(); err != nil {
					return err
				}
			}
			t.Keep(was.ID, was.Revision)
			return nil
		}
	default:
		c.once = o
	}
	ans, err := r.hand(ctx, c)
	if done {
		ans.existing = was.Existing
	}
	o.end(c.name, ans, err)
	return ans, err
}

// Secret makes a secret of 256 bits for a purpose, in letters and digits. Within
// a keyed request it comes out the same when the request is tried again: a secret
// whose sum was committed, and that nobody was told, is told then.
func Secret(ctx context.Context, purpose string) string {
	var b [sha256.Size]byte
	if o, ok := ctx.Value(onceKey{}).(*once); ok {
		o.mu.Lock()
		defer o.mu.Unlock()
		h := hmac.New(sha256.New, o.seed)
		fmt.Fprintf(h, "%d %s", len(o.did), purpose)
		h.Sum(b[:0])
	} else {
		_, _ = rand.Read(b[:]) // never fails
	}
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:])
}
