// Package xds is Envoy's whole configuration, made from the register and a few
// settings, and the server that hands it out.
//
// Snapshot is pure: a View and a Config become listeners, routes, clusters and
// secrets. Lint says which rules a snapshot breaks, and Server serves none that
// breaks one: what an Envoy holds is always the last good one. No route is
// exempt from authorization, no virtual host is a wildcard, nothing is retried,
// mirrored or rewritten, and a request leaves only with a decision that says ok.
//
// Bootstrap is the only configuration an Envoy is given by hand; everything
// else comes by ADS. A suspension changes no resource at all: only services do.
package xds
