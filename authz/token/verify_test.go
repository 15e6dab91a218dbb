package token_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/issue"
)

func TestCacheHitAllocatesNothing(t *testing.T) {
	s := generate(t, "k", "ES256")
	v := verifier(t, config(setOf(t, s)))
	raw := sign(t, s, nil, nil)
	if n := testing.AllocsPerRun(200, func() {
		c, fail := v.Verify(raw, peer, at)
		if fail != token.None || !c.HasScope("read") || c.HasScope("write") {
			t.Fatal(fail)
		}
	}); n != 0 {
		t.Errorf("%v allocations on a hit, want 0", n)
	}
	forged := forge(raw, 0)
	if n := testing.AllocsPerRun(200, func() {
		if _, fail := v.Verify(forged, peer, at); fail != token.SignatureInvalid {
			t.Fatal(fail)
		}
	}); n != 0 {
		t.Errorf("%v allocations on a known bad token, want 0", n)
	}
	if got := v.Stats().Signatures; got != 2 {
		t.Errorf("%d signatures computed, want one for each token", got)
	}
}

func TestCachedTokenIsAskedForItsTimesAtEveryCall(t *testing.T) {
	s := generate(t, "k", "ES256")
	v := verifier(t, config(setOf(t, s)))
	raw := sign(t, s, nil, map[string]any{"exp": at.Unix() + 10, "nbf": at.Unix() + 5, "iat": at.Unix() - 5})
	start := time.Unix(at.Unix(), 0)
	for _, c := range []struct {
		after time.Duration
		want  token.Failure
	}{
		{0, token.None}, {9999 * time.Millisecond, token.None}, {10 * time.Second, token.Expired},
		{-25 * time.Second, token.None}, {-25*time.Second - time.Millisecond, token.NotYetValid}, {0, token.None},
	} {
		if _, fail := v.Verify(raw, peer, start.Add(c.after)); fail != c.want {
			t.Errorf("%v after: %v, want %v", c.after, fail, c.want)
		}
	}
	if got := v.Stats().Signatures; got != 1 {
		t.Errorf("%d signatures computed, want 1", got)
	}
}

func TestExpirySkewIsNoneUnlessConfigured(t *testing.T) {
	s := generate(t, "k", "ES256")
	cfg := config(setOf(t, s))
	cfg.Issuers[0].ExpirySkew = 5 * time.Second
	v := verifier(t, cfg)
	raw := sign(t, s, nil, map[string]any{"exp": at.Unix()})
	exp := time.Unix(at.Unix(), 0)
	if _, fail := v.Verify(raw, peer, exp.Add(4999*time.Millisecond)); fail != token.None {
		t.Errorf("within the skew: %v", fail)
	}
	if _, fail := v.Verify(raw, peer, exp.Add(5*time.Second)); fail != token.Expired {
		t.Errorf("at its end: %v", fail)
	}
}

func TestTokenDiesWithItsKeyThoughCached(t *testing.T) {
	old, fresh := generate(t, "old", "ES256"), generate(t, "new", "ES256")
	src := &source{set: setOf(t, old)}
	v := verifier(t, config(src))
	raw, rawNew := sign(t, old, nil, nil), sign(t, fresh, nil, nil)
	expect := func(what, raw string, want token.Failure) {
		t.Helper()
		if _, fail := v.Verify(raw, peer, at); fail != want {
			t.Errorf("%s: %v, want %v", what, fail, want)
		}
	}
	expect("before", raw, token.None)
	expect("a key to come", rawNew, token.SignatureInvalid)
	src.set = setOf(t, old, fresh) // other pointers, the same old key
	expect("overlap, old", raw, token.None)
	expect("overlap, new", rawNew, token.None)
	src.set = setOf(t, fresh)
	expect("old key removed", raw, token.SignatureInvalid)
	expect("new key", rawNew, token.None)
	src.set = setOf(t, &issue.Signer{Key: generate(t, "x", "ES256").Key, KID: "new", Alg: "ES256"})
	expect("another key under the kid", rawNew, token.SignatureInvalid)
	src.set = nil
	expect("no set fresh enough", rawNew, token.SignatureInvalid)
	src.set = setOf(t, old)
	expect("the old key is back", raw, token.None)
	if d := cmp.Diff([]string{"new", "old", "new"}, src.missed); d != "" {
		t.Errorf("kids missed: %s", d)
	}
}

// A bad signature is bad under a key set; under the next one the token may be good.
func TestNegativeCacheForgetsWhenTheKeysChange(t *testing.T) {
	wrong, right := generate(t, "k", "ES256"), generate(t, "k", "ES256")
	src := &source{set: setOf(t, wrong)}
	v := verifier(t, config(src))
	raw := sign(t, right, nil, nil)
	for range 3 {
		if _, fail := v.Verify(raw, peer, at); fail != token.SignatureInvalid {
			t.Fatal(fail)
		}
	}
	if got := v.Stats().Signatures; got != 1 {
		t.Errorf("%d signatures computed for one bad token, want 1", got)
	}
	src.set = setOf(t, right)
	if _, fail := v.Verify(raw, peer, at); fail != token.None {
		t.Errorf("under its right key: %v", fail)
	}
}

func TestSignatureFloodIsThrottledPerPeer(t *testing.T) {
	for _, alg := range []string{"ES256", "ES512"} {
		t.Run("L07 "+alg, func(t *testing.T) {
			s := generate(t, "k", alg)
			cfg := config(setOf(t, s))
			cfg.FailuresPerSecond, cfg.FailureBurst = 10, 20
			v := verifier(t, cfg)
			raw := sign(t, s, nil, nil)
			if _, fail := v.Verify(raw, peer, at); fail != token.None {
				t.Fatal(fail)
			}
			flood := func(peer string, n int, now time.Time) (throttled int) {
				t.Helper()
				for i := range n {
					switch _, fail := v.Verify(forge(raw, i), peer, now); fail {
					case token.Throttled:
						throttled++
					case token.SignatureInvalid:
					default:
						t.Fatal(fail)
					}
				}
				return throttled
			}
			// One flood after the other from the same peer, a new forgery each.
			if got := flood(peer, 100, at); got != 80 {
				t.Errorf("%d of 100 throttled, want all beyond the burst of 20", got)
			}
			// The peer's own cached token passes; one that is not cached waits.
			if _, fail := v.Verify(raw, peer, at); fail != token.None {
				t.Errorf("a cached token during the flood: %v", fail)
			}
			other := sign(t, s, nil, map[string]any{"jti": "t-2"})
			if _, fail := v.Verify(other, peer, at); fail != token.Throttled {
				t.Errorf("an uncached token during the flood: %v", fail)
			}
			if _, fail := v.Verify(other, "203.0.113.8", at); fail != token.None {
				t.Errorf("another peer during the flood: %v", fail)
			}
			// 1 s later there are 10 again; a clock set back brings none and holds none up for longer.
			before := v.Stats().Signatures
			flood(peer, 200, at.Add(time.Second))
			if got := v.Stats().Signatures - before; got > 20 || got < 1 {
				t.Errorf("%d signatures in the second after, want no more than the refill allows", got)
			}
		})
	}
}

func TestBudgetGivesBackWhatGoodTokensTook(t *testing.T) {
	s := generate(t, "k", "ES256")
	cfg := config(setOf(t, s))
	cfg.FailuresPerSecond, cfg.FailureBurst = 1, 5
	v := verifier(t, cfg)
	for i := range 50 {
		if _, fail := v.Verify(sign(t, s, nil, map[string]any{"jti": fmt.Sprint(i)}), peer, at); fail != token.None {
			t.Fatalf("good token %d: %v", i, fail)
		}
	}
}

// L11: whichever way the clock jumps, nobody gets more than a burst for it, and
// nobody is held up for longer than an empty budget takes to fill.
func TestBudgetSurvivesClockJumps(t *testing.T) {
	s := generate(t, "k", "EdDSA")
	cfg := config(setOf(t, s))
	cfg.FailuresPerSecond, cfg.FailureBurst = 1, 5
	v := verifier(t, cfg)
	raw := sign(t, s, nil, nil)
	n := 0
	passed := func(now time.Time) (passed int) {
		for range 20 {
			n++
			if _, fail := v.Verify(forge(raw, n), peer, now); fail == token.SignatureInvalid {
				passed++
			}
		}
		return passed
	}
	for _, c := range []struct {
		what string
		now  time.Duration
		want int
	}{
		{"the burst", 0, 5}, {"forward a day", 24 * time.Hour, 5}, {"back a day", 0, 0},
		{"2 s after the jump back", 2 * time.Second, 2}, {"5 s after that", 7 * time.Second, 5},
	} {
		if got := passed(at.Add(c.now)); got != c.want {
			t.Errorf("%s: %d pass, want %d", c.what, got, c.want)
		}
	}
}

// Readers that race with evictions must get their own token's claims or none.
func TestCacheUnderEvictionNeverMixesTokens(t *testing.T) {
	s := generate(t, "k", "EdDSA")
	cfg := config(setOf(t, s))
	cfg.CacheEntries = 8
	v := verifier(t, cfg)
	raw := make([]string, 24)
	for i := range raw {
		raw[i] = sign(t, s, nil, map[string]any{"jti": fmt.Sprint("t", i)})
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 400 {
				k := (i*7 + g*5) % len(raw)
				if i%3 == 0 {
					k = g // some stay hot
				}
				if c, fail := v.Verify(raw[k], peer, at); fail != token.None || c.JTI != fmt.Sprint("t", k) {
					t.Errorf("token %d: %+v, %v", k, c, fail)
				}
			}
		})
	}
	wg.Wait()
	if got := v.Stats().Cached; got > 8 {
		t.Errorf("%d tokens cached, bound 8", got)
	}
}

func TestBudgetIsPerNetwork(t *testing.T) {
	s := generate(t, "k", "ES256")
	cfg := config(setOf(t, s))
	cfg.FailuresPerSecond, cfg.FailureBurst = 0.01, 3
	raw := sign(t, s, nil, nil)
	for name, c := range map[string]struct {
		peers []string
		same  bool
	}{
		"one IPv4":                 {[]string{"198.51.100.1", "198.51.100.1"}, true},
		"IPv4 and its mapped form": {[]string{"198.51.100.1", "::ffff:198.51.100.1"}, true},
		"neighbours in IPv4":       {[]string{"198.51.100.1", "198.51.100.2"}, false},
		"one /64":                  {[]string{"2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff"}, true},
		"neighbouring /64":         {[]string{"2001:db8:0:1::1", "2001:db8:0:2::1"}, false},
		"no addresses":             {[]string{"", "pipe"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, cfg)
			for i := range 3 {
				v.Verify(forge(raw, i), c.peers[0], at)
			}
			_, fail := v.Verify(forge(raw, 9), c.peers[1], at)
			if (fail == token.Throttled) != c.same {
				t.Errorf("%v, want throttled: %v", fail, c.same)
			}
		})
	}
}

// L01: what attackers choose must not grow memory. Unknown kids, issuers and
// peers keep nothing; forgeries keep one place of a table that was there before.
func TestAttackerChosenTokensGrowNothing(t *testing.T) {
	s := generate(t, "k", "EdDSA")
	cfg := config(setOf(t, s))
	cfg.CacheEntries, cfg.CacheBytes, cfg.NegativeEntries, cfg.Peers = 1024, 256<<10, 256, 256
	v := verifier(t, cfg)
	raw := sign(t, s, nil, nil)
	// Good tokens: the worst case, since an issuer signed them.
	for i := range 4000 {
		over := map[string]any{"jti": fmt.Sprint(i), "pad": strings.Repeat("x", i%2000)}
		if _, fail := v.Verify(sign(t, s, nil, over), peer, at); fail != token.None {
			t.Fatal(fail)
		}
		v.Verify(forge(raw, i), fmt.Sprintf("2001:db8:%x::1", i), at)
	}
	st := v.Stats()
	entries, bytesMax := v.CacheGeometry()
	if st.Cached > entries || entries > 1024 || st.CacheBytes > bytesMax || st.Cached == 0 {
		t.Errorf("%d tokens of %d bytes are cached, bounds %d and %d", st.Cached, st.CacheBytes, entries, bytesMax)
	}
}

func TestCacheKeepsNoneOfTheCallersBuffer(t *testing.T) {
	s := generate(t, "k", "ES256")
	v := verifier(t, config(setOf(t, s)))
	raw := sign(t, s, nil, nil)
	buf := []byte(raw)
	got, fail := v.Verify(unsafe.String(&buf[0], len(buf)), peer, at)
	if fail != token.None {
		t.Fatal(fail)
	}
	clear(buf)
	if got.JTI != "t-1" || got.KID != "k" || got.Issuer != issuerURL {
		t.Errorf("claims changed with the caller's buffer: %+v", got)
	}
	again, fail := v.Verify(raw, peer, at)
	if fail != token.None || again != got || v.Stats().Signatures != 1 {
		t.Errorf("the cache lost the token with the caller's buffer: %v", fail)
	}
}

// K01: keys rotate under load, the new one published before its first use and
// the old one removed after its last; no request fails.
func TestKeyCaseK01RotationFailsNoRequest(t *testing.T) {
	type round struct{ keys *token.KeySet }
	var current atomic.Pointer[round]
	src := keysFunc(func() *token.KeySet { return current.Load().keys })
	signers := make([]*issue.Signer, 8)
	for i := range signers {
		signers[i] = generate(t, fmt.Sprintf("k%d", i), "ES256")
	}
	current.Store(&round{setOf(t, signers[0])})
	v := verifier(t, config(src))
	var using atomic.Int32 // index of the signer whose tokens are sent
	var inFlight sync.RWMutex
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var served atomic.Int64
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				inFlight.RLock()
				raw, err := signers[using.Load()].Sign(nil, claims(map[string]any{"jti": fmt.Sprint(g, i%20)}))
				if err != nil {
					t.Error(err)
				}
				for range 5 {
					if _, fail := v.Verify(raw, peer, at); fail != token.None {
						t.Errorf("request failed during rotation: %v", fail)
					}
					served.Add(1)
				}
				inFlight.RUnlock()
			}
		}()
	}
	for i := 1; i < len(signers); i++ {
		current.Store(&round{setOf(t, signers[i-1], signers[i])})
		for n := served.Load(); served.Load() < n+100; {
			runtime.Gosched()
		}
		inFlight.Lock() // the last token of the old key has run out
		using.Store(int32(i))
		inFlight.Unlock()
		current.Store(&round{setOf(t, signers[i])})
	}
	close(stop)
	wg.Wait()
}

type keysFunc func() *token.KeySet

func (f keysFunc) Keys(time.Time) *token.KeySet { return f() }
func (keysFunc) Missed(string)                  {}

func TestConfigRefusals(t *testing.T) {
	set := setOf(t, generate(t, "k", "ES256"))
	for name, edit := range map[string]func(*token.Config){
		"no issuers":            func(c *token.Config) { c.Issuers = nil },
		"issuer twice":          func(c *token.Config) { c.Issuers = append(c.Issuers, c.Issuers[0]) },
		"no name":               func(c *token.Config) { c.Issuers[0].Issuer = "" },
		"no keys":               func(c *token.Config) { c.Issuers[0].Keys = nil },
		"no audience":           func(c *token.Config) { c.Issuers[0].Audiences = nil },
		"audience a pattern":    func(c *token.Config) { c.Issuers[0].Audiences = []string{"*"} },
		"HS256":                 func(c *token.Config) { c.Issuers[0].Algorithms = []string{"ES256", "HS256"} },
		"none":                  func(c *token.Config) { c.Issuers[0].Algorithms = []string{"none"} },
		"ES256K":                func(c *token.Config) { c.Issuers[0].Algorithms = []string{"ES256K"} },
		"no algorithm":          func(c *token.Config) { c.Issuers[0].Algorithms = nil },
		"lifetime above a day":  func(c *token.Config) { c.Issuers[0].MaxLifetime = 25 * time.Hour },
		"skew of an hour":       func(c *token.Config) { c.Issuers[0].Skew = time.Hour },
		"negative expiry skew":  func(c *token.Config) { c.Issuers[0].ExpirySkew = -1 },
		"claim name twice":      func(c *token.Config) { c.Issuers[0].Names.ABN = "Client_ABN" },
		"claim name exp":        func(c *token.Config) { c.Issuers[0].Names.ABN = "exp" },
		"negative cache":        func(c *token.Config) { c.CacheEntries = -1 },
		"infinite failure rate": func(c *token.Config) { c.FailuresPerSecond = 1e300 },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := config(set)
			edit(&cfg)
			if v, err := token.New(cfg); !errors.Is(err, token.ErrConfig) || v != nil {
				t.Errorf("New = %v, %v", v, err)
			}
		})
	}
}

func TestIssuerWithItsOwnNames(t *testing.T) {
	s := generate(t, "k", "ES256")
	cfg := config(setOf(t, s))
	cfg.Issuers[0].Names = token.ClaimNames{ClientID: "app", ABN: "holder", SoftwareID: "ssid", ClientABN: "for"}
	cfg.Issuers[0].TypOptional = true
	v := verifier(t, cfg)
	c, fail := v.Verify(sign(t, s, map[string]any{"typ": nil}, map[string]any{
		"app": "fp-1003-prod", "holder": "31000000202", "ssid": "0000300001", "for": "56000001313",
	}), peer, at)
	if fail != token.None || c.ClientID != "fp-1003-prod" || c.ABN != 31000000202 || c.SoftwareID != "0000300001" || c.ClientABN != 56000001313 {
		t.Errorf("%+v, %v", c, fail)
	}
}

// forge is the token with a signature that is not its own; another for each i.
func forge(raw string, i int) string {
	dot := strings.LastIndexByte(raw, '.') + 1
	const a = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := []byte(raw)
	for k := range 4 {
		j := strings.IndexByte(a, b[dot+8+k])
		b[dot+8+k] = a[(j+1+i>>(6*k))%64]
	}
	return string(b)
}
