package replay_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/authz/replay"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
	"github.com/dspgate/dspgate/registry/sample"
)

var began = time.Date(2026, 8, 2, 23, 0, 0, 0, time.UTC)

func newReplay(t *testing.T, more []any, policies ...policy.Active) *replay.Replay {
	t.Helper()
	now := time.Now()
	r, err := replay.New(replay.Config{View: registrytest.View(t, 1, append(sample.Records(now), more...)...), Policies: policies, Zone: time.UTC, At: registry.At(now)})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func call(at time.Time, product, service string) *authz.Recorded {
	return &authz.Recorded{At: at, Reason: authz.OK, Environment: registry.PROD, Service: service, Method: "GET", Product: product, Status: 200, BytesOut: 100}
}

// Calls allowed then meet the register of now; those refused then do too, as far
// as the log holds what they were refused for.
func TestCallsMeetTodaysRegister(t *testing.T) {
	r := newReplay(t, nil)
	r.Add(call(began, "FP-1003", "receipts.get"))
	r.Add(call(began, "FP-1010", "payevnt.0004.submit")) // its entity is suspended
	r.Add(call(began, "FP-1011", "as.0004.submit"))      // its certification has expired
	r.Add(call(began, "FP-1001", "stic.validate"))       // not entitled
	r.Add(call(began, "FP-1001", "no.such.service"))
	r.Add(call(began, "FP-9999", "receipts.get"))
	denied := func(reason authz.Reason, product, service, version string) {
		c := call(began, product, service)
		c.Reason, c.Version = reason, version
		r.Add(c)
	}
	denied(authz.VersionBlocked, "FP-1003", "receipts.get", "7.1")
	denied(authz.VersionBlocked, "FP-1009", "receipts.get", "4.0") // still
	denied(authz.VersionBlocked, "FP-1009", "receipts.get", "")    // of which nobody said
	denied(authz.ProductNotWhitelisted, "FP-1011", "as.0004.submit", "1.0")
	denied(authz.TokenExpired, "", "receipts.get", "")
	out := r.Report()
	var rejudged []string
	for _, x := range out.Refused {
		rejudged = append(rejudged, fmt.Sprintf("%s %s>%s %d", x.Product, x.Then, x.Now, x.Calls))
		if x.Why == "" {
			t.Errorf("%+v does not say why", x)
		}
	}
	if got, want := strings.Join(rejudged, ", "), " token-expired> 1, FP-1003 version-blocked>ok 1, FP-1009 version-blocked> 1, FP-1009 version-blocked>version-blocked 1, FP-1011 product-not-whitelisted>certification-expired 1"; got != want {
		t.Errorf("of those refused then:\n got %s\nwant %s", got, want)
	}
	if got, want := fmt.Sprint(out.Now), "map[certification-expired:1 client-unknown:1 entity-suspended:1 ok:1 service-not-entitled:1 service-unknown:1]"; got != want {
		t.Errorf("now %s, want %s", got, want)
	}
	if f := out.Fields[0]; f.Calls == 0 || f.Missing["product_version"] != f.Calls || f.Missing["method"] != 0 {
		t.Errorf("fields %+v", out.Fields)
	}
	if got, want := fmt.Sprint(out.Then), "map[ok:6 product-not-whitelisted:1 token-expired:1 version-blocked:3]"; got != want || out.Calls != 11 {
		t.Errorf("then %s of %d calls, want %s", got, out.Calls, want)
	}
}

// A limit of today refuses what goes beyond it, by the log's own time.
func TestCallsPayTodaysLimits(t *testing.T) {
	limit := registry.Limit{
		Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1003"}, Name: "second", Kind: registry.LimitRate, Amount: 1, Burst: 1,
	}
	limit.ID = registry.LimitID(limit.Subject, limit.Name)
	r := newReplay(t, []any{limit})
	for i := range 10 { // two a second
		r.Add(call(began.Add(time.Duration(i)*500*time.Millisecond), "FP-1003", "receipts.get"))
	}
	out := r.Report()
	if out.Now["rate-limited"] != 5 || out.Now["ok"] != 5 {
		t.Errorf("%v, want five of each", out.Now)
	}
	if p := out.Products[0]; p.ID != "FP-1003" || p.Limits["product:FP-1003:second"] != 5 {
		t.Errorf("%+v", out.Products)
	}
}

// What was refused by a limit then is held against today's, in its turn: what passes
// now leaves less for those that follow.
func TestCallsRefusedForALimitPayTodaysLimits(t *testing.T) {
	limit := registry.Limit{Subject: registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1003"}, Name: "day", Kind: registry.LimitQuota, Amount: 3, Period: registry.PeriodDay, Zone: "UTC"}
	limit.ID = registry.LimitID(limit.Subject, limit.Name)
	r := newReplay(t, []any{limit})
	for i := range 6 {
		c := call(began.Add(time.Duration(i)*time.Second), "FP-1003", "receipts.get")
		if i < 4 {
			c.Reason = authz.QuotaExhausted
		}
		r.Add(c)
	}
	out := r.Report()
	got := map[string]uint64{}
	for _, x := range out.Refused {
		got[x.Then+">"+x.Now] += x.Calls
	}
	if fmt.Sprint(got) != "map[quota-exhausted>ok:3 quota-exhausted>quota-exhausted:1]" || out.Now["quota-exhausted"] != 2 {
		t.Errorf("%v, and of those allowed then %v", got, out.Now)
	}
}

// Three weeks of a log are a past: strangers by the hundred are an alarm, and
// what a policy would have done is counted by the calls it would have touched.
func TestCallersThatStrayAreTold(t *testing.T) {
	suspend := policy.Active{Policy: "harvest", Version: 3, Shadow: true, Rule: policy.Rule{
		When: policy.Condition{Signals: []string{"harvest"}}, Then: policy.Countermeasure{Do: policy.Suspend, Minutes: 60},
	}}
	r := newReplay(t, nil, suspend)
	at := began
	person := func(n int) (h authz.Hash) {
		h[0], h[1], h[2], h[3], h[15] = byte(n), byte(n>>8), byte(n*7), byte(n*13), 1
		return h
	}
	for minute := range 20 * 24 * 12 { // a call in five minutes
		c := call(at.Add(time.Duration(minute)*5*time.Minute), "FP-1003", "piitr.get")
		c.Subject = person(minute % 40)
		r.Add(c)
	}
	at = at.Add(20 * 24 * time.Hour)
	for i := range 600 {
		c := call(at.Add(time.Duration(i)*time.Second), "FP-1003", "piitr.get")
		c.Subject = person(1000 + i)
		r.Add(c)
	}
	out := r.Report()
	if len(out.Alarms) == 0 || out.Alarms[0].Signal != "harvest" || out.Alarms[0].At.Std().Sub(at) > 2*time.Minute {
		t.Fatalf("alarms %+v", out.Alarms)
	}
	found := false
	for _, a := range out.Policies {
		found = found || a.Policy == "harvest" && a.Version == 3 && a.Shadow && a.Do == policy.Suspend && a.Subject == "product:FP-1003" && a.Calls > 400 && len(a.Reasons) > 0
	}
	if !found {
		t.Errorf("policies %+v", out.Policies)
	}
}
