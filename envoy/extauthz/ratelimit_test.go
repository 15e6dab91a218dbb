package extauthz

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/proto"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

// limited makes a decision that paid n times for limits of every kind: the last
// answer.
func limited(t testing.TB, n int, limits ...registry.Limit) authz.Decision {
	t.Helper()
	var plan authz.Plan
	var spend []*ratelimit.Limit
	of := registry.SubjectRef{Kind: registry.KindProduct, ID: "FP-1003"}
	for i := range limits {
		a := registry.Applied{Limit: &limits[i], Of: of}
		l, ok := authz.LimitOf(a, time.UTC)
		if !ok {
			t.Fatalf("%+v is no limit", limits[i])
		}
		plan.Items, spend = append(plan.Items, authz.NewPlanItem(a)), append(spend, l)
	}
	d := decision(authz.OK)
	d.Plan = &plan
	limiter := ratelimit.Solo()
	for range n {
		q := ratelimit.Query{Elapsed: time.Hour, Now: time.Date(2026, 11, 22, 23, 55, 0, 0, time.UTC), Subject: [16]byte{1}}
		if !limiter.Spend(&q, spend, &d.Spent) {
			d.Reason, d.RetryAfter = authz.RateLimited, d.Spent.RetryAfter
			for i, st := range d.Spent.States() {
				if st.Limit == d.Spent.Refused {
					d.Refused = &plan.Items[i]
				}
			}
		}
	}
	return d
}

var everyKind = []registry.Limit{
	{Name: "day", Kind: registry.LimitQuota, Period: registry.PeriodDay, Amount: 500},
	{Name: "month", Kind: registry.LimitQuota, Period: registry.PeriodMonth, Amount: 9000},
	{Name: "rate", Kind: registry.LimitRate, Amount: 50, Burst: 120},
	{Name: "at-once", Kind: registry.LimitConcurrency, Amount: 40},
	{Name: "people", Kind: registry.LimitClients, Period: registry.PeriodDay, Amount: 200},
	{Name: "trial", Kind: registry.LimitQuota, Period: registry.PeriodDay, Amount: 1, Shadow: true},
}

func answer(t testing.TB, d *authz.Decision, r *authz.Request) (headers map[string]string, body string) {
	t.Helper()
	e, err := newEncoder(Options{})
	if err != nil {
		t.Fatal(err)
	}
	var resp authv3.CheckResponse
	if err := proto.Unmarshal(e.append(nil, r, d), &resp); err != nil {
		t.Fatal(err)
	}
	headers = map[string]string{}
	options := resp.GetOkResponse().GetResponseHeadersToAdd()
	if !d.Allowed() {
		options, body = resp.GetDeniedResponse().GetHeaders(), resp.GetDeniedResponse().GetBody()
	}
	for _, o := range options {
		if _, twice := headers[o.Header.Key]; twice || o.AppendAction != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s: twice, or not in the place of the upstream's", o.Header.Key)
		}
		headers[o.Header.Key] = o.Header.Value
	}
	return headers, body
}

// member is one limit of either header, as a library by others reads it.
type member struct {
	name   string
	params map[string]any
}

func parse(t testing.TB, header string) (list []member) {
	t.Helper()
	l, err := httpsfv.UnmarshalList([]string{header})
	if err != nil {
		t.Fatalf("%q: %v", header, err)
	}
	for _, m := range l {
		item, ok := m.(httpsfv.Item)
		if !ok {
			t.Fatalf("%q holds what is no item", header)
		}
		name, ok := item.Value.(string)
		if !ok {
			t.Fatalf("%q: a name is no String", header)
		}
		params := map[string]any{}
		for _, k := range item.Params.Names() {
			params[k], _ = item.Params.Get(k)
		}
		list = append(list, member{name, params})
	}
	return list
}

func TestEveryLimitIsInBothHeadersTheTightestFirst(t *testing.T) {
	d := limited(t, 3, everyKind...)
	h, _ := answer(t, &d, &authz.Request{})
	const policy = `"at-once";q=40;qu="concurrent-requests", "rate";q=120;w=3, "people";q=200;qu="clients";w=86400, "day";q=500;w=86400, "month";q=9000;w=2678400`
	if h["ratelimit-policy"] != policy {
		t.Errorf("policy\n%s, want\n%s", h["ratelimit-policy"], policy)
	}
	const state = `"at-once";r=37, "rate";r=117;t=1, "people";r=199;t=300, "day";r=497;t=300, "month";r=8997;t=691500`
	if h["ratelimit"] != state {
		t.Errorf("state\n%s, want\n%s", h["ratelimit"], state)
	}
	policies, states := parse(t, h["ratelimit-policy"]), parse(t, h["ratelimit"])
	if len(policies) != 5 || len(states) != 5 {
		t.Fatalf("%d policies and %d states, want 5 of each: shadow limits are not told", len(policies), len(states))
	}
	for i := range policies {
		if policies[i].name != states[i].name {
			t.Errorf("place %d: %s and %s", i, policies[i].name, states[i].name)
		}
		if q, ok := policies[i].params["q"].(int64); !ok || q < 1 {
			t.Errorf("%s: q is %v", policies[i].name, policies[i].params["q"])
		}
		if r, ok := states[i].params["r"].(int64); !ok || r < 0 {
			t.Errorf("%s: r is %v", states[i].name, states[i].params["r"])
		}
	}
}

// TestTheDraftsOwnExamplesReadAlike: with the same reader, so that what it
// accepts of ours it accepts of theirs (draft -10, sections 3 and 4).
func TestTheDraftsOwnExamplesReadAlike(t *testing.T) {
	for _, header := range []string{
		`"burst";q=100;w=60,"daily";q=1000;w=86400`, `"default";q=100;w=10`, `"default";r=50;t=30`,
		`"protected-resource";q=65535;qu="content-bytes";w=10;pk=:sdfjLJUOUH==:`,
	} {
		if header = strings.ReplaceAll(header, ":sdfjLJUOUH==:", ":c2RmamxqdW91aA==:"); len(parse(t, header)) == 0 {
			t.Errorf("%s: nothing read", header)
		}
	}
}

func TestARefusalSaysWhichLimitAndWhenToComeBack(t *testing.T) {
	one := registry.Limit{Name: "slow", Kind: registry.LimitQuota, Period: registry.PeriodDay, Amount: 1}
	d := limited(t, 2, append(everyKind[:5:5], one)...)
	for _, grpc := range []bool{false, true} {
		h, body := answer(t, &d, &authz.Request{GRPC: grpc})
		if h["retry-after"] != "300" {
			t.Errorf("retry-after %q, want 300", h["retry-after"])
		}
		if !strings.HasPrefix(h["ratelimit"], `"slow";r=0;t=300, `) || !strings.HasPrefix(h["ratelimit-policy"], `"slow";q=1;w=86400, `) {
			t.Errorf("the limit that refused is not the first: %s | %s", h["ratelimit"], h["ratelimit-policy"])
		}
		if len(parse(t, h["ratelimit"])) != 6 {
			t.Errorf("not every limit: %s", h["ratelimit"])
		}
		if grpc {
			if h["grpc-status"] != "8" {
				t.Errorf("grpc-status %q, want 8", h["grpc-status"])
			}
			continue
		}
		var problem struct {
			Status                 int
			Title, Limit, Instance string
			Errors                 []struct{ ID, Code string }
		}
		if err := json.Unmarshal([]byte(body), &problem); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if problem.Limit != "slow" || problem.Status != 429 || problem.Instance != "/decisions/"+d.ID.String() || problem.Errors[0].ID != d.ID.String() {
			t.Errorf("body %s", body)
		}
	}
}

func TestWithoutLimitsThereAreNoHeaders(t *testing.T) {
	for _, reason := range []authz.Reason{authz.OK, authz.ProductSuspended, authz.RateLimited} {
		d := decision(reason)
		if h, _ := answer(t, &d, &authz.Request{}); h["ratelimit"] != "" || h["ratelimit-policy"] != "" {
			t.Errorf("%s: %v", reason, h)
		}
	}
}

func TestLimitsAreWrittenWithoutAllocating(t *testing.T) {
	var all []registry.Limit
	for i := range ratelimit.LimitsMax {
		all = append(all, registry.Limit{Name: fmt.Sprint("a-rather-long-name-of-a-limit-", i), Kind: registry.LimitQuota, Period: registry.PeriodDay, Amount: 1_000_000_000})
	}
	for _, d := range []authz.Decision{limited(t, 2, everyKind...), limited(t, 2, all...)} {
		e, err := newEncoder(Options{})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 0, 16<<10)
		if n := testing.AllocsPerRun(100, func() { e.append(buf, &authz.Request{}, &d) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
