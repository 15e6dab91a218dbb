// Package anomaly says how far a caller strays from its own past.
//
// A Series remembers one signal (a rate, a share, a count of distinct clients)
// and scores every value against what came before it. The Score is a tail
// probability: a threshold on it is a false-alarm rate. It comes apart into
// Parts, and each part into a sentence an operator understands.
//
// One idea scores everything: how far a signal exceeds the range of its own
// past, in widths of that range. It is asked of the values themselves, of their
// departure from the hour of the week, of how rare such values are, and, with a
// delayed range, of what moves slowly; the largest answer counts. How rare an
// answer is depends little on what is measured: that is what makes one set of
// parameters, and one calibration, serve every series.
//
// # Invariants
//
// Causal. A score depends on the values up to and including its own, on
// Parameters and on nothing else: no label, no length, no extremes told
// beforehand. A value is scored before it is learnt.
//
// Constant. A Series takes at most 1 KiB whatever it has seen, and Observe
// allocates nothing.
//
// Honest. Until a series is warm, its score is not Known, which is not the same
// as nothing unusual.
//
// Hard to teach. What is not finite, or absurd, changes nothing. A single value
// widens a range at most tenfold. Small steps that pass unnoticed one by one
// are added up, and told when they have widened a range e-fold.
package anomaly
