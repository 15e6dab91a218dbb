// Package authz decides whether one request may pass, now.
//
// Decider.Decide is the request path. It asks one immutable registry.View and
// the verified-token cache, makes no network call, takes no lock that all
// requests share and does not allocate when it allows. What is unknown, absent,
// stale or ambiguous is refused, with a Reason out of a closed set that says
// which it was.
package authz
