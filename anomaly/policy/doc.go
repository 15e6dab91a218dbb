// Package policy says what is done about a caller that strays from its past.
//
// # Vocabulary
//
// A Rule is a Condition over signals and the Action it calls for: observe,
// throttle, restrict or suspend. A Policy is a name with numbered versions of a
// Rule. A version begins in shadow, where it says what it would have done; two
// people bring it out of it. An Alarm is one rule's finding about one subject:
// what was seen, in words, what was done or would have been, and what people
// made of it. The Evaluator is the whole of the judgement, without a clock, a
// store or a register of its own: the same signals in the same order always
// give the same alarms, so that what a policy did, and what a proposed one would
// have done, are found by the same code.
//
// # Invariants
//
// Nothing here allows anything. A policy can only take away, for a time: every
// measure is a suspension in the register, which ends by itself, and which holds
// whatever becomes of the watcher that asked for it.
//
// In shadow nothing is done and nobody is told; it is counted and shown.
//
// The blast radius is bounded: a measure that would be one too many, by products
// or by their share of the traffic, over all policies together, is not taken. A
// person is asked instead.
//
// One alarm takes one measure. What goes on after it has ended is for a person.
package policy
