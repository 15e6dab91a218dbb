// Package extproc ends streams that are already open.
//
// ext_authz asks once, when a request begins; a download, an upload, a WebSocket
// or a gRPC stream may last an hour after that. On the routes of streaming
// services Envoy therefore keeps a side stream (ext_proc) open beside each
// request, to this package, for as long as the request lasts. It carries no
// body: it is a leash. With the first message comes the authz.Grant that the
// ALLOW left in Envoy's dynamic metadata, which no client can write, so that any
// sidecar of the Envoy may hold the leash, not only the one that decided.
//
// Streams holds every leash, asks of every new View, and of the clock, whether
// each grant still stands, and ends those that do not. A stream ends here by an
// answer of our own (a refusal when the upstream has not answered yet, a reset
// when it has) and an error status after it.
//
// A side stream that closes without an error lets go of its request for good:
// Envoy then carries on without it. So nothing here returns nil unless Envoy
// closed first, the server is never left to drain gracefully with leashes in
// its hand (Close cuts them first), and what cannot be read is an error.
package extproc
