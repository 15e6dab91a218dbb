package extauthz

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/registry"
)

// expected is the answer written with the generated types.
func expected(t testing.TB, o Options, r *authz.Request, d *authz.Decision) *authv3.CheckResponse {
	set := func(k, v string) *corev3.HeaderValueOption {
		return &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: k, Value: v},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
	}
	id := d.ID.String()
	meta := map[string]any{"decision_id": id, "reason": d.Reason.String(), "revision": fmt.Sprint(uint64(d.Revision))}
	if d.Product != nil && !d.Allowed() {
		meta["product"] = d.Product.ID
		for key, value := range map[string]string{"environment": d.Environment.String(), "version": d.Version, "software_id": d.SSID, "abn": d.Holder.String()} {
			if value != "" && value != registry.ABN(0).String() {
				meta[key] = value
			}
		}
	}
	if d.SubjectHash != (authz.Hash{}) {
		meta["subject"] = hex.EncodeToString(d.SubjectHash[:])
	}
	if o.Sidecar != "" {
		meta["sidecar"] = o.Sidecar
	}
	md, err := structpb.NewStruct(meta)
	if err != nil {
		t.Fatal(err)
	}
	resp := &authv3.CheckResponse{DynamicMetadata: md, Status: &statuspb.Status{Code: int32(d.Reason.GRPCStatus())}}
	if d.Reason == authz.OK {
		ok := &authv3.OkHttpResponse{}
		for _, h := range [][2]string{
			{"x-dsp-decision-id", id}, {"x-dsp-abn", d.Holder.String()}, {"x-dsp-product-id", d.Product.ID},
			{"x-dsp-product-version", d.Version}, {"x-dsp-software-id", d.SSID}, {"x-dsp-client-abn", d.ClientABN.String()},
			{"x-dsp-service", d.Service.Key}, {"x-dsp-environment", d.Environment.String()}, {"x-dsp-revision", fmt.Sprint(uint64(d.Revision))},
		} {
			if h[1] == "" {
				ok.HeadersToRemove = append(ok.HeadersToRemove, h[0])
			} else {
				ok.Headers = append(ok.Headers, set(h[0], h[1]))
			}
		}
		if !o.ForwardAuthorization {
			ok.HeadersToRemove = append(ok.HeadersToRemove, "authorization")
		}
		ok.HeadersToRemove = append(ok.HeadersToRemove, "x-product-id", "x-product-version", "x-software-id")
		if d.Build {
			ok.ResponseHeadersToAdd = append(ok.ResponseHeadersToAdd, set("x-dsp-warning", "version-not-registered"))
		}
		if d.Sunset != 0 {
			ok.ResponseHeadersToAdd = append(ok.ResponseHeadersToAdd, set("sunset", d.Sunset.Std().Format(http.TimeFormat)))
		}
		resp.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: ok}
		return resp
	}
	den := &authv3.DeniedHttpResponse{
		Status:  &typev3.HttpStatus{Code: typev3.StatusCode(d.Reason.Status())},
		Headers: []*corev3.HeaderValueOption{set("cache-control", "no-store")},
	}
	switch d.Reason.Status() {
	case 401:
		c := `Bearer realm="dspgate"`
		if d.Reason != authz.TokenMissing {
			c += `, error="invalid_token", error_description="` + d.Reason.Detail() + `"`
		}
		den.Headers = append(den.Headers, set("www-authenticate", c))
	case 429, 503:
		secs := int64(d.RetryAfter / time.Second)
		if d.RetryAfter%time.Second > 0 {
			secs++
		}
		den.Headers = append(den.Headers, set("retry-after", fmt.Sprint(max(secs, 1))))
	}
	if r.GRPC {
		den.Headers = append(den.Headers, set("grpc-status", fmt.Sprint(d.Reason.GRPCStatus())))
		den.Body = fmt.Sprintf("%s: %s (/decisions/%s)", d.Reason, d.Reason.Detail(), id)
	} else {
		den.Headers = append(den.Headers, set("content-type", "application/problem+json"))
		type problemError struct {
			ID     string `json:"id"`
			Code   string `json:"code"`
			Detail string `json:"detail"`
		}
		body, err := json.Marshal(struct {
			Type     string         `json:"type"`
			Title    string         `json:"title"`
			Status   int            `json:"status"`
			Detail   string         `json:"detail"`
			Instance string         `json:"instance"`
			Errors   []problemError `json:"errors"`
		}{
			"https://dspgate.example/problems/" + d.Reason.String(), d.Reason.Title(), d.Reason.Status(), d.Reason.Detail(),
			"/decisions/" + id, []problemError{{id, d.Reason.String(), d.Reason.Detail()}},
		})
		if err != nil {
			t.Fatal(err)
		}
		den.Body = string(body)
	}
	resp.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: den}
	return resp
}

func checkAnswer(t *testing.T, o Options, r *authz.Request, d *authz.Decision) {
	t.Helper()
	e, err := newEncoder(o)
	if err != nil {
		t.Fatal(err)
	}
	var got authv3.CheckResponse
	if err := proto.Unmarshal(e.append(nil, r, d), &got); err != nil {
		t.Fatalf("%s: %v", d.Reason, err)
	}
	want := expected(t, o, r, d)
	if diff := cmp.Diff(want, &got, protocmp.Transform()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", d.Reason, diff)
	}
}

func decision(reason authz.Reason) authz.Decision {
	return authz.Decision{
		ID: authz.NewIDs().Next(time.UnixMilli(1_800_000_000_000)), Reason: reason, Revision: 1234567,
		Product: &registry.Product{ID: "FP-1001"}, Service: &registry.Service{Key: "as.0004.get"},
		Holder: 65000000101, ClientABN: 56000001313, SSID: "0000123400", Version: "5.0", Environment: registry.PROD,
	}
}

func TestEveryReasonAnswersAsTheGeneratedTypesWould(t *testing.T) {
	for reason := range authz.NReasons {
		for _, grpc := range []bool{false, true} {
			d := decision(reason)
			d.RetryAfter = 1500 * time.Millisecond
			checkAnswer(t, Options{}, &authz.Request{GRPC: grpc}, &d)
		}
	}
	d := decision(authz.OK)
	checkAnswer(t, Options{ForwardAuthorization: true, Sidecar: "s-1"}, &authz.Request{}, &d)
	d.Build, d.Sunset = true, registry.Time(1_800_000_000_123)
	checkAnswer(t, Options{}, &authz.Request{}, &d)
	d = authz.Decision{ID: d.ID, Product: &registry.Product{}, Service: &registry.Service{}}
	checkAnswer(t, Options{}, &authz.Request{}, &d)
}

func TestWhatIsNotSetIsRemoved(t *testing.T) {
	e, err := newEncoder(Options{})
	if err != nil {
		t.Fatal(err)
	}
	full := decision(authz.OK)
	for _, d := range []authz.Decision{full, {ID: full.ID}} {
		var resp authv3.CheckResponse
		if err := proto.Unmarshal(e.append(nil, &authz.Request{}, &d), &resp); err != nil {
			t.Fatal(err)
		}
		seen := map[string]int{}
		for _, h := range resp.GetOkResponse().GetHeaders() {
			seen[h.Header.Key]++
		}
		for _, h := range resp.GetOkResponse().GetHeadersToRemove() {
			seen[h]++
		}
		want := map[string]int{"authorization": 1, "x-product-id": 1, "x-product-version": 1, "x-software-id": 1}
		for _, h := range []string{"decision-id", "abn", "product-id", "product-version", "software-id", "client-abn", "service", "environment", "revision"} {
			want["x-dsp-"+h] = 1
		}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("each header is either set or removed, once (-want +got):\n%s", diff)
		}
	}
}

func TestChallengesKeepToTheirAlphabet(t *testing.T) {
	for r := range authz.NReasons {
		c := challenge(r, "dspgate")
		_, desc, _ := strings.Cut(c, `error_description="`)
		for _, b := range []byte(strings.TrimSuffix(desc, `"`)) {
			if b < 0x20 || b > 0x7e || b == '"' || b == '\\' { // RFC 6750 §3
				t.Errorf("%s: byte %#x in %s", r, b, c)
			}
		}
	}
}

func TestOptionsThatWouldBreakABodyAreRefused(t *testing.T) {
	decider := fixed(authz.OK)
	for _, o := range []Options{
		{}, {Decider: decider, ProblemBase: "https://x"}, {Decider: decider, ProblemBase: `https://x"/`},
		{Decider: decider, Realm: "a\"b"}, {Decider: decider, Realm: "a\nb"}, {Decider: decider, Sidecar: "\xff"},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}

func TestEncodeDoesNotAllocate(t *testing.T) {
	signer, _ := stamps(t)
	e, err := newEncoder(Options{Admission: signer})
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 0, answerBytes)
	for _, reason := range []authz.Reason{authz.OK, authz.ProductSuspended, authz.TokenMalformed, authz.RateLimited} {
		d := decision(reason)
		d.Build, d.Sunset = true, registry.Time(1_800_000_000_123)
		r := authz.Request{Method: "GET", Target: "/individuals/v1/220115957/prefill?year=2026"}
		if n := testing.AllocsPerRun(100, func() { e.append(buf, &r, &d) }); n != 0 {
			t.Errorf("%s: %v allocations: answerBytes is too small, or something escapes", reason, n)
		}
	}
}

func stamps(t testing.TB) (*admission.Signer, *admission.Verifier) {
	t.Helper()
	keys, err := admission.ParseKeys([]byte(strings.Repeat("ab", 32)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := admission.NewSigner(keys, 0)
	if err != nil {
		t.Fatal(err)
	}
	v, err := admission.NewVerifier(admission.VerifierConfig{Keys: keys, Replay: true})
	if err != nil {
		t.Fatal(err)
	}
	return s, v
}

// The stamp is bound to what the upstream is told, not to what was decided
// inside: it is verified from the headers of the answer alone.
func TestEveryAllowOfAServiceIsStamped(t *testing.T) {
	signer, verifier := stamps(t)
	e, err := newEncoder(Options{Admission: signer})
	if err != nil {
		t.Fatal(err)
	}
	r := &authz.Request{Method: "POST", Target: "/lodgments/v1/payroll-events?dry=1"}
	told := func(d *authz.Decision) map[string]string {
		var got authv3.CheckResponse
		if err := proto.Unmarshal(e.append(nil, r, d), &got); err != nil {
			t.Fatal(err)
		}
		h := map[string]string{}
		for _, o := range got.GetOkResponse().GetHeaders() {
			if o.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
				t.Errorf("%s is added to what a client sent", o.GetHeader().GetKey())
			}
			h[o.GetHeader().GetKey()] = o.GetHeader().GetValue()
		}
		return h
	}
	full, bare := decision(authz.OK), decision(authz.OK)
	full.At = time.Unix(1_795_300_000, 123_456_789)
	bare.At = full.At
	bare.Version, bare.SSID, bare.ClientABN = "", "", 0
	for _, d := range []authz.Decision{full, bare} {
		h := told(&d)
		call := admission.Call{
			DecisionID: h["x-dsp-decision-id"], Environment: h["x-dsp-environment"], Service: h["x-dsp-service"], ProductID: h["x-dsp-product-id"],
			ProductVersion: h["x-dsp-product-version"], ABN: h["x-dsp-abn"], SoftwareID: h["x-dsp-software-id"], ClientABN: h["x-dsp-client-abn"],
			Method: r.Method, Path: r.Target,
		}
		s, err := verifier.Verify(h["x-dsp-admission"], &call, d.At)
		if err != nil || s.Revision != uint64(d.Revision) || h["x-dsp-not-after"] != fmt.Sprint(s.NotAfter.UnixMilli()) ||
			s.NotAfter.UnixMilli() != d.At.Add(admission.DefaultValidity).UnixMilli() {
			t.Errorf("%+v %v of %v", s, err, h)
		}
		call.Path = "/lodgments/v1/payroll-events"
		if _, err := verifier.Verify(h["x-dsp-admission"], &call, d.At); err == nil {
			t.Error("the stamp also fits another query")
		}
	}
	for name, edit := range map[string]func(*authz.Decision){
		"a refusal":                       func(d *authz.Decision) { d.Reason = authz.ProductSuspended },
		"a yes to a service nobody knows": func(d *authz.Decision) { d.Service = nil },
	} {
		d := decision(authz.OK)
		edit(&d)
		if h := told(&d); h["x-dsp-admission"] != "" || h["x-dsp-not-after"] != "" {
			t.Errorf("%s is stamped: %v", name, h)
		}
	}
}

func FuzzEncode(f *testing.F) {
	for r := range authz.NReasons {
		f.Add(uint8(r), false, "FP-1001", "5.0", "0000123400", "as.0004.get", uint64(65000000101), uint64(56000001313), uint64(9), int64(time.Second), uint8(3), "s-1", true)
	}
	f.Add(uint8(0), true, "", "", "", "", uint64(0), uint64(0), uint64(0), int64(-1), uint8(0), "", false)
	f.Fuzz(func(t *testing.T, reason uint8, grpc bool, product, version, ssid, service string, holder, client, rev uint64, retry int64, env uint8, sidecar string, forward bool) {
		for _, s := range []string{product, version, ssid, service, sidecar} {
			if !utf8.ValidString(s) || len(s) > 4096 {
				return // the register and the token shell let in valid UTF-8 only
			}
		}
		d := decision(authz.Reason(reason % uint8(authz.NReasons)))
		d.Revision, d.Version, d.SSID = registry.Revision(rev), version, ssid
		d.Holder, d.ClientABN = registry.ABN(holder%1e11), registry.ABN(client%1e11)
		for _, abn := range []registry.ABN{d.Holder, d.ClientABN} {
			if abn != 0 && abn < 1e10 {
				return // no ABN starts with 0
			}
		}
		d.Product, d.Service = &registry.Product{ID: product}, &registry.Service{Key: service}
		d.Environment = registry.Environment(env % 4)
		d.RetryAfter = max(time.Duration(retry)%(100*time.Hour), 0)
		checkAnswer(t, Options{Sidecar: sidecar, ForwardAuthorization: forward}, &authz.Request{GRPC: grpc}, &d)
	})
}

func BenchmarkEncodeOK(b *testing.B) {
	e, err := newEncoder(Options{})
	if err != nil {
		b.Fatal(err)
	}
	d := decision(authz.OK)
	var r authz.Request
	buf := make([]byte, 0, answerBytes)
	b.ReportAllocs()
	for b.Loop() {
		buf = e.append(buf[:0], &r, &d)
	}
	b.ReportMetric(float64(len(buf)), "bytes")
}

// fixed decides everything with one reason.
type fixed authz.Reason

func (f fixed) Decide(_ *authz.Request, d *authz.Decision) {
	*d = decision(authz.Reason(f))
}
