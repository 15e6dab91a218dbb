package admission_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/dspgate/dspgate/authz/admission"
)

const (
	keyA = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	keyB = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100"
)

func at() time.Time { return time.UnixMilli(1_795_300_000_123).Add(456 * time.Microsecond) }

func call() admission.Call {
	return admission.Call{
		DecisionID: "01M80HKV7W0000Z4EC1659GMA4", Environment: "PROD", Service: "ldglst.0002.list", ProductID: "FP-1003", ProductVersion: "7.1",
		ABN: "31000000202", SoftwareID: "0000300001", ClientABN: "56000001313", Method: "GET", Path: "/agents/v1/clients?page=2",
	}
}

func keys(t testing.TB, lines ...string) *admission.Keys {
	t.Helper()
	k, err := admission.ParseKeys([]byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signer(t testing.TB, k admission.KeySource) *admission.Signer {
	t.Helper()
	s, err := admission.NewSigner(k, 0)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func verifier(t testing.TB, cfg admission.VerifierConfig) *admission.Verifier {
	t.Helper()
	v, err := admission.NewVerifier(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func sign(s *admission.Signer, c admission.Call, revision uint64, at time.Time) string {
	return string(s.Append(nil, &c, revision, at))
}

func TestStampIsGoodUntilNotAfterAndTheSkewAndNoLonger(t *testing.T) {
	k := keys(t, keyA)
	value, c := sign(signer(t, k), call(), 42, at()), call()
	end := at().Truncate(time.Millisecond).Add(admission.DefaultValidity)
	for _, skew := range []time.Duration{0, 10 * time.Millisecond} {
		v := verifier(t, admission.VerifierConfig{Keys: k, Skew: skew, Replay: true})
		for _, x := range []struct {
			now  time.Time
			want error
		}{
			{at(), nil}, {end.Add(skew - 1), nil}, {end.Add(skew), admission.ErrExpired}, {end.Add(time.Hour), admission.ErrExpired},
			{end.Add(-admission.ValidityMax - skew), nil}, {end.Add(-admission.ValidityMax - skew - 1), admission.ErrAhead},
		} {
			s, err := v.Verify(value, &c, x.now)
			if !errors.Is(err, x.want) {
				t.Errorf("skew %v, at %v of its end: %v, want %v", skew, x.now.Sub(end), err, x.want)
			}
			if err == nil && (s.Revision != 42 || !s.NotAfter.Equal(end) || s.KeyID != k.IDs()[0]) {
				t.Errorf("%+v", s)
			}
		}
	}
}

// Every field of a call is bound: one that is added and not signed is found here.
func TestStampFitsNoOtherCall(t *testing.T) {
	k := keys(t, keyA)
	v := verifier(t, admission.VerifierConfig{Keys: k, Replay: true})
	value := sign(signer(t, k), call(), 42, at())
	typ := reflect.TypeFor[admission.Call]()
	for i := range typ.NumField() {
		for _, edit := range []func(string) string{
			func(s string) string { return s + "x" },
			func(string) string { return "" },
		} {
			c := call()
			f := reflect.ValueOf(&c).Elem().Field(i)
			f.SetString(edit(f.String()))
			if _, err := v.Verify(value, &c, at()); !errors.Is(err, admission.ErrForged) {
				t.Errorf("with %s %q: %v", typ.Field(i).Name, f.String(), err)
			}
		}
		if i+1 < typ.NumField() { // the border between two fields is signed too
			c := call()
			a, b := reflect.ValueOf(&c).Elem().Field(i), reflect.ValueOf(&c).Elem().Field(i+1)
			all := a.String() + b.String()
			n := len(a.String()) + 1
			a.SetString(all[:n])
			b.SetString(all[n:])
			if _, err := v.Verify(value, &c, at()); !errors.Is(err, admission.ErrForged) {
				t.Errorf("with a byte of %s given to %s: %v", typ.Field(i+1).Name, typ.Field(i).Name, err)
			}
		}
	}
}

func TestMalformedStampsAreRefused(t *testing.T) {
	k := keys(t, keyA)
	v := verifier(t, admission.VerifierConfig{Keys: k, Replay: true})
	good := sign(signer(t, k), call(), 42, at())
	p := strings.Split(good, ".")
	for name, x := range map[string]struct {
		value string
		want  error
	}{
		"none":               {"", admission.ErrMissing},
		"another version":    {"v2" + good[2:], admission.ErrMalformed},
		"another key":        {strings.Replace(good, p[1], "0000000f", 1), admission.ErrUnknownKey},
		"key ID upper case":  {strings.Replace(good, p[1], strings.ToUpper(p[1]), 1), admission.ErrMalformed},
		"later":              {strings.Replace(good, p[2], "9999999999999", 1), admission.ErrForged},
		"not-after hex":      {strings.Replace(good, p[2], "0x1a013e98000", 1), admission.ErrMalformed},
		"not-after signed":   {strings.Replace(good, p[2], "+"+p[2][1:], 1), admission.ErrMalformed},
		"revision other":     {strings.Replace(good, ".42.", ".43.", 1), admission.ErrForged},
		"revision none":      {strings.Replace(good, ".42.", "..", 1), admission.ErrMalformed},
		"revision zero-led":  {strings.Replace(good, ".42.", ".042.", 1), admission.ErrMalformed},
		"revision too large": {strings.Replace(good, ".42.", ".18446744073709551616.", 1), admission.ErrMalformed},
		"MAC cut":            {good[:len(good)-1], admission.ErrMalformed},
		"MAC padded":         {good + "==", admission.ErrMalformed},
		"MAC zero":           {good[:len(good)-22] + strings.Repeat("A", 22), admission.ErrForged},
		"space":              {" " + good, admission.ErrMalformed},
		"twice":              {good + "," + good, admission.ErrMalformed},
		"long":               {good + strings.Repeat("A", 1<<20), admission.ErrMalformed},
	} {
		c := call()
		if _, err := v.Verify(x.value, &c, at()); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
	}
	// The last digit of 22 of base64url has four bits that mean nothing: another
	// spelling of the same MAC is another stamp.
	const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	c := call()
	twin := good[:len(good)-1] + string(digits[strings.IndexByte(digits, good[len(good)-1])|1])
	if _, err := v.Verify(twin, &c, at()); !errors.Is(err, admission.ErrForged) {
		t.Errorf("a second spelling: %v", err)
	}
}

func TestStampIsUsedOnce(t *testing.T) {
	k := keys(t, keyA)
	v, s := verifier(t, admission.VerifierConfig{Keys: k, Skew: admission.SkewMax}), signer(t, k)
	c, other := call(), call()
	other.DecisionID = "01M80HKV7W0000Z4EC1659GMA5"
	value := sign(s, c, 42, at())
	if _, err := v.Verify(value, &c, at()); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(sign(s, other, 42, at()), &other, at()); err != nil {
		t.Errorf("another call: %v", err)
	}
	// Over its whole life, whatever else comes, also at the border of generations.
	for ms := time.Duration(0); ms < (admission.DefaultValidity+admission.SkewMax)/time.Millisecond; ms += 97 {
		now := at().Add(ms * time.Millisecond)
		next := call()
		next.DecisionID = fmt.Sprintf("%026d", ms)
		if _, err := v.Verify(sign(s, next, 42, now), &next, now); err != nil {
			t.Fatalf("after %d ms, another: %v", ms, err)
		}
		if _, err := v.Verify(value, &c, now); !errors.Is(err, admission.ErrReplayed) && !errors.Is(err, admission.ErrExpired) {
			t.Fatalf("after %d ms: %v", ms, err)
		}
	}
	// A forged stamp does not use up the genuine one.
	fresh := call()
	fresh.DecisionID = "01M80HKV7W0000Z4EC1659GMA6"
	if _, err := v.Verify(value, &fresh, at()); !errors.Is(err, admission.ErrForged) {
		t.Error(err)
	}
	if _, err := v.Verify(sign(s, fresh, 42, at()), &fresh, at()); err != nil {
		t.Errorf("after a forged one: %v", err)
	}
}

func TestKeysRotateWithoutARefusal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admission.keys")
	write := func(lines ...string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(keyA)
	open := func() *admission.KeyFile {
		f, err := admission.OpenKeys(path)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	sidecar, upstream := open(), open()
	s, v := signer(t, sidecar), verifier(t, admission.VerifierConfig{Keys: upstream, Replay: true})
	admitted := func(what string) {
		t.Helper()
		c := call()
		if _, err := v.Verify(sign(s, c, 1, at()), &c, at()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	reload := func(f *admission.KeyFile) {
		t.Helper()
		if changed, err := f.Reload(); err != nil || !changed {
			t.Errorf("%v %v", changed, err)
		}
	}
	// In each step either may be the first to notice.
	for i, step := range [][]string{{keyA, keyB}, {keyB, keyA}, {keyB}} {
		write(step...)
		first, second := sidecar, upstream
		if i%2 == 1 {
			first, second = upstream, sidecar
		}
		reload(first)
		admitted(fmt.Sprintf("step %d, one has noticed", i))
		reload(second)
		admitted(fmt.Sprintf("step %d, both have", i))
	}
	if id := sidecar.Keys().IDs(); len(id) != 1 || id[0] != keys(t, keyB).IDs()[0] {
		t.Errorf("ends with %v", id)
	}
	c := call()
	if _, err := v.Verify(sign(signer(t, keys(t, keyA)), c, 1, at()), &c, at()); !errors.Is(err, admission.ErrUnknownKey) {
		t.Errorf("the old key after the rotation: %v", err)
	}
	if changed, err := sidecar.Reload(); err != nil || changed {
		t.Errorf("the same file: %v %v", changed, err)
	}
	// A file that is broken meanwhile takes nothing away.
	for _, bad := range []string{"", "no hex", keyA[:62], keyA + "\n" + keyA} {
		write(bad)
		if _, err := upstream.Reload(); !errors.Is(err, admission.ErrKeys) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	admitted("with a broken file")
}

func TestKeyFilesThatAreRefused(t *testing.T) {
	dir := t.TempDir()
	for name, x := range map[string]struct {
		text string
		mode os.FileMode
	}{
		"empty": {"", 0o600}, "comments": {"# none\n\n", 0o600}, "short": {strings.Repeat("ab", 31), 0o600}, "long": {strings.Repeat("ab", 65), 0o600},
		"odd": {keyA + "a", 0o600}, "twice": {keyA + "\n" + strings.ToUpper(keyA), 0o600}, "world-readable": {keyA, 0o644}, "large": {strings.Repeat("#\n", 4<<10), 0o600},
		"five": {strings.Join([]string{keyA, keyB, strings.Repeat("01", 32), strings.Repeat("02", 32), strings.Repeat("03", 32)}, "\n"), 0o600},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(x.text), x.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, x.mode); err != nil {
			t.Fatal(err)
		}
		_, err := admission.OpenKeys(path)
		if !errors.Is(err, admission.ErrKeys) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "abab") || strings.Contains(err.Error(), keyA[:8]) {
			t.Errorf("%s: the error tells the key: %v", name, err)
		}
	}
	if _, err := admission.OpenKeys(filepath.Join(dir, "nowhere")); !errors.Is(err, admission.ErrKeys) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := admission.OpenKeys(dir); !errors.Is(err, admission.ErrKeys) {
		t.Errorf("a folder: %v", err)
	}
}

func TestValidityAndSkewAreBounded(t *testing.T) {
	k := keys(t, keyA)
	for _, d := range []time.Duration{-1, time.Microsecond, admission.ValidityMax + 1} {
		if _, err := admission.NewSigner(k, d); !errors.Is(err, admission.ErrValidity) {
			t.Errorf("validity %v: %v", d, err)
		}
	}
	for _, d := range []time.Duration{-1, admission.SkewMax + 1} {
		if _, err := admission.NewVerifier(admission.VerifierConfig{Keys: k, Skew: d}); err == nil {
			t.Errorf("skew %v is accepted", d)
		}
	}
	if _, err := admission.NewVerifier(admission.VerifierConfig{}); !errors.Is(err, admission.ErrKeys) {
		t.Errorf("no keys: %v", err)
	}
}

// Envoy compares the two instants as texts.
func TestNotAfterSortsAsText(t *testing.T) {
	s := signer(t, keys(t, keyA))
	last := ""
	for _, when := range []time.Time{time.Unix(0, 0), time.Date(2001, 9, 9, 2, 0, 0, 0, time.UTC), at(), at().Add(time.Millisecond), time.Date(2286, 1, 1, 0, 0, 0, 0, time.UTC), time.Unix(1<<40, 0)} {
		c := call()
		now := string(admission.NotAfter(s.Append(nil, &c, 1, when)))
		if len(now) != 13 || now <= last {
			t.Errorf("%s after %s", now, last)
		}
		last = now
	}
}

// reference is the wire format as docs/admission-stamp.md tells it, written
// without a line of the package.
func reference(secret []byte, c admission.Call, revision uint64, notAfter int64) string {
	var msg []byte
	for _, f := range []string{
		"dspgate-admission-v1", fmt.Sprintf("%013d", notAfter), fmt.Sprint(revision), c.DecisionID, c.Environment, c.Service, c.ProductID,
		c.ProductVersion, c.ABN, c.SoftwareID, c.ClientABN, c.Method, c.Path,
	} {
		msg = binary.BigEndian.AppendUint32(msg, uint32(len(f)))
		msg = append(msg, f...)
	}
	h := hmac.New(sha256.New, secret)
	h.Write(msg)
	id := sha256.Sum256(append([]byte("dspgate-admission-key-id"), secret...))
	return fmt.Sprintf("v1.%s.%013d.%d.%s", hex.EncodeToString(id[:4]), notAfter, revision, base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:16]))
}

func TestStampIsTheDocumentedFormat(t *testing.T) {
	k := keys(t, keyA)
	s := signer(t, k)
	v := verifier(t, admission.VerifierConfig{Keys: k, Replay: true})
	secret, err := hex.DecodeString(keyA)
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		var c admission.Call
		rv := reflect.ValueOf(&c).Elem()
		for i := range rv.NumField() {
			rv.Field(i).SetString(rapid.StringN(0, 40, 300).Draw(t, rv.Type().Field(i).Name))
		}
		revision := rapid.Uint64().Draw(t, "revision")
		when := time.UnixMilli(rapid.Int64Range(1_000_000_000_000, 9_000_000_000_000).Draw(t, "at"))
		got := sign(s, c, revision, when)
		if want := reference(secret, c, revision, when.UnixMilli()+50); got != want {
			t.Fatalf("%s\nwant %s", got, want)
		}
		if st, err := v.Verify(got, &c, when); err != nil || st.Revision != revision {
			t.Fatalf("%+v %v", st, err)
		}
	})
}

// vector is one test vector of testdata/vectors.json, for other languages.
type vector struct {
	Name     string         `json:"name"`
	Keys     []string       `json:"keys"` // hex, as in a key file
	Call     map[string]any `json:"call"`
	Stamp    string         `json:"stamp"`
	NowMS    int64          `json:"now_ms"`
	SkewMS   int64          `json:"skew_ms"`
	Want     string         `json:"want"` // ok, missing, malformed, unknown-key, forged, expired, ahead
	Revision uint64         `json:"revision,omitempty"`
}

func TestVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	errs := map[string]error{
		"ok": nil, "missing": admission.ErrMissing, "malformed": admission.ErrMalformed, "unknown-key": admission.ErrUnknownKey,
		"forged": admission.ErrForged, "expired": admission.ErrExpired, "ahead": admission.ErrAhead,
	}
	tried := map[string]bool{}
	for _, x := range all {
		want, known := errs[x.Want]
		if !known {
			t.Fatalf("%s: %q", x.Name, x.Want)
		}
		tried[x.Want] = true
		text := func(k string) string { s, _ := x.Call[k].(string); return s }
		c := admission.Call{
			DecisionID: text("decision_id"), Environment: text("environment"), Service: text("service"), ProductID: text("product_id"),
			ProductVersion: text("product_version"), ABN: text("abn"), SoftwareID: text("software_id"), ClientABN: text("client_abn"),
			Method: text("method"), Path: text("path"),
		}
		v := verifier(t, admission.VerifierConfig{Keys: keys(t, x.Keys...), Skew: time.Duration(x.SkewMS) * time.Millisecond})
		s, err := v.Verify(x.Stamp, &c, time.UnixMilli(x.NowMS))
		if !errors.Is(err, want) || err == nil && s.Revision != x.Revision {
			t.Errorf("%s: %+v %v, want %s", x.Name, s, err, x.Want)
		}
	}
	for w := range errs {
		if !tried[w] {
			t.Errorf("no vector is %s", w)
		}
	}
}

func TestSigningAndVerifyingDoNotAllocate(t *testing.T) {
	k := keys(t, keyA)
	s, v := signer(t, k), verifier(t, admission.VerifierConfig{Keys: k, Replay: true})
	c, now := call(), at()
	buf := make([]byte, 0, admission.StampBytesMax)
	value := sign(s, c, 1<<63, now)
	if n := testing.AllocsPerRun(1000, func() { s.Append(buf, &c, 1<<63, now) }); n != 0 {
		t.Errorf("signing: %v allocations", n)
	}
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := v.Verify(value, &c, now); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("verifying: %v allocations", n)
	}
}

// FuzzVerify: no stamp is accepted but the one that was signed for the call,
// byte for byte, and only while it is good.
func FuzzVerify(f *testing.F) {
	k := keys(f, keyA, keyB)
	s := signer(f, k)
	v := verifier(f, admission.VerifierConfig{Keys: k, Skew: time.Millisecond, Replay: true})
	good := sign(s, call(), 42, at())
	f.Add(good, "GET", "/agents/v1/clients?page=2", "FP-1003", int64(0))
	f.Add(good, "GET", "/agents/v1/clients?page=2", "FP-1003", int64(51))
	f.Add(good, "POST", "/agents/v1/clients", "FP-1003", int64(0))
	f.Add("v1.00000000.1795300000173.42.AAAAAAAAAAAAAAAAAAAAAA", "GET", "/", "", int64(0))
	f.Add("v1..", "", "", "", int64(-1000))
	f.Fuzz(func(t *testing.T, value, method, path, product string, ms int64) {
		ms %= 5000
		c := call()
		c.Method, c.Path, c.ProductID = method, path, product
		now := at().Add(time.Duration(ms) * time.Millisecond)
		_, err := v.Verify(value, &c, now)
		if same := value == good && c == call(); err == nil && (!same || ms >= 51) {
			t.Fatalf("accepted %q at %d ms for %+v", value, ms, c)
		} else if err != nil && same && ms >= -900 && ms < 50 {
			t.Fatalf("refused the genuine one at %d ms: %v", ms, err)
		}
		// What is signed for any call is good for it.
		mine := sign(s, c, uint64(ms), now)
		if st, err := v.Verify(mine, &c, now); err != nil || st.Revision != uint64(ms) {
			t.Fatalf("round trip: %+v %v", st, err)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s, c, now := signer(b, keys(b, keyA)), call(), at()
	buf := make([]byte, 0, admission.StampBytesMax)
	b.ReportAllocs()
	for b.Loop() {
		s.Append(buf, &c, 42, now)
	}
}

func BenchmarkVerify(b *testing.B) {
	k := keys(b, keyA)
	v, c, now := verifier(b, admission.VerifierConfig{Keys: k, Replay: true}), call(), at()
	value := sign(signer(b, k), c, 42, now)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Verify(value, &c, now); err != nil {
			b.Fatal(err)
		}
	}
}
