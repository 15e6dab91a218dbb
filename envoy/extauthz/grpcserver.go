package extauthz

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // what Codec falls back to
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
)

// Codec passes Check's messages, and those of every RawReceiver, through as
// bytes, and leaves every other message (health, ADS) to grpc-go's own proto
// codec.
type Codec struct{ proto encoding.CodecV2 }

// RawReceiver is a message that decodes itself, as those of package accesslog.
type RawReceiver interface {
	// ReceiveRaw takes a message as it came; data is freed when it returns.
	ReceiveRaw(data mem.BufferSlice)
}

// NewCodec makes a Codec.
func NewCodec() Codec { return Codec{encoding.GetCodecV2("proto")} }

// Name implements encoding.CodecV2.
func (Codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (c Codec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(rawReply); ok {
		return mem.BufferSlice{mem.SliceBuffer(b)}, nil
	}
	return c.proto.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (c Codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(RawReceiver)
	if !ok {
		return c.proto.Unmarshal(data, v)
	}
	m.ReceiveRaw(data)
	return nil
}

// ReceiveRaw keeps a reference of its own, because grpc-go frees its one as soon
// as this returns.
func (m *rawMessage) ReceiveRaw(data mem.BufferSlice) {
	if len(data) == 1 {
		data[0].Ref()
		m.buf = data[0]
	} else {
		m.buf = data.MaterializeToBuffer(mem.DefaultBufferPool())
	}
	m.data = m.buf.ReadOnlyData()
}

// GRPCOptions tunes a server for Envoy's calls.
type GRPCOptions struct {
	// Workers is the number of goroutines kept for streams; 0 takes 4, which cost
	// 6 % less than one goroutine per call.
	Workers uint32
	// StreamsMax bounds concurrent calls per connection; 0 takes 16,384: an
	// Envoy that stalls and resumes sends all it held at once.
	StreamsMax uint32
	// MessageBytesMax bounds one received message; 0 takes 1 MiB.
	MessageBytesMax int
	// Panicked hears of a panic in any other service on this server; may be nil.
	Panicked func()
	// Log hears of such panics; nil discards.
	Log *slog.Logger
}

// windowBytes is fixed so that grpc-go does not estimate bandwidth: each
// estimate is a ping that Envoy has to answer (5–10 % of the throughput).
const windowBytes = 16 << 20

// NewGRPCServer makes a server fit for the Authorization service and for
// others beside it. A panic in any handler refuses that call and no other.
func NewGRPCServer(o GRPCOptions) *grpc.Server {
	if o.Workers == 0 {
		o.Workers = 4
	}
	if o.StreamsMax == 0 {
		o.StreamsMax = 16384
	}
	if o.MessageBytesMax == 0 {
		o.MessageBytesMax = 1 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	refuse := func(err *error) {
		if v := recover(); v != nil {
			if o.Panicked != nil {
				o.Panicked()
			}
			o.Log.Error("panic in a gRPC handler, call refused", "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			*err = status.Error(codes.Internal, "internal error")
		}
	}
	return grpc.NewServer(
		grpc.ForceServerCodecV2(NewCodec()),
		grpc.InitialWindowSize(windowBytes),
		grpc.InitialConnWindowSize(windowBytes),
		grpc.NumStreamWorkers(o.Workers),
		grpc.MaxConcurrentStreams(o.StreamsMax),
		grpc.MaxRecvMsgSize(o.MessageBytesMax),
		// Envoy's connections live as long as Envoy: ping only to notice a peer
		// that is gone, and let Envoy ping as often as it is configured to.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, h grpc.UnaryHandler) (_ any, err error) {
			defer refuse(&err)
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
			defer refuse(&err)
			return h(srv, ss)
		}),
	)
}

// Health is grpc.health.v1 for the Authorization service and for the server as
// a whole ("").
type Health struct{ srv *health.Server }

// RegisterHealth adds the health service; it says NOT_SERVING until SetReady.
func RegisterHealth(r grpc.ServiceRegistrar) *Health {
	h := &Health{health.NewServer()}
	h.SetReady(false)
	healthpb.RegisterHealthServer(r, h.srv)
	return h
}

// SetReady says whether the sidecar is loaded and fresh, and wakes watchers.
func (h *Health) SetReady(ready bool) {
	st := healthpb.HealthCheckResponse_NOT_SERVING
	if ready {
		st = healthpb.HealthCheckResponse_SERVING
	}
	h.srv.SetServingStatus("", st)
	h.srv.SetServingStatus(ServiceName, st)
}

// Shutdown says NOT_SERVING for good, at the start of a drain.
func (h *Health) Shutdown() { h.srv.Shutdown() }
