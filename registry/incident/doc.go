// Package incident is what happens after something went wrong: a report from
// any channel, triage, two clocks, containment, notices, treatment, close.
//
// # Vocabulary
//
// A Report is what somebody said, through whatever channel; there is no wrong
// door, and what cannot be accepted yet is kept as a draft and never lost. An
// Incident is a report that was raised. Its Type is what happened, its Level
// how bad it is: low is a security event without exposure, medium and high are
// data breaches (framework terms). The Exposure is what the level is derived
// from; a person may raise a level over the derived one, never lower it without
// saying why.
//
// A Clock is one duty with a start and an end. Every duty is counted twice,
// from the event and from the awareness of it, because the framework's words
// ("within 24 hours of the event") and today's practice ("on awareness")
// differ: the literal one is reported against, both are shown.
//
// A Drill goes through everything and touches nothing in production.
//
// # Invariants
//
// The state moves only along Next. The timeline only grows. An incident closes
// only with a cause, with what was done, and with its containment ended or made
// permanent. Who may see what is one table (Share), asked by everything that
// shows or sends anything of an incident; a field that the table does not name
// is shown to the agency's assigned staff only.
//
// Package incident is pure: it commits nothing, sends nothing and reads no
// clock.
package incident
