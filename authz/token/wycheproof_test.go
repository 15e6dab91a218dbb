package token_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/authz/token/jwksfetch"
)

const (
	symmetric    = "the key is symmetric: whoever could verify could sign"
	emptyPayload = "an empty payload holds no claims, and is how a detached one looks"
	otherAlg     = "the token says PS384, the key PS256: an algorithm is pinned to its key"
	noSuchAlg    = "the key says ES521, which is no algorithm"
)

// refusedValid are Wycheproof's valid vectors that we refuse, each with why.
var refusedValid = map[string]string{
	"json_web_crypto/1":      symmetric,
	"json_web_crypto/48":     symmetric,
	"json_web_key/2":         symmetric,
	"json_web_key/13":        symmetric,
	"json_web_key/14":        symmetric,
	"json_web_key/15":        symmetric,
	"json_web_signature/1":   symmetric,
	"json_web_signature/348": symmetric,
	"json_web_signature/352": symmetric,
	"json_web_signature/357": symmetric,
	"json_web_signature/358": symmetric,
	"json_web_signature/359": symmetric,
	"json_web_signature/372": symmetric,
	"json_web_signature/373": symmetric,
	"json_web_signature/376": symmetric,
	"json_web_signature/377": symmetric,
	"json_web_signature/259": emptyPayload,
	"json_web_signature/264": emptyPayload,
	"json_web_signature/268": emptyPayload,
	"json_web_signature/272": emptyPayload,
	"json_web_signature/320": emptyPayload,
	"json_web_signature/325": emptyPayload,
	"json_web_signature/346": otherAlg,
	"json_web_signature/350": otherAlg,
	"json_web_signature/347": noSuchAlg,
	"json_web_signature/351": noSuchAlg,
}

// Wycheproof's vectors run through the key loader and the shell that Verify
// uses; what an issuer adds (typ, claims) does not apply to them.
func TestWycheproofAcceptsNoInvalidVector(t *testing.T) {
	type group struct {
		Comment string          `json:"comment"`
		Type    string          `json:"type"`
		Public  json.RawMessage `json:"public"`
		Private json.RawMessage `json:"private"`
		Tests   []struct {
			ID      int             `json:"tcId"`
			Comment string          `json:"comment"`
			JWS     json.RawMessage `json:"jws"`
			Result  string          `json:"result"`
		} `json:"tests"`
	}
	refused := map[string]string{}
	valid, invalid := 0, 0
	for _, file := range []string{"json_web_signature_test.json", "json_web_key_test.json", "json_web_crypto_test.json"} {
		b, err := fs.ReadFile(wycheproof.TestVectors, file)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Groups []group `json:"testGroups"`
		}
		if err := json.Unmarshal(b, &doc); err != nil {
			t.Fatal(err)
		}
		for _, g := range doc.Groups {
			// A verifier is given the public key; where there is none, the key is
			// symmetric and stands under private.
			key := g.Public
			if key == nil {
				key = g.Private
			}
			jwks := string(key)
			if !strings.Contains(jwks, `"keys"`) {
				jwks = `{"keys":[` + jwks + `]}`
			}
			set, _, keyErr := jwksfetch.Parse([]byte(jwks), allAlgorithms)
			for _, c := range g.Tests {
				if c.JWS == nil {
					continue // an encrypted token: nothing of ours reads one
				}
				raw := string(c.JWS) // a vector in JSON serialization is an object
				var s string
				if json.Unmarshal(c.JWS, &s) == nil {
					raw = s
				}
				ok := keyErr == nil && token.VerifyJWS(raw, set)
				id := fmt.Sprintf("%s/%d", strings.TrimSuffix(file, "_test.json"), c.ID)
				switch {
				case c.Result == "invalid":
					invalid++
					if ok {
						t.Errorf("%s (%s: %s) is invalid and was accepted: %.200s", id, g.Comment, c.Comment, raw)
					}
				case !ok:
					valid++
					refused[id] = fmt.Sprintf("%s: %s: %v", g.Comment, c.Comment, keyErr)
				default:
					valid++
				}
			}
		}
	}
	t.Logf("%d invalid, %d valid vectors, %d of the valid refused", invalid, valid, len(refused))
	if valid == 0 || invalid < 400 {
		t.Errorf("only %d valid and %d invalid vectors were read", valid, invalid)
	}
	ids := make([]string, 0, len(refused))
	for id := range refused {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		if refusedValid[id] == "" {
			t.Errorf("%s is valid, refused, and not on the list: %s", id, refused[id])
		}
	}
	for id := range refusedValid {
		if _, ok := refused[id]; !ok {
			t.Errorf("%s is on the list, but not refused", id)
		}
	}
}
