package accesslog

import (
	"errors"
	"io"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Consumer hears of every entry, in the order Envoy sent them. It is called by
// one goroutine per Envoy, must not block and must not keep the Entry.
type Consumer interface{ Consume(e *Entry) }

// ServerConfig is what a Server is made of.
type ServerConfig struct {
	Joiner *Joiner // needed
	// Consumers hear of every entry, after the Joiner.
	Consumers []Consumer
	// Log hears of messages that do not decode; nil discards.
	Log *slog.Logger
}

// Server is envoy.service.accesslog.v3.AccessLogService.
type Server struct{ cfg ServerConfig }

// NewServer makes a Server.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg}
}

// serviceName is the full name of the gRPC service.
const serviceName = "envoy.service.accesslog.v3.AccessLogService"

// Register adds the service to a gRPC server with any codec that falls back to
// protobuf.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName,
		HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{
			StreamName: "StreamAccessLogs", ClientStreams: true,
			Handler: func(_ any, ss grpc.ServerStream) error { return s.stream(ss) },
		}},
		Metadata: "envoy/service/accesslog/v3/als.proto",
	}, s)
}

// stream reads until Envoy goes away. A message that does not decode is counted
// and passed over: one bad entry must not cost those that follow, and what it
// would have said comes out as an ALLOW whose entry was lost.
func (s *Server) stream(ss grpc.ServerStream) error {
	d := newDecoder()
	var m received
	for {
		if err := ss.RecvMsg(&m); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := d.message(m.bytes(), s.consume); err != nil {
			s.cfg.Joiner.malformed.Add(1)
			s.cfg.Log.WarnContext(ss.Context(), "access log message passed over", "err", wrapDecode(err))
		}
	}
}

// received is one message of a stream, whole and unparsed. A codec that knows
// ReceiveRaw hands the bytes over; any other keeps them all as unknown fields of
// a message that has none, in a fresh copy of each.
type received struct {
	emptypb.Empty
	raw []byte // reused
}

// ReceiveRaw copies the message; data is freed when it returns.
func (m *received) ReceiveRaw(data mem.BufferSlice) {
	n := data.Len()
	if cap(m.raw) < n {
		m.raw = make([]byte, n)
	}
	m.raw = m.raw[:n]
	data.CopyTo(m.raw)
}

// bytes are valid until the next message is received.
func (m *received) bytes() []byte {
	if unknown := m.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		return unknown
	}
	return m.raw
}

func (s *Server) consume(e *Entry) {
	s.cfg.Joiner.Consume(e)
	for _, c := range s.cfg.Consumers {
		c.Consume(e)
	}
}
