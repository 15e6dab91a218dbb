// Package ratelimit spends requests against limits that many sidecars share.
//
// A limit is one bucket for the whole fleet: a rate with a burst, a number of
// calls at once, an amount per calendar day or month, or a number of distinct
// clients per day. Each sidecar holds a share of it, a bucket of its own with a
// part of the rate and a part of the capacity, and spends from that alone: no
// request waits for anything outside the process. A loop off the request path
// moves shares, and the tokens in them, between the sidecars and a Pool that
// all of them reach (redisshare).
//
// # Invariants
//
//  1. What all sidecars and the pool hold of a limit is never more than the
//     limit: rates add up to at most its rate, capacities to at most its
//     capacity, and no bucket holds more tokens than its capacity. So whatever
//     the network, the processes and the clocks do, admitted requests are at
//     most rate × window + burst, in every window.
//  2. What a sidecar gives back it has stopped using before it says so; what is
//     on its way belongs to nobody.
//  3. A share is lent for as long as its holder is heard of, counted by the
//     holder on CLOCK_BOOTTIME from the instant it last sent a Sync that was
//     answered. It is lent again only when the holder gave it back, or when
//     another sidecar has watched the holder say nothing for longer than that.
//     No wall clock takes part, here or in the pool.
//  4. Each sidecar has a standing part of every limit that it may spend without
//     asking, so that a limit nobody uses costs nothing anywhere, its first
//     request is answered at once, and a sidecar that lost the pool goes on.
//  5. Spend takes from every limit that applies, or from none.
//
// Of a calendar quota a sidecar holds a chunk, most of it closed: it spends only
// what an answered Sync opened, so that the rest is known to be unspent should it
// die. docs/adr/0012 says more, and what it was measured to cost.
//
// Amounts move in millionths of a request, whole numbers, so that nothing is
// lost or made by rounding.
package ratelimit
