// Package control serves the control-plane HTTP API over a registry.Register.
//
// Its invariants:
//
//   - The whole route table stands in server.go; nothing else is reachable.
//   - respond.go is the only place where a status code is chosen.
//   - A developer sees its own entity and nothing else: what belongs to another
//     is 404, in single reads, in commands, in filters and in listings alike.
//     Only what one may see can be forbidden (403).
//   - An answer is {"data":…} or {"errors":[…]}, never both.
//   - Every command may carry an Idempotency-Key; a repeated one gets the stored
//     answer and does nothing.
package control
