package main

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/dspgate/dspgate/envoy/headers"
)

// noop is the yardstick: an authorizer as the examples have it. Stock types,
// a default server; it decides nothing, and reads the access log away. The two
// entries of metadata are there because Envoy, as it is configured, lets
// nothing through without; they are made once, and what they cost is reported.
type noop struct {
	authv3.UnimplementedAuthorizationServer
	alsv3.UnimplementedAccessLogServiceServer
	answer *authv3.CheckResponse
}

// newNoop makes the yardstick. With admissions Envoy lets nothing through that
// does not say until when it may: this says for ever.
func newNoop(admission bool) noop {
	ok := &authv3.OkHttpResponse{}
	if admission {
		ok.Headers = []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: headers.NotAfter, Value: "9999999999999"},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}}
	}
	return noop{answer: &authv3.CheckResponse{
		Status:       &statuspb.Status{},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: ok},
		DynamicMetadata: &structpb.Struct{Fields: map[string]*structpb.Value{
			"decision_id": structpb.NewStringValue("00000000000000000000000000"),
			"reason":      structpb.NewStringValue("ok"),
		}},
	}}
}

func (n noop) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return n.answer, nil
}

// metadataCost is the processor time that marshalling the two entries takes,
// in µs a call: what the yardstick does beyond nothing.
func metadataCost() float64 {
	with := newNoop(false).answer
	without := newNoop(false).answer
	without.DynamicMetadata = nil
	cost := func(m proto.Message) time.Duration {
		const n = 20_000
		begin := time.Now()
		for range n {
			if _, err := proto.Marshal(m); err != nil {
				panic(err) // made above of valid parts
			}
		}
		return time.Since(begin) / n
	}
	cost(with)
	return float64((cost(with) - cost(without)).Nanoseconds()) / 1000
}

func (noop) StreamAccessLogs(s alsv3.AccessLogService_StreamAccessLogsServer) error {
	for {
		if _, err := s.Recv(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
}

// runNoop serves until the process is killed: the authorizer on the one socket,
// the access log on the other, as the sidecar has it.
func runNoop(authzSocket, logSocket string, admission bool) error {
	s := grpc.NewServer()
	authv3.RegisterAuthorizationServer(s, newNoop(admission))
	alsv3.RegisterAccessLogServiceServer(s, newNoop(admission))
	errs := make(chan error, 2)
	for _, socket := range []string{authzSocket, logSocket} {
		l, err := net.Listen("unix", socket)
		if err != nil {
			return err
		}
		go func() { errs <- s.Serve(l) }()
	}
	return <-errs
}
