package extauthz

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// openHeaders begins a header block: of a new stream, or trailers of one.
func (c *conn) openHeaders(id uint32, ended bool, block []byte, whole bool) error {
	h := &c.headers
	h.end, h.bytes, h.ignore = ended, 0, true
	h.stream = c.streams[id]
	switch {
	case h.stream != nil: // trailers
		if !h.end {
			return errProtocol(http2.ErrCodeProtocol)
		}
	case id%2 == 0 || id <= c.last:
		// Also the trailers of a stream that was reset or answered meanwhile.
		if id%2 == 0 {
			return errProtocol(http2.ErrCodeProtocol)
		}
	case c.away:
		c.last = id
	case len(c.streams) >= streamsMax:
		c.last = id
		if err := c.fr.WriteRSTStream(id, http2.ErrCodeRefusedStream); err != nil {
			return err
		}
	default:
		c.last = id
		h.stream, h.ignore = c.newStream(id), false
	}
	// Envoy says the same for every call, in bytes that change nothing in the
	// table: as long as nothing else came between they mean the same.
	if !h.ignore && whole && len(block) > 0 && bytes.Equal(block, c.same.block) {
		h.stream.method = c.same.method
		return c.endHeaders()
	}
	c.same.block = c.same.block[:0]
	c.dec.SetEmitEnabled(!h.ignore)
	st := h.stream
	err := c.fragment(block, whole)
	if err == nil && !h.ignore && whole && len(block) <= sameBytesMax && changesNothing(block) {
		c.same.block, c.same.method = append(c.same.block, block...), st.method
	}
	return err
}

func (c *conn) newStream(id uint32) *stream {
	var st *stream
	if n := len(c.free); n > 0 {
		st, c.free = c.free[n-1], c.free[:n-1]
	} else {
		st = new(stream)
	}
	st.id, st.method = id, otherMethod
	c.streams[id] = st
	return st
}

// release forgets a stream, and gives back the room its message took.
func (c *conn) release(st *stream) error {
	delete(c.streams, st.id)
	n := int64(len(st.buf))
	if cap(st.buf) > 4<<10 {
		st.buf = nil
	}
	st.buf = st.buf[:0]
	if len(c.free) < 64 {
		c.free = append(c.free, st)
	}
	return c.done(n)
}

// cancel forgets a stream that was reset, and its answer if that still waits.
func (c *conn) cancel(id uint32) error {
	for i := range c.blocked {
		if c.blocked[i].id == id {
			c.nblocked -= int64(len(c.blocked[i].body))
			c.blocked = slices.Delete(c.blocked, i, i+1)
			break
		}
	}
	if st := c.streams[id]; st != nil {
		return c.release(st)
	}
	return nil
}

func (c *conn) fragment(b []byte, end bool) error {
	h := &c.headers
	h.open = !end
	if h.bytes += len(b); h.bytes > headerBytesMax {
		return errProtocol(http2.ErrCodeEnhanceYourCalm)
	}
	if _, err := c.dec.Write(b); err != nil {
		return errProtocol(http2.ErrCodeCompression)
	}
	if !end {
		return nil
	}
	if err := c.dec.Close(); err != nil {
		return errProtocol(http2.ErrCodeCompression)
	}
	return c.endHeaders()
}

func (c *conn) endHeaders() error {
	h := &c.headers
	st := h.stream
	h.stream = nil
	if st != nil && h.end {
		return c.complete(st, st.buf)
	}
	return nil
}

// sameBytesMax bounds the header block that is remembered.
const sameBytesMax = 1 << 10

// changesNothing tells whether a header block that was decoded leaves the table
// of the decoder as it is: no field in it is added, and no size is set.
func changesNothing(b []byte) bool {
	for len(b) > 0 {
		first, prefix, texts := b[0], byte(4), 1
		switch {
		case first&0x80 != 0: // indexed
			prefix, texts = 7, 0
		case first&0xe0 != 0: // added to the table, or its size
			return false
		}
		var n uint64
		if n, b = prefixed(b, prefix); texts > 0 && n == 0 {
			texts = 2 // the name too
		}
		for range texts {
			if n, b = prefixed(b, 7); n > uint64(len(b)) {
				return false
			}
			b = b[n:]
		}
	}
	return true
}

// prefixed reads an integer (RFC 7541 §5.1) whose first byte has so many bits of
// it; whatever is wrong with it makes it larger than any block.
func prefixed(b []byte, bits byte) (n uint64, rest []byte) {
	if len(b) == 0 {
		return math.MaxUint64, nil
	}
	mask := byte(1)<<bits - 1
	n, b = uint64(b[0]&mask), b[1:]
	if n < uint64(mask) {
		return n, b
	}
	for shift := 0; len(b) > 0 && shift < 28; shift += 7 {
		c := b[0]
		n, b = n+uint64(c&0x7f)<<shift, b[1:]
		if c&0x80 == 0 {
			return n, b
		}
	}
	return math.MaxUint64, nil
}

// header hears of the fields of a call up to the one that matters here, which
// method is called. What is only to be passed over is not decoded.
func (c *conn) header(f hpack.HeaderField) {
	if h := &c.headers; !h.ignore && f.Name == ":path" {
		h.stream.method = methodOf(f.Value)
		c.dec.SetEmitEnabled(false)
	}
}

// data takes a DATA frame of n bytes, padding and all.
func (c *conn) data(id uint32, n int, b []byte, ended bool) error {
	size := int64(n)
	st := c.streams[id]
	if st == nil {
		if id > c.last {
			return errProtocol(http2.ErrCodeProtocol)
		}
		return c.done(size) // reset or answered meanwhile
	}
	if ended && len(st.buf) == 0 {
		err := c.complete(st, b) // as Envoy sends it: nothing is copied
		return errors.Join(err, c.done(size))
	}
	if len(st.buf)+len(b) > messageBytesMax {
		return errors.Join(c.release(st), c.done(size), c.fr.WriteRSTStream(id, http2.ErrCodeEnhanceYourCalm))
	}
	st.buf = append(st.buf, b...)
	if err := c.done(size - int64(len(b))); err != nil { // the padding
		return err
	}
	if ended {
		return c.complete(st, st.buf)
	}
	return nil
}

// done gives the peer back the room of bytes that are dealt with, in large
// steps. A peer that is owed nothing cannot have more than windowBytes waiting.
func (c *conn) done(n int64) error {
	if c.credit += n; c.credit < windowBytes/4 {
		return nil
	}
	n, c.credit = c.credit, 0
	return c.fr.WriteWindowUpdate(0, uint32(n))
}

// complete answers a call whose whole message is there.
func (c *conn) complete(st *stream, msg []byte) error {
	err := c.answer(st.id, st.method, msg)
	return errors.Join(err, c.release(st))
}

func (c *conn) answer(id uint32, m method, msg []byte) error {
	raw, err := unframe(msg)
	if m == otherMethod || m == healthMethod && c.s.ready == nil {
		err = status.Error(codes.Unimplemented, "only "+CheckMethod+" is served here")
	}
	if err != nil {
		return c.refuse(id, err)
	}
	if m == healthMethod {
		return c.reply(id, c.s.health())
	}
	body, err := c.s.check(&c.call, raw, append(c.body[:0], 0, 0, 0, 0, 0))
	c.call.forget()
	if err != nil {
		return c.refuse(id, err)
	}
	c.body = body
	return c.reply(id, body)
}

// reply sends a framed answer, or keeps it until the peer's window has room.
func (c *conn) reply(id uint32, body []byte) error {
	n := len(body) - grpcPrefixBytes
	body[1], body[2], body[3], body[4] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	size := int64(len(body))
	switch {
	case size > frameBytesMax || size > c.initial:
		return c.refuse(id, status.Error(codes.ResourceExhausted, "answer larger than the stream's window"))
	case size > c.window || len(c.blocked) > 0:
		if c.nblocked += size; c.nblocked > windowBytes {
			return errProtocol(http2.ErrCodeEnhanceYourCalm)
		}
		c.blocked = append(c.blocked, waiting{id, append([]byte(nil), body...)})
		return nil
	}
	return c.write(id, body)
}

// method is what a call asks for.
type method uint8

const (
	otherMethod method = iota
	checkMethod
	healthMethod // grpc.health.v1, with which Envoy chooses between several sidecars
)

func methodOf(path string) method {
	switch path {
	case CheckMethod:
		return checkMethod
	case "/grpc.health.v1.Health/Check":
		return healthMethod
	}
	return otherMethod
}

// health is a framed grpc.health.v1.HealthCheckResponse: field 1 is SERVING (1)
// or NOT_SERVING (2). Whatever service the request names is meant.
func (s *Server) health() []byte {
	status := byte(2)
	if s.ready() {
		status = 1
	}
	return []byte{0, 0, 0, 0, 2, 1 << 3, status}
}

// unframe takes the one message out of its gRPC frame.
func unframe(b []byte) ([]byte, error) {
	if len(b) < grpcPrefixBytes {
		return nil, status.Error(codes.InvalidArgument, "no message")
	}
	if b[0] != 0 {
		return nil, status.Error(codes.Unimplemented, "compressed messages are not served here")
	}
	n := uint32(b[1])<<24 | uint32(b[2])<<16 | uint32(b[3])<<8 | uint32(b[4])
	if uint64(n) != uint64(len(b)-grpcPrefixBytes) {
		return nil, status.Error(codes.InvalidArgument, "not exactly one message")
	}
	return b[grpcPrefixBytes:], nil
}

// Header blocks that never change, without the dynamic table (RFC 7541 §6.2.2).
var (
	blockHeaders = append([]byte{0x88}, literal("content-type", "application/grpc")...) // 0x88: ":status: 200"
	blockOK      = literal("grpc-status", "0")
)

// literal encodes a field that is not indexed; name and value are short.
func literal(name, value string) []byte {
	b := append([]byte{0, byte(len(name))}, name...)
	return append(append(b, byte(len(value))), value...)
}

// write sends an answer, prefix and all, with the trailers of success.
func (c *conn) write(id uint32, body []byte) error {
	c.window -= int64(len(body))
	return errors.Join(
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: blockHeaders, EndHeaders: true}),
		c.fr.WriteData(id, false, body),
		c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: blockOK, EndHeaders: true, EndStream: true}),
	)
}

// refuse answers with a gRPC status and nothing else; Envoy then denies. The
// message is one of this package's own: short, printable ASCII, no percent sign.
func (c *conn) refuse(id uint32, err error) error {
	st := status.Convert(err)
	block := append([]byte(nil), blockHeaders...)
	block = append(block, literal("grpc-status", fmt.Sprint(int(st.Code())))...)
	block = append(block, literal("grpc-message", st.Message())...)
	return c.fr.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true, EndStream: true})
}

// unblock sends the answers that fit by now, in their order.
func (c *conn) unblock() error {
	for len(c.blocked) > 0 && int64(len(c.blocked[0].body)) <= c.window {
		a := c.blocked[0]
		c.blocked = c.blocked[1:]
		c.nblocked -= int64(len(a.body))
		if err := c.write(a.id, a.body); err != nil {
			return err
		}
	}
	if len(c.blocked) == 0 {
		c.blocked = nil
	}
	return nil
}
