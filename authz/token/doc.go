// Package token says who calls: it verifies access tokens (JWTs of the profile
// of RFC 9068) and names the client certificate a token is bound to.
//
// Around golang-jwt's signature verification stands a strict shell, because
// libraries alone accept tokens that can be read in two ways. Invariants:
//
//   - One token has one encoding: three segments of canonical unpadded base64url
//     and JSON without duplicate members, so that a token re-encoded is another
//     token, and a bad one.
//   - The algorithm is pinned to the key when the key is loaded; the token's alg
//     must agree with it, and nothing in the token chooses or carries a key.
//   - What is cached is the result of the signature only, never a decision: exp,
//     nbf and iat are checked at every call, and a key that has left its issuer's
//     current set takes the tokens it signed with it at once.
//   - Memory is bounded whatever callers send, and no lock is shared by all requests.
//
// Of the claims that RFC 9068 requires, iss, aud, exp, iat and client_id (or azp)
// are required here too; sub and jti may be missing, as nothing is decided by
// them, but when they are there they must be well-formed strings. A token
// without a jti cannot be denied one by one.
//
// Deny lists of kid and jti are the Decider's: Claims carries both. Key sets come
// through KeySource; package jwksfetch is the one that fetches.
package token
