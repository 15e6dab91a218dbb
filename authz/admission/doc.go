// Package admission is the stamp that an ALLOW carries to the upstream: what a
// sidecar signs and an upstream verifies.
//
// A stamp says that one call was allowed, on which revision of the register,
// and until when that answer may be acted upon: a few dozen milliseconds after
// the decision. It is a MAC over these and over the call itself, so that it
// fits no other call. Package upstream, below this one, is the middleware;
// docs/admission-stamp.md is the wire format for upstreams in other languages.
//
// # Why it closes the fence
//
// Between an ALLOW and the upstream stands a proxy that may stall for any time
// and then forward. Without a stamp nobody can say when the last call of a
// suspended product arrives. With it:
//
//  1. A decision reads the clock, then loads the View, then asks whether its
//     lease still runs. So if it was taken on a View from before a suspension,
//     its instant is before the swap of the View (which the sidecar's
//     acknowledgement follows), or before the end of the lease (which a lapse
//     follows).
//  2. Not-after is that instant plus the validity, rounded down. How long the
//     answer, the proxy or the network take adds nothing.
//  3. The upstream refuses from not-after plus the declared skew on, by its own
//     clock, which is at most the skew behind the sidecar's.
//
// Hence a wait that goes on for validity + skew after the last acknowledgement
// or lapse (registry.RegisterConfig.Drain) returns after the last instant at
// which any upstream could accept such a stamp. The timeout of ext_authz plays
// no part: an answer that comes late carries a stamp that is old.
//
// Two things are assumed: the clocks of sidecars and upstreams never differ by
// more than the skew (slew them, do not step them), and who holds the key does
// not lie. The key is symmetric: an upstream that has it can also sign.
package admission
