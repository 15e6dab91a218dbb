package extauthz

import (
	"regexp"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/dspgate/dspgate/authz"
)

// reference reads a CheckRequest by protobuf-go and plain code: what decode
// must agree with. ok is false for what no Envoy sends.
func reference(m *authv3.CheckRequest) (r authz.Request, ok bool) {
	a := m.GetAttributes()
	h := a.GetRequest().GetHttp()
	r = authz.Request{
		Method: h.GetMethod(), Target: h.GetPath(), Host: h.GetHost(), Scheme: h.GetScheme(),
		Peer:        a.GetSource().GetAddress().GetSocketAddress().GetAddress(),
		Certificate: a.GetSource().GetCertificate(),
	}
	var bad bool
	// all gives every value of a header and how often it came.
	all := func(name string) (first string, n int) {
		for _, v := range h.GetHeaderMap().GetHeaders() {
			if strings.EqualFold(v.Key, name) && isASCII(v.Key) {
				val := v.Value
				if len(v.RawValue) > 0 {
					bad = bad || val != ""
					val = string(v.RawValue)
				}
				if n == 0 {
					first = val
					if strings.Contains(val, ",") {
						n++
					}
				}
				n++
			}
		}
		for k, v := range h.GetHeaders() {
			if strings.EqualFold(k, name) && isASCII(k) {
				if n == 0 {
					first = v
				}
				n++
				if strings.Contains(v, ",") && (name != "authorization" || anotherScheme.MatchString(v)) {
					n++
				}
			}
		}
		return first, n
	}
	var n int
	r.Authorization, r.Authorizations = all("authorization")
	if r.ClaimProductID, n = all("x-product-id"); n > 1 {
		r.Duplicated = true
	}
	if r.ClaimProductVersion, n = all("x-product-version"); n > 1 {
		r.Duplicated = true
	}
	if r.ClaimSoftwareID, n = all("x-software-id"); n > 1 {
		r.Duplicated = true
	}
	for _, name := range []string{"host", ":authority"} {
		if v, n := all(name); n > 1 || n == 1 && v != r.Host {
			r.Duplicated = true
		}
	}
	if strings.Contains(r.Host, ",") {
		r.Duplicated = true
	}
	ct, _ := all("content-type")
	r.GRPC = ct == "application/grpc" || strings.HasPrefix(ct, "application/grpc+")
	r.RequestID, _ = all("x-request-id")
	if r.Body = h.GetRawBody(); len(r.Body) == 0 && h.GetBody() != "" {
		r.Body = []byte(h.GetBody())
	}
	if len(r.Body) == 0 {
		r.Body = nil
	}
	v, n := all("x-envoy-auth-partial-body")
	r.BodyTruncated = n > 1 || n == 1 && v != "false"
	return r, !bad
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// caseVariants tells whether a map holds one header under two names, of which
// the reference would pick at random: Envoy's map never does.
func caseVariants(m *authv3.CheckRequest) bool {
	seen := map[string]bool{}
	for k := range m.GetAttributes().GetRequest().GetHttp().GetHeaders() {
		if l := strings.ToLower(k); seen[l] {
			return true
		} else {
			seen[l] = true
		}
	}
	return false
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func httpRequest(h *authv3.AttributeContext_HttpRequest) *authv3.CheckRequest {
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{
			Address:     socketAddress("127.0.0.9"),
			Certificate: "-----BEGIN%20CERTIFICATE-----",
		},
		Destination: &authv3.AttributeContext_Peer{Address: socketAddress("10.0.0.1")},
		Request:     &authv3.AttributeContext_Request{Http: h},
	}}
}

func socketAddress(a string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 4711},
	}}}
}

func raw(kv ...string) *corev3.HeaderMap {
	m := &corev3.HeaderMap{}
	for i := 0; i < len(kv); i += 2 {
		m.Headers = append(m.Headers, &corev3.HeaderValue{Key: kv[i], RawValue: []byte(kv[i+1])})
	}
	return m
}

func samples() map[string]*authv3.CheckRequest {
	base := func(f func(*authv3.AttributeContext_HttpRequest)) *authv3.CheckRequest {
		h := &authv3.AttributeContext_HttpRequest{
			Id: "1", Method: "GET", Path: "/registry/v1/abns/65000000101?x=1", Host: "localhost", Scheme: "https", Protocol: "HTTP/2", Size: -1,
		}
		f(h)
		return httpRequest(h)
	}
	return map[string]*authv3.CheckRequest{
		"empty": {},
		"map": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{
				"authorization": "Bearer a.b.c", "x-product-id": "FP-1001", "x-product-version": "5.0", "x-software-id": "0000123400",
				":authority": "localhost", "content-type": "application/json", "x-request-id": "abc", "user-agent": "x",
			}
		}),
		"list joined": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.HeaderMap = raw("authorization", "Bearer a,Bearer b", "x-software-id", "1,2")
		}),
		"list": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.HeaderMap = raw("authorization", "Bearer a.b.c", "x-product-id", "FP-1001", "content-type", "application/grpc+proto", "x-request-id", "abc")
		}),
		"map joined": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"x-product-id": "FP-1001,FP-1002", "authorization": "Bearer a,Bearer b"}
		}),
		"list twice": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.HeaderMap = raw("x-product-id", "FP-1001", "X-Product-Id", "FP-1001", "authorization", "", "authorization", "Bearer a", "x-software-id", "1", "x-product-version", "2,3")
		}),
		"both forms": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"authorization": "Bearer a"}
			h.HeaderMap = raw("authorization", "Bearer b")
		}),
		"both values": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "authorization", Value: "Bearer a", RawValue: []byte("Bearer b")}}}
		}),
		"bytes": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.HeaderMap = raw("authorization", "Bearer \xff\xfe", "x-product-id", "\x80")
			h.RawBody = []byte("{\"tfn\":\"\xff\"}")
		}),
		"two hosts": base(func(h *authv3.AttributeContext_HttpRequest) { h.Host = "localhost,evil.test" }),
		"other authority": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{":authority": "evil.test"}
		}),
		"partial body": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.Body = `{"tfn":`
			h.Headers = map[string]string{"x-envoy-auth-partial-body": "true"}
		}),
		"whole body": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.Body = `{"tfn":"220115957"}`
			h.HeaderMap = raw("x-envoy-auth-partial-body", "false")
		}),
		"grpc-web": base(func(h *authv3.AttributeContext_HttpRequest) {
			h.Headers = map[string]string{"content-type": "application/grpc-web"}
		}),
		"pipe": {Attributes: &authv3.AttributeContext{Source: &authv3.AttributeContext_Peer{
			Address: &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/x"}}},
		}}},
	}
}

func check(t *testing.T, b []byte) {
	t.Helper()
	var c call
	got := authz.Request{Method: "STALE", Duplicated: true}
	err := c.decode(b, &got)
	var m authv3.CheckRequest
	if perr := proto.Unmarshal(b, &m); perr != nil {
		if err == nil {
			deep(t, b, perr)
		}
		return
	}
	if caseVariants(&m) {
		return
	}
	want, ok := reference(&m)
	if !ok {
		if err == nil {
			t.Fatalf("accepted a header with two values: %v", &m)
		}
		return
	}
	if err != nil {
		t.Fatalf("refused what protobuf-go accepts: %v\n%v", err, &m)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("decoded otherwise than protobuf-go (-want +got):\n%s\n%v", d, &m)
	}
}

// deep fails unless the fault lies inside a message that decode passes over
// whole: then the top levels, which it walks, must be sound.
func deep(t *testing.T, b []byte, perr error) {
	t.Helper()
	var s scan
	var r authz.Request
	if err := s.decode(b, &r); err != nil {
		t.Fatalf("decode is not deterministic: %v", err)
	}
	for len(b) > 0 {
		_, _, n := protowire.ConsumeField(b)
		if n < 0 {
			t.Fatalf("accepted a broken frame: %v", perr)
		}
		b = b[n:]
	}
}

func TestDecodeAgreesWithProtobufOnSamples(t *testing.T) {
	for name, m := range samples() {
		t.Run(name, func(t *testing.T) { check(t, marshal(t, m)) })
	}
}

func TestDecodeMergesRepeatedMessagesLikeProtobuf(t *testing.T) {
	s := samples()
	for an, a := range s {
		for bn, b := range s {
			t.Run(an+" then "+bn, func(t *testing.T) { check(t, append(marshal(t, a), marshal(t, b)...)) })
		}
	}
}

var anotherScheme = regexp.MustCompile(`,[ \t]*[0-9A-Za-z-]+ `)

func TestDecodeTellsAnotherCredentialFromAComma(t *testing.T) {
	for v, want := range map[string]bool{
		"Bearer a,Bearer b": true, "Bearer a, bearer b": true, "Bearer ,,Basic b": true, "Bearer a,\tDPoP b": true,
		"Bearer a": false, "Bearer a,b": false, "Bearer a,": false, "Bearer a,Bearer": false,
		`Bearer {"payload":"a","protected":"b","signature":"c"}`: false,
	} {
		if got := joined([]byte(v)); got != want {
			t.Errorf("%q: %v, want %v", v, got, want)
		}
	}
}

func TestDecodeCountsWhatWouldBeAmbiguous(t *testing.T) {
	for name, want := range map[string]struct {
		authorizations int
		duplicated     bool
	}{
		"map": {1, false}, "list": {1, false}, "map joined": {2, true}, "list joined": {2, true}, "list twice": {2, true},
		"both forms": {2, false}, "two hosts": {0, true}, "other authority": {0, true}, "empty": {0, false},
	} {
		var s scan
		var r authz.Request
		if err := s.decode(marshal(t, samples()[name]), &r); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r.Authorizations != want.authorizations || r.Duplicated != want.duplicated {
			t.Errorf("%s: %d authorizations, duplicated %v; want %+v", name, r.Authorizations, r.Duplicated, want)
		}
	}
}

func TestDecodeRefusesEveryTruncation(t *testing.T) {
	b := marshal(t, samples()["map"])
	for n := 1; n < len(b); n++ {
		var s scan
		var r authz.Request
		if s.decode(b[:n], &r) == nil {
			t.Fatalf("accepted the first %d of %d bytes", n, len(b))
		}
	}
}

func TestDecodeDoesNotAllocate(t *testing.T) {
	b := marshal(t, samples()["list"])
	var c call
	if n := testing.AllocsPerRun(100, func() {
		if err := c.decode(b, &c.req); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzDecode(f *testing.F) {
	s := samples()
	for _, m := range s {
		f.Add(marshal(f, m))
	}
	f.Add(append(marshal(f, s["map"]), marshal(f, s["list"])...))
	f.Add([]byte{0x0a, 0x04, 0x22, 0x02, 0x12, 0x00})
	f.Add([]byte{0x0b, 0x0c}) // a group
	f.Fuzz(func(t *testing.T, b []byte) { check(t, b) })
}

func BenchmarkDecode(b *testing.B) {
	raw := marshal(b, samples()["list"])
	var c call
	b.ReportAllocs()
	for b.Loop() {
		if err := c.decode(raw, &c.req); err != nil {
			b.Fatal(err)
		}
	}
}
