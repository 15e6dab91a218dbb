package extauthz

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/admission"
	"github.com/dspgate/dspgate/envoy/headers"
	"github.com/dspgate/dspgate/registry"
)

// The keys of the dynamic metadata of every answer, all strings: they join the
// access log to the decision record. Envoy keeps them in the namespace
// envoy.filters.http.ext_authz.
const (
	MetadataDecisionID = "decision_id"
	MetadataReason     = "reason"
	MetadataRevision   = "revision"
	MetadataSidecar    = "sidecar" // only when Options.Sidecar is set
	MetadataGrant      = "grant"   // only with an ALLOW of a streaming service, for package extproc
	MetadataSubject    = "subject" // keyed hash of the person or client concerned, when there is one
	// Only with a refusal of somebody who is known, and all out of the register or a
	// verified token: an ALLOW has them as headers.
	MetadataProduct     = "product"
	MetadataEnvironment = "environment"
	MetadataVersion     = "version"
	MetadataABN         = "abn"
	MetadataSoftwareID  = "software_id"
)

// Field numbers of envoy.service.auth.v3.CheckResponse and what is in it.
const (
	respStatus, respDenied, respOK, respMetadata = 1, 2, 3, 4
	statusCode                                   = 1
	okHeaders, okRemove, okResponseHeaders       = 2, 5, 6
	deniedStatus, deniedHeaders, deniedBody      = 1, 2, 3
	optHeader, optAction                         = 1, 3
	headerKey, headerValue                       = 1, 2
	structFields, entryKey, entryValue           = 1, 1, 2
	valueString                                  = 3

	overwriteIfExistsOrAdd = 2
)

// encoder writes answers. Everything that does not change from call to call is
// made once.
type encoder struct {
	forwardAuthorization bool
	admission            *admission.Signer
	sidecar              []byte // the whole entry of the metadata; empty for none
	denied               [authz.NReasons]deniedParts
}

// deniedParts are the constant pieces of a denial for one reason.
type deniedParts struct {
	status     []byte // DeniedHttpResponse.status
	headers    []byte // DeniedHttpResponse.headers that never change
	http       []byte // the further headers for callers that speak plain HTTP
	grpc       []byte // and for gRPC callers
	bodyStart  string // up to the decision ID in instance
	bodyMiddle string // up to the decision ID in errors
	bodyEnd    string
	message    string // what becomes grpc-message, up to the decision ID and ")"
	retry      bool
}

func newEncoder(o Options) (*encoder, error) {
	if o.ProblemBase == "" {
		o.ProblemBase = DefaultProblemBase
	}
	if o.Realm == "" {
		o.Realm = "dspgate"
	}
	if !plain(o.ProblemBase) || !strings.HasSuffix(o.ProblemBase, "/") {
		return nil, errors.New("extauthz: problem base must be printable ASCII without quotes and end in /")
	}
	if !plain(o.Realm) {
		return nil, errors.New("extauthz: realm must be printable ASCII without quotes")
	}
	if !utf8.ValidString(o.Sidecar) {
		return nil, errors.New("extauthz: the sidecar's ID is not UTF-8")
	}
	e := &encoder{forwardAuthorization: o.ForwardAuthorization, admission: o.Admission}
	if o.Sidecar != "" {
		e.sidecar = appendMetadata(nil, MetadataSidecar, o.Sidecar)
	}
	for r := range authz.NReasons {
		e.denied[r] = newDenied(r, o)
	}
	return e, nil
}

func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func newDenied(r authz.Reason, o Options) deniedParts {
	st := r.Status()
	d := deniedParts{retry: st == 429 || st == 503}
	code := protowire.AppendTag(nil, 1, protowire.VarintType)
	code = protowire.AppendVarint(code, uint64(st))
	d.status = protowire.AppendBytes(protowire.AppendTag(nil, deniedStatus, protowire.BytesType), code)

	d.headers = appendHeader(nil, deniedHeaders, "cache-control", "no-store")
	if st == 401 {
		d.headers = appendHeader(d.headers, deniedHeaders, "www-authenticate", challenge(r, o.Realm))
	}
	d.http = appendHeader(nil, deniedHeaders, "content-type", "application/problem+json")
	// For a gRPC caller Envoy writes the frame of the answer by itself, and makes
	// UNAVAILABLE out of 429 and INTERNAL out of 400: say which it is.
	d.message = r.String() + ": " + r.Detail() + " (/decisions/"
	d.grpc = appendHeader(nil, deniedHeaders, "grpc-status", strconv.Itoa(r.GRPCStatus()))

	detail := jsonString(r.Detail())
	d.bodyStart = fmt.Sprintf(`{"type":%s,"title":%s,"status":%d,"detail":%s,"instance":"/decisions/`,
		jsonString(o.ProblemBase+r.String()), jsonString(r.Title()), st, detail)
	d.bodyMiddle = `","errors":[{"id":"`
	d.bodyEnd = fmt.Sprintf(`","code":%s,"detail":%s}]}`, jsonString(r.String()), detail)
	return d
}

// challenge is RFC 6750 §3: no error code when the request had no token at all.
func challenge(r authz.Reason, realm string) string {
	if r == authz.TokenMissing {
		return `Bearer realm="` + realm + `"`
	}
	desc := strings.NewReplacer(`"`, "'", `\`, "").Replace(r.Detail())
	return `Bearer realm="` + realm + `", error="invalid_token", error_description="` + desc + `"`
}

func jsonString(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic("extauthz: a string does not marshal")
	}
	return string(b)
}

// append writes the CheckResponse of a decision.
func (e *encoder) append(b []byte, r *authz.Request, dec *authz.Decision) []byte {
	var rev [20]byte
	revision := strconv.AppendUint(rev[:0], uint64(dec.Revision), 10)
	if dec.Allowed() {
		b = protowire.AppendTag(b, respStatus, protowire.BytesType)
		b = append(b, 0) // google.rpc.Status{}: code OK
		b = e.appendOK(b, r, dec, revision)
	} else {
		b = e.appendDenied(b, r, dec)
	}
	b, at := open(b, respMetadata)
	b = appendMetadata(b, MetadataDecisionID, dec.ID[:])
	b = appendMetadata(b, MetadataReason, dec.Reason.String())
	b = appendMetadata(b, MetadataRevision, revision)
	b = append(b, e.sidecar...)
	if dec.SubjectHash != (authz.Hash{}) {
		var text [2 * len(dec.SubjectHash)]byte
		hex.Encode(text[:], dec.SubjectHash[:])
		b = appendMetadata(b, MetadataSubject, text[:])
	}
	if dec.Product != nil && !dec.Allowed() {
		b = appendRefused(b, dec)
	}
	if dec.Grant != nil {
		b = appendMetadata(b, MetadataGrant, dec.Grant.String())
	}
	return closed(b, at)
}

func (e *encoder) appendOK(b []byte, r *authz.Request, dec *authz.Decision, revision []byte) []byte {
	b, at := open(b, respOK)
	var abn, client [11]byte
	holder, _ := dec.Holder.AppendText(abn[:0])
	onBehalf, _ := dec.ClientABN.AppendText(client[:0])
	var product, service string
	if dec.Product != nil {
		product = dec.Product.ID
	}
	if dec.Service != nil {
		service = dec.Service.Key
	}
	b = appendHeader(b, okHeaders, headers.DecisionID, dec.ID[:])
	b = appendHeaderSome(b, headers.ABN, holder)
	b = appendHeaderSome(b, headers.ProductID, product)
	b = appendHeaderSome(b, headers.ProductVersion, dec.Version)
	b = appendHeaderSome(b, headers.SoftwareID, dec.SSID)
	b = appendHeaderSome(b, headers.ClientABN, onBehalf)
	b = appendHeaderSome(b, headers.Service, service)
	b = appendHeaderSome(b, headers.Environment, dec.Environment.String())
	b = appendHeader(b, okHeaders, headers.Revision, revision)
	if e.admission != nil && service != "" {
		var buf [admission.StampBytesMax]byte
		stamp := e.admission.Append(buf[:0], &admission.Call{
			DecisionID: string(dec.ID[:]), Environment: dec.Environment.String(), Service: service, ProductID: product, ProductVersion: dec.Version,
			ABN: string(holder), SoftwareID: dec.SSID, ClientABN: string(onBehalf), Method: r.Method, Path: r.Target,
		}, uint64(dec.Revision), dec.At)
		b = appendHeader(b, okHeaders, headers.Admission, stamp)
		b = appendHeader(b, okHeaders, headers.NotAfter, admission.NotAfter(stamp))
	}

	// Whatever is not set must not be there: a client's own copy would be
	// believed upstream.
	b = appendRemoveNone(b, headers.ABN, len(holder))
	b = appendRemoveNone(b, headers.ProductID, len(product))
	b = appendRemoveNone(b, headers.ProductVersion, len(dec.Version))
	b = appendRemoveNone(b, headers.SoftwareID, len(dec.SSID))
	b = appendRemoveNone(b, headers.ClientABN, len(onBehalf))
	b = appendRemoveNone(b, headers.Service, len(service))
	b = appendRemoveNone(b, headers.Environment, len(dec.Environment.String()))
	if !e.forwardAuthorization {
		b = appendRemoveNone(b, hdrAuthorization, 0)
	}
	b = appendRemoveNone(b, headers.ClaimProductID, 0)
	b = appendRemoveNone(b, headers.ClaimProductVersion, 0)
	b = appendRemoveNone(b, headers.ClaimSoftwareID, 0)
	if dec.Build {
		b = appendHeader(b, okResponseHeaders, headers.Warning, authz.VersionNotRegistered.String())
	}
	if dec.Sunset != 0 {
		var date [32]byte
		b = appendHeader(b, okResponseHeaders, headers.Sunset, dec.Sunset.Std().UTC().AppendFormat(date[:0], httpDate))
	}
	return closed(appendRateLimits(b, okResponseHeaders, dec), at)
}

// httpDate is the format of RFC 9110 §5.6.7, in UTC.
const httpDate = "Mon, 02 Jan 2006 15:04:05 GMT"

func (e *encoder) appendDenied(b []byte, r *authz.Request, dec *authz.Decision) []byte {
	d := &e.denied[dec.Reason]
	b = protowire.AppendTag(b, respStatus, protowire.BytesType)
	b = append(b, 2)
	b = protowire.AppendTag(b, statusCode, protowire.VarintType)
	b = append(b, byte(dec.Reason.GRPCStatus()))

	b, at := open(b, respDenied)
	b = append(b, d.status...)
	b = append(b, d.headers...)
	if d.retry {
		var buf [20]byte
		b = appendHeader(b, deniedHeaders, "retry-after", strconv.AppendInt(buf[:0], retrySeconds(dec.RetryAfter), 10))
		b = appendRateLimits(b, deniedHeaders, dec)
	}
	if r.GRPC {
		b = append(b, d.grpc...)
		b = protowire.AppendTag(b, deniedBody, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(len(d.message)+len(dec.ID)+1))
		b = append(b, d.message...)
		b = append(b, dec.ID[:]...)
		return closed(append(b, ')'), at)
	}
	b = append(b, d.http...)
	var limit string // plain: the register lets nothing else be a limit's name
	if dec.Refused != nil {
		limit = dec.Refused.Shown
	}
	size := len(d.bodyStart) + len(d.bodyMiddle) + len(d.bodyEnd) + 2*len(dec.ID)
	if limit != "" {
		size += len(bodyLimit) + len(limit)
	}
	b = protowire.AppendTag(b, deniedBody, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = append(b, d.bodyStart...)
	b = append(b, dec.ID[:]...)
	if limit != "" {
		b = append(append(b, bodyLimit...), limit...)
	}
	b = append(b, d.bodyMiddle...)
	b = append(b, dec.ID[:]...)
	b = append(b, d.bodyEnd...)
	return closed(b, at)
}

// bodyLimit goes before the name of the limit that refused, a member of the
// problem of its own (RFC 9457 §3.2).
const bodyLimit = `","limit":"`

// retrySeconds rounds up: a caller that comes back early is refused again.
func retrySeconds(d time.Duration) int64 {
	return max(1, int64((d+time.Second-1)/time.Second))
}

func appendHeaderSome[V string | []byte](b []byte, name string, v V) []byte {
	if len(v) == 0 {
		return b
	}
	return appendHeader(b, okHeaders, name, v)
}

// appendHeader writes a HeaderValueOption that replaces what the client sent.
func appendHeader[V string | []byte](b []byte, field protowire.Number, name string, v V) []byte {
	inner := 1 + protowire.SizeBytes(len(name)) + 1 + protowire.SizeBytes(len(v))
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(1+protowire.SizeBytes(inner)+2))
	b = protowire.AppendTag(b, optHeader, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inner))
	b = protowire.AppendTag(b, headerKey, protowire.BytesType)
	b = protowire.AppendString(b, name)
	b = protowire.AppendTag(b, headerValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	b = append(b, v...)
	b = protowire.AppendTag(b, optAction, protowire.VarintType)
	return append(b, overwriteIfExistsOrAdd)
}

func appendRemoveNone(b []byte, name string, have int) []byte {
	if have > 0 {
		return b
	}
	b = protowire.AppendTag(b, okRemove, protowire.BytesType)
	return protowire.AppendString(b, name)
}

// appendRefused writes who was refused, for the access log.
func appendRefused(b []byte, dec *authz.Decision) []byte {
	b = appendMetadata(b, MetadataProduct, dec.Product.ID)
	if dec.Environment != registry.NoEnvironment {
		b = appendMetadata(b, MetadataEnvironment, dec.Environment.String())
	}
	if dec.Version != "" {
		b = appendMetadata(b, MetadataVersion, dec.Version)
	}
	if dec.Holder != 0 {
		var buf [11]byte
		abn, _ := dec.Holder.AppendText(buf[:0]) // an ABN always has a text
		b = appendMetadata(b, MetadataABN, abn)
	}
	if dec.SSID != "" {
		b = appendMetadata(b, MetadataSoftwareID, dec.SSID)
	}
	return b
}

// appendMetadata writes one entry of Struct.fields with a string value.
func appendMetadata[V string | []byte](b []byte, key string, v V) []byte {
	val := 1 + protowire.SizeBytes(len(v))
	b = protowire.AppendTag(b, structFields, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(1+protowire.SizeBytes(len(key))+1+protowire.SizeBytes(val)))
	b = protowire.AppendTag(b, entryKey, protowire.BytesType)
	b = protowire.AppendString(b, key)
	b = protowire.AppendTag(b, entryValue, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(val))
	b = protowire.AppendTag(b, valueString, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(len(v)))
	return append(b, v...)
}

// open starts a message field whose length is not known yet, leaving three
// bytes for it; closed fills them in. A varint of three bytes holds 2 MiB and
// may have leading zero groups, which every decoder of protobuf accepts.
func open(b []byte, field protowire.Number) ([]byte, int) {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return append(b, 0x80, 0x80, 0), len(b) + 3
}

func closed(b []byte, at int) []byte {
	n := len(b) - at
	if n >= 1<<21 {
		panic("extauthz: an answer of 2 MiB")
	}
	b[at-3], b[at-2], b[at-1] = byte(n)|0x80, byte(n>>7)|0x80, byte(n>>14)
	return b
}
