package sample

import "github.com/dspgate/dspgate/registry"

// Expectation is what a call to the sample register must come to. Tests of
// every layer read it: of the standing alone, of a decision, and through Envoy.
type Expectation struct {
	Name     string
	ClientID string
	Version  string
	Service  string
	// ClientABN is on whose behalf; 0 for none.
	ClientABN   registry.ABN
	Environment registry.Environment
	// Code is the contract's, "ok" when the call may pass.
	Code string
}

// Expectations is a table of calls, each in its own app's environment unless
// it says otherwise.
func Expectations() []Expectation {
	const (
		prod = registry.PROD
		evte = registry.EVTE
	)
	return []Expectation{
		{"a whitelisted product lodges", "fp-1001-prod", "5.0", "payevnt.0004.submit", Possum, prod, "ok"},
		{"it reads a receipt", "fp-1001-prod", "5.0", "receipts.get", 0, prod, "ok"},
		{"support for its older version ended", "fp-1001-prod", "4.8", "payevnt.0004.submit", Possum, prod, "version-unsupported"},
		{"it has no such version", "fp-1001-prod", "9.9", "payevnt.0004.submit", Possum, prod, "version-not-registered"},
		{"it is not entitled to that", "fp-1001-prod", "5.0", "stic.validate", Possum, prod, "service-not-entitled"},
		{"in test it is entitled to everything", "fp-1001-evte", "5.0", "stic.validate", Possum, evte, "ok"},
		{"a production app calls test", "fp-1001-prod", "5.0", "payevnt.0004.submit", Possum, evte, "environment-mismatch"},
		{"a test app calls production", "fp-1001-evte", "5.0", "payevnt.0004.submit", Possum, prod, "environment-mismatch"},
		{"a client that did not nominate", "fp-1001-prod", "5.0", "payevnt.0004.submit", Mallee, prod, "subscription-not-nominated"},
		{"a desktop product looks an ABN up", "fp-1002-prod", "3.1", "abr.lookup", 0, prod, "ok"},
		{"an agent's product does everything", "fp-1003-prod", "7.1", "piitr.get", Possum, prod, "ok"},
		{"a clearing house verifies members", "fp-1004-prod", "2.0", "stic.validate", Possum, prod, "ok"},
		{"a self-certified product in test", "fp-1005-evte", "1.2", "stic.validate", 0, evte, "ok"},
		{"it has no app in production", "fp-1005-prod", "1.2", "stic.validate", 0, prod, "client-unknown"},
		{"an in-house product for its own council", "fp-1006-prod", "1.0", "payevnt.0004.submit", Mallee, prod, "ok"},
		{"a rejected entity's product has no app", "fp-1007-prod", "0.1", "as.0004.submit", 0, prod, "client-unknown"},
		{"a pilot for its named client", "fp-1008-prod", "0.9", "as.0004.submit", Possum, prod, "ok"},
		{"a pilot for another client", "fp-1008-prod", "0.9", "as.0004.submit", Mallee, prod, "pvt-client-not-named"},
		{"a current version", "fp-1009-prod", "4.2", "as.0004.submit", 0, prod, "ok"},
		{"support for it ended", "fp-1009-prod", "4.1", "as.0004.submit", 0, prod, "version-unsupported"},
		{"that version is blocked", "fp-1009-prod", "4.0", "as.0004.submit", 0, prod, "version-blocked"},
		{"its entity is suspended", "fp-1010-prod", "2.3", "payevnt.0004.submit", 0, prod, "entity-suspended"},
		{"receipts are available while suspended", "fp-1010-prod", "2.3", "receipts.get", 0, prod, "ok"},
		{"its certification expired yesterday", "fp-1011-prod", "1.0", "as.0004.submit", 0, prod, "certification-expired"},
		{"it was delisted", "fp-1012-prod", "1.0", "as.0004.submit", 0, prod, "product-delisted"},
	}
}
