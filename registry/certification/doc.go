// Package certification holds the rules by which a product comes to be
// certified: who owes what, what must be shown, how answers are judged, and
// who is looked at more closely.
//
// The rules are data, versioned, decoded strictly and embedded (data/*.yaml);
// an agency may lay its own beside them. The package is a calculator: it holds
// no state, reads no clock and writes nothing. What an entity answered, what
// state its product is in and when a timer fires is kept elsewhere.
//
// # Vocabulary
//
// A Delivery is a product with the parties that deliver it; the Matrix says
// what each party of it owes (Obligation) and why. A Profile is what decides
// which requirements apply. A Catalogue is one version of the requirements; an
// Applicable is a requirement at the level that a profile calls for. A
// Questionnaire asks, as far as a profile and the answers so far make it, and
// marks each answer pass, warn or fail; a requirement's mark is its worst
// answer's. An Exception turns a fail into a warn, for a time. A RiskProfile
// adds up contributions, each shown. A Draw selects for verification, and can
// be computed again by anybody from what is published. A Standard states how
// strongly it demands each control; a Gap compares two of them.
//
// # Invariants
//
// Unknown stays unknown: a fact, or a control of a standard, that nobody has
// seen is reported as unknown, never as met.
//
// Everything that is decided carries its reason, in a sentence for people.
//
// The package imports nothing of the register, so that the register may use it.
package certification
