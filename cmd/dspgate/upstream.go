package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	stamped "github.com/dspgate/dspgate/authz/admission/upstream"
)

// The sample upstream stands where the agency's services stand. It answers
// every call with what it was told of the caller, and speaks each of the
// protocols of the sample services.

func newUpstreamCmd(_ *globals) *cobra.Command {
	var listen, arrivals, keys string
	cmd := &cobra.Command{
		Use:    "upstream",
		Short:  "Run the sample upstream of the demo",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := newLogger(os.Stderr)
			ln, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			var sink io.Writer = io.Discard
			if arrivals != "" {
				f, err := os.OpenFile(arrivals, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
				if err != nil {
					return err
				}
				defer f.Close()
				sink = f
			}
			return runUpstream(cmd.Context(), ln, sink, keys, log)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "address to listen on")
	cmd.Flags().StringVar(&arrivals, "arrivals", "", "file to which each arrival is appended as a JSON line (time, decision ID, names of headers, why it was refused)")
	cmd.Flags().StringVar(&keys, "admission-keys", "", "file with the keys of the admission stamps: what has no good one is refused (default: nothing is)")
	return cmd
}

func runUpstream(ctx context.Context, ln net.Listener, arrivals io.Writer, keys string, log *slog.Logger) error {
	up := &upstream{arrivals: arrivals, log: log}
	chat := grpc.NewServer()
	chat.RegisterService(&chatService, nil)

	mux := http.NewServeMux()
	mux.HandleFunc("GET /events/v1/notices", up.notices)
	mux.HandleFunc("GET /events/v1/socket", up.socket)
	mux.HandleFunc("PUT /lodgments/v1/bulk/{id}", up.bulk)
	mux.Handle("POST /dspgate.sample.v1.Sample/", chat)
	mux.HandleFunc("/", up.echo)

	handler := up.noting(mux)
	if keys != "" {
		// Every service of the sample register is marked stamp_verified.
		v, err := stamped.New(stamped.Config{KeyFile: keys, Skew: plantSkew(), Refused: func(r *http.Request, err error) { up.note(r, stamped.Reason(err)) }, Log: log})
		if err != nil {
			return err
		}
		handler = v.Middleware(handler)
	}

	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		Protocols:         new(http.Protocols),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	log.InfoContext(ctx, "sample upstream listening", "address", ln.Addr().String())
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("sample upstream: %w", err)
	}
	return nil
}

type upstream struct {
	log      *slog.Logger
	mu       sync.Mutex
	arrivals io.Writer // guarded by mu
}

// noting writes one line an arrival before anything is answered: the oracle
// for "every request here had exactly one ALLOW".
func (u *upstream) noting(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.note(r, "")
		next.ServeHTTP(w, r)
	})
}

func headerNames(h http.Header) []string {
	names := make([]string, 0, len(h))
	for n := range h {
		names = append(names, strings.ToLower(n))
	}
	slices.Sort(names)
	return names
}

// note writes the line; refused says in a word why the call goes no further.
func (u *upstream) note(r *http.Request, refused string) {
	entry := map[string]any{
		"at":          time.Now().UTC().Format(time.RFC3339Nano),
		"decision_id": strings.Join(r.Header.Values("x-dsp-decision-id"), ","),
		"product_id":  strings.Join(r.Header.Values("x-dsp-product-id"), ","),
		"service":     r.Header.Get("x-dsp-service"),
		"headers":     headerNames(r.Header), // the names alone: a value may be a client's
	}
	if refused != "" {
		entry["refused"] = refused
	}
	if a, ok := stamped.FromContext(r.Context()); ok {
		entry["not_after"], entry["verified_at"] = a.NotAfter.UTC().Format(time.RFC3339Nano), a.At.UTC().Format(time.RFC3339Nano)
	}
	line, err := json.Marshal(entry)
	if err == nil {
		u.mu.Lock()
		_, err = u.arrivals.Write(append(line, '\n'))
		u.mu.Unlock()
	}
	if err != nil {
		u.log.ErrorContext(r.Context(), "arrival not noted", "err", err)
	}
}

// told is what the gateway said of the caller.
func told(r *http.Request) map[string]any {
	out := map[string]any{"method": r.Method, "path": r.URL.RequestURI()}
	if r.RequestURI != "" {
		out["path"] = r.RequestURI // as it was received, byte for byte
	}
	for name, values := range r.Header {
		if name = strings.ToLower(name); strings.HasPrefix(name, "x-dsp-") {
			out[name] = strings.Join(values, ",")
		}
	}
	return out
}

func (u *upstream) echo(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		return
	}
	u.json(w, r, withBody(told(r), r, n))
}

func (u *upstream) bulk(w http.ResponseWriter, r *http.Request) {
	n, err := io.Copy(io.Discard, r.Body)
	if err != nil {
		u.log.InfoContext(r.Context(), "upload broken off", "bytes", n, "err", err)
		return
	}
	u.json(w, r, withBody(told(r), r, n))
}

// withBody adds what came after the headers: it is known once the body is read.
func withBody(out map[string]any, r *http.Request, bytes int64) map[string]any {
	if bytes > 0 {
		out["bytes"] = bytes
	}
	for n, values := range r.Trailer { // one that was only announced has no values
		if len(values) == 0 {
			delete(r.Trailer, n)
		}
	}
	if len(r.Trailer) > 0 {
		out["trailers"] = headerNames(r.Trailer)
	}
	return out
}

func (u *upstream) json(w http.ResponseWriter, r *http.Request, body any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(body); err != nil {
		u.log.InfoContext(r.Context(), "answer not sent", "err", err)
	}
}

// notices is an endless event stream (SSE), one event a quarter second.
func (u *upstream) notices(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	flush := http.NewResponseController(w)
	first, err := json.Marshal(told(r))
	if err != nil {
		return
	}
	if r.URL.Query().Has("download") {
		endless(w)
		return
	}
	fmt.Fprintf(w, "event: hello\ndata: %s\n\n", first)
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		if flush.Flush() != nil {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
		if _, err := fmt.Fprintf(w, "id: %d\ndata: {\"notice\":%d}\n\n", n, n); err != nil {
			return
		}
	}
}

// endless sends comments of an event stream, as fast as they are taken.
func endless(w io.Writer) {
	block := []byte(":" + strings.Repeat(" ", 16<<10) + "\n\n")
	for {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// socket echoes every message of a WebSocket.
func (u *upstream) socket(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	for {
		kind, msg, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if err := c.Write(r.Context(), kind, msg); err != nil {
			return
		}
	}
}

// chatService is dspgate.sample.v1.Sample: Chat echoes every
// google.protobuf.StringValue of a bidirectional stream; after "hold" it answers
// no more and waits for the end.
var chatService = grpc.ServiceDesc{
	ServiceName: "dspgate.sample.v1.Sample",
	HandlerType: (*any)(nil),
	Streams: []grpc.StreamDesc{{
		StreamName: "Chat", ServerStreams: true, ClientStreams: true,
		Handler: func(_ any, s grpc.ServerStream) error {
			for {
				msg := new(wrapperspb.StringValue)
				if err := s.RecvMsg(msg); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if msg.Value == "hold" {
					<-s.Context().Done()
					return s.Context().Err()
				}
				if err := s.SendMsg(msg); err != nil {
					return err
				}
			}
		},
	}},
}
