// Package issue makes keys, key sets and tokens: for the demo's sandbox issuer,
// for `dspgate token` and for tests, which ask it for broken ones too. It signs
// whatever it is told to; nothing on the request path imports it.
package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// Signer signs tokens with one key under one kid and algorithm.
type Signer struct {
	Key crypto.Signer // *ecdsa.PrivateKey, *rsa.PrivateKey or ed25519.PrivateKey
	KID string
	Alg string // a JWS algorithm of golang-jwt, such as ES256
}

// Generate makes a fresh key for an algorithm: ES256, ES384, ES512, EdDSA, or an
// RSA one (RS256 … PS512), for which the key has 2048 bits.
func Generate(kid, alg string) (*Signer, error) {
	var key crypto.Signer
	var err error
	switch alg {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		return nil, fmt.Errorf("generate key: unknown algorithm %q", alg)
	}
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return &Signer{Key: key, KID: kid, Alg: alg}, nil
}

// Sign makes a token in compact serialization. The header starts as alg, kid and
// typ at+jwt; the given members are laid over it, and one whose value is nil is
// left out. The signature is always by the Signer's own Alg, whatever the header
// then says.
func (s *Signer) Sign(header, claims map[string]any) (string, error) {
	h := map[string]any{"alg": s.Alg, "kid": s.KID, "typ": "at+jwt"}
	for k, v := range header {
		if v == nil {
			delete(h, k)
			continue
		}
		h[k] = v
	}
	hb, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("sign: header: %w", err)
	}
	cb, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("sign: claims: %w", err)
	}
	return s.SignRaw(hb, cb)
}

// SignRaw makes a token of a header and a payload given as bytes, well formed or
// not.
func (s *Signer) SignRaw(header, payload []byte) (string, error) {
	enc := base64.RawURLEncoding
	input := enc.EncodeToString(header) + "." + enc.EncodeToString(payload)
	method := jwt.GetSigningMethod(s.Alg)
	if method == nil {
		return "", fmt.Errorf("sign: unknown algorithm %q", s.Alg)
	}
	sig, err := method.Sign(input, s.Key)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	return input + "." + enc.EncodeToString(sig), nil
}

// JWKS is the key set document of the signers' public keys.
func JWKS(signers ...*Signer) ([]byte, error) {
	set := jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{}}
	for _, s := range signers {
		k, err := jwkset.NewJWKFromKey(s.Key.Public(), jwkset.JWKOptions{
			Metadata: jwkset.JWKMetadataOptions{ALG: jwkset.ALG(s.Alg), KID: s.KID, USE: jwkset.UseSig},
		})
		if err != nil {
			return nil, fmt.Errorf("key set: kid %q: %w", s.KID, err)
		}
		set.Keys = append(set.Keys, k.Marshal())
	}
	return json.MarshalIndent(set, "", "  ")
}

// Save writes the key to a file of mode 0600 as PEM (PKCS #8), with kid and alg
// as its headers. It replaces the file in one step.
func (s *Signer) Save(file string) error {
	der, err := x509.MarshalPKCS8PrivateKey(s.Key)
	if err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	block := &pem.Block{Type: "PRIVATE KEY", Headers: map[string]string{"kid": s.KID, "alg": s.Alg}, Bytes: der}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".key-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	_, err = tmp.Write(pem.EncodeToMemory(block))
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return fmt.Errorf("save key: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// Load reads what Save wrote.
func Load(file string) (*Signer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("load key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("load key: %s is no PEM private key", file)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load key: %s: %w", file, err)
	}
	signer, ok := key.(crypto.Signer)
	s := &Signer{Key: signer, KID: block.Headers["kid"], Alg: block.Headers["alg"]}
	if !ok || s.KID == "" || jwt.GetSigningMethod(s.Alg) == nil {
		return nil, fmt.Errorf("load key: %s lacks a kid or an alg, or cannot sign", file)
	}
	return s, nil
}
