// Package signin signs people in by OpenID Connect and keeps their sessions.
//
// The flow is the authorization code with PKCE, state and nonce, by go-oidc and
// x/oauth2. A person is a verified email address; agency staff get permissions
// from the provider's roles claim, developers from the register, at each request.
//
// Invariants:
//
//   - A session's cookie is 260 random bits; the store has its SHA-256 sum only,
//     and every stored value is sealed under a key the store never sees, bound to
//     its own name. Who can read or write the store can sign in as nobody.
//   - Signing in makes a new session; it is renamed from time to time, ends when
//     idle and, whatever happens, after Absolute.
//   - A cookie is host-only, HttpOnly, SameSite=Lax, and Secure with the __Host-
//     prefix wherever the console is served over https.
//   - Nobody is redirected to another host than the provider's.
//   - Sign-ins and sign-outs are in the audit log before they are answered.
package signin

import (
	"context"
	"time"
)

// Store keeps sessions and sign-ins under way. redissession is one.
type Store interface {
	// Put writes a value that is gone after ttl.
	Put(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Renew writes a value only if there is one; it tells whether there was.
	Renew(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error)
	// Get reads a value; nil when there is none.
	Get(ctx context.Context, key string) ([]byte, error)
	// Take reads a value and deletes it, so that nobody takes it twice.
	Take(ctx context.Context, key string) ([]byte, error)
	// Delete forgets a value.
	Delete(ctx context.Context, key string) error
}
