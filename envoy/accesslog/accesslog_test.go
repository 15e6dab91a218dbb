package accesslog

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	alsv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/extauthz"
)

func start() time.Time { return time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC) }

func newJoiner(t testing.TB, cfg JoinerConfig) *Joiner {
	t.Helper()
	if cfg.Start.IsZero() {
		cfg.Start = start()
	}
	j, err := NewJoiner(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func forwarded(id authz.DecisionID, at time.Time) *Entry {
	return &Entry{Decision: id, Reason: authz.OK, Service: "abr.lookup", Status: 200, Start: at, Duration: time.Millisecond, Reached: true}
}

func TestEveryForwardedRequestNeedsExactlyOneAllow(t *testing.T) {
	ids, at := authz.NewIDs(), start().Add(time.Second)
	j := newJoiner(t, JoinerConfig{})
	allowed, unknown, denied, gone := ids.Next(at), ids.Next(at), ids.Next(at), ids.Next(at)
	j.Allowed(allowed, at)
	j.Allowed(gone, at)

	j.Consume(forwarded(allowed, at))
	j.Consume(forwarded(allowed, at)) // a second time: one decision, two requests
	j.Consume(forwarded(unknown, at))
	j.Consume(forwarded(authz.DecisionID{}, at))
	e := forwarded(denied, at)
	e.Reason = authz.ProductSuspended
	j.Consume(e)
	e = forwarded(gone, at)
	e.Reached, e.Flags = false, DownstreamTermination
	j.Consume(e)
	e = forwarded(denied, at)
	e.Reason, e.Reached = authz.ProductSuspended, false
	j.Consume(e)

	c := j.Counts()
	if c.Forwarded != 1 || c.Refused != 1 || c.Open != 0 || c.NotForwarded["downstream-disconnect"] != 1 {
		t.Errorf("%+v", c)
	}
	if diff := cmp.Diff(map[string]uint64{"unknown-decision": 2, "no-decision": 1, "denied-forwarded": 1}, c.Alarms); diff != "" {
		t.Error(diff)
	}
}

func TestCausesOfWhatWasNotForwarded(t *testing.T) {
	for want, e := range map[string]Entry{
		"downstream-disconnect":    {Flags: DownstreamTermination},
		"upstream-connect-failure": {Flags: UpstreamConnectFailure},
		"upstream-overflow":        {Flags: UpstreamOverflow},
		"timeout":                  {Flags: UpstreamRequestTimeout},
		"protocol-error":           {Flags: DownstreamProtocol},
		"refused-by-envoy":         {Flags: Unauthorized},
		"admission-expired":        {Status: 503},
		"no-route":                 {Direct: true},
		"other":                    {},
	} {
		j, id := newJoiner(t, JoinerConfig{}), authz.NewIDs().Next(start())
		j.Allowed(id, start())
		e.Decision, e.Reason, e.Start = id, authz.OK, start()
		j.Consume(&e)
		if c := j.Counts(); c.NotForwarded[want] != 1 || c.Open != 0 {
			t.Errorf("%s: %+v", want, c)
		}
	}
}

func TestLostEntriesAreCountedAndLongStreamsAreNot(t *testing.T) {
	ids, at := authz.NewIDs(), start()
	j := newJoiner(t, JoinerConfig{LostAfter: 10 * time.Second})
	lost, long := ids.Next(at), ids.Next(at)
	j.Allowed(lost, at)
	j.Allowed(long, at)
	for s := 5; s <= 60; s += 5 {
		e := forwarded(long, at)
		e.Alive, e.Duration = true, time.Duration(s)*time.Second
		j.Consume(e)
		j.sweep(at.Add(time.Duration(s) * time.Second))
	}
	if c := j.Counts(); c.NotForwarded["log-lost"] != 1 || c.Open != 1 {
		t.Errorf("%+v", c)
	}
	e := forwarded(long, at)
	e.Duration = time.Minute
	j.Consume(e)
	// The lost one comes after all: no bypass.
	e = forwarded(lost, at)
	e.Duration = time.Minute
	j.Consume(e)
	if c := j.Counts(); c.Forwarded != 1 || c.Excused != 1 || c.Open != 0 || c.Alarms["unknown-decision"] != 0 {
		t.Errorf("%+v", c)
	}
}

func TestDecisionsOfAnEarlierProcessAreExcused(t *testing.T) {
	j := newJoiner(t, JoinerConfig{})
	j.Consume(forwarded(authz.NewIDs().Next(start().Add(-time.Second)), start()))
	if c := j.Counts(); c.Excused != 1 || c.Alarms["unknown-decision"] != 0 {
		t.Errorf("%+v", c)
	}
}

func TestMemoryIsBoundedAndABlindShardDoesNotCryWolf(t *testing.T) {
	ids, at := authz.NewIDs(), start()
	j := newJoiner(t, JoinerConfig{Open: 1000})
	slots := len(j.shards[0].slots)
	var all []authz.DecisionID
	for range 100_000 {
		id := ids.Next(at)
		all = append(all, id)
		j.Allowed(id, at)
	}
	if c := j.Counts(); c.Open < 1000 || c.Open+int(c.Untracked) != len(all) || len(j.shards[0].slots) != slots {
		t.Errorf("%+v, %d slots of %d", c, len(j.shards[0].slots), slots)
	}
	for _, id := range all {
		j.Consume(forwarded(id, at))
	}
	c := j.Counts()
	if c.Open != 0 || c.Excused != c.Untracked || c.Alarms["unknown-decision"] != 0 {
		t.Errorf("%+v", c)
	}
	// Once what there was no room for must have come, it is strict again.
	late := at.Add(time.Minute)
	j.Consume(forwarded(ids.Next(late), late))
	if n := j.Counts().Alarms["unknown-decision"]; n != 1 {
		t.Errorf("%d alarms", n)
	}
}

// The table against a map, under any order of coming and going.
func TestShardAgainstAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, model := &shard{slots: make([]slot, 16)}, map[authz.DecisionID]int64{}
		id := func(n int) authz.DecisionID {
			return authz.DecisionID([]byte(fmt.Sprintf("01HZZZZZZZ%016d", n)))
		}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			x := id(rapid.IntRange(0, 20).Draw(t, "id"))
			h := x.Hash() / nShards
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0, 1:
				ms := int64(rapid.IntRange(1, 100).Draw(t, "ms"))
				_, had := model[x]
				if s.put(h, x, ms) && !had {
					model[x] = ms
				} else if !had && len(model) < 12 {
					t.Fatalf("refused with %d of 16", len(model))
				}
			case 2:
				i := s.find(h, x)
				if _, had := model[x]; had != (i >= 0) {
					t.Fatalf("found %v, want %v", i >= 0, had)
				}
				if i >= 0 {
					s.remove(i)
					delete(model, x)
				}
			case 3:
				before := int64(rapid.IntRange(0, 100).Draw(t, "before"))
				n := 0
				for k, ms := range model {
					if ms < before {
						delete(model, k)
						n++
					}
				}
				if got := s.expire(before); got != n {
					t.Fatalf("expired %d, want %d", got, n)
				}
			}
			if s.n != len(model) {
				t.Fatalf("holds %d, want %d", s.n, len(model))
			}
			for k := range model {
				if s.find(k.Hash()/nShards, k) < 0 {
					t.Fatalf("lost %s", k)
				}
			}
		}
	})
}

func TestAllowedDoesNotAllocate(t *testing.T) {
	j, ids := newJoiner(t, JoinerConfig{}), authz.NewIDs()
	if n := testing.AllocsPerRun(1000, func() { j.Allowed(ids.Next(start()), start()) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAllowed(b *testing.B) {
	j, ids := newJoiner(b, JoinerConfig{}), authz.NewIDs()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := ids.Next(start())
			j.Allowed(id, start())
			j.Consume(forwarded(id, start()))
		}
	})
}

// sample is an entry as Envoy fills it.
func sample(id authz.DecisionID) *datav3.HTTPAccessLogEntry {
	meta, err := structpb.NewStruct(map[string]any{"decision_id": id.String(), "reason": "ok", "revision": "7"})
	if err != nil {
		panic(err)
	}
	return &datav3.HTTPAccessLogEntry{
		CommonProperties: &datav3.AccessLogCommon{
			StartTime: timestamppb.New(start()), Duration: durationpb.New(1500 * time.Microsecond),
			RouteName: "piitr.get", UpstreamCluster: "upstream_h1", UpstreamWireBytesSent: 512,
			ResponseFlags: &datav3.ResponseFlags{DownstreamConnectionTermination: true, UnauthorizedDetails: &datav3.ResponseFlags_Unauthorized{}},
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
				extAuthz: meta, "other": {Fields: map[string]*structpb.Value{"decision_id": structpb.NewStringValue("x")}},
			}},
		},
		Request:  &datav3.HTTPRequestProperties{Path: "/individuals/v1/220115957/prefill", OriginalPath: "/x", RequestBodyBytes: 3, UpstreamHeaderBytesSent: 200},
		Response: &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(200), ResponseBodyBytes: 9, ResponseCodeDetails: "via_upstream"},
	}
}

func message(entries ...*datav3.HTTPAccessLogEntry) []byte {
	b, err := proto.Marshal(&alsv3.StreamAccessLogsMessage{LogEntries: &alsv3.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &alsv3.StreamAccessLogsMessage_HTTPAccessLogEntries{LogEntry: entries},
	}})
	if err != nil {
		panic(err)
	}
	return b
}

func TestDecode(t *testing.T) {
	id := authz.NewIDs().Next(start())
	var got []Entry
	if err := newDecoder().message(message(sample(id), &datav3.HTTPAccessLogEntry{}), func(e *Entry) { got = append(got, *e) }); err != nil {
		t.Fatal(err)
	}
	want := []Entry{
		{
			Decision: id, Reason: authz.OK, Service: "piitr.get", Status: 200, Flags: DownstreamTermination | Unauthorized,
			Start: start(), Duration: 1500 * time.Microsecond, RequestBytes: 3, ResponseBytes: 9, UpstreamBytes: 512, Reached: true,
		},
		{Reason: authz.AuthorizerUnavailable, Start: time.Unix(0, 0).UTC()},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(fmt.Sprintf("%+v", got), "220115957") {
		t.Error("a path was kept")
	}
}

// reference decodes with protobuf-go what decoder scans.
func reference(m *alsv3.StreamAccessLogsMessage) (out []Entry) {
	for _, x := range m.GetHttpLogs().GetLogEntry() {
		c, p := x.GetCommonProperties(), pending{}
		e := Entry{
			Reason: authz.AuthorizerUnavailable, Service: string([]byte(c.GetRouteName())[:min(len(c.GetRouteName()), 128)]),
			RequestBytes: x.GetRequest().GetRequestBodyBytes(), ResponseBytes: x.GetResponse().GetResponseBodyBytes(),
			UpstreamBytes: c.GetUpstreamWireBytesSent(), Direct: x.GetResponse().GetResponseCodeDetails() == "direct_response",
			//lint:ignore SA1019 Envoy 1.40 still sends it, and the scan reads it
			Alive: c.GetIntermediateLogEntry(),
		}
		p.start.seconds, p.start.nanos = c.GetStartTime().GetSeconds(), int64(c.GetStartTime().GetNanos())
		p.duration.seconds, p.duration.nanos = c.GetDuration().GetSeconds(), int64(c.GetDuration().GetNanos())
		p.status, p.headerBytes = x.GetResponse().GetResponseCode().GetValue(), x.GetRequest().GetUpstreamHeaderBytesSent()
		if f := c.GetResponseFlags(); f != nil {
			fields := f.ProtoReflect().Descriptor().Fields()
			for i := range fields.Len() {
				if fd := fields.Get(i); f.ProtoReflect().Has(fd) && fd.Number() <= flagMax {
					e.Flags |= 1 << fd.Number()
				}
			}
		}
		said := c.GetMetadata().GetFilterMetadata()[extAuthz].GetFields()
		p.id, p.reason = []byte(said["decision_id"].GetStringValue()), []byte(said["reason"].GetStringValue())
		p.finish(&e)
		out = append(out, e)
	}
	return out
}

// FuzzDecode: whatever protobuf-go accepts is decoded to the same, and nothing
// makes the scanner panic.
func FuzzDecode(f *testing.F) {
	id := authz.NewIDs().Next(start())
	f.Add(message(sample(id)))
	f.Add(message(sample(id), &datav3.HTTPAccessLogEntry{}, sample(id)))
	f.Add(append(message(sample(id)), message(&datav3.HTTPAccessLogEntry{Response: &datav3.HTTPResponseProperties{ResponseCodeDetails: "direct_response"}})...))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []Entry
		err := newDecoder().message(b, func(e *Entry) { got = append(got, *e) })
		m := &alsv3.StreamAccessLogsMessage{}
		if proto.Unmarshal(b, m) != nil {
			return
		}
		if err != nil {
			t.Fatalf("refused what protobuf-go accepts: %v", err)
		}
		// A message is one oneof; entries of http_logs that a later tcp_logs replaced
		// are decoded all the same, and better seen than not.
		if m.GetTcpLogs() != nil {
			return
		}
		if diff := cmp.Diff(reference(m), got); diff != "" {
			t.Fatal(diff)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	msg, d := message(sample(authz.NewIDs().Next(start()))), newDecoder()
	b.ReportAllocs()
	for b.Loop() {
		if err := d.message(msg, func(*Entry) {}); err != nil {
			b.Fatal(err)
		}
	}
}

type keeper struct {
	mu  sync.Mutex
	all []Entry
}

func (k *keeper) Consume(e *Entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.all = append(k.all, *e)
}

func (k *keeper) len() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.all)
}

// A message that does not decode costs itself and nothing after it, whatever the
// server's codec.
func TestServerPassesOverWhatDoesNotDecode(t *testing.T) {
	t.Run("stock", func(t *testing.T) { passOver(t, grpc.NewServer()) })
	t.Run("raw", func(t *testing.T) { passOver(t, extauthz.NewGRPCServer(extauthz.GRPCOptions{})) })
}

func passOver(t *testing.T, g *grpc.Server) {
	j, k := newJoiner(t, JoinerConfig{}), &keeper{}
	NewServer(ServerConfig{Joiner: j, Consumers: []Consumer{k}}).Register(g)
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := alsv3.NewAccessLogServiceClient(conn).StreamAccessLogs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	bad := &alsv3.StreamAccessLogsMessage{}
	// http_logs, one entry whose common_properties runs over its end.
	bad.ProtoReflect().SetUnknown([]byte{0x12, 4, 0x0a, 2, 0x0a, 9})
	ids := authz.NewIDs()
	good := func(n int) *alsv3.StreamAccessLogsMessage {
		var entries []*datav3.HTTPAccessLogEntry
		for range n {
			id := ids.Next(start())
			j.Allowed(id, start())
			entries = append(entries, sample(id))
		}
		m := &alsv3.StreamAccessLogsMessage{}
		if err := proto.Unmarshal(message(entries...), m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	// A large message, a small one, none and another: the buffer is reused.
	for _, m := range []*alsv3.StreamAccessLogsMessage{bad, good(200), good(1), {}, bad, good(2)} {
		if err := stream.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); k.len() < 203; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d entries came", k.len())
		}
	}
	if c := j.Counts(); c.Malformed != 2 || c.Forwarded != 203 {
		t.Errorf("%+v", c)
	}
}
