package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// The keys of the register in Redis.
const (
	keyHead = "{dspgate}:head"
	keyRec  = "{dspgate}:rec"
	keyLog  = "{dspgate}:log"
)

func (s *stack) redis(t testing.TB) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(s.info.Redis, "redis://"), MaxRetries: -1})
	t.Cleanup(func() { c.Close() }) //nolint:errcheck // nothing is lost
	return c
}

// dump is every key of the register, for restore.
func dump(t testing.TB, c *redis.Client) map[string]string {
	t.Helper()
	ctx := t.Context()
	out := map[string]string{}
	keys, err := c.Keys(ctx, "{dspgate}:*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		v, err := c.Dump(ctx, k).Result()
		if errors.Is(err, redis.Nil) { // it expired meanwhile
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		out[k] = v
	}
	return out
}

// restore puts keys back as they were, those named or all, and removes others
// when all.
func restore(t testing.TB, c *redis.Client, from map[string]string, names ...string) {
	t.Helper()
	_, err := c.TxPipelined(t.Context(), func(p redis.Pipeliner) error {
		if len(names) == 0 {
			p.FlushAll(t.Context())
			for k := range from {
				names = append(names, k)
			}
		}
		for _, k := range names {
			p.RestoreReplace(t.Context(), k, 0, from[k])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (s *stack) alarms(t testing.TB, debug, kind string) float64 {
	t.Helper()
	return s.metric(t, debug, "register_alarms_total", `kind="`+kind+`"`)
}

// R: a store that is wrong in any way empties no mirror, changes no decision
// and renews no lease; it raises an alarm, and is followed again when it is
// right again. One stack for all rows: each puts the store back.
func TestRegisterStoreIsWrong(t *testing.T) {
	s := ownStack(t)
	c := s.redis(t)
	ctx := t.Context()
	side := s.info.SidecarDebug[0]
	own := s.token(t, nil)
	suspended := s.tokenFor(t, "fp-1009-prod", "69000001010")
	version := http.Header{"X-Product-Version": {"4.2"}}
	older := dump(t, c) // before anything was suspended here
	x := s.suspend(t, "product", "FP-1009", nil)
	if !x.Enforcement.Complete {
		t.Fatalf("not complete: %+v", x.Enforcement)
	}
	saved := dump(t, c)
	head, err := c.HGetAll(ctx, keyHead).Result()
	if err != nil {
		t.Fatal(err)
	}
	next := fmt.Sprint(x.Revision + 1)
	entry := func(rev string) string { // the sealed change of a revision
		m, err := c.XRange(ctx, keyLog, rev+"-0", rev+"-0").Result()
		if err != nil || len(m) != 1 {
			t.Fatalf("log entry %s: %v %v", rev, m, err)
		}
		return m[0].Values["c"].(string)
	}
	change := entry(fmt.Sprint(x.Revision))

	// same is that nobody's standing changed: who was admitted is, who was
	// suspended is not.
	same := func(t *testing.T) {
		t.Helper()
		mustAdmit(t, s.ask(t, "GET", lookup, own, nil), lookup, kooka)
		mustRefuse(t, s.ask(t, "POST", lodge, suspended, version), "product-suspended")
	}
	fresh := func(t *testing.T) {
		t.Helper()
		// Two polls from now on that went well: what is left of a lease may be from
		// before, and an alarm that stands is not raised again.
		good := func() float64 {
			return s.metric(t, side, "register_polls_total", "") - s.metric(t, side, "register_poll_errors_total", "")
		}
		before := good()
		eventually(t, 15*time.Second, "the short lease is renewed again", func() bool {
			return good() >= before+2 && s.metric(t, side, "register_lease_short_seconds", "") > 1
		})
		eventually(t, 5*time.Second, "risk rating 3 is served again", func() bool { return s.ask(t, "GET", clients, own, nil).status == 200 })
		same(t)
	}

	for _, r := range []struct {
		id, what string
		break_   func(p redis.Pipeliner)
		alarm    string // "": trouble, but nothing that somebody did
	}{
		{"R11", "FLUSHALL", func(p redis.Pipeliner) { p.FlushAll(ctx) }, "rewound"},
		{"R11", "an older dump restored", func(p redis.Pipeliner) {
			p.FlushAll(ctx)
			for k, v := range older {
				p.RestoreReplace(ctx, k, 0, v)
			}
		}, "rewound"},
		{"R05", "an older head, genuine", func(p redis.Pipeliner) { p.RestoreReplace(ctx, keyHead, 0, older[keyHead]) }, "rewound"},
		{"R05", "epoch and head removed", func(p redis.Pipeliner) { p.HDel(ctx, keyHead, "epoch", "head") }, "rewound"},
		{"R06x", "head removed", func(p redis.Pipeliner) { p.Del(ctx, keyHead) }, "rewound"},
		{"R06x", "head of another type", func(p redis.Pipeliner) { p.Set(ctx, keyHead, "x", 0) }, ""},
		{"R12x", "one bit of the head's seal", func(p redis.Pipeliner) { p.HSet(ctx, keyHead, "head", flipped(head["head"])) }, "tampered"},
		{"R12x", "the head is noise", func(p redis.Pipeliner) { p.HSet(ctx, keyHead, "head", "noise") }, "tampered"},
		{"R13", "a forged change at the log's end", func(p redis.Pipeliner) {
			p.XAdd(ctx, &redis.XAddArgs{Stream: keyLog, ID: next + "-0", Values: []string{"c", flipped(change)}})
			p.HSet(ctx, keyHead, "rev", next)
		}, "tampered"},
		{"R14x", "a genuine change again, at the log's end", func(p redis.Pipeliner) {
			p.XAdd(ctx, &redis.XAddArgs{Stream: keyLog, ID: next + "-0", Values: []string{"c", change}})
			p.HSet(ctx, keyHead, "rev", next)
		}, "tampered"},
		{"R14x", "the log's end is noise", func(p redis.Pipeliner) {
			p.XAdd(ctx, &redis.XAddArgs{Stream: keyLog, ID: next + "-0", Values: []string{"c", "noise"}})
			p.HSet(ctx, keyHead, "rev", next)
		}, "tampered"},
	} {
		t.Run(r.id+" "+r.what, func(t *testing.T) {
			// As it stands now: a row before may have made the control plane write.
			saved = dump(t, c)
			rev, err := c.HGet(ctx, keyHead, "rev").Int64()
			if err != nil {
				t.Fatal(err)
			}
			head, change, next = c.HGetAll(ctx, keyHead).Val(), entry(fmt.Sprint(rev)), fmt.Sprint(rev+1)
			alarms := func() float64 {
				return s.alarms(t, side, r.alarm) + s.alarms(t, s.info.ControlDebug, r.alarm)
			}
			before := alarms()
			if _, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error { r.break_(p); return nil }); err != nil {
				t.Fatal(err)
			}
			// Either no lease is renewed and somebody is told, or the control plane has
			// put the store right before anybody looked.
			broken, told := false, r.alarm == ""
			healed := func() bool {
				at := c.HGetAll(ctx, keyHead).Val()
				return (at["head"] == head["head"] || len(at["rev"]) >= len(next) && at["rev"] >= next && r.id != "R13" && r.id != "R14x") &&
					c.HExists(ctx, keyRec, "suspension/"+x.ID).Val() && c.Exists(ctx, keyLog).Val() == 1
			}
			eventually(t, 15*time.Second, "an alarm "+r.alarm+" and the lease's end, or the store is healed", func() bool {
				told = told || alarms() > before
				broken = broken || s.metric(t, side, "register_lease_short_seconds", "") < 0.9
				return told && broken || r.id != "R13" && r.id != "R14x" && healed()
			})
			same(t)
			if !healed() || r.id == "R13" || r.id == "R14x" {
				restore(t, c, saved)
			}
			fresh(t)
		})
	}

	t.Run("R13 records tampered with, and a sidecar that starts on them", func(t *testing.T) {
		record, err := c.HGet(ctx, keyRec, "suspension/"+x.ID).Result()
		if err != nil {
			t.Fatal(err)
		}
		// The suspension taken out, another in its place, and a product's older record.
		for what, break_ := range map[string]func(p redis.Pipeliner){
			"removed": func(p redis.Pipeliner) { p.HDel(ctx, keyRec, "suspension/"+x.ID) },
			"altered": func(p redis.Pipeliner) {
				p.HSet(ctx, keyRec, "suspension/"+x.ID, strings.Replace(record, "FP-1009", "FP-1012", 1))
			},
			"swapped": func(p redis.Pipeliner) { p.HSet(ctx, keyRec, "suspension/"+x.ID, older["none"]) },
		} {
			if _, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error { break_(p); return nil }); err != nil {
				t.Fatal(err)
			}
			same(t) // who runs already is not told otherwise
			before := s.alarms(t, s.info.ControlDebug, "tampered")
			eventually(t, 20*time.Second, "the control plane's audit raises an alarm over the record "+what, func() bool {
				return s.alarms(t, s.info.ControlDebug, "tampered") > before
			})
			path := s.sidecarConfig(t, func(cfg, _ map[string]any) {
				dir := t.TempDir()
				cfg["id"], cfg["state_dir"] = "starts-on-"+what, dir
				for name, v := range cfg {
					if addr, ok := v.(string); ok && strings.HasPrefix(addr, "unix:") {
						cfg[name] = freeAddress(t)
					}
				}
				cfg["debug"] = freeAddress(t)
				side = "http://" + cfg["debug"].(string)
			})
			p := run(t, binary(t), "sidecar", "--config", path)
			eventually(t, 10*time.Second, "the new sidecar raises an alarm over the record "+what, func() bool {
				return statusOf(side+"/healthz") == 200 && s.alarms(t, side, "tampered")+s.alarms(t, side, "digest-mismatch") > 0
			})
			// It may serve only once it has made the register whole again, out of the log.
			if statusOf(side+"/readyz") == 200 {
				var roll []struct {
					ID       string
					Revision int64
					DigestOK *bool `json:"digest_ok"`
				}
				s.api(t, s.info.AuditorToken, "GET", "/v1/sidecars", nil, &roll)
				for _, m := range roll {
					if m.ID == "starts-on-"+what && (m.Revision < x.Revision || m.DigestOK == nil || !*m.DigestOK) {
						t.Errorf("%s: it serves a register that is not whole: %+v", what, m)
					}
				}
				if n, want := s.metric(t, side, "register_records", ""), s.metric(t, s.info.SidecarDebug[0], "register_records", ""); n != want {
					t.Errorf("%s: it serves %v records of %v", what, n, want)
				}
			}
			restore(t, c, saved)
			s.ready(t, side)
			if err := p.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			<-p.done
			side = s.info.SidecarDebug[0]
		}
		fresh(t)
	})

	t.Run("R07 no memory left", func(t *testing.T) {
		if err := c.ConfigSet(ctx, "maxmemory", "1mb").Err(); err != nil {
			t.Fatal(err)
		}
		var problem bytes.Buffer
		status := s.try(t, s.info.OperatorToken, "/v1/suspensions?wait=true", `{"subject":{"kind":"product","id":"FP-1002"},"reason":"memory"}`, &problem)
		if status != 503 {
			t.Errorf("suspend with Redis full: %d %s", status, &problem)
		}
		// Reading goes on, decisions too, and polls may still write: no lease lapses.
		if status := s.api(t, s.info.OperatorToken, "GET", "/v1/products/FP-1003", nil, nil); status != 200 {
			t.Errorf("reading with Redis full: %d", status)
		}
		polls := s.metric(t, side, "register_polls_total", "")
		eventually(t, 10*time.Second, "polls go on", func() bool { return s.metric(t, side, "register_polls_total", "") > polls+5 })
		mustAdmit(t, s.ask(t, "GET", clients, own, nil), clients, kooka)
		same(t)
		if err := c.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
			t.Fatal(err)
		}
		y := s.suspend(t, "product", "FP-1002", nil)
		s.liftLater(t, y.ID)
	})

	t.Run("R15x a Redis that may forget by now", func(t *testing.T) {
		before := s.alarms(t, s.info.ControlDebug, "forgetful")
		if err := c.ConfigSet(ctx, "maxmemory-policy", "allkeys-lru").Err(); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "the alarm of a store that evicts", func() bool { return s.alarms(t, s.info.ControlDebug, "forgetful") > before })
		if err := c.ConfigSet(ctx, "maxmemory-policy", "noeviction").Err(); err != nil {
			t.Fatal(err)
		}
	})

	t.Run("R09 silent for longer than the short lease", func(t *testing.T) {
		o := s.watch(t)
		if err := syscall.Kill(s.info.PIDs.Redis, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(s.info.PIDs.Redis, syscall.SIGCONT) //nolint:errcheck // it may run already
		allowed := 0
		var r reply
		eventually(t, 10*time.Second, "risk rating 3 is refused", func() bool {
			if r = s.ask(t, "GET", clients, own, nil); r.status == 200 {
				allowed++
			}
			return r.status != 200
		})
		mustRefuse(t, r, "register-stale")
		mustRefuse(t, s.ask(t, "GET", prefill, own, nil), "register-stale")
		same(t) // ratings 1 and 2 go on
		mustAdmit(t, s.ask(t, "POST", payroll, own, nil), payroll, kooka)
		began := time.Now()
		var problem bytes.Buffer
		if status := s.try(t, s.info.OperatorToken, "/v1/suspensions", `{"subject":{"kind":"product","id":"FP-1002"},"reason":"silent"}`, &problem); status != 503 {
			t.Errorf("suspend with Redis silent: %d %s", status, &problem)
		}
		if d := time.Since(began); d > 25*time.Second {
			t.Errorf("the refusal took %v", d)
		}
		o.check(allowed+2, kooka)
		if err := syscall.Kill(s.info.PIDs.Redis, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		fresh(t)
	})

	t.Run("R01 and R05 killed right after the answer, three times", func(t *testing.T) {
		// Only kill -9 of the process, not a loss of power: that is what runs here.
		pid, cmdline := s.info.PIDs.Redis, commandLine(t, s.info.PIDs.Redis)
		for i := range 3 {
			y := s.suspend(t, "version", "FP-1001@5.0", nil)
			end(t, pid, syscall.SIGKILL)
			same(t)
			p := run(t, cmdline[0], cmdline[1:]...)
			pid = p.Process.Pid
			eventually(t, 15*time.Second, "Redis is back", func() bool { return c.Ping(ctx).Err() == nil })
			if rev, err := c.HGet(ctx, keyHead, "rev").Int64(); err != nil || rev < y.Revision {
				t.Fatalf("cycle %d: revision %d after the restart, %d was answered (%v)", i, rev, y.Revision, err)
			}
			fresh(t)
			wattle := s.tokenFor(t, "fp-1001-prod", "65000000101")
			mustRefuse(t, s.ask(t, "GET", lookup, wattle, http.Header{"X-Product-Version": {"5.0"}}), "version-blocked")
			eventually(t, 15*time.Second, "the control plane writes again", func() bool { return statusOf(s.info.ControlDebug+"/readyz") == 200 })
			s.liftLater(t, y.ID)
		}
		s.info.PIDs.Redis = pid
	})
}

// liftLater lifts on a store that was set back: there, sidecars that nobody
// knows of are waited for as long as one could hold a lease.
func (s *stack) liftLater(t testing.TB, id string) {
	t.Helper()
	if status := s.api(t, s.info.Operator2Token, "POST", "/v1/suspensions/"+id+"/lift", map[string]any{"reason": "case over"}, nil); status != 200 {
		t.Fatalf("lift %s: status %d", id, status)
	}
}

// R03: WAIT needs a replica, which the demo does not have; registry/redisstore
// runs it on a primary and replicas of its own.
func TestRegisterDurability(t *testing.T) {
	t.Run("R03 WAIT falls short", func(t *testing.T) {
		elsewhere(t, "../registry/redisstore/faults_test.go", "TestACommitOnTooFewReplicasIsNotDurable")
	})
}

// flipped changes one character in the middle.
func flipped(s string) string {
	b := []byte(s)
	b[len(b)/2] ^= 1
	return string(b)
}

// commandLine is how a running process was started.
func commandLine(t testing.TB, pid int) []string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		t.Fatal(err)
	}
	args := strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
	return args
}

// try posts to the control plane and gives the status and the body.
func (s *stack) try(t testing.TB, token, path, body string, answer *bytes.Buffer) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.info.Control+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", fmt.Sprint(time.Now().UnixNano()))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := answer.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

// S, as far as the register goes: a sidecar that is stopped is named, with
// until when it might still serve; the command is not complete, and nothing is
// admitted after one that is.
func TestSuspendWithSilentSidecar(t *testing.T) {
	t.Run("S03 a sidecar stopped, and going on", func(t *testing.T) {
		s := ownStack(t, "--sidecars", "2")
		raw := s.token(t, nil)
		two := s.info.PIDs.Sidecars[1]
		eventually(t, 10*time.Second, "both sidecars answer", func() bool {
			s.ask(t, "GET", lookup, raw, nil)
			return s.allowsOf(t, 0) > 0 && s.allowsOf(t, 1) > 0
		})
		if err := syscall.Kill(two, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer syscall.Kill(two, syscall.SIGCONT) //nolint:errcheck // it may run already

		out, code := s.cli(t, "suspend", "product", kooka, "--reason", "case S03", "--wait", "--timeout", "500ms", "-o", "json")
		if code != 4 {
			t.Fatalf("exit code %d, want 4:\n%s", code, out)
		}
		var list []suspension
		if status := s.api(t, s.info.OperatorToken, "GET", "/v1/suspensions?active=true&product_id="+kooka, nil, &list); status != 200 || len(list) != 1 {
			t.Fatalf("%d %+v", status, list)
		}
		at := func(timeout string) (x suspension) {
			t.Helper()
			if status := s.api(t, s.info.OperatorToken, "GET", "/v1/suspensions/"+list[0].ID+"?wait=true&timeout="+timeout, nil, &x); status != 200 {
				t.Fatalf("status %d", status)
			}
			return x
		}
		x := at("0s")
		if x.Enforcement.Complete || len(x.Enforcement.Sidecars) != 2 {
			t.Fatalf("%+v", x.Enforcement)
		}
		for _, side := range x.Enforcement.Sidecars {
			switch {
			case side.ID == "sidecar-1" && side.State == "acknowledged":
			case side.ID == "sidecar-2" && side.State == "pending" && len(side.Until) == 4:
				// Ratings 3 and 4 end within the short lease, 1 and 2 within the long one.
				if d := side.Until["1"].Sub(side.Until["4"]); d < 50*time.Second || side.Until["2"] != side.Until["1"] || side.Until["3"] != side.Until["4"] {
					t.Errorf("until %v", side.Until)
				}
			default:
				t.Errorf("%+v", side)
			}
		}
		if err := syscall.Kill(two, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		eventually(t, 15*time.Second, "it is acknowledged", func() bool { return at("5s").Enforcement.Complete })
		o := s.watch(t)
		for range 50 {
			mustRefuse(t, s.ask(t, "GET", lookup, raw, nil), "product-suspended")
		}
		o.check(0, "")
	})

	t.Run("S03 a sidecar that never comes back lapses", func(t *testing.T) {
		// The demo's long lease is a minute; this sidecar's is shortened so that the
		// case ends, and nothing else about it is changed.
		s := ownStack(t)
		raw := s.token(t, nil)
		p := s.replaceSidecar(t, syscall.SIGTERM, func(cfg, _ map[string]any) {
			cfg["lease"] = map[string]any{"short": "1s", "long": "2s", "poll": "200ms"}
		})
		s.ready(t, s.info.SidecarDebug[0])
		eventually(t, 10*time.Second, "calls are admitted", func() bool { return s.ask(t, "GET", lookup, raw, nil).status == 200 })
		o := s.watch(t) // a stopped sidecar tells no metrics
		if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		defer p.Process.Signal(syscall.SIGCONT) //nolint:errcheck // it may have ended
		out, code := s.cli(t, "suspend", "product", kooka, "--reason", "case S03", "--wait", "-o", "json")
		if code != 3 || !strings.Contains(out, "lapsed") {
			t.Fatalf("exit code %d, want 3 and a sidecar lapsed:\n%s", code, out)
		}
		// It goes on with the old view in hand, and may not use it.
		if err := p.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if r := s.ask(t, "GET", lookup, raw, nil); r.status == 200 {
				t.Fatalf("admitted after a complete answer: %v", r)
			}
		}
		eventually(t, 10*time.Second, "the sidecar has caught up", func() bool { return s.ask(t, "GET", lookup, raw, nil).code() == "product-suspended" })
		o.check(0, "")
	})
}

func (s *stack) allowsOf(t testing.TB, i int) float64 {
	t.Helper()
	return s.metric(t, s.info.SidecarDebug[i], "authz_decisions_total", `reason="ok"`)
}

// cli runs a command of dspgate against the stack.
func (s *stack) cli(t testing.TB, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), binary(t), append(args, "--dir", s.dir)...)
	b, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}
