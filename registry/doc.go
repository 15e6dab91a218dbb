// Package registry is the register: who may call, in which product, which
// service, and what has been stopped.
//
// # Vocabulary
//
// An Entity is a business, known by its ABN. It owns Products; other entities
// may stand in a product's delivery chain. A Product has Versions, and an
// Entitlement for every service it may call in an environment. A ClientApp is
// an OAuth client_id, bound to one product in one environment; a Credential is
// a machine's certificate; a Subscription is one client's instance of a
// product, known by its SSID. A Service is a method and a path template with a
// risk rating. A Limit bounds what any of these, or each product of a tier, may
// spend. A Suspension stops any of these from its start until it is lifted or
// expires; a Denial refuses one signing key or one token; a Notice announces.
//
// A Record is one of these nouns as stored. A Change is one command's effect:
// some records, written together. The Changes are numbered without a gap by
// their Revision, which is the register's; the Epoch numbers the writers. The
// Head says where the register stands: its revision, and the Digest of all its
// records.
//
// A View is the register at one revision, in memory, for the request path.
// Standing is the one answer derived from it: may this product, in this
// version, through this app, be served at all, at this instant. A Mirror
// follows the log of changes and publishes Views; Register commands.
//
// # Invariants
//
// One writer. A commit names the epoch it was made under (the fence) and the
// revision it was made on (the base); the store refuses any other, and writes
// the records, the change and the head in one step.
//
// Nothing unverified. Records, changes and heads carry a MAC under a key the
// store does not have. A mirror applies a change only when it verifies, follows
// the one before, and leads to the digest it names. A set of records that is
// not whole serves nobody, since what is missing may be what denies.
//
// Never back. A mirror never goes to a lower revision or epoch, also over a
// restart. A store that was emptied, restored or replaced empties no mirror: it
// holds what it has, raises an alarm, and lets its leases run out.
//
// Acknowledged or lapsed, never unknown. A sidecar allows only inside its
// serving lease, counted on its own clock from the instant its last successful
// poll was sent. A poll names the revision served by then, which the store puts
// on the roll in the same step in which it reads on. So one lease after a
// commit, every sidecar has either said that it holds the commit, or can only
// refuse.
//
// Everything that ends by itself (a certificate, support for a version, a
// suspension) is compared with the instant of the request. No job has to run
// for it to end, and a View depends on no clock.
//
// A View is immutable, and so is whatever it points to. Two Views share all
// that did not change; products that have equal lists may share them.
package registry
