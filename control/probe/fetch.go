package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
)

// get reads one address, bounded.
func (p *Prober) get(ctx context.Context, address string) (res *http.Response, body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*p.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, nil, errAddress
	}
	req.Header.Set("User-Agent", "dspgate-check")
	if res, err = p.http.Do(req); err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, bodyBytesMax+1))
	if err == nil && len(body) > bodyBytesMax {
		err = fmt.Errorf("it has more than %d bytes", bodyBytesMax)
	}
	return res, body, err
}

// securityTxt looks for /.well-known/security.txt.
func (p *Prober) securityTxt(ctx context.Context, host, port string) assurance.Result {
	res, body, err := p.get(ctx, "https://"+net.JoinHostPort(host, port)+"/.well-known/security.txt")
	if err != nil {
		return result(checkSecurity, "OSF-BRN", "unknown", "No answer from %s: %s.", host, reason(err))
	}
	media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case res.StatusCode != http.StatusOK:
		return result(checkSecurity, "OSF-BRN", "fail", "There is no /.well-known/security.txt (status %d): put one there that names a contact.", res.StatusCode)
	case media != "text/plain":
		return result(checkSecurity, "OSF-BRN", "fail", "/.well-known/security.txt is not sent as text/plain.")
	}
	outcome, say := SecurityTxt(body, p.cfg.Now())
	return result(checkSecurity, "OSF-BRN", outcome, "%s", say)
}

// SecurityTxt judges a security.txt (RFC 9116): it names a contact and says
// until when it holds, once, and that is not past.
func SecurityTxt(body []byte, now time.Time) (outcome, say string) {
	var contacts, expires int
	var until time.Time
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(make([]byte, 0, 4096), bodyBytesMax)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		name, value, ok := strings.Cut(line, ":")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "contact":
			scheme, rest, _ := strings.Cut(strings.ToLower(value), ":")
			if rest != "" && (scheme == "mailto" || scheme == "tel" || scheme == "https") {
				contacts++
			}
		case "expires":
			expires++
			until, _ = time.Parse(time.RFC3339, value)
		}
	}
	switch {
	case lines.Err() != nil:
		return "fail", "security.txt cannot be read."
	case contacts == 0:
		return "fail", "security.txt names no contact: add a line such as Contact: mailto:security@example.com."
	case expires != 1 || until.IsZero():
		return "fail", "security.txt says not once, as a date-time, until when it holds: add one line such as Expires: 2027-12-31T00:00:00Z."
	case !until.After(now):
		return "fail", "security.txt expired on " + until.UTC().Format(time.DateOnly) + ": bring it up to date."
	case until.After(now.AddDate(1, 0, 1)):
		return "warn", "security.txt holds for more than a year: RFC 9116 advises less."
	}
	return "pass", "security.txt names a contact and holds until " + until.UTC().Format(time.DateOnly) + "."
}

// keySet looks at a declared key set.
func (p *Prober) keySet(ctx context.Context, address string) assurance.Result {
	if address == "" {
		return result(checkJWKS, "OSF-EKM", "unknown", "No key set was declared.")
	}
	if _, _, err := parse(address); err != nil {
		return result(checkJWKS, "OSF-EKM", "unknown", "%s.", err)
	}
	res, body, err := p.get(ctx, address)
	switch {
	case err != nil:
		return result(checkJWKS, "OSF-EKM", "unknown", "The key set was not read: %s.", reason(err))
	case res.StatusCode != http.StatusOK:
		return result(checkJWKS, "OSF-EKM", "fail", "The key set is not there (status %d).", res.StatusCode)
	}
	outcome, say := JWKS(body)
	return result(checkJWKS, "OSF-EKM", outcome, "%s", say)
}

// keysMax bounds a key set.
const keysMax = 100

// JWKS judges a key set (RFC 7517): public keys only, each with a kid of its own,
// of sizes and algorithms that are approved.
func JWKS(body []byte) (outcome, say string) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(body, &set); err != nil || len(set.Keys) == 0 {
		return "fail", "The key set is no JSON Web Key Set with keys in it."
	}
	if len(set.Keys) > keysMax {
		return "fail", fmt.Sprintf("The key set holds more than %d keys.", keysMax)
	}
	warn := ""
	seen := map[string]bool{}
	for i, raw := range set.Keys {
		var members map[string]json.RawMessage
		if err := json.Unmarshal(raw, &members); err != nil {
			return "fail", fmt.Sprintf("Key %d is no JSON object.", i+1)
		}
		for _, secret := range []string{"d", "p", "q", "dp", "dq", "qi", "k", "oth"} {
			if _, ok := members[secret]; ok {
				return "fail", fmt.Sprintf("Key %d shows its private part: replace the key at once, and report it.", i+1)
			}
		}
		var marshal jwkset.JWKMarshal
		if err := json.Unmarshal(raw, &marshal); err != nil {
			return "fail", fmt.Sprintf("Key %d cannot be read.", i+1)
		}
		key, err := jwkset.NewJWKFromMarshal(marshal, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{SkipX5UScheme: true})
		if err != nil {
			return "fail", fmt.Sprintf("Key %d is not valid.", i+1)
		}
		if problem := weak(key.Key()); problem != "" {
			return "fail", fmt.Sprintf("Key %d %s.", i+1, problem)
		}
		switch {
		case marshal.KID == "":
			return "fail", fmt.Sprintf("Key %d has no kid: keys cannot be changed without one.", i+1)
		case seen[marshal.KID]:
			return "fail", fmt.Sprintf("Key %d has the kid of another.", i+1)
		case marshal.ALG == "" || marshal.USE == "":
			warn = fmt.Sprintf("Key %d says not what it is for: add alg and use.", i+1)
		}
		seen[marshal.KID] = true
	}
	if warn != "" {
		return "warn", warn
	}
	return "pass", fmt.Sprintf("The key set holds %d public keys, each approved and with a kid of its own.", len(set.Keys))
}

func weak(key any) string {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return fmt.Sprintf("is an RSA key of %d bits; 2048 is the least", k.N.BitLen())
		}
	case *ecdsa.PublicKey:
		if k.Curve.Params().BitSize < 256 {
			return "is on a curve below 256 bits"
		}
		if _, err := k.ECDH(); err != nil {
			return "is no point of its curve"
		}
	case ed25519.PublicKey:
	default:
		return "is of a type that is not approved for signatures"
	}
	return ""
}

// Cadence compares how often a product is released with whether its versions
// are supported (domain model §12, scenario 3): many releases are well where each
// says until when it is supported.
func Cadence(p *registry.Product, now time.Time) assurance.Result {
	const window, many = 14 * 24 * time.Hour, 4
	var recent, unsupported, active int
	for i := range p.Versions {
		v := &p.Versions[i]
		if v.State != registry.VersionActive || v.SupportUntil.Set() && !v.SupportUntil.Std().After(now) {
			continue
		}
		active++
		if !v.SupportUntil.Set() {
			unsupported++
		}
		if at := v.Released.Std(); v.Released.Set() && !at.After(now) && now.Sub(at) < window {
			recent++
		}
	}
	switch {
	case active == 0:
		return result(checkCadence, "DEV-2", "fail", "No version is both active and supported: register the ones your users run.")
	case recent > many && unsupported > 0:
		return result(checkCadence, "DEV-2", "fail", "%d versions were released within 14 days and %d say not until when they are supported: release less often, or say it.", recent, unsupported)
	case recent > many:
		return result(checkCadence, "DEV-2", "warn", "%d versions were released within 14 days.", recent)
	case unsupported > 0:
		return result(checkCadence, "DEV-2", "warn", "%d versions say not until when they are supported.", unsupported)
	}
	return result(checkCadence, "DEV-2", "pass", "%d versions are active and each says until when it is supported.", active)
}
