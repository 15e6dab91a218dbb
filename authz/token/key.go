package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	_ "crypto/sha512" // links the hashes of the 384 and 512 algorithms
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

// ErrKey wraps every reason to refuse a key.
var ErrKey = errors.New("key refused")

// Key is a public key with the one algorithm it is pinned to.
type Key struct {
	id, alg     string
	public      crypto.PublicKey
	method      jwt.SigningMethod
	order       []byte // of the curve, big-endian, for ECDSA; nil otherwise
	fingerprint [sha256.Size]byte
}

// NewKey pins a public key (*ecdsa.PublicKey, *rsa.PublicKey or
// ed25519.PublicKey) to an algorithm. It refuses with ErrKey: an algorithm that
// is not this key type's and curve's, a point off its curve, RSA below 2048 or
// above 8192 bits, an exponent below 65537 or even, a modulus with the ROCA
// fingerprint or a small factor, an Ed25519 point of small order.
func NewKey(kid, alg string, public crypto.PublicKey) (*Key, error) {
	if !validKID(kid) {
		return nil, fmt.Errorf("%w: a kid is 1 to %d printable ASCII characters", ErrKey, KIDBytesMax)
	}
	k := &Key{id: kid, alg: alg, public: public}
	var err error
	switch p := public.(type) {
	case *ecdsa.PublicKey:
		err = k.pinEC(p)
	case *rsa.PublicKey:
		err = k.pinRSA(p)
	case ed25519.PublicKey:
		err = k.pinEd25519(p)
	default:
		err = fmt.Errorf("%T is no key type to verify with", public)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: kid %.80q: %w", ErrKey, kid, err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, fmt.Errorf("%w: kid %.80q: %w", ErrKey, kid, err)
	}
	k.fingerprint = sha256.Sum256(append([]byte(alg+"\x00"), der...))
	return k, nil
}

// ID is the kid.
func (k *Key) ID() string { return k.id }

// Algorithm is the one it is pinned to.
func (k *Key) Algorithm() string { return k.alg }

// same tells whether o verifies exactly what k verifies.
func (k *Key) same(o *Key) bool {
	return k == o || o != nil && k.fingerprint == o.fingerprint
}

// verify checks a signature under the pinned algorithm, which the header must name.
func (k *Key) verify(alg string, c *compact) bool {
	if alg != k.alg || k.order != nil && !ecdsaInRange(c.signature, k.order) {
		return false
	}
	return k.method.Verify(c.signingInput, c.signature, k.public) == nil
}

// ecdsaInRange tells whether sig is r‖s, each as wide as the order n and within
// [1, n−1]. The library may check this too; DER and sloppy ranges are where
// libraries have failed.
func ecdsaInRange(sig, order []byte) bool {
	n := len(order)
	if len(sig) != 2*n {
		return false
	}
	for _, v := range [][]byte{sig[:n], sig[n:]} {
		if string(v) >= string(order) || allZero(v) {
			return false
		}
	}
	return true
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (k *Key) pinEC(p *ecdsa.PublicKey) error {
	curve := map[string]struct {
		curve  elliptic.Curve
		method jwt.SigningMethod
	}{
		"ES256": {elliptic.P256(), jwt.SigningMethodES256},
		"ES384": {elliptic.P384(), jwt.SigningMethodES384},
		"ES512": {elliptic.P521(), jwt.SigningMethodES512},
	}[k.alg]
	if curve.curve == nil || p.Curve != curve.curve {
		return fmt.Errorf("%.20q is no algorithm of this curve", k.alg)
	}
	if _, err := p.ECDH(); err != nil { // refuses a point off the curve, and infinity
		return fmt.Errorf("point: %w", err)
	}
	k.method = curve.method
	params := p.Curve.Params()
	k.order = params.N.FillBytes(make([]byte, (params.BitSize+7)/8))
	return nil
}

func (k *Key) pinRSA(p *rsa.PublicKey) error {
	// PSS with a salt as long as the hash, as RFC 7518 §3.5 has it; golang-jwt
	// would take any length.
	pss := func(m *jwt.SigningMethodRSAPSS) jwt.SigningMethod {
		return &jwt.SigningMethodRSAPSS{
			SigningMethodRSA: m.SigningMethodRSA,
			Options:          &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: m.Hash},
		}
	}
	switch k.alg {
	case "RS256":
		k.method = jwt.SigningMethodRS256
	case "RS384":
		k.method = jwt.SigningMethodRS384
	case "RS512":
		k.method = jwt.SigningMethodRS512
	case "PS256":
		k.method = pss(jwt.SigningMethodPS256)
	case "PS384":
		k.method = pss(jwt.SigningMethodPS384)
	case "PS512":
		k.method = pss(jwt.SigningMethodPS512)
	default:
		return fmt.Errorf("%.20q is no RSA algorithm", k.alg)
	}
	if p.N == nil || p.N.Sign() <= 0 {
		return errors.New("no modulus")
	}
	if bits := p.N.BitLen(); bits < 2048 || bits > 8192 {
		return fmt.Errorf("a modulus of %d bits is not within 2048 to 8192", bits)
	}
	if p.E < 65537 || p.E&1 == 0 {
		return fmt.Errorf("exponent %d is below 65537 or even", p.E)
	}
	return checkModulus(p.N)
}

// rocaPrimes are the primes that make the fingerprint of CVE-2017-15361: the
// vulnerable generator's moduli are powers of 65537 modulo every one of them,
// which a sound modulus is by chance about once in 2^27.
var rocaPrimes = [...]uint64{3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83,
	89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167}

func checkModulus(n *big.Int) error {
	if n.Bit(0) == 0 {
		return errors.New("the modulus is even")
	}
	roca := true
	var rem, prime big.Int
	for _, p := range rocaPrimes {
		r := rem.Mod(n, prime.SetUint64(p)).Uint64()
		if r == 0 {
			return fmt.Errorf("the modulus has the factor %d", p)
		}
		in := false
		for g, x := 65537%p, uint64(1); ; {
			if x == r {
				in = true
				break
			}
			if x = x * g % p; x == 1 {
				break
			}
		}
		roca = roca && in
	}
	if roca {
		return errors.New("the modulus has the fingerprint of ROCA (CVE-2017-15361)")
	}
	return nil
}

// smallOrder holds the y-coordinates, canonical and not, of the Ed25519 points
// of order 1, 2, 4 and 8: under such a "key" one signature fits many messages.
var smallOrder = [...][32]byte{
	{}, {1},
	{0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0,
		0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05},
	{0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f,
		0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a},
	fieldEnd(0xec), fieldEnd(0xed), fieldEnd(0xee),
}

// fieldEnd is 2^255 − 256 + low, little-endian: 0xed makes the field's prime.
func fieldEnd(low byte) (b [32]byte) {
	for i := range b {
		b[i] = 0xff
	}
	b[0], b[31] = low, 0x7f
	return b
}

func (k *Key) pinEd25519(p ed25519.PublicKey) error {
	if k.alg != "EdDSA" {
		return fmt.Errorf("%.20q is no algorithm of an Ed25519 key", k.alg)
	}
	if len(p) != ed25519.PublicKeySize {
		return fmt.Errorf("%d bytes is no Ed25519 key", len(p))
	}
	y := [32]byte(p)
	y[31] &= 0x7f // the sign of x
	for _, s := range smallOrder {
		if y == s {
			return errors.New("a point of small order")
		}
	}
	k.method = jwt.SigningMethodEdDSA
	return nil
}

// validKID tells whether a key ID may be looked up, logged and stored.
func validKID(kid string) bool { return printable(kid, KIDBytesMax) }

// printable: 1 to max characters of ASCII, from space to tilde.
func printable(s string, max int) bool {
	if s == "" || len(s) > max {
		return false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
