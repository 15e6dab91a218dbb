package registry

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func genTime(t *rapid.T) Time {
	return Time(rapid.OneOf(rapid.Just(int64(0)), rapid.Int64Range(0, 253402300799999)).Draw(t, "time")) // to year 9999
}

func genProduct(t *rapid.T) Product {
	text := rapid.OneOf(rapid.StringMatching(`[ -~]{0,20}`), rapid.String())
	abns := func(what string) []ABN {
		var list []ABN
		for range rapid.IntRange(0, 3).Draw(t, what) {
			list = append(list, genABN(t))
		}
		return list
	}
	p := Product{
		ID: text.Draw(t, "id"), Name: text.Draw(t, "name"), Owner: genABN(t), Chain: abns("chain"),
		Certification: Certification{
			ValidFrom: genTime(t), ValidUntil: genTime(t), State: CertState(rapid.IntRange(0, int(CertDelisted)).Draw(t, "state")),
			MaxRisk: Risk(rapid.IntRange(0, 4).Draw(t, "risk")),
		},
		Category: Category(rapid.SampledFrom([]string{"", "A", "E"}).Draw(t, "category")), Scenario: rapid.Uint8().Draw(t, "scenario"),
		OwnABNOnly: rapid.Bool().Draw(t, "own"), WarnBuilds: rapid.Bool().Draw(t, "builds"), Updated: genTime(t), Tier: text.Draw(t, "tier"),
	}
	for range rapid.IntRange(0, 20).Draw(t, "versions") {
		p.Versions = append(p.Versions, Version{
			Version: text.Draw(t, "version"), Released: genTime(t), SupportUntil: genTime(t),
			State: VersionState(rapid.IntRange(0, 1).Draw(t, "vstate")), SecurityRelevant: rapid.Bool().Draw(t, "security"),
		})
	}
	for range rapid.IntRange(0, 20).Draw(t, "entitlements") {
		p.Entitlements = append(p.Entitlements, Entitlement{
			Service: text.Draw(t, "service"), NamedClients: abns("named"), From: genTime(t), Until: genTime(t),
			Environment: Environment(rapid.IntRange(0, 3).Draw(t, "env")), Stage: Stage(rapid.IntRange(0, 2).Draw(t, "stage")),
		})
	}
	return p
}

// TestWhatWasWrittenReadsBack: through the whole decoder, the same as encoding/json has it.
func TestWhatWasWrittenReadsBack(t *testing.T) {
	d := &decoder{} // kept, so that lists are shared among the products drawn
	rapid.Check(t, func(t *rapid.T) {
		p := genProduct(t)
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		sameProduct(t, d, data)
		app, err := json.Marshal(ClientApp{
			ClientID: p.ID, ProductID: p.Name, Environment: PROD, Disabled: p.OwnABNOnly, Updated: p.Updated,
		})
		if err != nil {
			t.Fatal(err)
		}
		sameApp(t, d, app)
		stop, err := json.Marshal(genSuspension(t))
		if err != nil {
			t.Fatal(err)
		}
		sameSuspension(t, d, stop)
	})
}

func genSuspension(t *rapid.T) Suspension {
	text := func(what string) string {
		return rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[ -~]{0,20}`), rapid.String()).Draw(t, what)
	}
	return Suspension{
		ID: text("id"), Subject: SubjectRef{Kind: Kind(rapid.IntRange(0, len(kindWords)-1).Draw(t, "kind")), ID: text("subject")},
		Reason: text("reason"), Emergency: rapid.Bool().Draw(t, "emergency"), Automatic: rapid.Bool().Draw(t, "automatic"),
		ImposedBy: text("by"), ImposedAt: genTime(t), ConfirmedBy: text("confirmed"), Starts: genTime(t), Expires: genTime(t),
		LiftedAt: genTime(t), LiftedBy: text("lifted by"), LiftReason: text("lift reason"), NoticeID: text("notice"),
		IncidentID: text("incident"), Revision: Revision(rapid.Uint64().Draw(t, "revision")),
		Rate: rapid.Int64().Draw(t, "rate"), MaxRisk: Risk(rapid.Byte().Draw(t, "max risk")), Effect: Effect(rapid.IntRange(0, len(effectWords)-1).Draw(t, "effect")),
	}
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// sameProduct checks that the scanner, where it accepts, reads what encoding/json reads.
func sameProduct(t failer, d *decoder, data []byte) (fast bool) {
	t.Helper()
	var got, want Product
	if !d.product(data, &got) {
		return false
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("read %q, which encoding/json refuses: %v", data, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("%q (-encoding/json +scanner):\n%s", data, diff)
	}
	return true
}

func sameApp(t failer, d *decoder, data []byte) (fast bool) {
	t.Helper()
	var got, want ClientApp
	if !d.clientApp(data, &got) {
		return false
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("read %q, which encoding/json refuses: %v", data, err)
	}
	if got != want {
		t.Fatalf("%q: encoding/json has %+v, the scanner %+v", data, want, got)
	}
	return true
}

func sameSuspension(t failer, d *decoder, data []byte) (fast bool) {
	t.Helper()
	var got, want Suspension
	if !d.suspension(data, &got) {
		return false
	}
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatalf("read %q, which encoding/json refuses: %v", data, err)
	}
	if got != want {
		t.Fatalf("%q: encoding/json has %+v, the scanner %+v", data, want, got)
	}
	return true
}

// decodeSeeds are what the scanner reads, and what is near to it.
func decodeSeeds(t testing.TB) (seeds []string) {
	t.Helper()
	p := benchProduct(1)
	p.Chain, p.OwnABNOnly, p.Certification.MaxRisk = []ABN{73000000606}, true, 2
	p.Entitlements[0].NamedClients = []ABN{56000001313}
	p.Entitlements[0].Until = p.Updated
	for _, v := range []any{p, ClientApp{ClientID: "a", ProductID: "b", Environment: EVTE, Disabled: true, Updated: p.Updated}, wholeSuspension()} {
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		s := string(data)
		seeds = append(seeds, s, strings.ToUpper(s), s[:len(s)-1], s+" ", s+s, strings.Replace(s, ":", ": ", 1),
			strings.Replace(s, "PROD", "prod", 1), strings.Replace(s, "2026-01-02", "2026-02-30", 1), strings.Replace(s, "Product", "Prod\\u0075ct", 1),
			strings.Replace(s, "{", `{"id":"x","id":"y",`, 1), strings.Replace(s, "65000000101", "65000000102", 1), strings.Replace(s, "true", "null", 1),
			strings.Replace(s, "Product", "Prod\xffuct", 1), strings.Replace(s, "\"scenario\":2", "\"scenario\":256", 1), strings.Replace(s, "\"scenario\":2", "\"scenario\":02", 1))
	}
	// encoding/json lets the second member of a name add to the first.
	seeds = append(seeds, `{"certification":{"max_risk":2},"certification":{"state":"PVT"},"certification":{"max_risk":3}}`,
		`{"versions":[{"version":"1","security_relevant":true}],"versions":[{"version":"2"}]}`)
	return append(seeds, `{}`, `{"versions":[]}`, `{"chain":[]}`, `{"certification":{}}`, `{"versions":[{}]}`, `null`, `[]`, ``, `{,}`, `{"id":"a",}`)
}

func FuzzDecode(f *testing.F) {
	for _, s := range decodeSeeds(f) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sameProduct(t, &decoder{}, data)
		sameApp(t, &decoder{}, data)
		sameSuspension(t, &decoder{}, data)
	})
}

// TestTheScannerReadsWhatWeWrite: it may leave odd input to encoding/json, but
// not ours, or a load would take five times as long.
func TestTheScannerReadsWhatWeWrite(t *testing.T) {
	if product := decodeSeeds(t)[0]; !sameProduct(t, &decoder{}, []byte(product)) {
		t.Errorf("product left to encoding/json: %s", product)
	}
	data := []byte(`{"client_id":"a","product_id":"b","updated_at":"2026-01-02T00:00:00.000Z","environment":"EVTE","disabled":true}`)
	if !sameApp(t, &decoder{}, data) {
		t.Errorf("client app left to encoding/json: %s", data)
	}
	data, err := json.Marshal(wholeSuspension())
	if err != nil {
		t.Fatal(err)
	}
	if !sameSuspension(t, &decoder{}, data) {
		t.Errorf("suspension left to encoding/json: %s", data)
	}
}

// wholeSuspension has every field set.
func wholeSuspension() Suspension {
	return Suspension{
		ID: "SU-7", Subject: SubjectRef{KindProduct, "FP-1003"}, Reason: "credential found on a paste site – in full", Emergency: true, Automatic: true,
		ImposedBy: "first@agency.example", ImposedAt: 1_767_312_000_000, ConfirmedBy: "second@agency.example", Starts: 1_767_312_000_000,
		Expires: 1_767_326_400_001, LiftedAt: 1_767_312_000_002, LiftedBy: "third@agency.example", LiftReason: "clean", NoticeID: "NO-1",
		IncidentID: "IN-1", Revision: 7,
	}
}

func TestScannedTimesAreThoseOfPackageTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Time(rapid.Int64Range(1, 253402300799999).Draw(t, "time"))
		s := scanner{b: []byte(`"` + want.String() + `"`)}
		if got := s.time(); !s.end() || got != want {
			t.Fatalf("%s reads as %s", want, got)
		}
	})
	for _, s := range []string{"2026-02-29T00:00:00.000Z", "2100-02-29T00:00:00.000Z", "2026-13-01T00:00:00.000Z", "2026-01-01T24:00:00.000Z", "2026-01-01T00:00:60.000Z", "1969-12-31T00:00:00.000Z", "2026-00-01T00:00:00.000Z", "2026-01-00T00:00:00.000Z"} {
		x := scanner{b: []byte(`"` + s + `"`)}
		if x.time(); x.end() {
			t.Errorf("%s read", s)
		}
	}
}

func TestSharedListsAreNotGrownInPlace(t *testing.T) {
	d := &decoder{}
	data, err := json.Marshal(benchProduct(1))
	if err != nil {
		t.Fatal(err)
	}
	var a, b Product
	if !d.product(data, &a) || !d.product(data, &b) {
		t.Fatal("left to encoding/json")
	}
	if &a.Entitlements[0] != &b.Entitlements[0] || cap(a.Entitlements) != len(a.Entitlements) || cap(a.Versions) != len(a.Versions) {
		t.Error("equal lists are not shared, or have room to grow into each other")
	}
}
