package authz_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/dspgate/dspgate/authz"
)

// L01: whatever strangers name in tokens that nobody signed (product, kid,
// issuer, jti) and from wherever they come, nothing is kept of it.
func TestFloodOfIdentifiersKeepsNothing(t *testing.T) {
	// A million take seconds and show a leak of 34 bytes each; all ten million are
	// run by DSPGATE_FLOOD=10000000.
	n := 1_000_000
	if raceEnabled {
		n = 100_000
	}
	if v := os.Getenv("DSPGATE_FLOOD"); v != "" {
		var err error
		if n, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	b := newBench(t, nil)
	r := b.request(call{client: "fp-1003-prod", abn: "31000000202"})
	var d authz.Decision
	enc := base64.RawURLEncoding
	var header, claims, raw []byte
	once := func(i int) {
		id := uint64(i) * 0x9e3779b97f4a7c15 // all different
		header = fmt.Appendf(header[:0], `{"alg":"ES256","kid":"k-%x","typ":"at+jwt"}`, id)
		switch i % 4 {
		case 0: // a stranger's issuer
			claims = fmt.Appendf(claims[:0], `{"iss":"https://%x.example","aud":"x","client_id":"fp-%x-prod"}`, id, id)
		case 1: // our issuer, an unknown kid
			claims = fmt.Appendf(claims[:0], `{"iss":%q,"aud":%q,"client_id":"fp-%x-prod","jti":"%x","iat":%d,"exp":%d}`,
				testIssuer, testAudience, id, id, b.now.Unix(), b.now.Unix()+60)
		case 2: // no token at all
			claims = fmt.Appendf(claims[:0], `%x`, id)
		default: // no JWT of the profile
			claims = fmt.Appendf(claims[:0], `{"iss":%q,"product_id":"FP-%x"}`, testIssuer, id)
		}
		raw = append(raw[:0], "Bearer "...)
		raw = enc.AppendEncode(raw, header)
		raw = append(raw, '.')
		raw = enc.AppendEncode(raw, claims)
		raw = append(raw, ".AAAA"...)
		r.Authorization = string(raw)
		r.ClaimProductID = string(claims[:min(len(claims), 40)])
		r.Peer = fmt.Sprintf("%d.%d.%d.%d", byte(id>>24), byte(id>>16), byte(id>>8), byte(id))
		r.Target = fmt.Sprintf("/lodgments/v1/receipts/R-%x", id)
		b.x.Decide(r, &d)
		if d.Allowed() {
			t.Fatalf("admitted %s", raw)
		}
	}
	for i := range 10_000 { // tables of fixed size fill
		once(-i - 1)
	}
	before := heap()
	for i := range n {
		once(i)
	}
	if grown := int64(heap()) - int64(before); grown > 32<<20 {
		t.Errorf("%d identifiers left %d MiB behind, at most 32 are allowed", n, grown>>20)
	}
}

// heap is what is live after a collection.
func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
