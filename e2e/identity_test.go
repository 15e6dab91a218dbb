package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// J16x: the scheme, and more than one credential.
func TestTokenTransport(t *testing.T) {
	s := sharedStack(t)
	good := s.token(t, nil)
	other := s.tokenFor(t, "fp-1001-prod", "65000000101")
	type h = http.Header
	for _, r := range []struct {
		id, what string
		header   http.Header
		body     string
		path     string
		want     string
	}{
		{"J16x", "bearer in lower case", h{"Authorization": {"bearer " + good}}, "", receipt, "ok"},
		{"J16x", "nothing", nil, "", receipt, "token-missing"},
		{"J16x", "scheme only", h{"Authorization": {"Bearer"}}, "", receipt, "token-missing"},
		{"J16x", "no scheme", h{"Authorization": {good}}, "", receipt, "token-missing"},
		{"J16x", "Basic", h{"Authorization": {"Basic " + good}}, "", receipt, "token-missing"},
		{"J16x", "DPoP", h{"Authorization": {"DPoP " + good}}, "", receipt, "token-missing"},
		{"J16x", "a tab behind the scheme", h{"Authorization": {"Bearer\t" + good}}, "", receipt, "token-missing"},
		{"J16x", "a list of two", h{"Authorization": {"Bearer " + good + ", Bearer " + other}}, "", receipt, "request-ambiguous"},
		{"J16x", "the header twice", h{"Authorization": {"Bearer " + good, "Bearer " + good}}, "", receipt, "request-ambiguous"},
		{"J16x", "the header twice, two tokens", h{"Authorization": {"Bearer " + good, "Bearer " + other}}, "", receipt, "request-ambiguous"},
		// Envoy drops an empty field beside another: one credential is left.
		{"J16x", "the header twice, the second empty", h{"Authorization": {"Bearer " + good, ""}}, "", receipt, "ok"},
		{"J16x", "the header twice, the second without a scheme", h{"Authorization": {"Bearer " + good, other}}, "", receipt, "token-malformed"},
		{"J16x", "the header twice, the first empty", h{"Authorization": {"", "Bearer " + good}}, "", receipt, "ok"},
		{"J16x", "in the query", nil, "", receipt + "?access_token=" + good, "token-missing"},
		{"J16x", "in a cookie", h{"Cookie": {"access_token=" + good}}, "", receipt, "token-missing"},
		{"J16x", "in Proxy-Authorization", h{"Proxy-Authorization": {"Bearer " + good}}, "", receipt, "token-missing"},
		{"J16x", "in X-Forwarded-Authorization", h{"X-Forwarded-Authorization": {"Bearer " + good}}, "", receipt, "token-missing"},
		{"J16x", "in a form", h{"Content-Type": {"application/x-www-form-urlencoded"}}, "access_token=" + good, receipt, "token-missing"},
	} {
		t.Run(r.id+" "+r.what, func(t *testing.T) {
			o := s.watch(t)
			var body io.Reader
			if r.body != "" {
				body = strings.NewReader(r.body)
			}
			got := s.get(t, "GET", r.path, "", r.header, body)
			if r.want == "ok" {
				mustAdmit(t, got, r.path, kooka)
				o.check(1, kooka)
				return
			}
			mustRefuse(t, got, r.want)
			o.check(0, "")
		})
	}
}

// J24x: a genuine token of one party used as another's. The register, and not
// the token, says what a client app is.
func TestTokenIdentity(t *testing.T) {
	s := sharedStack(t)
	const (
		possum = "56000001313"
		mallee = "18000000505"
	)
	tok := func(over map[string]any) string { return minter{t, s, s.signer}.sign(nil, over) }
	as := func(client, abn, ssid, client2 string) string {
		over := map[string]any{"client_id": client, "sub": client, "abn": abn, "software_id": ssid, "client_abn": client2}
		for k, v := range over {
			if v == "" {
				over[k] = nil
			}
		}
		return tok(over)
	}
	type h = http.Header
	for _, r := range []struct {
		id, what, raw string
		method, path  string
		header        http.Header
		want, product string // want "ok": admitted as product
	}{
		{"J23", "never registered", as("fp-9999-prod", "31000000202", "", ""), "GET", receipt, nil, "client-unknown", ""},
		// The domain text says 401 for an applicant that was rejected; by the contract
		// a genuine token of no client app is 403 client-unknown.
		{"J23", "entity rejected, no client app", as("fp-1007-prod", "39000000707", "", ""), "GET", receipt, nil, "client-unknown", ""},
		{"J23", "test app of a product not whitelisted, in production", as("fp-1005-evte", "60000000909", "", ""), "GET", receipt, nil, "product-not-whitelisted", ""},
		{"J23", "entity suspended", as("fp-1010-prod", "35000001111", "", ""), "POST", payroll, nil, "entity-suspended", ""},
		{"J23", "entity suspended, in the test environment", as("fp-1010-evte", "35000001111", "", ""), "POST", payroll, h{"Host": {evte}}, "entity-suspended", ""},
		{"J23", "entity suspended, receipt of what was accepted", as("fp-1010-prod", "35000001111", "", ""), "GET", receipt, nil, "ok", "FP-1010"},
		{"J23", "certification expired", as("fp-1011-prod", "65000000101", "", ""), "POST", lodge, nil, "certification-expired", ""},
		{"J23", "delisted", as("fp-1012-prod", "69000001010", "", ""), "GET", receipt, nil, "product-delisted", ""},
		{"J23", "version out of support", as("fp-1001-prod", "65000000101", "", ""), "GET", receipt, h{"X-Product-Version": {"4.8"}}, "version-unsupported", ""},
		{"J23", "version blocked", as("fp-1009-prod", "69000001010", "", ""), "GET", receipt, h{"X-Product-Version": {"4.0"}}, "version-blocked", ""},
		{"J23", "version withdrawn, and the caller does not say its own", as("fp-1009-prod", "69000001010", "", ""), "GET", receipt, nil, "version-blocked", ""},
		{"J23", "version never registered", as("fp-1009-prod", "69000001010", "", ""), "GET", receipt, h{"X-Product-Version": {"4.10"}}, "version-not-registered", ""},
		{"J23", "version in support", as("fp-1009-prod", "69000001010", "", ""), "GET", receipt, h{"X-Product-Version": {"4.2"}}, "ok", "FP-1009"},

		{"J24x", "another's app under the own ABN", as("fp-1001-prod", "31000000202", "", ""), "GET", receipt, nil, "product-mismatch", ""},
		{"J24x", "no holder", as("fp-1003-prod", "", "0000300001", possum), "GET", receipt, nil, "product-mismatch", ""},
		{"J24x", "the client's ABN as the holder's", as("fp-1003-prod", possum, "0000300001", possum), "GET", receipt, nil, "product-mismatch", ""},
		{"J24x", "a provider of the chain", as("fp-1001-prod", "73000000606", "", ""), "GET", receipt, nil, "ok", "FP-1001"},
		{"J24x", "client app in other case", as("FP-1003-PROD", "31000000202", "", ""), "GET", receipt, nil, "client-unknown", ""},
		{"J24x", "software ID of another product", as("fp-1003-prod", "31000000202", "0000123400", possum), "GET", receipt, nil, "product-mismatch", ""},
		{"J24x", "software ID of nobody", as("fp-1003-prod", "31000000202", "0000999999", possum), "GET", receipt, nil, "subscription-not-nominated", ""},
		{"J24x", "software ID of another client", as("fp-1003-prod", "31000000202", "0000300001", mallee), "GET", receipt, nil, "subscription-not-nominated", ""},
		{"J24x", "on behalf of a client without a subscription", as("fp-1003-prod", "31000000202", "", mallee), "GET", receipt, nil, "subscription-not-nominated", ""},
		{"J24x", "in-house product for another", as("fp-1006-prod", mallee, "", possum), "POST", payroll, nil, "subscription-not-nominated", ""},
		{"J24x", "verification testing, client not named", as("fp-1008-prod", "94000000808", "", mallee), "POST", lodge, nil, "pvt-client-not-named", ""},
		{"J24x", "verification testing, no client", as("fp-1008-prod", "94000000808", "", ""), "POST", lodge, nil, "pvt-client-not-named", ""},
		{"J24x", "verification testing, client named", as("fp-1008-prod", "94000000808", "0000800001", possum), "POST", lodge, nil, "ok", "FP-1008"},
		{"J24x", "verification testing, service not part of it", as("fp-1008-prod", "94000000808", "", ""), "GET", receipt, nil, "service-not-entitled", ""},
		{"J24x", "service not entitled", as("fp-1009-prod", "69000001010", "", ""), "POST", payroll, h{"X-Product-Version": {"4.2"}}, "service-not-entitled", ""},
		{"J24x", "production app in the test environment", as("fp-1003-prod", "31000000202", "", ""), "GET", receipt, h{"Host": {evte}}, "environment-mismatch", ""},
		{"J24x", "test app in production", as("fp-1003-evte", "31000000202", "", ""), "GET", receipt, nil, "environment-mismatch", ""},
		{"J24x", "test app in the test environment", as("fp-1003-evte", "31000000202", "", ""), "GET", receipt, h{"Host": {evte}}, "ok", kooka},
		{"J24x", "another's Product ID in the header", as("fp-1001-prod", "65000000101", "", ""), "GET", receipt, h{"X-Product-Id": {kooka}}, "product-mismatch", ""},
		{"J24x", "another's software ID in the header", tok(nil), "GET", receipt, h{"X-Software-Id": {"0000123400"}}, "product-mismatch", ""},
		{"J24x", "a software ID in the header only", as("fp-1003-prod", "31000000202", "", ""), "GET", receipt, h{"X-Software-Id": {"0000300001"}}, "product-mismatch", ""},
		{"J24x", "the own Product ID twice", tok(nil), "GET", receipt, h{"X-Product-Id": {kooka, kooka}}, "request-ambiguous", ""},
		{"J24x", "claims in headers that agree", tok(nil), "GET", receipt, h{"X-Product-Id": {kooka}, "X-Software-Id": {"0000300001"}, "X-Product-Version": {"7.1"}}, "ok", kooka},
	} {
		t.Run(r.id+" "+r.what, func(t *testing.T) {
			o := s.watch(t)
			got := s.ask(t, r.method, r.path, r.raw, r.header)
			if r.want == "ok" {
				mustAdmit(t, got, r.path, r.product)
				o.check(1, r.product)
				return
			}
			mustRefuse(t, got, r.want)
			o.check(0, "")
		})
	}
}
