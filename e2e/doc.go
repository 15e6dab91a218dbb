// Package e2e runs the attack and fault cases against the processes that
// `dspgate demo` starts: real Envoy, real Redis, the sidecar and the control
// plane as shipped, configured as the demo configures them.
//
// Every case is a row of a table, named by its ID. Whatever the row expects,
// the universal oracles are checked after it: each request seen upstream had
// exactly one ALLOW; the upstream saw one identity, the verified one; nothing
// panicked and the only 5xx was a declared 503; the path the upstream saw is the
// path that was decided; a refusal carries a stable code and nothing of the
// token.
package e2e
