// Package assurance is what a certified product is held to: the evidence shown
// for it, its verifications and their findings, the published draws, what the
// automated checks found, and a DSP's ecosystem with its add-ons.
//
// Its records are casework of the register, committed with everything else;
// the rules are certification's. What evidence holds is kept apart, in Files,
// by content address; a record names it.
//
// # Invariants
//
// Evidence that is refused leaves nothing behind. What is kept is what was
// sent: an address is the digest of the bytes, checked when they are written
// and again when they are read.
//
// A finding is closed by somebody other than the developer it was made of. A
// verification is closed by an assessor, and not while a test of it is open.
//
// A draw's seed is committed to before the list of candidates is known, and
// published with the outcome.
package assurance
