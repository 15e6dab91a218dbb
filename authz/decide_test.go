package authz_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/issue"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/sample"
)

// bench is one sidecar's decision path over the sample register, without wires.
type bench struct {
	t       testing.TB
	x       *authz.Decider
	signer  *issue.Signer
	served  *registry.Served
	now     time.Time
	elapsed time.Duration
	records []any
}

const testIssuer, testAudience = "https://issuer.example", "https://api.example"

func (b *bench) Served() *registry.Served { return b.served }

func newBench(t testing.TB, change func([]any) []any) *bench {
	t.Helper()
	b := &bench{t: t, now: time.Now(), elapsed: time.Hour}
	b.records = sample.Records(b.now)
	if change != nil {
		b.records = change(b.records)
	}
	b.served = &registry.Served{View: viewOf(t, b.records, b.now), ShortUntil: b.elapsed + 2*time.Second, LongUntil: b.elapsed + time.Minute}
	var err error
	if b.signer, err = issue.Generate("k1", "ES256"); err != nil {
		t.Fatal(err)
	}
	key, err := token.NewKey("k1", "ES256", b.signer.Key.Public())
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.NewKeySet(key)
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.New(token.Config{Issuers: []token.Issuer{{
		Issuer: testIssuer, Audiences: []string{testAudience}, Algorithms: []string{"ES256"}, Keys: keys,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	hasher, err := authz.NewSubjectHasher([]byte(strings.Repeat("s", 32)))
	if err != nil {
		t.Fatal(err)
	}
	b.x = &authz.Decider{
		Register: b, Tokens: v, Certificates: token.NewThumbprints(64), IDs: authz.NewIDs(), Subjects: hasher,
		Hosts:   map[string]registry.Environment{"localhost": registry.PROD, "evte.localhost": registry.EVTE},
		Now:     func() time.Time { return b.now },
		Elapsed: func() time.Duration { return b.elapsed },
	}
	return b
}

// viewOf builds a View of records as a mirror would.
func viewOf(t testing.TB, records []any, now time.Time) *registry.View {
	t.Helper()
	seal, err := registry.NewSealer([]byte(strings.Repeat("r", 32)))
	if err != nil {
		t.Fatal(err)
	}
	build := registry.NewBuilder(nil, registry.At(now))
	for _, r := range records {
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		rec := registry.Record{Data: data}
		switch x := r.(type) {
		case registry.Entity:
			rec.Kind, rec.ID = registry.KindEntity, x.ABN.String()
		case registry.Product:
			rec.Kind, rec.ID = registry.KindProduct, x.ID
		case registry.ClientApp:
			rec.Kind, rec.ID = registry.KindClientApp, x.ClientID
		case registry.Credential:
			rec.Kind, rec.ID = registry.KindCredential, x.Thumbprint
		case registry.Subscription:
			rec.Kind, rec.ID = registry.KindSubscription, x.SSID
		case registry.Service:
			rec.Kind, rec.ID = registry.KindService, x.Key
		case registry.Suspension:
			rec.Kind, rec.ID = registry.KindSuspension, x.ID
		case registry.Denial:
			rec.Kind, rec.ID = registry.KindDenial, x.ID
		case registry.Notice:
			rec.Kind, rec.ID = registry.KindNotice, x.ID
		case registry.Limit:
			rec.Kind, rec.ID = registry.KindLimit, x.ID
		case registry.Protected:
			rec.Kind, rec.ID = registry.KindProtected, x.ID
		case registry.Screen:
			rec.Kind, rec.ID = registry.KindScreen, x.ID
		default:
			t.Fatalf("no kind for %T", r)
		}
		seal.Seal(&rec, 1)
		if err := build.Put(&rec); err != nil {
			t.Fatal(err)
		}
	}
	v, err := build.View(1, 1)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// call is one request to decide, with the defaults of an ordinary good one.
type call struct {
	client, abn, ssid, clientABN string
	method, path, host           string
	claims                       map[string]any
	edit                         func(*authz.Request)
}

func (b *bench) request(c call) *authz.Request {
	b.t.Helper()
	claims := map[string]any{
		"iss": testIssuer, "aud": testAudience, "sub": c.client, "client_id": c.client, "jti": "j",
		"iat": b.now.Unix(), "exp": b.now.Add(5 * time.Minute).Unix(),
	}
	for k, v := range map[string]string{"abn": c.abn, "software_id": c.ssid, "client_abn": c.clientABN} {
		if v != "" {
			claims[k] = v
		}
	}
	for k, v := range c.claims {
		claims[k] = v
	}
	raw, err := b.signer.Sign(nil, claims)
	if err != nil {
		b.t.Fatal(err)
	}
	r := &authz.Request{
		Method: "GET", Target: "/lodgments/v1/receipts/R-1", Host: "localhost", Scheme: "http",
		Authorization: "Bearer " + raw, Authorizations: 1, Peer: "127.0.0.1",
	}
	if c.method != "" {
		r.Method = c.method
	}
	if c.path != "" {
		r.Target = c.path
	}
	if c.host != "" {
		r.Host = c.host
	}
	if c.edit != nil {
		c.edit(r)
	}
	return r
}

func (b *bench) decide(c call) authz.Decision {
	b.t.Helper()
	var d authz.Decision
	b.x.Decide(b.request(c), &d)
	return d
}

const (
	wattlebird, kookaburra, tinkerbird, mallee, currawong = "65000000101", "31000000202", "94000000808", "18000000505", "35000001111"
	galah, banksia, lyrebird, ironbark, possum            = "69000001010", "52000000404", "60000000909", "86000000303", "56000001313"
)

func version(v string) func(*authz.Request) {
	return func(r *authz.Request) { r.ClaimProductVersion = v }
}

// TestEveryReasonOverTheSampleRegister walks the register of the domain model:
// each row is one call and the one code it must get.
func TestEveryReasonOverTheSampleRegister(t *testing.T) {
	const submit = "/lodgments/v1/activity-statements"
	for name, c := range map[string]struct {
		call
		want authz.Reason
	}{
		"whitelisted":                      {call{client: "fp-1003-prod", abn: kookaburra}, authz.OK},
		"whitelisted, for its client":      {call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: possum}, authz.OK},
		"the host of the chain holds":      {call{client: "fp-1001-prod", abn: "73000000606"}, authz.OK},
		"in the test environment":          {call{client: "fp-1005-evte", abn: lyrebird, host: "evte.localhost"}, authz.OK},
		"no token":                         {call{edit: func(r *authz.Request) { r.Authorization, r.Authorizations = "", 0 }}, authz.TokenMissing},
		"no bearer":                        {call{edit: func(r *authz.Request) { r.Authorization = "Basic Zm9v" }}, authz.TokenMissing},
		"no token beats no route":          {call{path: "/none", edit: func(r *authz.Request) { r.Authorization, r.Authorizations = "", 0 }}, authz.TokenMissing},
		"garbage":                          {call{edit: func(r *authz.Request) { r.Authorization = "Bearer x.y.z" }}, authz.TokenMalformed},
		"two tokens":                       {call{client: "fp-1003-prod", abn: kookaburra, edit: func(r *authz.Request) { r.Authorizations = 2 }}, authz.RequestAmbiguous},
		"a claim twice":                    {call{client: "fp-1003-prod", abn: kookaburra, edit: func(r *authz.Request) { r.Duplicated = true }}, authz.RequestAmbiguous},
		"percent-encoded":                  {call{client: "fp-1003-prod", abn: kookaburra, path: "/lodgments/v1/receipts/%41"}, authz.RequestAmbiguous},
		"path parameter":                   {call{client: "fp-1003-prod", abn: kookaburra, path: "/lodgments/v1/receipts/R;x=1"}, authz.RequestAmbiguous},
		"unknown host":                     {call{client: "fp-1003-prod", abn: kookaburra, host: "evil.example"}, authz.RequestAmbiguous},
		"expired":                          {call{client: "fp-1003-prod", abn: kookaburra, claims: map[string]any{"exp": 1700000000, "iat": 1699999000}}, authz.TokenExpired},
		"other audience":                   {call{client: "fp-1003-prod", abn: kookaburra, claims: map[string]any{"aud": "x"}}, authz.TokenAudienceMismatch},
		"other issuer":                     {call{client: "fp-1003-prod", abn: kookaburra, claims: map[string]any{"iss": "x"}}, authz.TokenIssuerUnknown},
		"bound, no certificate":            {call{client: "fp-1003-prod", abn: kookaburra, claims: map[string]any{"cnf": map[string]any{"x5t#S256": strings.Repeat("A", 43)}}}, authz.TokenBindingMismatch},
		"unknown client":                   {call{client: "fp-1007-prod", abn: "39000000707"}, authz.ClientUnknown},
		"holder outside the chain":         {call{client: "fp-1003-prod", abn: galah}, authz.ProductMismatch},
		"no holder":                        {call{client: "fp-1003-prod"}, authz.ProductMismatch},
		"stolen product ID":                {call{client: "fp-1009-prod", abn: galah, edit: func(r *authz.Request) { r.ClaimProductID = "FP-1003" }}, authz.ProductMismatch},
		"right product ID":                 {call{client: "fp-1003-prod", abn: kookaburra, edit: func(r *authz.Request) { r.ClaimProductID = "FP-1003" }}, authz.OK},
		"SSID claimed, not in the token":   {call{client: "fp-1003-prod", abn: kookaburra, edit: func(r *authz.Request) { r.ClaimSoftwareID = "0000300001" }}, authz.ProductMismatch},
		"SSID of another product":          {call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000123400"}, authz.ProductMismatch},
		"SSID nobody has":                  {call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000999999"}, authz.SubscriptionNotNominated},
		"SSID of another client":           {call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: mallee}, authz.SubscriptionNotNominated},
		"client that did not nominate":     {call{client: "fp-1003-prod", abn: kookaburra, clientABN: mallee}, authz.SubscriptionNotNominated},
		"desktop needs no nomination":      {call{client: "fp-1002-prod", abn: ironbark, clientABN: mallee}, authz.OK},
		"in-house for itself":              {call{client: "fp-1006-prod", abn: mallee, clientABN: mallee, method: "POST", path: "/lodgments/v1/payroll-events"}, authz.OK},
		"in-house for another":             {call{client: "fp-1006-prod", abn: mallee, clientABN: possum, method: "POST", path: "/lodgments/v1/payroll-events"}, authz.SubscriptionNotNominated},
		"no such route":                    {call{client: "fp-1003-prod", abn: kookaburra, path: "/none"}, authz.ServiceUnknown},
		"no such method":                   {call{client: "fp-1003-prod", abn: kookaburra, method: "DELETE"}, authz.ServiceUnknown},
		"entity suspended":                 {call{client: "fp-1010-prod", abn: currawong, method: "POST", path: "/lodgments/v1/payroll-events"}, authz.EntitySuspended},
		"entity suspended, receipts":       {call{client: "fp-1010-prod", abn: currawong}, authz.OK},
		"self-certified in production":     {call{client: "fp-1005-evte", abn: lyrebird}, authz.ProductNotWhitelisted},
		"certificate expired":              {call{client: "fp-1011-prod", abn: wattlebird, method: "POST", path: submit}, authz.CertificationExpired},
		"delisted":                         {call{client: "fp-1012-prod", abn: galah}, authz.ProductDelisted},
		"version never registered":         {call{client: "fp-1009-prod", abn: galah, edit: version("4.10")}, authz.VersionNotRegistered},
		"version out of support":           {call{client: "fp-1009-prod", abn: galah, edit: version("4.1")}, authz.VersionUnsupported},
		"version blocked":                  {call{client: "fp-1009-prod", abn: galah, edit: version("4.0")}, authz.VersionBlocked},
		"version good":                     {call{client: "fp-1009-prod", abn: galah, edit: version("4.2")}, authz.OK},
		"version unsaid, one is blocked":   {call{client: "fp-1009-prod", abn: galah}, authz.VersionBlocked},
		"test app in production":           {call{client: "fp-1003-evte", abn: kookaburra}, authz.EnvironmentMismatch},
		"production app in test":           {call{client: "fp-1003-prod", abn: kookaburra, host: "evte.localhost"}, authz.EnvironmentMismatch},
		"not entitled":                     {call{client: "fp-1002-prod", abn: ironbark, path: "/agents/v1/clients"}, authz.ServiceNotEntitled},
		"verification testing, named":      {call{client: "fp-1008-prod", abn: tinkerbird, ssid: "0000800001", clientABN: possum, method: "POST", path: submit}, authz.OK},
		"verification testing, not named":  {call{client: "fp-1008-prod", abn: tinkerbird, clientABN: mallee, method: "POST", path: submit}, authz.PVTClientNotNamed},
		"verification testing, for itself": {call{client: "fp-1008-prod", abn: tinkerbird, method: "POST", path: submit}, authz.PVTClientNotNamed},
		"body without the subject's JSON":  {call{client: "fp-1004-prod", abn: banksia, method: "POST", path: "/super/v1/member-verifications", edit: func(r *authz.Request) { r.Body = []byte("tfn=1") }}, authz.RequestAmbiguous},
		"body cut short":                   {call{client: "fp-1004-prod", abn: banksia, method: "POST", path: "/super/v1/member-verifications", edit: func(r *authz.Request) { r.BodyTruncated = true }}, authz.RequestAmbiguous},
		"body with the subject":            {call{client: "fp-1004-prod", abn: banksia, method: "POST", path: "/super/v1/member-verifications", edit: func(r *authz.Request) { r.Body = []byte(`{"tfn":"220115957"}`) }}, authz.OK},
		"host in capitals, port and dot":   {call{client: "fp-1003-prod", abn: kookaburra, host: "LocalHost.:10000"}, authz.OK},
		"query with a path in it":          {call{client: "fp-1003-prod", abn: kookaburra, path: "/lodgments/v1/receipts/R-1?y=/../admin"}, authz.OK},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			d := b.decide(c.call)
			if d.Reason != c.want {
				t.Fatalf("decided %s, want %s", d.Reason, c.want)
			}
			if d.Allowed() != (c.want == authz.OK) || d.ID.IsZero() || d.Revision != 1 {
				t.Errorf("decision not whole: %+v", d)
			}
		})
	}
}

// TestSuspensionOfEverySubjectStopsTheCall: each kind of subject, an ordinary
// and an emergency suspension, on a service that is available while suspended
// and on one that is not.
func TestSuspensionOfEverySubjectStopsTheCall(t *testing.T) {
	submit := call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: possum, method: "POST", path: "/lodgments/v1/activity-statements"}
	receipts := submit
	receipts.method, receipts.path = "GET", "/lodgments/v1/receipts/R-1"
	for name, c := range map[string]struct {
		kind              registry.Kind
		id                string
		want, wantReceipt authz.Reason
	}{
		"entity":       {registry.KindEntity, kookaburra, authz.EntitySuspended, authz.OK},
		"product":      {registry.KindProduct, "FP-1003", authz.ProductSuspended, authz.OK},
		"version":      {registry.KindVersion, "FP-1003@7.1", authz.VersionBlocked, authz.OK},
		"client app":   {registry.KindClientApp, "fp-1003-prod", authz.CredentialBlocked, authz.CredentialBlocked},
		"subscription": {registry.KindSubscription, "0000300001", authz.SubscriptionBlocked, authz.OK},
	} {
		for _, emergency := range []bool{false, true} {
			b := newBench(t, func(r []any) []any {
				return append(r, registry.Suspension{ID: "SU-9", Subject: registry.SubjectRef{Kind: c.kind, ID: c.id}, Reason: "test", Emergency: emergency, Starts: 1})
			})
			wantReceipt := c.wantReceipt
			if emergency {
				wantReceipt = c.want
			}
			for what, x := range map[string]struct {
				call
				want authz.Reason
			}{"submit": {submit, c.want}, "receipts": {receipts, wantReceipt}} {
				d := b.decide(x.call)
				if d.Reason != x.want {
					t.Errorf("%s, emergency %v, %s: decided %s, want %s", name, emergency, what, d.Reason, x.want)
				}
				if d.Suspension == nil || d.Suspension.ID != "SU-9" {
					t.Errorf("%s, emergency %v, %s: the decision does not name the suspension", name, emergency, what)
				}
			}
		}
	}
}

func TestSuspensionEndsAtItsInstantAndLiftedAtOnce(t *testing.T) {
	b := newBench(t, func(r []any) []any {
		return append(r,
			registry.Suspension{ID: "SU-8", Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1003"}, Starts: 1, Expires: registry.At(time.Now().Add(time.Hour))},
			registry.Suspension{ID: "SU-9", Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1002"}, Starts: 1, LiftedAt: 2})
	})
	submit := call{client: "fp-1003-prod", abn: kookaburra, method: "POST", path: "/lodgments/v1/activity-statements"}
	if d := b.decide(submit); d.Reason != authz.ProductSuspended {
		t.Errorf("decided %s before the expiry", d.Reason)
	}
	b.now = b.now.Add(time.Hour + time.Second)
	if d := b.decide(submit); d.Reason != authz.OK {
		t.Errorf("decided %s after the expiry, and no job had to run", d.Reason)
	}
	if d := b.decide(call{client: "fp-1002-prod", abn: ironbark}); d.Reason != authz.OK {
		t.Errorf("decided %s although lifted", d.Reason)
	}
}

func TestAutomaticSuspensionSaysSo(t *testing.T) {
	b := newBench(t, func(r []any) []any {
		return append(r, registry.Suspension{ID: "SU-9", Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1003"}, Automatic: true, Starts: 1})
	})
	d := b.decide(call{client: "fp-1003-prod", abn: kookaburra, method: "POST", path: "/lodgments/v1/activity-statements"})
	if d.Reason != authz.AnomalySuspended {
		t.Errorf("decided %s", d.Reason)
	}
}

func TestDeniedKeyAndToken(t *testing.T) {
	for what, val := range map[string]string{"kid": "k1", "jti": "j"} {
		b := newBench(t, func(r []any) []any {
			return append(r, registry.Denial{ID: registry.DenialID(what, testIssuer, val), What: what, Issuer: testIssuer, Value: val})
		})
		if d := b.decide(call{client: "fp-1003-prod", abn: kookaburra}); d.Reason != authz.TokenRevoked {
			t.Errorf("denied %s: decided %s", what, d.Reason)
		}
	}
}

// TestLeasesByRisk: the dangerous services stop first.
func TestLeasesByRisk(t *testing.T) {
	b := newBench(t, nil)
	low := call{client: "fp-1003-prod", abn: kookaburra}
	high := call{client: "fp-1003-prod", abn: kookaburra, path: "/agents/v1/clients"}
	expect := func(what string, c call, want authz.Reason) {
		t.Helper()
		d := b.decide(c)
		if d.Reason != want {
			t.Errorf("%s: decided %s, want %s", what, d.Reason, want)
		}
		if want == authz.RegisterStale && d.RetryAfter == 0 {
			t.Errorf("%s: no Retry-After", what)
		}
	}
	expect("rating 1, fresh", low, authz.OK)
	expect("rating 3, fresh", high, authz.OK)
	b.elapsed += 2 * time.Second
	expect("rating 1, short lease over", low, authz.OK)
	expect("rating 3, short lease over", high, authz.RegisterStale)
	b.elapsed += time.Minute
	expect("rating 1, long lease over", low, authz.RegisterStale)
	b.served = nil
	expect("not loaded", low, authz.RegisterNotLoaded)
}

func TestAllowPathDoesNotAllocate(t *testing.T) {
	b := newBench(t, nil)
	for name, c := range map[string]call{
		"plain":           {client: "fp-1003-prod", abn: kookaburra},
		"for a client":    {client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: possum},
		"subject in path": {client: "fp-1003-prod", abn: kookaburra, path: "/individuals/v1/220115957/prefill"},
		"with version":    {client: "fp-1009-prod", abn: galah, edit: version("4.2")},
	} {
		r := b.request(c)
		var d authz.Decision
		if b.x.Decide(r, &d); !d.Allowed() {
			t.Errorf("%s: %s", name, d.Reason)
		}
		if n := testing.AllocsPerRun(200, func() { b.x.Decide(r, &d) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func BenchmarkDecideAllow(b *testing.B) {
	x := newBench(b, nil)
	r := x.request(call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: possum})
	x.x.Now, x.x.Elapsed = time.Now, registry.BootTime
	x.served.ShortUntil, x.served.LongUntil = 1<<62, 1<<62
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		var d authz.Decision
		for pb.Next() {
			if x.x.Decide(r, &d); !d.Allowed() {
				b.Fatal(d.Reason)
			}
		}
	})
}
