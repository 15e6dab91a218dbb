package extauthz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
)

// Decider decides one request and fills in the whole decision, its ID and time
// included. It must keep neither argument: the request's strings point into a
// buffer that is reused.
type Decider interface {
	Decide(r *authz.Request, dec *authz.Decision)
}

// Recorder hears of every decision before it is answered. It must not block and
// must not keep dec.
type Recorder interface {
	Record(dec *authz.Decision)
}

// Stats hears of every call, once. Its methods are on the request path.
type Stats interface {
	// Decided counts an answer; elapsed is from the first byte decoded to the
	// last byte encoded, and zero for the calls that were not timed.
	Decided(reason authz.Reason, elapsed time.Duration)
	// Malformed counts a call that did not decode and was refused.
	Malformed()
	// Panicked counts a call that panicked and was refused.
	Panicked()
}

// Options is what a Server is made of.
type Options struct {
	Decider Decider // needed
	// Recorder keeps decision records; nil keeps none.
	Recorder Recorder
	// Stats counts; nil does not.
	Stats Stats
	// Log hears of panics; nil discards.
	Log *slog.Logger
	// ProblemBase is what the type of a problem starts with, up to and including
	// the last slash. Default DefaultProblemBase.
	ProblemBase string
	// Realm is the realm of WWW-Authenticate. Default "dspgate".
	Realm string
	// Sidecar, when set, is put in the dynamic metadata of every answer, so that
	// one Envoy with several sidecars sends each access-log entry to the one that
	// decided. Valid UTF-8.
	Sidecar string
	// Ready answers grpc.health.v1 where Serve listens; nil leaves that method
	// unserved.
	Ready func() bool
	// Admission stamps every ALLOW of a service; nil stamps none.
	Admission *admission.Signer
	// ForwardAuthorization leaves the bearer token on the request to the
	// upstream. Default: it is removed.
	ForwardAuthorization bool
}

// DefaultProblemBase starts the type of every problem unless configured.
const DefaultProblemBase = "https://dspgate.example/problems/"

// Server is the Authorization service. Safe for concurrent use.
type Server struct {
	decider  Decider
	recorder Recorder
	stats    Stats
	log      *slog.Logger
	enc      *encoder
	ready    func() bool
	calls    sync.Pool // of *call
}

// New makes a Server; it fails when there is no Decider or when ProblemBase or
// Realm could not stand in a header or in JSON unescaped.
func New(o Options) (*Server, error) {
	if o.Decider == nil {
		return nil, errors.New("extauthz: no decider")
	}
	enc, err := newEncoder(o)
	if err != nil {
		return nil, err
	}
	s := &Server{decider: o.Decider, recorder: o.Recorder, stats: o.Stats, log: o.Log, enc: enc, ready: o.Ready}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.stats == nil {
		s.stats = noStats{}
	}
	if s.recorder == nil {
		s.recorder = noRecorder{}
	}
	s.calls.New = func() any { return new(call) }
	return s, nil
}

type noStats struct{}

func (noStats) Decided(authz.Reason, time.Duration) {}
func (noStats) Malformed()                          {}
func (noStats) Panicked()                           {}

type noRecorder struct{}

func (noRecorder) Record(*authz.Decision) {}

// ServiceName and CheckMethod are where Envoy calls.
const (
	ServiceName = "envoy.service.auth.v3.Authorization"
	CheckMethod = "/" + ServiceName + "/Check"
)

// Register adds the service to a gRPC server, which must be one of
// NewGRPCServer, or another that uses Codec.
func (s *Server) Register(r grpc.ServiceRegistrar) {
	r.RegisterService(&grpc.ServiceDesc{
		ServiceName: ServiceName,
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Check", Handler: s.handle}},
		Metadata:    "envoy/service/auth/v3/external_auth.proto",
	}, s)
}

// call is everything one Check needs, reused.
type call struct {
	raw rawMessage
	scan
	req authz.Request
	dec authz.Decision
	out []byte
}

// forget lets go of the received bytes and of the View: once the buffer is
// free, nothing may point into it.
func (c *call) forget() {
	c.scan, c.req, c.dec = scan{}, authz.Request{}, authz.Decision{}
}

func (s *Server) handle(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	c := s.calls.Get().(*call)
	err := dec(&c.raw)
	if err != nil {
		s.calls.Put(c)
		return nil, err
	}
	b, err := s.check(c, c.raw.data, c.out[:0])
	var out []byte
	if err == nil {
		// grpc-go keeps the answer until it is on the wire, so that the call's own
		// buffer cannot be sent: a copy of the right size is the one allocation.
		c.out, out = b, append([]byte(nil), b...)
	}
	c.raw.free()
	c.forget()
	s.calls.Put(c)
	if err != nil {
		return nil, err
	}
	return rawReply(out), nil
}

// Check answers one serialized CheckRequest with a serialized CheckResponse. An
// error is a gRPC status: InvalidArgument for what does not decode, Internal
// for a panic. The answer does not point into raw.
func (s *Server) Check(raw []byte) ([]byte, error) {
	return s.check(new(call), raw, nil)
}

// check appends the answer to dst.
func (s *Server) check(c *call, raw, dst []byte) (out []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.stats.Panicked()
			// The value is not logged: it may hold what the caller sent.
			s.log.Error("panic in Check, request refused", "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
			out, err = nil, status.Error(codes.Internal, "internal error")
		}
	}()
	start := time.Now()
	if err := c.decode(raw, &c.req); err != nil {
		s.stats.Malformed()
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	s.decider.Decide(&c.req, &c.dec)
	s.recorder.Record(&c.dec)
	if dst == nil {
		dst = make([]byte, 0, answerBytes)
	}
	out = s.enc.append(dst, &c.req, &c.dec)
	s.stats.Decided(c.dec.Reason, time.Since(start))
	return out, nil
}

// answerBytes holds every ordinary answer without growing.
const answerBytes = 2048

// rawMessage is a received message, undecoded.
type rawMessage struct {
	buf  mem.Buffer
	data []byte
}

func (m *rawMessage) free() {
	m.buf.Free()
	m.buf, m.data = nil, nil
}

// rawReply is an answer already serialized.
type rawReply []byte
