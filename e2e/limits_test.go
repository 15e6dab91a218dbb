package e2e

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/dspgate/dspgate/authz"
)

// setLimit sets a limit of FP-1003 and waits until the sidecars hold it.
func (s *stack) setLimit(t testing.TB, name string, limit map[string]any) {
	t.Helper()
	s.changeLimit(t, "PUT", name, limit)
}

// removeLimits takes limits of FP-1003 away.
func (s *stack) removeLimits(t testing.TB, names ...string) {
	t.Helper()
	for _, n := range names {
		s.changeLimit(t, "DELETE", n, nil)
	}
}

func (s *stack) changeLimit(t testing.TB, method, name string, limit any) {
	t.Helper()
	var made struct{ Revision float64 }
	if code := s.api(t, s.info.OperatorToken, method, "/v1/limits/product:FP-1003:"+name, limit, &made); code != 200 {
		t.Fatalf("%s limit %s: %d", method, name, code)
	}
	eventually(t, 20*time.Second, "every sidecar holds the limit", func() bool {
		for _, debug := range s.info.SidecarDebug {
			if s.metric(t, debug, "register_revision", "") < made.Revision {
				return false
			}
		}
		return true
	})
}

// hammer calls from many clients at once until stop says so, and counts the
// answers by code, "" for those that passed.
func (s *stack) hammer(t testing.TB, clients int, stop func() bool, request func(i int) (method, path, body string)) (codes map[string]int) {
	t.Helper()
	token := s.token(t, nil)
	var mu sync.Mutex
	codes = map[string]int{}
	var wg sync.WaitGroup
	tr := &http.Transport{MaxIdleConnsPerHost: clients}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	for c := range clients {
		wg.Go(func() {
			for i := c; !stop(); i += clients {
				method, path, body := request(i)
				var rd io.Reader
				header := http.Header{}
				if body != "" {
					rd = strings.NewReader(body)
					header["Content-Type"] = []string{"application/json"}
				}
				r := s.send(t, client, s.info.Ingress, method, path, token, header, rd)
				code := r.code()
				if r.status != 200 && code == "" {
					code = fmt.Sprint(r.status)
				}
				mu.Lock()
				codes[code]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return codes
}

// within counts, of arrivals at the upstream, the most there were in any window
// beyond rate × window + burst. The instant of each is its admission's, which
// the decision ID carries to the millisecond: what lies between that and the
// arrival is Envoy's and the machine's.
func within(t testing.TB, seen []arrival, rate, burst float64) (over float64) {
	t.Helper()
	var at []float64
	for _, a := range seen {
		id, err := authz.ParseDecisionID(a.DecisionID)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, float64(id.Time().UnixMilli())/1000)
	}
	slices.Sort(at)
	// The most of sum(j) - rate·t(j) over sum(i) - rate·t(i), in one pass; a
	// millisecond for the rounding of either end.
	least := 0.0
	for i, x := range at {
		y := float64(i) - rate*(x-at[0])
		if i == 0 || y < least {
			least = y
		}
		over = max(over, y+1-least-burst-rate*0.002)
	}
	return over
}

func receiptOf(i int) (method, path, body string) {
	return "GET", "/lodgments/v1/receipts/R-" + strconv.Itoa(i), ""
}

// L09: 64 clients at the limit on 5 sidecars, one of which is killed, with Redis
// stopped for 5 s: what arrives upstream stays within the limit, always.
func TestLimitHoldsAcrossSidecars(t *testing.T) {
	s := ownStack(t, "--sidecars", "5")
	const rate, burst = 60, 30
	s.setLimit(t, "at-limit", map[string]any{"kind": "rate", "amount": rate, "burst": burst, "service": "receipts.get"})
	began := time.Now()
	before := len(s.arrivals(t))
	killed, stopped, woken := false, false, false
	var mu sync.Mutex
	stop := func() bool {
		mu.Lock()
		defer mu.Unlock()
		switch at := time.Since(began); {
		case at > 3*time.Second && !killed:
			killed = true
			_ = syscall.Kill(s.info.PIDs.Sidecars[2], syscall.SIGKILL)
		case at > 5*time.Second && !stopped:
			stopped = true
			_ = syscall.Kill(s.info.PIDs.Redis, syscall.SIGSTOP)
		case at > 10*time.Second && !woken:
			woken = true
			_ = syscall.Kill(s.info.PIDs.Redis, syscall.SIGCONT)
		}
		return time.Since(began) > 14*time.Second
	}
	t.Cleanup(func() { _ = syscall.Kill(s.info.PIDs.Redis, syscall.SIGCONT) })
	codes := s.hammer(t, 64, stop, receiptOf)
	seen := s.arrivals(t)[before:]
	if over := within(t, seen, rate, burst); over > 0 {
		t.Errorf("%.1f more than %d a second and %d at once reached the upstream", over, rate, burst)
	}
	if codes["rate-limited"] == 0 || codes[""] == 0 || !killed || !woken {
		t.Errorf("64 clients got %v", codes)
	}
	for code := range codes {
		switch code {
		case "", "rate-limited", "admission-expired", "authorizer-unavailable":
		default:
			t.Errorf("64 clients got %v", codes)
		}
	}
	t.Logf("%d arrived in 14 s of %v", len(seen), codes)
}

// L09, of calendar quotas, and L10, of distinct people found in the body: the
// cap holds over five sidecars, and all of it can be had.
func TestQuotasAreExactAcrossSidecars(t *testing.T) {
	s := ownStack(t, "--sidecars", "5")
	t.Run("L09x a daily quota", func(t *testing.T) {
		const quota = 150
		s.setLimit(t, "daily", map[string]any{"kind": "quota", "period": "day", "amount": quota, "service": "receipts.get"})
		before := len(s.arrivals(t))
		arrived := func() int { return len(s.arrivals(t)) - before }
		end := time.Now().Add(60 * time.Second)
		var done atomic.Bool
		go func() {
			for !done.Load() && time.Now().Before(end) {
				if arrived() >= quota {
					time.Sleep(time.Second) // long enough for one too many to show
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			done.Store(true)
		}()
		codes := s.hammer(t, 64, done.Load, receiptOf)
		// A call that is held up after its admission was allowed and is spent.
		if n := arrived(); n > quota || n+codes["admission-expired"]+codes["authorizer-unavailable"] < quota {
			t.Errorf("%d of %d arrived: %v", n, quota, codes)
		}
		eventually(t, 10*time.Second, "it is said to be exhausted", func() bool {
			return s.ask(t, "GET", "/lodgments/v1/receipts/R-1", s.token(t, nil), nil).code() == "quota-exhausted"
		})
	})
	t.Run("L10 distinct people in the body", func(t *testing.T) {
		const people = 20
		s.setLimit(t, "people", map[string]any{"kind": "clients", "amount": people, "service": "stic.validate"})
		var mu sync.Mutex
		passed := map[string]bool{}
		verify := func(i int) string {
			tfn := strconv.Itoa(100_000_000 + i)
			r := s.get(t, "POST", "/super/v1/member-verifications", s.token(t, nil), http.Header{"Content-Type": {"application/json"}}, strings.NewReader(`{"tfn":"`+tfn+`"}`))
			if r.status == 200 {
				mu.Lock()
				passed[tfn] = true
				mu.Unlock()
			}
			return r.code()
		}
		var wg sync.WaitGroup
		for c := range 16 {
			wg.Go(func() {
				for i := c; i < 160; i += 16 {
					verify(i % 80) // each of eighty people twice
				}
			})
		}
		wg.Wait()
		if len(passed) > people {
			t.Errorf("%d people passed, at most %d may", len(passed), people)
		}
		eventually(t, 30*time.Second, "all there are can be had", func() bool {
			for i := range 80 {
				verify(i)
			}
			return len(passed) >= people
		})
		if len(passed) != people {
			t.Errorf("%d people passed, want %d", len(passed), people)
		}
		eventually(t, 10*time.Second, "another person is refused as such", func() bool { return verify(900) == "client-fanout-exhausted" })
		send := func(body string) string {
			return s.get(t, "POST", "/super/v1/member-verifications", s.token(t, nil), nil, strings.NewReader(body)).code()
		}
		for tfn := range passed { // who was counted once may come again, however the number is spelled
			for _, body := range []string{`{"tfn":"` + tfn + `"}`, `{"tfn":` + tfn + `}`, `{"tfn":"0` + tfn[:3] + " " + tfn[3:6] + "-" + tfn[6:] + `"}`, `{"\u0074fn":"\u200b` + tfn + `"}`} {
				eventually(t, 10*time.Second, "a person counted comes again: "+body, func() bool { return send(body) == "" })
			}
			break
		}
		// What one upstream takes for a person and another for nobody is not let through uncounted.
		for _, body := range []string{`{"TFN":"900000001"}`, `[{"tfn":"900000001"}]`, `{"tfn":["900000001"]}`, `{"tfn":{"value":"900000001"}}`, `{"tfn":9.00000001e8}`} {
			eventually(t, 10*time.Second, "it is refused as ambiguous: "+body, func() bool { return send(body) == "request-ambiguous" })
		}
	})
}

// policies reads both headers by a library by others, and checks that they name
// the same limits in the same order.
func policies(t testing.TB, r reply) (names []string, left map[string]int64) {
	t.Helper()
	read := func(header string) (names []string, params []*httpsfv.Params) {
		l, err := httpsfv.UnmarshalList(r.header[header])
		if err != nil {
			t.Fatalf("%s %q: %v", header, r.header[header], err)
		}
		for _, m := range l {
			item := m.(httpsfv.Item)
			names, params = append(names, item.Value.(string)), append(params, item.Params)
		}
		return names, params
	}
	names, policy := read("Ratelimit-Policy")
	same, state := read("Ratelimit")
	if !slices.Equal(names, same) {
		t.Errorf("policies of %v, states of %v", names, same)
	}
	left = map[string]int64{}
	for i := range state {
		q, _ := policy[i].Get("q")
		n, _ := state[i].Get("r")
		left[names[i]], _ = n.(int64)
		if q, ok := q.(int64); !ok || q < left[names[i]] {
			t.Errorf("%s: %d left of %v", names[i], left[names[i]], q)
		}
	}
	return names, left
}

func TestLimitsThroughEnvoy(t *testing.T) {
	s := ownStack(t)
	own := s.token(t, nil)

	t.Run("what is said on allow and on refusal", func(t *testing.T) {
		s.setLimit(t, "few", map[string]any{"kind": "quota", "period": "day", "amount": 20, "service": "receipts.get"})
		s.setLimit(t, "many", map[string]any{"kind": "quota", "period": "month", "amount": 1000, "service": "receipts.get"})
		s.setLimit(t, "trial", map[string]any{"kind": "quota", "period": "day", "amount": 1, "service": "receipts.get", "shadow": true})
		o := s.watch(t)
		passed := 0
		var r reply
		eventually(t, 30*time.Second, "the quota is used up", func() bool {
			if r = s.ask(t, "GET", receipt, own, nil); r.status == 200 {
				passed++
				if names, left := policies(t, r); !slices.Equal(names, []string{"few", "many"}) || left["few"] > int64(20-passed) {
					t.Errorf("call %d: %v %v", passed, names, left)
				}
			}
			return r.code() == "quota-exhausted"
		})
		names, left := policies(t, r)
		if !slices.Equal(names, []string{"few", "many"}) || left["few"] != 0 {
			t.Errorf("refused: %v %v", names, left)
		}
		after, err := strconv.Atoi(r.header.Get("Retry-After"))
		if r.status != 429 || err != nil || after < 1 || after > 25*3600 || !strings.Contains(string(r.body), `"limit":"few"`) {
			t.Errorf("refused with Retry-After %q: %v", r.header.Get("Retry-After"), r)
		}
		if held := int(s.held.Load() - o.held); passed+held < 20 || passed > 20 {
			t.Errorf("%d of 20 passed, %d were held up", passed, held)
		}
		o.check(passed, kookaAgent)
		s.removeLimits(t, "few", "many", "trial")
	})

	t.Run("429 is 8 for gRPC", func(t *testing.T) {
		s.setLimit(t, "chats", map[string]any{"kind": "quota", "period": "day", "amount": 1, "service": "sample.chat"})
		defer s.removeLimits(t, "chats")
		var status string
		eventually(t, 20*time.Second, "a call is refused", func() bool {
			conn := s.h2(t, nil)
			conn.headers(true, append(fields(":method", "POST", ":path", pathChat), "content-type", "application/grpc", "te", "trailers", "authorization", "Bearer "+own)...)
			a := conn.answer()
			status = a.header.Get("Grpc-Status")
			return status != "0" && status != "14" // held up
		})
		if status != "8" {
			t.Errorf("grpc-status %q, want 8", status)
		}
	})

	t.Run("production verification testing", func(t *testing.T) {
		pilot := s.token(t, func(c map[string]any) {
			c["client_id"], c["sub"], c["abn"], c["software_id"] = "fp-1008-prod", "fp-1008-prod", "94000000808", "0000800001"
		})
		eventually(t, 10*time.Second, "more than one a second is refused", func() bool {
			for range 6 {
				r := s.get(t, "POST", "/lodgments/v1/activity-statements", pilot, nil, nil)
				if r.code() == "rate-limited" {
					names, _ := policies(t, r)
					return slices.Contains(names, "pvt-rate") && slices.Contains(names, "pvt-day") && r.header.Get("Retry-After") == "1"
				}
			}
			return false
		})
	})

	t.Run("one product's flood is its own affair", func(t *testing.T) {
		s.setLimit(t, "slow", map[string]any{"kind": "rate", "amount": 5, "service": "receipts.get"})
		defer s.removeLimits(t, "slow")
		end := time.Now().Add(3 * time.Second)
		flood := make(chan map[string]int)
		go func() { flood <- s.hammer(t, 16, func() bool { return time.Now().After(end) }, receiptOf) }()
		other := s.tokenFor(t, "fp-1001-prod", "65000000101")
		for time.Now().Before(end) {
			if r := s.ask(t, "GET", receipt, other, nil); r.status == 429 {
				t.Errorf("another product's call: %v", r)
			}
		}
		if codes := <-flood; codes["rate-limited"] == 0 {
			t.Errorf("the flood got %v", codes)
		}
	})

	t.Run("calls at once are counted until they end", func(t *testing.T) {
		s.setLimit(t, "at-once", map[string]any{"kind": "concurrency", "amount": 2, "service": "events.stream"})
		defer s.removeLimits(t, "at-once")
		var open []*http.Response
		get := func() int {
			req, err := http.NewRequestWithContext(t.Context(), "GET", s.info.Ingress+"/events/v1/notices", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+s.token(t, nil))
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode == 200 {
				open = append(open, resp)
			} else {
				resp.Body.Close()
			}
			return resp.StatusCode
		}
		eventually(t, 20*time.Second, "two are open", func() bool { get(); return len(open) == 2 })
		for range 5 {
			if code := get(); code == 200 {
				t.Error("a third at once")
			}
		}
		open[0].Body.Close()
		eventually(t, 20*time.Second, "the place of one that ended is free", func() bool { return get() == 200 })
		for _, r := range open {
			r.Body.Close()
		}
	})

	t.Run("L11 a clock that jumps refills nothing", func(t *testing.T) {
		elsewhere(t, "../ratelimit/limiter_test.go", "TestClockJumpsRefillNothing")
	})

	t.Run("L12 Redis stopped for 5 s", func(t *testing.T) {
		if err := syscall.Kill(s.info.PIDs.Redis, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		resume := sync.OnceFunc(func() { _ = syscall.Kill(s.info.PIDs.Redis, syscall.SIGCONT) })
		defer resume()
		end := time.Now().Add(5 * time.Second)
		passed, degraded := 0, false
		for time.Now().Before(end) {
			switch r := s.ask(t, "GET", lookup, own, nil); r.code() {
			case "":
				passed++
			case "rate-limited", "admission-expired", "authorizer-unavailable":
			default:
				t.Errorf("with Redis stopped: %v", r)
			}
			degraded = degraded || s.metric(t, s.info.SidecarDebug[0], "limits_degraded", "") == 1
		}
		if passed < 5 || !degraded {
			t.Errorf("%d calls passed, degraded %t", passed, degraded)
		}
		// me is not shown without Redis: every reading of it is put on record there.
		resume()
		eventually(t, 20*time.Second, "it is heard of again", func() bool { return s.metric(t, s.info.SidecarDebug[0], "limits_degraded", "") == 0 })
	})

	t.Run("me says that figures lack a silent sidecar's", func(t *testing.T) {
		s.setLimit(t, "daily", map[string]any{"kind": "quota", "period": "day", "amount": 1000, "service": "receipts.get"})
		defer s.removeLimits(t, "daily")
		note := func() string {
			var me struct {
				Products []struct {
					Note   string `json:"limits_note"`
					Limits []struct{ Used *int64 }
				}
			}
			if code := s.api(t, s.info.DeveloperToken, "GET", "/v1/me", nil, &me); code != 200 || len(me.Products) == 0 || len(me.Products[0].Limits) == 0 {
				t.Fatalf("me: %d %+v", code, me)
			}
			return me.Products[0].Note
		}
		eventually(t, 20*time.Second, "nothing is lacking", func() bool { return note() == "" })
		if err := syscall.Kill(s.info.PIDs.Sidecars[0], syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		resume := sync.OnceFunc(func() { _ = syscall.Kill(s.info.PIDs.Sidecars[0], syscall.SIGCONT) })
		defer resume()
		eventually(t, 20*time.Second, "it says so", func() bool { return strings.HasPrefix(note(), "1 of 1 sidecars") })
		resume()
		eventually(t, 20*time.Second, "it is heard of again", func() bool { return note() == "" })
		s.ready(t, s.info.SidecarDebug[0])
	})

	t.Run("a source address, before its token is looked at", func(t *testing.T) {
		s.replaceSidecar(t, syscall.SIGTERM, func(cfg, _ map[string]any) {
			cfg["limits"] = map[string]any{"address_rate": 2, "address_burst": 5}
		})
		s.ready(t, s.info.SidecarDebug[0])
		stranger := from(t, "127.0.0.9")
		eventually(t, 20*time.Second, "a stranger's flood is refused unseen", func() bool {
			last := ""
			for range 12 {
				last = s.send(t, stranger, s.info.Ingress, "GET", lookup, "not.a.token", nil, nil).code()
			}
			return last == "rate-limited"
		})
		// Another address is not held to that account.
		eventually(t, 20*time.Second, "a call from elsewhere passes", func() bool { return s.ask(t, "GET", lookup, own, nil).status == 200 })
	})
}
