package extauthz

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/authz"
)

// peer is an HTTP/2 client that sends what it is told, right or wrong.
type peer struct {
	t   *testing.T
	nc  net.Conn
	fr  *http2.Framer
	enc *hpack.Encoder
	hb  bytes.Buffer
	dec *hpack.Decoder
}

// dial starts a server and says the preface to it; the answers to that are read.
func dial(t *testing.T, o Options, settings ...http2.Setting) (*peer, context.CancelFunc) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, l) }()
	nc, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		nc.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p := &peer{t: t, nc: nc, fr: http2.NewFramer(nc, nc), dec: hpack.NewDecoder(4096, nil)}
	p.enc = hpack.NewEncoder(&p.hb)
	p.must(io.WriteString(nc, http2.ClientPreface))
	p.ok(p.fr.WriteSettings(settings...))
	for got := 0; got < 3; got++ { // SETTINGS, WINDOW_UPDATE, ack
		p.read()
	}
	return p, cancel
}

func (p *peer) ok(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) must(_ int, err error) { p.t.Helper(); p.ok(err) }

func (p *peer) read() http2.Frame {
	p.t.Helper()
	f, err := p.fr.ReadFrame()
	p.ok(err)
	return f
}

func (p *peer) block(path string, extra ...string) []byte {
	p.hb.Reset()
	fields := append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "x", "content-type", "application/grpc", "te", "trailers"}, extra...)
	for i := 0; i < len(fields); i += 2 {
		p.ok(p.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}))
	}
	return bytes.Clone(p.hb.Bytes())
}

func (p *peer) open(id uint32, path string) {
	p.ok(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(path), EndHeaders: true}))
}

func framed(msg []byte) []byte {
	n := len(msg)
	return append([]byte{0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}, msg...)
}

// answer reads one whole answer.
func (p *peer) answer() (id uint32, resp *authv3.CheckResponse, grpcStatus string) {
	p.t.Helper()
	for {
		switch f := p.read().(type) {
		case *http2.DataFrame:
			resp = new(authv3.CheckResponse)
			p.ok(proto.Unmarshal(f.Data()[5:], resp))
		case *http2.HeadersFrame:
			fields, err := p.dec.DecodeFull(f.HeaderBlockFragment())
			p.ok(err)
			for _, h := range fields {
				if h.Name == "grpc-status" {
					grpcStatus = h.Value
				}
			}
			if f.StreamEnded() {
				return f.StreamID, resp, grpcStatus
			}
		default:
			p.t.Fatalf("unexpected %v", f)
		}
	}
}

func TestCallInPiecesIsTheSameCall(t *testing.T) {
	p, _ := dial(t, Options{Decider: deciderFunc(func(r *authz.Request, d *authz.Decision) {
		*d = decision(authz.OK)
		if r.Method != "GET" || r.Authorization != "Bearer a.b.c" {
			d.Reason = authz.TokenMissing
		}
	})})
	msg := framed(marshal(t, samples()["list"]))
	for i, send := range []func(id uint32){
		func(id uint32) { // as Envoy does
			p.open(id, CheckMethod)
			p.ok(p.fr.WriteData(id, true, msg))
		},
		func(id uint32) { // the end apart, and padding
			p.open(id, CheckMethod)
			p.ok(p.fr.WriteDataPadded(id, false, msg, make([]byte, 200)))
			p.ok(p.fr.WriteData(id, true, nil))
		},
		func(id uint32) { // byte by byte
			p.open(id, CheckMethod)
			for k := range msg {
				p.ok(p.fr.WriteData(id, k == len(msg)-1, msg[k:k+1]))
			}
		},
		func(id uint32) { // headers in two frames, and trailers
			b := p.block(CheckMethod, "x-long", strings.Repeat("y", 3000))
			p.ok(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:20]}))
			p.ok(p.fr.WriteContinuation(id, true, b[20:]))
			p.ok(p.fr.WriteData(id, false, msg))
			p.hb.Reset()
			p.ok(p.enc.WriteField(hpack.HeaderField{Name: "x-trailer", Value: "z"}))
			p.ok(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.hb.Bytes(), EndHeaders: true, EndStream: true}))
		},
		func(id uint32) { // between two other frames
			p.open(id, CheckMethod)
			p.ok(p.fr.WriteData(id, false, msg[:10]))
			p.ok(p.fr.WritePriority(id, http2.PriorityParam{Weight: 3}))
			p.ok(p.fr.WriteData(id, true, msg[10:]))
		},
	} {
		id := uint32(2*i + 1)
		send(id)
		got, resp, st := p.answer()
		if got != id || st != "0" || resp.GetOkResponse() == nil {
			t.Errorf("way %d: stream %d, status %q, %v", i, got, st, resp)
		}
	}
}

func TestServeAnswersHealth(t *testing.T) {
	var ready atomic.Bool
	p, _ := dial(t, Options{Decider: fixed(authz.OK), Ready: ready.Load})
	for i, want := range []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_NOT_SERVING, healthpb.HealthCheckResponse_SERVING,
	} {
		ready.Store(i == 1)
		id := uint32(2*i + 1)
		p.open(id, healthpb.Health_Check_FullMethodName)
		p.ok(p.fr.WriteData(id, true, framed(marshal(t, &healthpb.HealthCheckRequest{}))))
		got, resp, st := p.answer()
		var h healthpb.HealthCheckResponse
		// What answer read as a CheckResponse has the field of a health response.
		if err := proto.Unmarshal(resp.ProtoReflect().GetUnknown(), &h); err != nil || got != id || st != "0" || h.Status != want {
			t.Errorf("ready %v: stream %d, status %s, %v, %v", i == 1, got, st, h.Status, err)
		}
	}
}

func TestWhatIsNoCheckIsRefused(t *testing.T) {
	p, _ := dial(t, Options{Decider: fixed(authz.OK)})
	good := framed(marshal(t, samples()["list"]))
	compressed := bytes.Clone(good)
	compressed[0] = 1
	for i, c := range []struct {
		path string
		body []byte
		want string
	}{
		{"/grpc.health.v1.Health/Check", good, "12"},
		{CheckMethod + "/", good, "12"},
		{CheckMethod, nil, "3"},
		{CheckMethod, good[:4], "3"},
		{CheckMethod, good[:len(good)-1], "3"},
		{CheckMethod, append(bytes.Clone(good), good...), "3"},
		{CheckMethod, compressed, "12"},
		{CheckMethod, framed([]byte{0xff}), "3"},
	} {
		id := uint32(2*i + 1)
		p.open(id, c.path)
		p.ok(p.fr.WriteData(id, true, c.body))
		if got, resp, st := p.answer(); got != id || resp != nil || st != c.want {
			t.Errorf("%d: stream %d, status %q instead of %q, %v", i, got, st, c.want, resp)
		}
	}
	p.open(101, CheckMethod)
	p.ok(p.fr.WriteData(101, true, good))
	if _, resp, _ := p.answer(); resp.GetOkResponse() == nil {
		t.Error("the next call is not answered")
	}
}

func TestAnswersKeepToThePeersWindow(t *testing.T) {
	p, _ := dial(t, Options{Decider: fixed(authz.OK)})
	msg := framed(marshal(t, samples()["list"]))
	const calls = 300
	for i := range calls {
		p.open(uint32(2*i+1), CheckMethod)
		p.ok(p.fr.WriteData(uint32(2*i+1), true, msg))
	}
	p.ok(p.fr.WriteRSTStream(2*calls-1, http2.ErrCodeCancel)) // while its answer waits
	p.ok(p.fr.WritePing(false, [8]byte{1}))                   // answered once all the calls were read
	sent, answered, limit := 0, 0, defaultWindow
	for answered < calls-1 {
		switch f := p.read().(type) {
		case *http2.DataFrame:
			sent += len(f.Data())
			answered++
			if sent > limit {
				t.Fatalf("%d bytes sent into a window of %d", sent, limit)
			}
			if f.StreamID == 2*calls-1 {
				t.Error("a call that was cancelled is answered")
			}
		case *http2.PingFrame:
			if answered == calls-1 {
				t.Fatal("the window never filled: nothing was tested")
			}
			p.ok(p.fr.WriteWindowUpdate(0, 100_000))
			limit += 100_000
		case *http2.WindowUpdateFrame:
		}
		if sent+700 > limit && limit > defaultWindow {
			p.ok(p.fr.WriteWindowUpdate(0, 100_000))
			limit += 100_000
		}
	}
}

func TestHostilePeersAreCutOff(t *testing.T) {
	for name, c := range map[string]struct {
		send func(p *peer)
		want http2.ErrCode
	}{
		"endless headers": {func(p *peer) {
			p.ok(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: p.block(CheckMethod)}))
			for range 10 {
				// An error: it was cut off before the end of this.
				_ = p.fr.WriteContinuation(1, false, append([]byte{0, 1, 'x', 0x7f, 0xb1, 0x6c}, make([]byte, 14000)...))
			}
		}, http2.ErrCodeEnhanceYourCalm},
		"broken headers": {func(p *peer) {
			p.ok(p.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff, 0xff, 0xff}, EndHeaders: true}))
		}, http2.ErrCodeCompression},
		"data before headers": {func(p *peer) { p.ok(p.fr.WriteData(9, true, nil)) }, http2.ErrCodeProtocol},
		"even stream":         {func(p *peer) { p.open(2, CheckMethod) }, http2.ErrCodeProtocol},
		"reset of nothing":    {func(p *peer) { p.ok(p.fr.WriteRSTStream(9, http2.ErrCodeCancel)) }, http2.ErrCodeProtocol},
		"window too large": {func(p *peer) {
			p.ok(p.fr.WriteWindowUpdate(0, 1<<31-1))
		}, http2.ErrCodeFlowControl},
		"frame too large": {func(p *peer) {
			p.open(1, CheckMethod)
			p.ok(p.fr.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, frameBytesMax+1)))
		}, http2.ErrCodeFrameSize},
	} {
		t.Run(name, func(t *testing.T) {
			p, _ := dial(t, Options{Decider: fixed(authz.OK)})
			c.send(p)
			f, ok := p.read().(*http2.GoAwayFrame)
			if !ok || f.ErrCode != c.want {
				t.Fatalf("got %v, want GOAWAY %v", f, c.want)
			}
			if _, err := p.fr.ReadFrame(); err == nil {
				t.Error("the connection stays open")
			}
		})
	}
}

func TestMessageTooLargeEndsItsCallAlone(t *testing.T) {
	p, _ := dial(t, Options{Decider: fixed(authz.OK)})
	p.open(1, CheckMethod)
	chunk := make([]byte, frameBytesMax)
	for range messageBytesMax/frameBytesMax + 1 {
		p.ok(p.fr.WriteData(1, false, chunk))
	}
	if f, ok := p.read().(*http2.RSTStreamFrame); !ok || f.StreamID != 1 {
		t.Fatalf("got %v", f)
	}
	p.open(3, CheckMethod)
	p.ok(p.fr.WriteData(3, true, framed(marshal(t, samples()["list"]))))
	if id, resp, _ := p.answer(); id != 3 || resp.GetOkResponse() == nil {
		t.Errorf("stream %d: %v", id, resp)
	}
}

func TestTooManyOpenCallsAreRefusedOneByOne(t *testing.T) {
	p, _ := dial(t, Options{Decider: fixed(authz.OK)})
	for i := range streamsMax + 1 {
		p.open(uint32(2*i+1), CheckMethod)
	}
	f, ok := p.read().(*http2.RSTStreamFrame)
	if !ok || f.ErrCode != http2.ErrCodeRefusedStream || f.StreamID != 2*streamsMax+1 {
		t.Fatalf("got %v", f)
	}
	p.ok(p.fr.WriteData(1, true, framed(marshal(t, samples()["list"]))))
	if id, resp, _ := p.answer(); id != 1 || resp.GetOkResponse() == nil {
		t.Errorf("stream %d: %v", id, resp)
	}
}

func TestShutdownSaysSoAndAnswersWhatIsUnderWay(t *testing.T) {
	p, cancel := dial(t, Options{Decider: fixed(authz.OK)})
	msg := framed(marshal(t, samples()["list"]))
	p.open(1, CheckMethod)
	p.ok(p.fr.WriteData(1, false, msg[:7]))
	p.ok(p.fr.WritePing(false, [8]byte{}))
	p.read() // the pieces above are in
	cancel()
	f, ok := p.read().(*http2.GoAwayFrame)
	if !ok || f.ErrCode != http2.ErrCodeNo || f.LastStreamID != 1 {
		t.Fatalf("got %v", f)
	}
	p.ok(p.fr.WriteData(1, true, msg[7:]))
	if id, resp, _ := p.answer(); id != 1 || resp.GetOkResponse() == nil {
		t.Errorf("stream %d: %v", id, resp)
	}
	if _, err := p.fr.ReadFrame(); !errors.Is(err, io.EOF) {
		t.Errorf("the connection did not end: %v", err)
	}
}

func TestPingsAreAnsweredAndWindowsGivenBack(t *testing.T) {
	p, _ := dial(t, Options{Decider: fixed(authz.OK)})
	p.ok(p.fr.WritePing(false, [8]byte{7}))
	if f, ok := p.read().(*http2.PingFrame); !ok || !f.IsAck() || f.Data != [8]byte{7} {
		t.Errorf("got %v", f)
	}
	// More than the whole window, in calls that are refused one by one.
	body := make([]byte, frameBytesMax)
	given := 0
	for i := range 2 * windowBytes / frameBytesMax {
		p.open(uint32(2*i+1), "/other")
		p.ok(p.fr.WriteData(uint32(2*i+1), true, body))
		for {
			f := p.read()
			if w, ok := f.(*http2.WindowUpdateFrame); ok {
				given += int(w.Increment)
			}
			if _, ok := f.(*http2.HeadersFrame); ok {
				break
			}
		}
	}
	if given < windowBytes {
		t.Errorf("%d bytes of window given back of %d used", given, 2*windowBytes)
	}
}

// FuzzConn sends bytes after a good beginning: whatever they are, the
// connection ends by itself once they do, and nothing panics.
func FuzzConn(f *testing.F) {
	var b bytes.Buffer
	fr := http2.NewFramer(&b, nil)
	var hb bytes.Buffer
	enc := hpack.NewEncoder(&hb)
	for _, h := range [][2]string{{":method", "POST"}, {":path", CheckMethod}, {"content-type", "application/grpc"}} {
		if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			f.Fatal(err)
		}
	}
	if err := errors.Join(
		fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 10}),
		fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: hb.Bytes(), EndHeaders: true}),
		fr.WriteData(1, true, framed(marshal(f, samples()["list"]))),
		fr.WritePing(false, [8]byte{}), fr.WriteWindowUpdate(0, 5), fr.WriteRSTStream(1, 2), fr.WriteGoAway(0, 0, nil),
	); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, in []byte) {
		var stats panics
		s, err := New(Options{Decider: fixed(authz.OK), Stats: &stats})
		if err != nil {
			t.Fatal(err)
		}
		s.serveConn(t.Context(), &script{in: bytes.NewReader(append([]byte(http2.ClientPreface), in...))})
		if stats.n != 0 {
			t.Fatal("panicked")
		}
	})
}

type panics struct {
	noStats
	n int
}

func (p *panics) Panicked() { p.n++ }

// script is a connection that says its lines, hears nothing, and hangs up.
type script struct{ in *bytes.Reader }

func (s *script) Read(b []byte) (int, error)       { return s.in.Read(b) }
func (s *script) Write(b []byte) (int, error)      { return len(b), nil }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return &net.UnixAddr{} }
func (s *script) RemoteAddr() net.Addr             { return &net.UnixAddr{} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// manyCalls is what Envoy sends for a number of calls at once.
func manyCalls(t testing.TB, n int) []byte {
	var in, hb bytes.Buffer
	in.WriteString(http2.ClientPreface)
	fr := http2.NewFramer(&in, nil)
	enc := hpack.NewEncoder(&hb)
	if err := fr.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	msg := framed(marshal(t, samples()["list"]))
	for i := range n {
		if i%64 == 0 { // as Envoy gives back what it has read
			if err := fr.WriteWindowUpdate(0, 64<<10); err != nil {
				t.Fatal(err)
			}
		}
		hb.Reset()
		for _, h := range [][2]string{
			{":method", "POST"}, {":path", CheckMethod}, {":authority", "dspgate_authz"}, {":scheme", "http"},
			{"te", "trailers"}, {"grpc-timeout", "1000m"}, {"content-type", "application/grpc"}, {"x-envoy-internal", "true"}, {"x-forwarded-for", "127.0.0.1"},
		} {
			if err := enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
				t.Fatal(err)
			}
		}
		id := uint32(2*i + 1)
		if err := fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: hb.Bytes(), EndHeaders: true}); err != nil {
			t.Fatal(err)
		}
		if err := fr.WriteData(id, true, msg); err != nil {
			t.Fatal(err)
		}
	}
	return in.Bytes()
}

// Blocks that are taken for the one before must mean the same: whatever blocks
// come in whatever order, each call is the one its own decoder says.
func TestRepeatedHeaderBlocksKeepTheirMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := New(Options{Decider: fixed(authz.OK)})
		if err != nil {
			t.Fatal(err)
		}
		c := newConn(s, &script{in: bytes.NewReader(nil)})
		var want string
		dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
			if f.Name == ":path" {
				want = f.Value
			}
		})
		blocks := [][]byte{}
		literal := func(flag byte, name, value string) []byte {
			return append(append([]byte{flag}, byte(len(name))), name+string(rune(len(value)))+value...)
		}
		for _, flag := range []byte{0, 0x10, 0x40} { // not indexed, never indexed, added
			for _, path := range []string{CheckMethod, "/grpc.health.v1.Health/Check", "/other"} {
				blocks = append(blocks, append([]byte{0x83}, literal(flag, ":path", path)...))
			}
		}
		blocks = append(blocks, []byte{0x83, 62 | 0x80}, []byte{0x83, 63 | 0x80}, []byte{0x20, 0x83, 0x84}, []byte{0x3f, 0xe1, 0x1f, 0x83, 0x84})
		blocks = append(blocks, append([]byte{0x04, byte(len(CheckMethod))}, CheckMethod...)) // the name from the static table
		var before []byte
		for i := range rapid.IntRange(1, 30).Draw(t, "calls") {
			block := rapid.SampledFrom(blocks).Draw(t, "block")
			if before != nil && rapid.Bool().Draw(t, "again") {
				block = before
			}
			before = block
			want = ""
			_, derr := dec.Write(block)
			id := uint32(2*i + 1)
			if err := c.openHeaders(id, false, block, true); (err != nil) != (derr != nil) {
				t.Fatalf("%x: %v, and by itself %v", block, err, derr)
			}
			if derr != nil || dec.Close() != nil {
				return
			}
			if got := c.streams[id].method; got != methodOf(want) {
				t.Fatalf("%x: method %d, want that of %q", block, got, want)
			}
		}
	})
}

// A call more costs no allocation: only the connection does.
func TestCallsOnFramesDoNotAllocate(t *testing.T) {
	dec := decision(authz.OK)
	s, err := New(Options{Decider: deciderFunc(func(_ *authz.Request, d *authz.Decision) { *d = dec })})
	if err != nil {
		t.Fatal(err)
	}
	allocs := func(calls int) float64 {
		in := manyCalls(t, calls)
		return testing.AllocsPerRun(5, func() { s.serveConn(t.Context(), &script{in: bytes.NewReader(in)}) })
	}
	few, many := allocs(100), allocs(1100)
	if more := (many - few) / 1000; more > 0.05 {
		t.Errorf("%.2f allocations a call", more)
	}
}

// BenchmarkConn is one call among many that came at once, frames and all.
func BenchmarkConn(b *testing.B) {
	m, err := NewMetrics(prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	dec := decision(authz.OK)
	s, err := New(Options{Decider: deciderFunc(func(_ *authz.Request, d *authz.Decision) { *d = dec }), Stats: m})
	if err != nil {
		b.Fatal(err)
	}
	in := manyCalls(b, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	s.serveConn(b.Context(), &script{in: bytes.NewReader(in)})
	if n := m.Count(authz.OK); n != uint64(b.N) {
		b.Fatalf("%d answers of %d", n, b.N)
	}
}
