package authz_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/sample"
)

// stream is a call of a streaming service that is allowed.
func stream() call {
	return call{client: "fp-1003-prod", abn: kookaburra, ssid: "0000300001", clientABN: possum, path: "/events/v1/notices", edit: version("7.1")}
}

func granted(t testing.TB, b *bench, c call) *authz.Grant {
	t.Helper()
	d := b.decide(c)
	if !d.Allowed() || d.Grant == nil {
		t.Fatalf("decided %s, grant %v", d.Reason, d.Grant)
	}
	return d.Grant
}

func TestOnlyAdmittedStreamsHaveAGrant(t *testing.T) {
	b := newBench(t, nil)
	g := granted(t, b, stream())
	want := &authz.Grant{
		ID: g.ID, ClientID: "fp-1003-prod", Product: "FP-1003", Service: "events.stream", Version: "7.1", SSID: "0000300001",
		Holder: sample.Kookaburra, ClientABN: sample.Possum, Environment: registry.PROD,
		Issuer: testIssuer, KID: "k1", JTI: "j", Expires: registry.At(b.now.Add(5 * time.Minute).Truncate(time.Second)),
	}
	if diff := cmp.Diff(want, g); diff != "" || g.ID.IsZero() {
		t.Errorf("the grant (-want +got):\n%s", diff)
	}
	if d := b.decide(call{client: "fp-1003-prod", abn: kookaburra}); d.Grant != nil {
		t.Error("an ordinary call has a grant")
	}
	refused := stream()
	refused.abn = galah
	if d := b.decide(refused); d.Allowed() || d.Grant != nil {
		t.Errorf("refused with %s and a grant %v", d.Reason, d.Grant)
	}
}

// room is a StreamRoom that is full for some products.
type room map[string]bool

func (r room) Room(product string) bool { return !r[product] }

func TestNoRoomForAStreamIsRateLimited(t *testing.T) {
	b := newBench(t, nil)
	b.x.Streams = room{"FP-1003": true}
	if d := b.decide(stream()); d.Reason != authz.RateLimited || d.RetryAfter <= 0 || d.Grant != nil {
		t.Errorf("no room: %s, retry after %v", d.Reason, d.RetryAfter)
	}
	if d := b.decide(call{client: "fp-1003-prod", abn: kookaburra}); !d.Allowed() {
		t.Errorf("an ordinary call of that product: %s", d.Reason)
	}
	granted(t, b, call{client: "fp-1001-prod", abn: wattlebird, path: "/events/v1/notices"})
}

// TestAGrantStandsAsLongAsItWouldBeGiven: whatever changes in the register so
// that the call would be refused now, the grant does not stand, for the same
// reason.
func TestAGrantStandsAsLongAsItWouldBeGiven(t *testing.T) {
	suspend := func(kind registry.Kind, id string) func(*bench) {
		return func(b *bench) {
			b.records = append(b.records, registry.Suspension{ID: "SU-9", Subject: registry.SubjectRef{Kind: kind, ID: id}, Reason: "test", Starts: 1})
		}
	}
	deny := func(what, value string) func(*bench) {
		return func(b *bench) {
			b.records = append(b.records, registry.Denial{ID: registry.DenialID(what, testIssuer, value), What: what, Issuer: testIssuer, Value: value})
		}
	}
	product := func(f func(*registry.Product)) func(*bench) {
		return func(b *bench) {
			for i, r := range b.records {
				if p, ok := r.(registry.Product); ok && p.ID == "FP-1003" {
					f(&p)
					b.records[i] = p
				}
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*bench)
		want   authz.Reason
	}{
		"nothing":                   {func(*bench) {}, authz.OK},
		"another product suspended": {suspend(registry.KindProduct, "FP-1001"), authz.OK},
		"entity":                    {suspend(registry.KindEntity, kookaburra), authz.EntitySuspended},
		"product":                   {suspend(registry.KindProduct, "FP-1003"), authz.ProductSuspended},
		"version":                   {suspend(registry.KindVersion, "FP-1003@7.1"), authz.VersionBlocked},
		"client app":                {suspend(registry.KindClientApp, "fp-1003-prod"), authz.CredentialBlocked},
		"subscription":              {suspend(registry.KindSubscription, "0000300001"), authz.SubscriptionBlocked},
		"service":                   {suspend(registry.KindService, "events.stream"), authz.ServiceNotEntitled},
		"key":                       {deny("kid", "k1"), authz.TokenRevoked},
		"token":                     {deny("jti", "j"), authz.TokenRevoked},
		"another token":             {deny("jti", "k"), authz.OK},
		"delisted":                  {product(func(p *registry.Product) { p.Certification.State = registry.CertDelisted }), authz.ProductDelisted},
		"restricted below it": {product(func(p *registry.Product) {
			p.Certification.State, p.Certification.MaxRisk = registry.CertRestricted, 1
		}), authz.ProductRestricted},
		"entitlement taken away":    {product(func(p *registry.Product) { p.Entitlements = nil }), authz.ServiceNotEntitled},
		"version withdrawn":         {product(func(p *registry.Product) { p.Versions = nil }), authz.VersionNotRegistered},
		"owner changed":             {product(func(p *registry.Product) { p.Owner = sample.Wattlebird }), authz.ProductMismatch},
		"certification runs out":    {func(b *bench) { b.now = b.now.AddDate(3, 0, 0) }, authz.CertificationExpired},
		"the token alone runs out":  {func(b *bench) { b.now = b.now.Add(time.Hour) }, authz.OK},
		"the lease lapses":          {func(b *bench) { b.elapsed = b.served.LongUntil }, authz.RegisterStale},
		"the register is not there": {func(b *bench) { b.served = nil }, authz.RegisterNotLoaded},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			g := granted(t, b, stream())
			before := b.now
			c.change(b)
			if b.served != nil {
				b.served.View = viewOf(t, b.records, before)
			}
			reason, suspension := b.x.Still(g, b.now)
			if reason != c.want {
				t.Errorf("still %s, want %s", reason, c.want)
			}
			if (suspension != nil) != (len(b.records) > 0 && suspendedBy(b.records) && c.want != authz.OK) {
				t.Errorf("suspension %v", suspension)
			}
			// A call that begins now is told the same, save that its token is new.
			if d := b.decide(stream()); d.Reason != c.want {
				t.Errorf("still %s, but decided %s", reason, d.Reason)
			}
		})
	}
}

func suspendedBy(records []any) bool {
	s, ok := records[len(records)-1].(registry.Suspension)
	return ok && s.ID == "SU-9"
}

func TestSupportEndsStreamsAtItsInstant(t *testing.T) {
	b := newBench(t, nil)
	end := b.now.Add(time.Minute)
	for i, r := range b.records {
		if p, ok := r.(registry.Product); ok && p.ID == "FP-1003" {
			p.Versions = []registry.Version{{Version: "7.1", SupportUntil: registry.At(end)}}
			b.records[i] = p
		}
	}
	b.served.View = viewOf(t, b.records, b.now)
	g := granted(t, b, stream())
	if reason, _ := b.x.Still(g, end.Add(-time.Millisecond)); reason != authz.OK {
		t.Errorf("a millisecond before: %s", reason)
	}
	if reason, _ := b.x.Still(g, end.Add(time.Millisecond)); reason != authz.VersionUnsupported {
		t.Errorf("a millisecond after: %s", reason)
	}
}

func TestGrantSurvivesItsText(t *testing.T) {
	b := newBench(t, nil)
	for _, g := range []*authz.Grant{
		granted(t, b, stream()),
		granted(t, b, call{client: "fp-1001-prod", abn: wattlebird, path: "/events/v1/notices"}),
		{ID: authz.NewIDs().Next(b.now), ClientID: `a"b\c`, Product: "p", Service: "s", Issuer: "é<&>", KID: "\u2028", JTI: strings.Repeat("~", 256), Environment: registry.EVTE},
	} {
		got, err := authz.ParseGrant(g.String())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(g, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestWhatIsNoGrantIsRefused(t *testing.T) {
	b := newBench(t, nil)
	good := granted(t, b, stream()).String()
	for name, text := range map[string]string{
		"nothing":         "",
		"null":            "null",
		"empty":           "{}",
		"cut short":       good[:len(good)-1],
		"two":             good + good,
		"more after it":   good + " ",
		"unknown member":  `{"z":1,` + good[1:],
		"short ID":        strings.Replace(good, `{"d":"`, `{"d":"X","d":"`, 1)[:10] + `"}`,
		"no product":      strings.Replace(good, `"p":"FP-1003"`, `"p":""`, 1),
		"no issuer":       strings.Replace(good, testIssuer, "", 1),
		"odd environment": strings.Replace(good, `"PROD"`, `"prod"`, 1),
		"too long":        `{"j":"` + strings.Repeat("x", 5000) + `",` + good[1:],
	} {
		if g, err := authz.ParseGrant(text); !errors.Is(err, authz.ErrGrant) {
			t.Errorf("%s: %v, %v", name, g, err)
		}
	}
}

func FuzzParseGrant(f *testing.F) {
	f.Add(`{"d":"01HZZZZZZZ0000000000000001","c":"a","p":"FP-1","s":"x","e":"PROD","i":"https://i","x":1}`)
	f.Fuzz(func(t *testing.T, text string) {
		g, err := authz.ParseGrant(text)
		if err != nil {
			return
		}
		again, err := authz.ParseGrant(g.String())
		if err != nil || *again != *g {
			t.Errorf("%q became %+v and then %+v (%v)", text, g, again, err)
		}
	})
}

// BenchmarkStill is one question of those that are asked of every open stream,
// with the register of a hundred suspensions.
func BenchmarkStill(b *testing.B) {
	x := newBench(b, func(r []any) []any {
		for i := range 100 {
			r = append(r, registry.Suspension{ID: fmt.Sprint("SU-", i), Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: fmt.Sprint("FP-X", i)}, Starts: 1})
		}
		return r
	})
	g := granted(b, x, stream())
	x.x.Elapsed = registry.NewBootClock()
	x.served.ShortUntil, x.served.LongUntil = 1<<62, 1<<62
	b.ReportAllocs()
	for b.Loop() {
		if reason, _ := x.x.Still(g, x.now); reason != authz.OK {
			b.Fatal(reason)
		}
	}
}
