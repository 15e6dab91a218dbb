package extauthz

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/dspgate/dspgate/internal/rawio"
)

// What bounds a peer, whatever it does: connections, open calls of each, bytes
// of a message, of a header block and of a frame, and the time for a write.
// Unfinished messages are bounded by windowBytes for each connection.
const (
	connsMax        = 1024
	streamsMax      = 16384
	messageBytesMax = 1 << 20
	headerBytesMax  = 64 << 10
	frameBytesMax   = 16 << 10 // the least that HTTP/2 allows to announce
	writeTimeout    = 10 * time.Second
	prefaceTimeout  = 5 * time.Second
	goAwayTimeout   = 500 * time.Millisecond
)

const (
	readBytes       = 64 << 10 // holds more than a frame
	writeBytes      = 64 << 10 // written at once, at most about
	defaultWindow   = 65535    // RFC 9113 §6.9.2
	frameHeadBytes  = 9
	grpcPrefixBytes = 5 // compressed flag and length
)

// Serve answers Check, and nothing else, straight on HTTP/2 frames. A decision
// takes a microsecond, so each connection is one goroutine that reads a frame,
// decides and writes, without handing a call to another: a fraction of what
// grpc-go takes for the same. Envoy keeps one connection per worker thread.
//
// It accepts connections until ctx is done, then says GOAWAY, answers what is
// under way for at most half a second, and returns nil. It closes ln. The
// listener should be a Unix socket: nothing here is encrypted.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer ln.Close()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	slots := make(chan struct{}, connsMax)
	var wg sync.WaitGroup
	defer wg.Wait() // after cancel: the order of defers
	defer cancel()
	for {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil
		case err == nil:
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		default: // out of files, or a peer that gave up: the next may be well
			s.log.WarnContext(ctx, "accept failed", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				s.serveConn(ctx, c)
			})
		default:
			s.log.WarnContext(ctx, "connection refused: too many", "max", connsMax)
			c.Close()
		}
	}
}

func (s *Server) serveConn(ctx context.Context, nc net.Conn) {
	defer nc.Close()
	defer func() {
		if v := recover(); v != nil { // a fault here, not in a decision: this connection ends, no other
			s.stats.Panicked()
			s.log.ErrorContext(ctx, "panic on a connection, which is closed", "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
		}
	}()
	c := newConn(s, rawio.Conn(nc))
	// Wakes the reader, which then says GOAWAY.
	stop := context.AfterFunc(ctx, func() {
		_ = nc.SetReadDeadline(time.Unix(1, 0))
		close(c.woken)
	})
	defer stop()
	if err := c.run(ctx); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		s.log.DebugContext(ctx, "connection ended", "err", err)
	}
}

// conn is one HTTP/2 connection, owned by the goroutine that reads it.
type conn struct {
	s    *Server
	nc   net.Conn
	br   *bufio.Reader
	fr   *http2.Framer
	dec  *hpack.Decoder
	call call
	body []byte // of the answer being made, prefix first

	out   sink      // not yet on the wire
	armed time.Time // when the deadline for writing was last set

	streams map[uint32]*stream // opened, not yet answered
	free    []*stream
	last    uint32        // highest stream opened by the peer
	away    bool          // GOAWAY was sent
	woken   chan struct{} // closed after the end of the context broke a read

	// The header block being read.
	headers struct {
		open   bool // CONTINUATION has to follow
		stream *stream
		end    bool // END_STREAM
		bytes  int
		ignore bool // trailers, or a refused stream: only the table is kept right
	}

	// same is the last header block, when it was that of a call and left the
	// decoder's table as it was; empty otherwise.
	same struct {
		block  []byte
		method method
	}

	credit   int64 // received and done with, not yet given back to the peer
	window   int64 // what the peer still takes on the whole connection
	initial  int64 // what it takes on a new stream
	blocked  []waiting
	nblocked int64 // bytes in blocked
}

// stream is one call whose message is not complete.
type stream struct {
	id     uint32
	method method // by :path
	buf    []byte
}

// waiting is an answer that waits for the peer's window.
type waiting struct {
	id   uint32
	body []byte
}

type sink struct{ b []byte }

func (w *sink) Write(b []byte) (int, error) {
	w.b = append(w.b, b...)
	return len(b), nil
}

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{
		s: s, nc: nc, br: bufio.NewReaderSize(nc, readBytes), streams: map[uint32]*stream{}, woken: make(chan struct{}),
		window: defaultWindow, initial: defaultWindow,
	}
	c.fr = http2.NewFramer(&c.out, c.br)
	c.fr.SetReuseFrames()
	c.fr.SetMaxReadFrameSize(frameBytesMax)
	c.dec = hpack.NewDecoder(4096, c.header)
	c.dec.SetMaxStringLength(16 << 10)
	return c
}

// errProtocol ends a connection with a GOAWAY of its code.
type errProtocol http2.ErrCode

func (e errProtocol) Error() string { return http2.ErrCode(e).String() }

// run reads and answers until the connection ends, and says why it did.
func (c *conn) run(ctx context.Context) error {
	if err := c.nc.SetReadDeadline(time.Now().Add(prefaceTimeout)); err != nil {
		return err
	}
	var preface [len(http2.ClientPreface)]byte
	if _, err := io.ReadFull(c.br, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != http2.ClientPreface {
		return errors.New("no HTTP/2 preface")
	}
	if err := errors.Join(
		c.fr.WriteSettings(
			http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: streamsMax},
			http2.Setting{ID: http2.SettingInitialWindowSize, Val: windowBytes},
			http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: headerBytesMax},
		),
		c.fr.WriteWindowUpdate(0, windowBytes-defaultWindow),
		c.flush(),
	); err != nil {
		return err
	}
	first := true
	for {
		var f http2.Frame
		b, err := c.next()
		if err == nil && !first && !c.headers.open && plainFrame(b) {
			err = c.plain(b)
		} else if err == nil {
			f, err = c.fr.ReadFrame()
			if err == nil && first {
				// The first frame has to be SETTINGS; from here on a peer may be idle.
				if _, ok := f.(*http2.SettingsFrame); !ok {
					err = errProtocol(http2.ErrCodeProtocol)
				} else if derr := c.nc.SetReadDeadline(time.Time{}); derr != nil {
					return derr
				}
				first = false
			}
			if err == nil {
				err = c.frame(f)
			}
		}
		if err != nil && !(ctx.Err() != nil && !c.away && isTimeout(err)) {
			if err = c.fault(err); err != nil {
				return err
			}
		}
		if ctx.Err() != nil && !c.away {
			if err := c.goAway(); err != nil {
				return err
			}
		}
		if len(c.out.b) > writeBytes || !c.frameWaits() {
			if err := c.flush(); err != nil {
				return err
			}
		}
	}
}

// next waits for a whole frame before any of it is taken, so that a read that
// the end of the context breaks loses nothing. It returns the frame, or only its
// head when it is larger than allowed, which ReadFrame then refuses.
func (c *conn) next() ([]byte, error) {
	h, err := c.br.Peek(frameHeadBytes)
	if err != nil {
		return nil, err
	}
	if n := frameBytes(h); n <= frameHeadBytes+frameBytesMax {
		return c.br.Peek(n)
	}
	return h, nil
}

// plainFrame tells whether a frame is one of the two that make a call as Envoy
// sends it: HEADERS that end their block, or DATA, both of a stream and without
// padding and priority. Everything else is left to the Framer, which knows all
// the rules, and takes an allocation and two copies.
func plainFrame(b []byte) bool {
	const notPlain = http2.FlagDataPadded | http2.FlagHeadersPriority // padding is one bit in both
	if len(b) != frameBytes(b) || http2.Flags(b[4])&notPlain != 0 || streamOf(b) == 0 {
		return false
	}
	switch http2.FrameType(b[3]) {
	case http2.FrameData:
		return true
	case http2.FrameHeaders:
		return http2.Flags(b[4]).Has(http2.FlagHeadersEndHeaders)
	}
	return false
}

// streamOf is the stream ID in a frame's head, without the reserved bit.
func streamOf(head []byte) uint32 { return binary.BigEndian.Uint32(head[5:]) & (1<<31 - 1) }

// plain deals with a frame that is still in the reader's buffer.
func (c *conn) plain(b []byte) (err error) {
	id, ended := streamOf(b), http2.Flags(b[4]).Has(http2.FlagDataEndStream) // one bit in both
	if http2.FrameType(b[3]) == http2.FrameData {
		err = c.data(id, len(b)-frameHeadBytes, b[frameHeadBytes:], ended)
	} else {
		err = c.openHeaders(id, ended, b[frameHeadBytes:], true)
	}
	_, derr := c.br.Discard(len(b)) // cannot fail: all of it is there
	return errors.Join(err, derr)
}

// frameBytes is the size of the frame that begins with a frame's head.
func frameBytes(head []byte) int {
	return frameHeadBytes + int(head[0])<<16 + int(head[1])<<8 + int(head[2])
}

// frameWaits tells whether a whole frame is in the buffer already: then its
// answer goes out in the same write.
func (c *conn) frameWaits() bool {
	if c.br.Buffered() < frameHeadBytes {
		return false
	}
	h, err := c.br.Peek(frameHeadBytes)
	return err == nil && c.br.Buffered() >= frameBytes(h)
}

// fault deals with an error of a frame; what it returns ends the connection.
func (c *conn) fault(err error) error {
	var se http2.StreamError
	if errors.As(err, &se) {
		return errors.Join(c.cancel(se.StreamID), c.fr.WriteRSTStream(se.StreamID, se.Code))
	}
	code := http2.ErrCodeNo
	var ce http2.ConnectionError
	var pe errProtocol
	switch {
	case errors.As(err, &ce):
		code = http2.ErrCode(ce)
	case errors.As(err, &pe):
		code = http2.ErrCode(pe)
	case errors.Is(err, http2.ErrFrameTooLarge):
		code = http2.ErrCodeFrameSize
	default:
		return err
	}
	_ = c.fr.WriteGoAway(c.last, code, nil)
	_ = c.flush()
	return err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// goAway tells the peer to open no more streams, and gives it a moment for
// those under way.
func (c *conn) goAway() error {
	c.away = true
	<-c.woken // or it would break the reads of the moment given here
	return errors.Join(
		c.fr.WriteGoAway(c.last, http2.ErrCodeNo, nil),
		c.flush(),
		c.nc.SetReadDeadline(time.Now().Add(goAwayTimeout)),
	)
}

func (c *conn) flush() error {
	if len(c.out.b) == 0 {
		return nil
	}
	// Moving the deadline costs as much as a decision: once a second will do.
	if now := time.Now(); now.Sub(c.armed) > time.Second {
		c.armed = now
		if err := c.nc.SetWriteDeadline(now.Add(writeTimeout)); err != nil {
			return err
		}
	}
	_, err := c.nc.Write(c.out.b)
	c.out.b = c.out.b[:0]
	if cap(c.out.b) > 4*writeBytes {
		c.out.b = nil
	}
	return err
}

func (c *conn) frame(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.HeadersFrame:
		return c.openHeaders(f.StreamID, f.StreamEnded(), f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.ContinuationFrame:
		return c.fragment(f.HeaderBlockFragment(), f.HeadersEnded())
	case *http2.DataFrame:
		return c.data(f.StreamID, int(f.Length), f.Data(), f.StreamEnded())
	case *http2.RSTStreamFrame:
		if f.StreamID > c.last {
			return errProtocol(http2.ErrCodeProtocol)
		}
		return c.cancel(f.StreamID)
	case *http2.SettingsFrame:
		return c.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return c.fr.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		if f.StreamID == 0 {
			if c.window += int64(f.Increment); c.window > 1<<31-1 {
				return errProtocol(http2.ErrCodeFlowControl)
			}
			return c.unblock()
		}
		// A stream takes a whole answer from the start, or it is refused.
	case *http2.PushPromiseFrame:
		return errProtocol(http2.ErrCodeProtocol)
	}
	return nil // PRIORITY, GOAWAY, and what is unknown
}

func (c *conn) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		if s.ID == http2.SettingInitialWindowSize {
			c.initial = int64(s.Val)
		}
		return nil
	}); err != nil {
		return err
	}
	return c.fr.WriteSettingsAck()
}
