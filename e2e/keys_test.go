package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz/token/issue"
)

// newKey makes a key, and adds it to the demo issuer's folder until the test ends.
func (s *stack) newKey(t testing.TB, kid, alg string) (*issue.Signer, string) {
	t.Helper()
	k, err := issue.Generate(kid, alg)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(s.dir, "issuer", kid+".pem")
	if err := k.Save(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	})
	return k, path
}

// keys waits until the sidecar verifies with n keys.
func (s *stack) keys(t testing.TB, n float64) {
	t.Helper()
	eventually(t, 15*time.Second, fmt.Sprintf("the sidecar has %v keys", n), func() bool {
		return s.metric(t, s.info.SidecarDebug[0], "jwks_keys", "") == n
	})
}

// settledKeys waits until the sidecar has the keys of the issuer's folder, which
// an earlier case may just have changed, and says how many.
func (s *stack) settledKeys(t testing.TB) float64 {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, "issuer", "*.pem"))
	if err != nil {
		t.Fatal(err)
	}
	s.keys(t, float64(len(paths)))
	return float64(len(paths))
}

// K01: a new key is published before its first use, the old one is taken away
// when nothing it signed is left; under load no request fails.
func TestKeyRotation(t *testing.T) {
	t.Run("K01 rotation under load", func(t *testing.T) {
		s := sharedStack(t)
		base := s.settledKeys(t)
		old, oldPath := s.newKey(t, "rotation-a", "ES256")
		s.keys(t, base+1)
		o := s.watch(t)
		var current atomic.Pointer[issue.Signer]
		current.Store(old)
		var good atomic.Int64
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for !stop.Load() {
					raw := minter{t, s, current.Load()}.sign(nil, nil)
					// Once verified, and once from the cache.
					for range 2 {
						r := s.ask(t, "GET", lookup, raw, nil)
						if r.status != 200 {
							t.Errorf("a request failed in the rotation: %v", r)
							return
						}
						good.Add(1)
					}
				}
			})
		}
		more := func(what string) {
			n := good.Load()
			eventually(t, 20*time.Second, what, func() bool { return good.Load() > n+100 || t.Failed() })
		}
		last := minter{t, s, old}.sign(nil, nil)
		more("calls with the old key")
		next, _ := s.newKey(t, "rotation-b", "ES256")
		s.keys(t, base+2)
		current.Store(next)
		more("calls with the new key")
		if r := s.ask(t, "GET", lookup, last, nil); r.status != 200 {
			t.Errorf("the old key's last token, in the overlap: %v", r)
		} else {
			good.Add(1)
		}
		if err := os.Remove(oldPath); err != nil {
			t.Fatal(err)
		}
		s.keys(t, base+1)
		more("calls after the old key is gone")
		stop.Store(true)
		wg.Wait()
		o.check(int(good.Load()), kooka)
		// Its tokens die with a key, though they are cached.
		mustRefuse(t, s.ask(t, "GET", lookup, last, nil), "token-signature-invalid")
	})

	t.Run("K02x another key under the same kid", func(t *testing.T) {
		s := sharedStack(t)
		first, path := s.newKey(t, "reused", "ES256")
		second, err := issue.Generate("reused", "ES256")
		if err != nil {
			t.Fatal(err)
		}
		before, after := minter{t, s, first}.sign(nil, nil), minter{t, s, second}.sign(nil, nil)
		eventually(t, 15*time.Second, "the first key verifies", func() bool { return s.ask(t, "GET", lookup, before, nil).status == 200 })
		// Found to be bad, and remembered as such under this key set.
		mustRefuse(t, s.ask(t, "GET", lookup, after, nil), "token-signature-invalid")
		if err := second.Save(path); err != nil {
			t.Fatal(err)
		}
		eventually(t, 15*time.Second, "the second key verifies", func() bool { return s.ask(t, "GET", lookup, after, nil).status == 200 })
		mustRefuse(t, s.ask(t, "GET", lookup, before, nil), "token-signature-invalid")
	})
}

// denial is one of a kid or a jti.
type denial struct {
	ID          string
	Enforcement struct{ Complete bool }
}

func (s *stack) denyToken(t testing.TB, what, value string) denial {
	t.Helper()
	var d denial
	if status := s.api(t, s.info.OperatorToken, "POST", "/v1/token-denials?wait=true", map[string]any{
		"what": what, "issuer": s.info.Issuer, "value": value, "reason": "case " + t.Name(),
	}, &d); status != 201 {
		t.Fatalf("deny %s %s: status %d", what, value, status)
	}
	if !d.Enforcement.Complete {
		t.Errorf("denying %s is not complete", what)
	}
	return d
}

func (s *stack) liftDenial(t testing.TB, id string) {
	t.Helper()
	if status := s.api(t, s.info.Operator2Token, "POST", "/v1/token-denials/"+url.PathEscape(id)+"/lift", map[string]any{"reason": "case over"}, nil); status != 200 {
		t.Errorf("lift denial %s: status %d", id, status)
	}
}

// K07 and J26x: a key or a token is taken out of use by the control plane, at
// once, whether or not its issuer can be reached.
func TestTokenDenials(t *testing.T) {
	s := sharedStack(t)
	t.Run("K07 a key is denied while its issuer is unreachable", func(t *testing.T) {
		base := s.settledKeys(t)
		leaked, path := s.newKey(t, "leaked", "ES256")
		s.keys(t, base+1)
		raw := minter{t, s, leaked}.sign(nil, nil)
		o := s.watch(t)
		mustAdmit(t, s.ask(t, "GET", lookup, raw, nil), lookup, kooka)
		// A file that is no key: the issuer answers 500 until it is gone.
		broken := filepath.Join(s.dir, "issuer", "broken.pem")
		if err := os.WriteFile(broken, []byte("no key"), 0o600); err != nil {
			t.Fatal(err)
		}
		defer os.Remove(broken)
		eventually(t, 15*time.Second, "looking at the keys fails", func() bool { return s.metric(t, s.info.SidecarDebug[0], "jwks_failing", "") == 1 })
		if err := os.Remove(path); err != nil { // nobody can learn that it is gone
			t.Fatal(err)
		}
		mustAdmit(t, s.ask(t, "GET", lookup, raw, nil), lookup, kooka)
		d := s.denyToken(t, "kid", "leaked")
		defer s.liftDenial(t, d.ID)
		mustRefuse(t, s.ask(t, "GET", lookup, raw, nil), "token-revoked")                                 // cached
		mustRefuse(t, s.ask(t, "GET", lookup, minter{t, s, leaked}.sign(nil, nil), nil), "token-revoked") // new
		mustAdmit(t, s.ask(t, "GET", lookup, s.token(t, nil), nil), lookup, kooka)                        // another key of the issuer
		o.check(3, kooka)
	})
	t.Run("J26x one token is denied, with its twins", func(t *testing.T) {
		m := minter{t, s, s.signer}
		raw := m.claim("jti", "case-j26x")
		again := m.sign(nil, map[string]any{"jti": "case-j26x", "exp": time.Now().Add(time.Minute).Unix()})
		twin := signature(t, raw, func(b []byte) []byte {
			n := elliptic.P256().Params().N
			return append(b[:32:32], bigSub(n.Bytes(), b[32:])...)
		})
		o := s.watch(t)
		for _, tok := range []string{raw, twin} {
			mustAdmit(t, s.ask(t, "GET", lookup, tok, nil), lookup, kooka)
		}
		d := s.denyToken(t, "jti", "case-j26x")
		for _, tok := range []string{raw, twin, again} {
			mustRefuse(t, s.ask(t, "GET", lookup, tok, nil), "token-revoked")
		}
		for what, tok := range map[string]string{"jti": m.claim("jti", "case-j26"), "no jti": m.claim("jti", nil), "case": m.claim("jti", "CASE-J26X")} {
			if r := s.ask(t, "GET", lookup, tok, nil); r.status != 200 {
				t.Errorf("another %s: %v", what, r)
			}
		}
		s.liftDenial(t, d.ID)
		eventually(t, 5*time.Second, "the lifted token is admitted", func() bool { return s.ask(t, "GET", lookup, raw, nil).status == 200 })
		o.check(6, kooka)
	})
	t.Run("K07 who may not suspend may not deny a key", func(t *testing.T) {
		for who, token := range map[string]string{"developer": s.info.DeveloperToken, "assessor": s.info.AssessorToken, "auditor": s.info.AuditorToken} {
			if status := s.api(t, token, "POST", "/v1/token-denials", map[string]any{
				"what": "kid", "issuer": s.info.Issuer, "value": s.signer.KID, "reason": "x",
			}, nil); status != 403 {
				t.Errorf("%s: status %d", who, status)
			}
		}
	})
}

// bigSub is n − v, 32 bytes.
func bigSub(n, v []byte) []byte {
	out := make([]byte, 32)
	borrow := 0
	for i := 31; i >= 0; i-- {
		d := int(n[i]) - int(v[i]) - borrow
		if borrow = 0; d < 0 {
			d, borrow = d+256, 1
		}
		out[i] = byte(d)
	}
	return out
}

// issuerFake stands for the issuer's key endpoint and can be made to answer
// anything. every fetch is one hit.
type issuerFake struct {
	*httptest.Server
	handler atomic.Pointer[http.HandlerFunc]
	hits    atomic.Int64
}

func newIssuerFake(t testing.TB) *issuerFake {
	f := &issuerFake{}
	f.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*f.handler.Load())(w, r)
		f.hits.Add(1)
	}))
	t.Cleanup(f.Close)
	return f
}

func (f *issuerFake) answer(h http.HandlerFunc) { f.handler.Store(&h) }

func serveJSON(b []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Write(b) //nolint:errcheck // the client hung up
	}
}

// K03, K05, J21: the demo's sidecar, with an issuer over TLS in place of the
// demo's own that answers whatever a case wants.
func TestKeyEndpoint(t *testing.T) {
	s := ownStack(t)
	f := newIssuerFake(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	doc, err := issue.JWKS(s.signer)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := issue.Generate("stranger", "ES256")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := issue.JWKS(stranger)
	if err != nil {
		t.Fatal(err)
	}
	attacker := httptest.NewServer(serveJSON(theirs))
	defer attacker.Close()
	debug := s.info.SidecarDebug[0]
	good := serveJSON(doc)
	f.answer(good)
	place := func(maxStale string) *process {
		return s.replaceSidecar(t, syscall.SIGTERM, func(_, issuer map[string]any) {
			issuer["jwks_url"], issuer["ca_file"], issuer["jwks_refresh"] = f.URL+"/jwks", ca, "1s"
			issuer["allow_http_loopback"], issuer["jwks_max_stale"] = false, maxStale
		})
	}
	first := place("1h")
	s.ready(t, debug)
	// looked waits until the sidecar has taken in an answer of the present kind.
	looked := func(t *testing.T) {
		t.Helper()
		n := f.hits.Load()
		eventually(t, 15*time.Second, "the sidecar looks at the keys", func() bool {
			h := f.hits.Load()
			return h > n && s.metric(t, debug, "jwks_fetches_total", "") >= float64(h)
		})
	}

	for _, r := range []struct {
		what string
		h    http.HandlerFunc
	}{
		{"500", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, string(theirs), 500) }},
		{"404", http.NotFound},
		{"302 to an attacker", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, attacker.URL, http.StatusFound) }},
		{"50 MB", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for range 50 {
				if _, err := w.Write(bytes.Repeat([]byte(" "), 1<<20)); err != nil {
					return
				}
			}
		}},
		{"HTML", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("<html>maintenance</html>")) }}, //nolint:errcheck // the client hung up
		{"no keys", serveJSON([]byte(`{"keys":[]}`))},
		{"keys null", serveJSON([]byte(`{"keys":null}`))},
		{"two sets in one document", serveJSON(append(doc, theirs...))},
		{"the connection cut", func(w http.ResponseWriter, _ *http.Request) {
			f.hits.Add(1)
			panic(http.ErrAbortHandler)
		}},
	} {
		t.Run("K03 "+r.what, func(t *testing.T) {
			f.answer(r.h)
			looked(t)
			if s.metric(t, debug, "jwks_failing", "") != 1 {
				t.Error("nobody is told that looking at the keys fails")
			}
			o := s.watch(t)
			mustAdmit(t, s.ask(t, "GET", lookup, s.token(t, nil), nil), lookup, kooka)
			mustRefuse(t, s.ask(t, "GET", lookup, minter{t, s, stranger}.sign(nil, nil), nil), "token-signature-invalid")
			o.check(1, kooka)
		})
	}
	// A fetch that hangs is bounded at 5 s, which is too long to wait for here.
	t.Run("K03 timeout", func(t *testing.T) {
		elsewhere(t, "../authz/token/jwksfetch/source_test.go", "TestKeyCaseK03HangingServerTimesOut")
	})

	t.Run("J21 keys that are not fit to verify", func(t *testing.T) {
		signers, bad := unfitKeys(t)
		var set struct {
			Keys []map[string]any `json:"keys"`
		}
		if err := json.Unmarshal(doc, &set); err != nil {
			t.Fatal(err)
		}
		set.Keys = append(set.Keys, bad...)
		b, err := json.Marshal(set)
		if err != nil {
			t.Fatal(err)
		}
		f.answer(serveJSON(b))
		looked(t)
		if n := s.metric(t, debug, "jwks_keys_refused", ""); n != float64(len(bad)) {
			t.Errorf("%v keys refused, want %d", n, len(bad))
		}
		s.keys(t, 1)
		o := s.watch(t)
		for _, k := range signers {
			mustRefuse(t, s.ask(t, "GET", lookup, minter{t, s, k}.sign(nil, nil), nil), "token-signature-invalid")
		}
		mustAdmit(t, s.ask(t, "GET", lookup, s.token(t, nil), nil), lookup, kooka)
		o.check(1, kooka)
		// A ROCA modulus cannot be made here; the lower test has one.
		elsewhere(t, "../authz/token/key_test.go", "TestKeyCaseJ21WeakKeysAreRefusedAtLoad")
	})

	t.Run("J05 unknown kids do not make it look more often", func(t *testing.T) {
		// This issuer is looked at every second anyway; that strangers cause one
		// look in 30 s is tested where the clock is a test's own.
		elsewhere(t, "../authz/token/jwksfetch/source_test.go", "TestTokenCaseJ05UnknownKidsCostOneFetchIn30s")
		f.answer(good)
		looked(t)
		began, hits := time.Now(), f.hits.Load()
		for i := range 300 {
			mustRefuse(t, s.ask(t, "GET", lookup, minter{t, s, s.signer}.header("kid", fmt.Sprint("unknown-", i)), nil), "token-signature-invalid")
		}
		if n, most := f.hits.Load()-hits, int64(time.Since(began)/(900*time.Millisecond))+2; n > most {
			t.Errorf("%d looks at the keys in %v", n, time.Since(began))
		}
	})

	// Beside the one that serves: sidecars whose issuer must not be believed.
	extra := 0
	beside := func(t *testing.T, edit func(issuer map[string]any)) (*process, string) {
		extra++
		path := s.sidecarConfig(t, func(cfg, issuer map[string]any) {
			dir := t.TempDir()
			cfg["id"] = fmt.Sprint("extra-", extra)
			cfg["state_dir"] = dir
			for name, v := range cfg {
				if addr, ok := v.(string); ok && strings.HasPrefix(addr, "unix:") {
					cfg[name] = freeAddress(t)
				}
			}
			cfg["debug"] = freeAddress(t)
			debug = "http://" + cfg["debug"].(string)
			issuer["jwks_url"], issuer["ca_file"], issuer["jwks_refresh"] = f.URL+"/jwks", ca, "1s"
			issuer["allow_http_loopback"] = false
			edit(issuer)
		})
		return run(t, binary(t), "sidecar", "--config", path), debug
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(f.URL, "https://"), ":")
	for _, r := range []struct {
		what string
		edit map[string]any
		exit bool // it does not even start
	}{
		{"plain HTTP", map[string]any{"jwks_url": "http://issuer.example/jwks"}, true},
		{"plain HTTP, loopback allowed, a name that DNS may lead there", map[string]any{"jwks_url": "http://localhost:1/jwks", "allow_http_loopback": true}, true},
		{"another scheme", map[string]any{"jwks_url": "file:///etc/passwd"}, true},
		{"a key set and a file", map[string]any{"jwks_file": "/dev/null"}, true},
		{"HS256 configured", map[string]any{"algorithms": []string{"ES256", "HS256"}}, true},
		{"none configured", map[string]any{"algorithms": []string{"none"}}, true},
		{"every audience", map[string]any{"audiences": []string{"*"}}, true},
		{"the system's authorities", map[string]any{"ca_file": ""}, false},
		{"another name for its address", map[string]any{"jwks_url": "https://localhost:" + port + "/jwks"}, false},
		{"another authority", map[string]any{"ca_file": s.info.CA}, false},
	} {
		t.Run("K05 "+r.what, func(t *testing.T) {
			p, debug := beside(t, func(issuer map[string]any) { maps.Copy(issuer, r.edit) })
			if r.exit {
				select {
				case <-p.done:
				case <-time.After(10 * time.Second):
					t.Fatal("it runs")
				}
				if code := p.ProcessState.ExitCode(); code != 2 || strings.Count(strings.TrimSpace(p.out.String()), "\n") > 0 {
					t.Errorf("exit code %d, want 2 and one plain line:\n%s", code, p.out)
				}
				return
			}
			eventually(t, 15*time.Second, "it is told that looking fails", func() bool {
				return statusOf(debug+"/readyz") == 503 && s.metric(t, debug, "jwks_failing", "") == 1
			})
			if n := s.metric(t, debug, "jwks_keys", ""); n != 0 {
				t.Errorf("%v keys of a server that is not the issuer's", n)
			}
		})
	}

	t.Run("K03 older than allowed, it fails closed, and comes back", func(t *testing.T) {
		if err := first.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-first.done
		debug = s.info.SidecarDebug[0]
		f.answer(good)
		path := s.sidecarConfig(t, func(_, issuer map[string]any) {
			issuer["jwks_url"], issuer["ca_file"], issuer["jwks_refresh"], issuer["jwks_max_stale"] = f.URL+"/jwks", ca, "1s", "2s"
		})
		p := run(t, binary(t), "sidecar", "--config", path)
		s.info.PIDs.Sidecars[0] = p.Process.Pid
		s.ready(t, debug)
		raw := s.token(t, nil)
		eventually(t, 10*time.Second, "calls are admitted", func() bool { return s.ask(t, "GET", lookup, raw, nil).status == 200 })
		f.answer(http.NotFound)
		var r reply
		eventually(t, 10*time.Second, "calls are refused", func() bool { r = s.ask(t, "GET", lookup, raw, nil); return r.status != 200 })
		// The sidecar says that it is not ready, and then Envoy asks it no more: the
		// refusal is its own, or Envoy's 503.
		if code := r.code(); code != "token-signature-invalid" && code != "authorizer-unavailable" {
			t.Errorf("refused as %v", r)
		}
		f.answer(good)
		eventually(t, 15*time.Second, "calls are admitted again", func() bool { return s.ask(t, "GET", lookup, raw, nil).status == 200 })
	})
}

// unfitKeys are keys that must not verify anything, as members of a key set,
// and signers for those that can sign.
func unfitKeys(t testing.TB) (signers []*issue.Signer, members []map[string]any) {
	t.Helper()
	member := func(s *issue.Signer, over map[string]any) {
		doc, err := issue.JWKS(s)
		if err != nil {
			t.Fatal(err)
		}
		var set struct {
			Keys []map[string]any `json:"keys"`
		}
		if err := json.Unmarshal(doc, &set); err != nil {
			t.Fatal(err)
		}
		maps.Copy(set.Keys[0], over)
		signers, members = append(signers, s), append(members, set.Keys[0])
	}
	make := func(kid, alg string) *issue.Signer {
		s, err := issue.Generate(kid, alg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024) //nolint:gosec // weak on purpose
	if err != nil {
		t.Fatal(err)
	}
	member(&issue.Signer{Key: short, KID: "short", Alg: "RS256"}, nil)
	member(make("use-enc", "ES256"), map[string]any{"use": "enc"})
	member(make("ops-encrypt", "ES256"), map[string]any{"use": nil, "key_ops": []string{"encrypt"}})
	member(make("another-alg", "ES384"), nil)
	private := make("private", "ES256")
	d, err := private.Key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	member(private, map[string]any{"d": enc(d)})
	member(make("off-curve", "ES256"), map[string]any{"y": enc(noise(32))})
	member(make("e-1", "RS256"), map[string]any{"e": "AQ"})
	member(make("e-3", "RS256"), map[string]any{"e": "Aw"})
	members = append(members,
		map[string]any{"kty": "oct", "kid": "symmetric", "alg": "HS256", "k": enc(noise(32))},
		map[string]any{"kty": "EC", "crv": "P-256", "kid": "infinity", "alg": "ES256", "x": "", "y": ""},
	)
	return signers, members
}
