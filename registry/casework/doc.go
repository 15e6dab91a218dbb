// Package casework is the framework's work on a desk: how a business comes to
// be registered and a product to be certified, from the application to the
// whitelist and what follows it.
//
// # Vocabulary
//
// A Registration is one entity's case, a Certification one product's; each has a
// Form or a Deployment (what was declared), Steps (who or what did what, when),
// Clocks (by when whom has to have done what) and due-dates. Commands move them;
// nothing else does. Evidence, verifications and findings are package assurance's;
// what people have to be told goes to outbox, in the commit that it tells of.
//
// # Invariants
//
// The state of an entity and of a product is the register's, which is what the
// sidecars enforce; a case holds everything else. A command changes both in one
// commit: there is no moment at which a case says approved and a sidecar does
// not know of it.
//
// No command sets a state. Which commands there are in which state, and for
// whom, is one table (Commands), which tells what is allowed next as well.
//
// Of eligibility only the outcome is kept, with its source, date and expiry. No
// tax file number is kept anywhere.
//
// What happens by itself is a due-date of a case: registry.RunTimers fires it.
package casework
