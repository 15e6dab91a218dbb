package xds

import (
	"time"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/dspgate/dspgate/envoy/headers"
)

// streamsMessageTimeout is how long a sidecar may take to answer a message of a
// side stream before Envoy breaks the request off: longer than a decision may
// take, because the last such message comes at the end of a stream, whose work
// it would undo.
const streamsMessageTimeout = 500 * time.Millisecond

// streamsFailed is the status of a request whose side stream failed, which no
// upstream and no other filter gives: localReplies makes 503 of it.
const streamsFailed = typev3.StatusCode_InsufficientStorage

// The dynamic metadata a sidecar leaves when it ends a stream, as package extproc
// has it: its words are passed on as they are.
const (
	streamsNamespace = "dspgate.streams"
	streamsEnded     = "ended"
)

// watchStreams keeps a side stream to a sidecar open beside a request, by which
// the sidecar can end it (package extproc).
func watchStreams() *extprocv3.ExternalProcessor {
	contentType := exact("content-type")
	decision := exact(headers.DecisionID)
	return &extprocv3.ExternalProcessor{
		StatPrefix:       "streams",
		GrpcService:      &corev3.GrpcService{TargetSpecifier: envoyGRPC(clusterStreams)},
		FailureModeAllow: false,
		StatusOnError:    &typev3.HttpStatus{Code: streamsFailed},
		// Trailers, though none may come: with the headers alone, Envoy closes the
		// side stream as soon as it has the answer, and downloads, WebSockets and
		// streams in both directions are out of reach from then on.
		ProcessingMode: &extprocv3.ProcessingMode{
			RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
			ResponseHeaderMode:  extprocv3.ProcessingMode_SKIP,
			ResponseTrailerMode: extprocv3.ProcessingMode_SEND,
		},
		MessageTimeout:   dur(streamsMessageTimeout),
		RouteCacheAction: extprocv3.ExternalProcessor_RETAIN,
		// The sidecar may end a request, and change nothing of it.
		MutationRules: &mutationv3.HeaderMutationRules{DisallowAll: yes()},
		ForwardRules:  &extprocv3.HeaderForwardingRules{AllowedHeaders: &matcherv3.ListStringMatcher{Patterns: []*matcherv3.StringMatcher{decision, contentType}}},
		MetadataOptions: &extprocv3.MetadataOptions{
			ForwardingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{Untyped: []string{filterExtAuthz}},
			ReceivingNamespaces:  &extprocv3.MetadataOptions_MetadataNamespaces{Untyped: []string{streamsNamespace}},
		},
	}
}

// watched turns watchStreams on for one route.
func watched() *extprocv3.ExtProcPerRoute {
	return &extprocv3.ExtProcPerRoute{Override: &extprocv3.ExtProcPerRoute_Overrides{Overrides: &extprocv3.ExtProcOverrides{}}}
}
