package token

// VerifyJWS is the shell, the key's pin and the signature, without what an issuer
// adds: the part of Verify that foreign JWS vectors apply to.
func VerifyJWS(raw string, set *KeySet) bool {
	c, h, ok := openJWS(raw)
	if !ok || len(raw) > TokenBytesMax {
		return false
	}
	key := set.Key(h.kid)
	return key != nil && key.verify(h.alg, &c)
}

// CacheGeometry is how many entries fit, and how many bytes.
func (v *Verifier) CacheGeometry() (entries int, bytesMax int64) {
	return len(v.verified.sets) * ways, v.verified.bytesMax
}
