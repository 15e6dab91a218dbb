package extproc

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/dspgate/dspgate/authz"
)

const (
	// MetadataNamespace is where ext_authz leaves its dynamic metadata, and
	// MetadataGrant the key of the grant in it.
	MetadataNamespace = "envoy.filters.http.ext_authz"
	MetadataGrant     = "grant"
	// EndedNamespace is the dynamic metadata that says why a stream was ended,
	// under the key EndedReason: with it, Envoy's own words for a refusal keep off
	// ours, and the access log says what happened.
	EndedNamespace = "dspgate.streams"
	EndedReason    = "ended"
)

// firstWithin bounds the wait for the first message of a side stream: Envoy
// sends it with the opening.
const firstWithin = 5 * time.Second

// Server is envoy.service.ext_proc.v3.ExternalProcessor.
type Server struct {
	extprocv3.UnimplementedExternalProcessorServer
	streams     *Streams
	problemBase string
}

// NewServer makes a Server for the streams. problemBase starts the type of every
// problem, up to and including the last slash.
func NewServer(s *Streams, problemBase string) *Server {
	return &Server{streams: s, problemBase: problemBase}
}

// Register adds the service to a gRPC server, on which Streams.Close must be
// called before it stops.
func (s *Server) Register(r grpc.ServiceRegistrar) { extprocv3.RegisterExternalProcessorServer(r, s) }

// received is a message of Envoy, or the end of its side.
type received struct {
	msg *extprocv3.ProcessingRequest
	err error
}

// Process watches over one request of a streaming service, from its headers to
// its end. It returns nil only when Envoy closed first.
func (s *Server) Process(ss extprocv3.ExternalProcessor_ProcessServer) error {
	in := make(chan received)
	done := make(chan struct{})
	defer close(done)
	// It ends with the stream's context, which ends when Process returns.
	go func() {
		for {
			msg, err := ss.Recv()
			select {
			case in <- received{msg, err}:
				if err != nil {
					return
				}
			case <-done:
				return
			}
		}
	}()

	first := time.NewTimer(firstWithin)
	defer first.Stop()
	var r received
	select {
	case r = <-in:
	case <-first.C:
		return status.Error(codes.DeadlineExceeded, "no first message")
	}
	if r.err != nil {
		return closedBy(r.err)
	}
	headers := r.msg.GetRequestHeaders()
	g, err := grantOf(r.msg)
	if headers == nil || err != nil {
		// Whatever it is that Envoy lets through here, nobody can vouch for it.
		s.streams.metrics.malformed.Inc()
		return status.Error(codes.InvalidArgument, "no grant came with the request")
	}
	grpcCaller := isGRPC(headers)
	l, reason := s.streams.open(g)
	if reason != authz.OK {
		return s.cut(ss, g, reason, grpcCaller)
	}
	defer s.streams.release(l)
	if err := ss.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}}}); err != nil {
		return err
	}
	for {
		select {
		case reason := <-l.end:
			return s.cut(ss, g, reason, grpcCaller)
		case r := <-in:
			if r.err != nil {
				s.streams.metrics.ended[authz.OK].Inc()
				return closedBy(r.err)
			}
			if r.msg.GetResponseTrailers() == nil {
				return status.Error(codes.InvalidArgument, "a message that was not asked for")
			}
			if err := ss.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_ResponseTrailers{ResponseTrailers: &extprocv3.TrailersResponse{}}}); err != nil {
				return err
			}
		}
	}
}

// closedBy is what to return when Envoy's side ended: nil only when it closed.
func closedBy(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// cut breaks the request off: by an answer, which a caller that has none yet
// gets to see, and by an error status, should Envoy not take it.
func (s *Server) cut(ss extprocv3.ExternalProcessor_ProcessServer, g *authz.Grant, reason authz.Reason, grpcCaller bool) error {
	_ = ss.Send(s.refusal(g, reason, grpcCaller)) // the status follows whether or not it arrived
	return status.Error(codes.PermissionDenied, "stream ended: "+reason.String())
}

// grantOf finds the grant in the metadata that came with the request's headers.
func grantOf(m *extprocv3.ProcessingRequest) (*authz.Grant, error) {
	fields := m.GetMetadataContext().GetFilterMetadata()[MetadataNamespace].GetFields()
	return authz.ParseGrant(fields[MetadataGrant].GetStringValue())
}

func isGRPC(h *extprocv3.HttpHeaders) bool {
	for _, v := range h.GetHeaders().GetHeaders() {
		if v.GetKey() == "content-type" {
			return strings.HasPrefix(v.GetValue(), "application/grpc") || strings.HasPrefix(string(v.GetRawValue()), "application/grpc")
		}
	}
	return false
}

// problem is the body of a refusal, as ext_authz's refusals have it.
type problem struct {
	Type     string         `json:"type"`
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail"`
	Instance string         `json:"instance"`
	Errors   []problemError `json:"errors"`
}

type problemError struct {
	ID     string `json:"id"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
}

func (s *Server) refusal(g *authz.Grant, reason authz.Reason, grpcCaller bool) *extprocv3.ProcessingResponse {
	r := &extprocv3.ImmediateResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(reason.Status())},
		Headers: &extprocv3.HeaderMutation{SetHeaders: []*corev3.HeaderValueOption{setHeader("cache-control", "no-store")}},
		Details: "dspgate_" + strings.ReplaceAll(reason.String(), "-", "_"),
	}
	if st := reason.Status(); st == 429 || st == 503 {
		r.Headers.SetHeaders = append(r.Headers.SetHeaders, setHeader("retry-after", "1"))
	}
	id := g.ID.String()
	if grpcCaller {
		r.GrpcStatus = &extprocv3.GrpcStatus{Status: uint32(reason.GRPCStatus())}
		r.Body = []byte(reason.String() + ": " + reason.Detail() + " (/decisions/" + id + ")")
	} else {
		r.Headers.SetHeaders = append(r.Headers.SetHeaders, setHeader("content-type", "application/problem+json"))
		body, err := json.Marshal(problem{
			Type: s.problemBase + reason.String(), Title: reason.Title(), Status: reason.Status(), Detail: reason.Detail(), Instance: "/decisions/" + id,
			Errors: []problemError{{id, reason.String(), reason.Detail()}},
		})
		if err != nil {
			panic("extproc: a problem does not marshal: " + err.Error())
		}
		r.Body = body
	}
	ended := &structpb.Struct{Fields: map[string]*structpb.Value{
		EndedNamespace: structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{EndedReason: structpb.NewStringValue(reason.String())}}),
	}}
	return &extprocv3.ProcessingResponse{
		Response:        &extprocv3.ProcessingResponse_ImmediateResponse{ImmediateResponse: r},
		DynamicMetadata: ended,
	}
}

func setHeader(name, value string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, RawValue: []byte(value)},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}
