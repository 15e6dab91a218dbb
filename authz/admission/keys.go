package admission

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"
	"sync/atomic"
)

const (
	keyBytesMin  = 32
	keyBytesMax  = 64
	keysMax      = 4
	keyFileBytes = 4 << 10
)

// ErrKeys: the keys cannot be read or are not fit to be used.
var ErrKeys = errors.New("admission keys")

// KeySource hands out the keys of now. *Keys and *KeyFile implement it.
type KeySource interface{ Keys() *Keys }

// Keys are the keys in use: the first signs, all of them verify. Immutable.
type Keys struct{ all []*key }

// Keys is k itself.
func (k *Keys) Keys() *Keys { return k }

// IDs lists the key IDs; the first is the one that signs.
func (k *Keys) IDs() []string {
	var ids []string
	for _, x := range k.all {
		ids = append(ids, x.id)
	}
	return ids
}

func (k *Keys) find(id string) *key {
	for _, x := range k.all {
		if x.id == id {
			return x
		}
	}
	return nil
}

// key is one secret with its MAC states, which are made once and reused.
type key struct {
	id   string
	pool sync.Pool // of *state
}

type state struct {
	h   hash.Hash
	buf []byte // the message, then the sum
}

func newKey(secret []byte) *key {
	secret = bytes.Clone(secret)
	k := &key{id: KeyID(secret)}
	k.pool.New = func() any {
		return &state{h: hmac.New(sha256.New, secret), buf: make([]byte, 0, messageSz)}
	}
	return k
}

// mac writes the MAC of a call as text.
func (k *key) mac(dst *[macLen]byte, c *Call, notAfter, revision string) {
	s := k.pool.Get().(*state)
	s.h.Reset()
	s.buf = c.appendMessage(s.buf[:0], notAfter, revision)
	s.h.Write(s.buf)
	clear(s.buf) // a path may hold what is nobody's business
	s.buf = s.h.Sum(s.buf[:0])
	putMAC(dst, s.buf)
	if cap(s.buf) > 16*messageSz {
		s.buf = make([]byte, 0, messageSz)
	}
	k.pool.Put(s)
}

// KeyID names a secret without telling it: the first eight hex digits of
// SHA-256("dspgate-admission-key-id" || secret). Nobody chooses it, so nobody
// can give one name to two keys.
func KeyID(secret []byte) string {
	sum := sha256.Sum256(append([]byte("dspgate-admission-key-id"), secret...))
	return hex.EncodeToString(sum[:keyIDLen/2])
}

// ParseKeys reads a key file: one key a line, as 64 to 128 hex digits, at most
// four of them; empty lines and lines that begin with # do not count. The first
// key signs. It fails with ErrKeys, and never shows what it read.
func ParseKeys(file []byte) (*Keys, error) {
	k := &Keys{}
	n := 0
	for line := range bytes.Lines(file) {
		n++
		if line = bytes.TrimSpace(line); len(line) == 0 || line[0] == '#' {
			continue
		}
		secret := make([]byte, hex.DecodedLen(len(line)))
		if _, err := hex.Decode(secret, line); err != nil {
			return nil, fmt.Errorf("%w: line %d is not hex", ErrKeys, n)
		}
		if len(secret) < keyBytesMin || len(secret) > keyBytesMax {
			return nil, fmt.Errorf("%w: the key in line %d has %d bytes, not %d to %d", ErrKeys, n, len(secret), keyBytesMin, keyBytesMax)
		}
		x := newKey(secret)
		if k.find(x.id) != nil {
			return nil, fmt.Errorf("%w: line %d has the key, or the key ID, of a line before", ErrKeys, n)
		}
		k.all = append(k.all, x)
	}
	if len(k.all) == 0 || len(k.all) > keysMax {
		return nil, fmt.Errorf("%w: %d keys, not 1 to %d", ErrKeys, len(k.all), keysMax)
	}
	return k, nil
}

// KeyFile is a file of keys that may be replaced while it is in use. Safe for
// concurrent use.
type KeyFile struct {
	path string
	keys atomic.Pointer[Keys]

	mu   sync.Mutex
	last []byte // sum of the content that keys are of; guarded by mu
}

// OpenKeys reads a key file. One that everybody may read is refused.
func OpenKeys(path string) (*KeyFile, error) {
	f := &KeyFile{path: path}
	if _, err := f.Reload(); err != nil {
		return nil, err
	}
	return f, nil
}

// Keys are those read last; it takes no lock.
func (f *KeyFile) Keys() *Keys { return f.keys.Load() }

// Reload reads the file again and tells whether other keys came of it. On an
// error the keys stay as they are.
func (f *KeyFile) Reload() (changed bool, err error) {
	b, err := readKeyFile(f.path)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrKeys, err)
	}
	sum := sha256.Sum256(b)
	f.mu.Lock()
	defer f.mu.Unlock()
	if bytes.Equal(sum[:], f.last) {
		return false, nil
	}
	k, err := ParseKeys(b)
	if err != nil {
		return false, fmt.Errorf("%s: %w", f.path, err)
	}
	f.last = sum[:]
	f.keys.Store(k)
	return true, nil
}

func readKeyFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > keyFileBytes {
		return nil, fmt.Errorf("%s: is no file of at most %d bytes", path, keyFileBytes)
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s: others may read it; chmod it to 0600 or 0640", path)
	}
	return io.ReadAll(io.LimitReader(f, keyFileBytes))
}
