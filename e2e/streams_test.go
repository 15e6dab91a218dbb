package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	notices  = "/events/v1/notices"
	download = "/events/v1/notices?download"
	socket   = "/events/v1/socket"
	bulk     = "/lodgments/v1/bulk/B-1"
	chat     = "/dspgate.sample.v1.Sample/Chat"
	wattle   = "FP-1001" // another product that may open streams
)

// stream is one open call of a streaming service, kept moving by goroutines of
// its own until it ends.
type stream struct {
	moved atomic.Int64 // events, messages or blocks that came or went
	ended chan error   // takes how it ended, once
	at    time.Time    // of the end; read after ended
	once  sync.Once
	close func()
	// body is what a caller got who had no answer yet.
	body []byte
}

func (x *stream) end(err error) {
	x.once.Do(func() {
		x.at = time.Now()
		x.ended <- err
	})
}

// opener opens one kind of stream.
type opener func(t testing.TB, s *stack, token string) *stream

// openers are all the kinds there are.
var openers = []struct {
	name string
	open opener
	// answered: the caller had an answer already, so that all it can see is a
	// break; else it is told why.
	answered bool
}{
	{"SSE", openDownload(notices, false), true},
	{"SSE over h2", openDownload(notices, true), true},
	{"download", openDownload(download, false), true},
	{"download over h2", openDownload(download, true), true},
	{"upload", arriving(openUpload(false)), false},
	{"upload over h2", arriving(openUpload(true)), false},
	{"WebSocket", openSocket, true},
	{"gRPC bidi", arriving(openChat), true},
	{"gRPC unary", arriving(openUnary), false},
}

func httpClient(t testing.TB, h2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func newStream(t testing.TB) (*stream, context.Context) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return &stream{ended: make(chan error, 1), close: cancel}, ctx
}

// openDownload reads an endless answer.
func openDownload(path string, h2 bool) opener {
	return func(t testing.TB, s *stack, token string) *stream {
		t.Helper()
		return s.download(t, httpClient(t, h2), s.info.Ingress, path, token, nil)
	}
}

func (s *stack) download(t testing.TB, client *http.Client, base, path, token string, header http.Header) *stream {
	t.Helper()
	x, ctx := newStream(t)
	req, err := http.NewRequestWithContext(ctx, "GET", base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, vs := range header {
		req.Header[k] = vs
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	for range declaredMax {
		if err != nil || resp.StatusCode != 503 {
			break
		}
		resp.Body.Close()
		resp, err = client.Do(req)
	}
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 200 {
		b, err := io.ReadAll(resp.Body)
		t.Fatalf("%s: %s %s %v", path, resp.Status, b, err)
	}
	go func() {
		defer resp.Body.Close()
		buf := make([]byte, 16<<10)
		// Slower than it comes, so that it is buffered all the way.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			n, err := resp.Body.Read(buf)
			if n > 0 {
				x.moved.Add(1)
			}
			if err != nil {
				x.end(err)
				return
			}
			<-tick.C
		}
	}()
	return x
}

// openUpload sends a body without end.
func openUpload(h2 bool) opener {
	return func(t testing.TB, s *stack, token string) *stream {
		t.Helper()
		x, ctx := newStream(t)
		pr, pw := io.Pipe()
		req, err := http.NewRequestWithContext(ctx, "PUT", s.info.Ingress+bulk, pr)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		client := httpClient(t, h2)
		go func() {
			block := bytes.Repeat([]byte("x"), 4<<10)
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				if _, err := pw.Write(block); err != nil {
					return
				}
				x.moved.Add(1)
				<-tick.C
			}
		}()
		go func() {
			resp, err := client.Do(req)
			if err == nil {
				x.body, err = io.ReadAll(resp.Body)
				resp.Body.Close()
				err = errors.Join(fmt.Errorf("answered %s", resp.Status), err)
			}
			pr.CloseWithError(err)
			x.end(err)
		}()
		return x
	}
}

// declaredMax is how often a declared 503 is tried again where a stream is only
// wanted open: a machine that is busy enough makes any admission late.
const declaredMax = 3

// dialSocket opens a WebSocket.
func dialSocket(ctx context.Context, t testing.TB, s *stack, token string) *websocket.Conn {
	t.Helper()
	for tries := 0; ; tries++ {
		c, resp, err := websocket.Dial(ctx, "ws"+strings.TrimPrefix(s.info.Ingress, "http")+socket,
			&websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
		if err == nil {
			return c
		}
		if resp == nil || resp.StatusCode != 503 || tries == declaredMax {
			t.Fatal(err)
		}
	}
}

// openSocket has its messages echoed.
func openSocket(t testing.TB, s *stack, token string) *stream {
	t.Helper()
	x, ctx := newStream(t)
	c := dialSocket(ctx, t, s, token)
	x.exchange(func() error {
		if err := c.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			return err
		}
		_, _, err := c.Read(ctx)
		return err
	}, func() { c.CloseNow() })
	return x
}

// exchange goes on exchanging until that fails.
func (x *stream) exchange(once func() error, after func()) {
	go func() {
		defer after()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			if err := once(); err != nil {
				x.end(err)
				return
			}
			x.moved.Add(1)
			<-tick.C
		}
	}()
}

// chatStream opens the sample's gRPC stream.
func chatStream(t testing.TB, s *stack, token string) (*stream, grpc.ClientStream) {
	t.Helper()
	x, ctx := newStream(t)
	u, err := url.Parse(s.info.Ingress)
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///"+u.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	cs, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, chat)
	if err != nil {
		t.Fatal(err)
	}
	return x, cs
}

func openChat(t testing.TB, s *stack, token string) *stream {
	t.Helper()
	x, cs := chatStream(t, s, token)
	x.exchange(func() error {
		if err := cs.SendMsg(wrapperspb.String("hello")); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return cs.RecvMsg(new(wrapperspb.StringValue))
	}, func() {})
	return x
}

// openUnary has the shape of a call with one message and one answer, which is
// long in coming.
func openUnary(t testing.TB, s *stack, token string) *stream {
	t.Helper()
	x, cs := chatStream(t, s, token)
	if err := cs.SendMsg(wrapperspb.String("hold")); err != nil {
		t.Fatal(err)
	}
	if err := cs.CloseSend(); err != nil {
		t.Fatal(err)
	}
	go func() { x.end(cs.RecvMsg(new(wrapperspb.StringValue))) }()
	return x
}

// arriving opens a stream whose caller has no answer yet, and waits until it is
// with the upstream; what got a declared 503 instead is opened again.
func arriving(open opener) opener {
	return func(t testing.TB, s *stack, token string) *stream {
		t.Helper()
		for tries := 0; ; tries++ {
			before, over := len(s.arrivals(t)), false
			x := open(t, s, token)
			eventually(t, 10*time.Second, "the call reaches the upstream", func() bool {
				select {
				case err := <-x.ended:
					if status.Code(err) != codes.Unavailable && !strings.Contains(err.Error(), "503") || tries == declaredMax {
						t.Fatalf("the stream did not begin: %v %s", err, x.body)
					}
					over = true
				default:
				}
				return over || len(s.arrivals(t)) > before
			})
			if !over {
				return x
			}
		}
	}
}

// flows waits until the stream has moved on from where it is.
func (x *stream) flows(t testing.TB) {
	t.Helper()
	from := x.moved.Load()
	eventually(t, 5*time.Second, "the stream moves", func() bool {
		select {
		case err := <-x.ended:
			t.Fatalf("the stream ended: %v", err)
		default:
		}
		return x.moved.Load() > from
	})
}

// endsSoon waits for the end of a stream that had to end.
func (x *stream) endsSoon(t testing.TB, within time.Duration) error {
	t.Helper()
	select {
	case err := <-x.ended:
		if err == nil || errors.Is(err, context.Canceled) && status.Code(err) != codes.Canceled {
			t.Errorf("the stream ended as if nothing had happened: %v", err)
		}
		return err
	case <-time.After(within):
		t.Fatalf("the stream goes on %v after", within)
		return nil
	}
}

// soon is generous on the bound of 1 s: other tests share the machine.
const soon = 2 * time.Second

// S17: whatever is open when a product is suspended ends; what others have open
// goes on.
func TestS17StreamsEndWithTheirProduct(t *testing.T) {
	s := sharedStack(t)
	for _, k := range openers {
		t.Run("S17 "+k.name, func(t *testing.T) {
			o := s.watch(t)
			x := k.open(t, s, s.token(t, nil))
			other := k.open(t, s, s.tokenFor(t, "fp-1001-prod", "65000000101"))
			if k.name != "gRPC unary" {
				x.flows(t)
				other.flows(t)
			}
			su := s.suspend(t, "product", kooka, nil)
			defer s.lift(t, su.ID)
			if !su.Enforcement.Complete {
				t.Errorf("not complete: %+v", su.Enforcement)
			}
			err := x.endsSoon(t, soon)
			if !k.answered {
				mustSayWhy(t, x, err, "product-suspended")
			}
			if k.name != "gRPC unary" {
				other.flows(t)
			}
			select {
			case err := <-other.ended:
				t.Errorf("another product's stream ended too: %v", err)
			default:
			}
			other.close()
			if n := s.panics(t) - o.panics; n != 0 {
				t.Errorf("O3: %v panics", n)
			}
		})
	}
}

// mustSayWhy wants the caller told why, in the contract's words.
func mustSayWhy(t testing.TB, x *stream, err error, code string) {
	t.Helper()
	if st, ok := status.FromError(err); ok {
		if st.Code() != codes.PermissionDenied || !strings.HasPrefix(st.Message(), code+": ") {
			t.Errorf("ended with %v, want PermissionDenied and %s", st, code)
		}
		return
	}
	if got := (reply{body: x.body}).code(); got != code {
		t.Errorf("ended with %v %s, want %s", err, x.body, code)
	}
}

// S17: a stream stands on more than its product.
func TestS17StreamsEndWithAllTheyStandOn(t *testing.T) {
	s := sharedStack(t)
	own := s.tlsClient(t, "31000000202")
	for _, r := range []struct {
		kind, id string
		header   http.Header
	}{
		{"entity", "31000000202", nil},
		{"version", kooka + "@7.1", http.Header{"X-Product-Version": {"7.1"}}},
		{"version", kooka + "@7.1", nil}, // not said: then it has to be said
		{"client-app", "fp-1003-prod", nil},
		{"credential", thumbprint(t, s, "31000000202"), nil},
		{"subscription", "0000300001", nil},
		{"service", "events.stream", nil},
	} {
		t.Run("S17 "+r.kind, func(t *testing.T) {
			x := s.download(t, own, s.info.IngressTLS, notices, s.token(t, nil), r.header)
			x.flows(t)
			before := s.endings(t)
			su := s.suspend(t, r.kind, r.id, nil)
			defer s.lift(t, su.ID)
			x.endsSoon(t, soon)
			if n := s.endings(t) - before; n != 1 {
				t.Errorf("%v streams ended, want 1", n)
			}
		})
	}
}

// endings counts the streams that sidecars ended.
func (s *stack) endings(t testing.TB) (n float64) {
	for _, d := range s.info.SidecarDebug {
		n += s.metric(t, d, "authz_streams_ended_total", "") - s.metric(t, d, "authz_streams_ended_total", `reason="ok"`)
	}
	return n
}

// S17: a sidecar that dies takes its streams with it: nobody could end them any
// more. So does one that is told to stop.
func TestS17StreamsEndWithTheirSidecar(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run("S17 "+sig.String(), func(t *testing.T) {
			s := ownStack(t)
			var all []*stream
			for _, k := range openers {
				all = append(all, k.open(t, s, s.token(t, nil)))
			}
			if err := syscall.Kill(s.info.PIDs.Sidecars[0], sig); err != nil {
				t.Fatal(err)
			}
			for i, x := range all {
				t.Log(openers[i].name, x.endsSoon(t, soon))
			}
		})
	}
}

// S17: with several sidecars, the one that watches over a stream need not be the
// one that admitted it.
func TestS17StreamsOfSeveralSidecars(t *testing.T) {
	t.Run("S17 several sidecars", func(t *testing.T) {
		s := ownStack(t, "--sidecars", "3")
		var all []*stream
		// Envoy finds the sidecars well one after the other.
		eventually(t, 20*time.Second, "each sidecar watches over a stream", func() bool {
			x := openSocket(t, s, s.token(t, nil))
			x.flows(t)
			all = append(all, x)
			for _, d := range s.info.SidecarDebug {
				if s.metric(t, d, "authz_streams_open", "") == 0 {
					return false
				}
			}
			return true
		})
		s.suspend(t, "product", kooka, nil)
		for _, x := range all {
			x.endsSoon(t, soon)
		}
	})
}

// S17: when the serving lease lapses, nothing may be answered from the register
// any more, and open streams are an answer that goes on.
func TestS17StreamsEndWithTheLease(t *testing.T) {
	t.Run("S17 lease", func(t *testing.T) {
		t.Setenv("DSPGATE_LEASE_LONG", "2s")
		s := ownStack(t)
		x := openSocket(t, s, s.token(t, nil))
		x.flows(t)
		if err := syscall.Kill(s.info.PIDs.Redis, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := syscall.Kill(s.info.PIDs.Redis, syscall.SIGCONT); err != nil {
				t.Error(err)
			}
		}()
		x.endsSoon(t, 2*time.Second+soon)
		if n := s.metric(t, s.info.SidecarDebug[0], "authz_streams_ended_total", `reason="register-stale"`); n != 1 {
			t.Errorf("%v streams ended because the register is stale", n)
		}
	})
}

// S17x: a product that holds open all the streams it may gets 429 for the next,
// and nobody else notices.
func TestS17xStreamsAreCapped(t *testing.T) {
	t.Run("S17x cap", func(t *testing.T) {
		const most = 150
		t.Setenv("DSPGATE_STREAMS_PER_PRODUCT", fmt.Sprint(most))
		s := ownStack(t)
		token := s.token(t, nil)
		var all []*stream
		for range most {
			all = append(all, openIdle(t, s, token))
		}
		eventually(t, 5*time.Second, "all are watched", func() bool {
			return s.metric(t, s.info.SidecarDebug[0], "authz_streams_open", "") == most
		})
		for range 3 {
			r := s.get(t, "GET", notices, token, nil, nil)
			mustRefuse(t, r, "rate-limited")
			if r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		}
		// Its ordinary calls are no streams, and others open theirs.
		for _, c := range []struct{ token, product string }{{token, kooka}, {s.tokenFor(t, "fp-1001-prod", "65000000101"), wattle}} {
			for range 100 {
				mustAdmit(t, s.get(t, "GET", lookup, c.token, nil, nil), lookup, c.product)
			}
		}
		for _, k := range openers {
			x := k.open(t, s, s.tokenFor(t, "fp-1001-prod", "65000000101"))
			x.close()
		}
		all[0].close()
		eventually(t, 5*time.Second, "there is room again", func() bool {
			return s.metric(t, s.info.SidecarDebug[0], "authz_streams_open", "") < most
		})
		openIdle(t, s, token)
	})
}

// openIdle opens a stream on which nothing moves, on a connection of its own.
func openIdle(t testing.TB, s *stack, token string) *stream {
	t.Helper()
	x, ctx := newStream(t)
	c := dialSocket(ctx, t, s, token)
	t.Cleanup(func() { c.CloseNow() })
	x.close = func() { c.CloseNow() }
	return x
}

// BenchmarkStreamEnds measures, for each kind of stream, the time from the
// return of `suspend` with wait to the end as the client sees it, negative when
// the client saw it first, and the time of the command itself.
func BenchmarkStreamEnds(b *testing.B) {
	s := sharedStack(b)
	for _, k := range openers {
		b.Run(strings.ReplaceAll(k.name, " ", "-"), func(b *testing.B) {
			var after, command []time.Duration
			for b.Loop() {
				x := k.open(b, s, s.token(b, nil))
				if k.name != "gRPC unary" {
					x.flows(b)
				}
				start := time.Now()
				su := s.suspend(b, "product", kooka, nil)
				returned := time.Now()
				x.endsSoon(b, 10*time.Second)
				after = append(after, x.at.Sub(returned))
				command = append(command, x.at.Sub(start))
				s.lift(b, su.ID)
			}
			ms := func(all []time.Duration, q float64) float64 {
				slices.Sort(all)
				return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000
			}
			b.ReportMetric(ms(after, 0.5), "ms-after-p50")
			b.ReportMetric(ms(after, 1), "ms-after-max")
			b.ReportMetric(ms(command, 0.5), "ms-from-start-p50")
			b.ReportMetric(ms(command, 1), "ms-from-start-max")
		})
	}
}
