// Package accesslog receives Envoy's access log (gRPC ALS) and holds it against
// the decisions that were made.
//
// Every request that reached an upstream must have been allowed, exactly once,
// by a decision this sidecar knows: conservation. It catches what no list of
// tricks does, a request that went round the authorizer, and it is the only
// thing that can, for Envoy's own counters stay at zero when a filter is
// skipped. The other way round is ordinary life: callers hang up and log
// entries get lost, so an ALLOW that was never forwarded is counted by cause.
//
// No path, query, header or address is kept: an Entry holds the name of the
// route, which is the service key.
package accesslog
