package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/dspgate/dspgate/registry"
)

// Authenticator finds out who calls. It returns errUnauthenticated, wrapped or
// not, through Unauthenticated when the request carries no valid sign-in.
type Authenticator interface {
	Authenticate(r *http.Request) (registry.Actor, error)
}

// Unauthenticated is the error an Authenticator returns for a caller it does
// not know; it is answered 401.
func Unauthenticated() error { return errUnauthenticated }

// Bounds on the token file and on what callers send.
const (
	tokenFileBytesMax = 1 << 20
	bearerBytesMax    = 1024
	tokenCheckEvery   = time.Second
)

// Tokens are the bearer tokens of programs, read from a file that holds no
// token, only SHA-256 sums: whoever reads the file cannot sign in. A token is
// at least 128 random bits, so that its sum cannot be guessed either.
//
// The file is read again when its modification time or size changes, looked at
// most once a second. A file that cannot be read or is wrong leaves the tokens
// there were, and is logged.
type Tokens struct {
	path string
	log  *slog.Logger

	mu      sync.Mutex
	checked time.Time
	stamp   fileStamp
	tokens  []token
}

type fileStamp struct {
	modified time.Time
	size     int64
}

type token struct {
	sum     [sha256.Size]byte
	actor   registry.Actor
	expires time.Time // zero: never
}

// TokenEntry is one entry of the token file, under "tokens".
type TokenEntry struct {
	// Name is the stable subject, kept in the log with every command.
	Name string `yaml:"name"`
	// Permissions are of developer, auditor, assessor, registrar, incident-officer, operator.
	Permissions []string `yaml:"permissions"`
	// Entity is the ABN a developer acts for; nobody else has one.
	Entity string `yaml:"entity,omitempty"`
	// SHA256 is the sum of the token, 64 hexadecimal digits.
	SHA256 string `yaml:"sha256"`
	// Expires is when the token stops being accepted, RFC 3339; empty for never.
	Expires string `yaml:"expires,omitempty"`
}

// TokenFile is the token file.
type TokenFile struct {
	Tokens []TokenEntry `yaml:"tokens"`
}

// HashToken is the sum of a token as the token file holds it.
func HashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// LoadTokens reads a token file for the first time; a wrong one is an error.
func LoadTokens(path string, log *slog.Logger) (*Tokens, error) {
	t := &Tokens{path: path, log: log}
	tokens, stamp, err := readTokens(path)
	if err != nil {
		return nil, err
	}
	t.tokens, t.stamp, t.checked = tokens, stamp, time.Now()
	return t, nil
}

// Authenticate looks the bearer token up. Every entry is compared in constant
// time, so that the time taken says nothing of how close a guess was.
func (t *Tokens) Authenticate(r *http.Request) (registry.Actor, error) {
	given, ok := bearer(r)
	if !ok {
		return registry.Actor{}, errUnauthenticated
	}
	sum := sha256.Sum256([]byte(given))
	var hit *token
	tokens := t.current(r.Context())
	for i := range tokens {
		if subtle.ConstantTimeCompare(sum[:], tokens[i].sum[:]) == 1 {
			hit = &tokens[i]
		}
	}
	if hit == nil || !hit.expires.IsZero() && !time.Now().Before(hit.expires) {
		return registry.Actor{}, errUnauthenticated
	}
	return hit.actor, nil
}

func (t *Tokens) current(ctx context.Context) []token {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	if now.Sub(t.checked) < tokenCheckEvery {
		return t.tokens
	}
	t.checked = now
	info, err := os.Stat(t.path)
	if err == nil && (fileStamp{info.ModTime(), info.Size()}) == t.stamp {
		return t.tokens
	}
	tokens, stamp, err := readTokens(t.path)
	if err != nil {
		t.log.ErrorContext(ctx, "token file not read again, the tokens before stay", "err", err)
		return t.tokens
	}
	t.tokens, t.stamp = tokens, stamp
	t.log.InfoContext(ctx, "token file read again", "tokens", len(tokens))
	return t.tokens
}

func readTokens(path string) ([]token, fileStamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fileStamp{}, fmt.Errorf("token file: %w", err)
	}
	if info.Size() > tokenFileBytesMax {
		return nil, fileStamp{}, fmt.Errorf("token file %s: larger than %d bytes", path, tokenFileBytesMax)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fileStamp{}, fmt.Errorf("token file: %w", err)
	}
	tokens, err := parseTokens(b)
	if err != nil {
		return nil, fileStamp{}, fmt.Errorf("token file %s: %w", path, err)
	}
	return tokens, fileStamp{info.ModTime(), info.Size()}, nil
}

func parseTokens(b []byte) ([]token, error) {
	var f TokenFile
	if err := yaml.NewDecoder(bytes.NewReader(b), yaml.Strict()).Decode(&f); err != nil {
		return nil, fmt.Errorf("%s", yaml.FormatError(err, false, false))
	}
	var tokens []token
	seen := map[[sha256.Size]byte]string{}
	for i, e := range f.Tokens {
		t, err := e.token()
		if err != nil {
			return nil, fmt.Errorf("entry %d (%s): %w", i+1, e.Name, err)
		}
		if other, twice := seen[t.sum]; twice {
			return nil, fmt.Errorf("entry %d (%s): the same token as %s", i+1, e.Name, other)
		}
		seen[t.sum] = e.Name
		tokens = append(tokens, t)
	}
	return tokens, nil
}

func (e *TokenEntry) token() (t token, err error) {
	if e.Name == "" || len(e.Name) > 128 || strings.ContainsFunc(e.Name, func(r rune) bool { return r < 0x20 || r == 0x7f }) {
		return t, fmt.Errorf("name: 1 to 128 printable characters")
	}
	t.actor.Name = e.Name
	if len(e.Permissions) == 0 {
		return t, fmt.Errorf("permissions: at least one")
	}
	for _, word := range e.Permissions {
		p, ok := registry.ParsePermission(word)
		if !ok {
			return t, fmt.Errorf("permissions: %q is none; use developer, auditor, assessor, registrar, incident-officer or operator", word)
		}
		t.actor.Permissions |= p
	}
	if e.Entity != "" {
		if t.actor.Entity, err = registry.ParseABN(e.Entity); err != nil {
			return t, fmt.Errorf("entity: %w", err)
		}
	}
	if t.actor.Has(registry.PermDeveloper) != (t.actor.Entity != 0) {
		return t, fmt.Errorf("entity: a developer has one, nobody else has")
	}
	sum, err := hex.DecodeString(e.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return t, fmt.Errorf("sha256: 64 hexadecimal digits, as printed by sha256sum")
	}
	t.sum = [sha256.Size]byte(sum)
	if e.Expires != "" {
		if t.expires, err = time.Parse(time.RFC3339, e.Expires); err != nil {
			return t, fmt.Errorf("expires: an RFC 3339 date-time such as 2027-06-30T00:00:00Z")
		}
	}
	return t, nil
}
