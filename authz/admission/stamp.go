package admission

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What is wrong with a stamp. Whatever it is, the call was not admitted.
var (
	ErrMissing    = errors.New("no admission stamp")
	ErrMalformed  = errors.New("malformed admission stamp")
	ErrUnknownKey = errors.New("admission stamp of an unknown key")
	ErrForged     = errors.New("admission stamp is not of this call")
	ErrExpired    = errors.New("admission has expired")
	ErrAhead      = errors.New("admission stamp lies too far in the future")
	ErrReplayed   = errors.New("admission stamp was used already")
	ErrBusy       = errors.New("too many admissions to remember")
)

// Call is what a stamp is bound to, byte for byte as the upstream receives it.
// Environment to ClientABN are what the gateway says of the caller; "" is a
// header that is not there. The host is not bound, because proxies rewrite it;
// the environment, which is what the host stands for, is.
type Call struct {
	DecisionID     string
	Environment    string
	Service        string
	ProductID      string
	ProductVersion string
	ABN            string
	SoftwareID     string
	ClientABN      string
	Method         string
	Path           string // with its query
}

// Stamp is what a stamp says.
type Stamp struct {
	KeyID    string    // 8 characters of lower-case hex
	NotAfter time.Time // whole milliseconds
	Revision uint64    // of the register that the call was decided on
}

const (
	version    = "v1"
	context    = "dspgate-admission-v1" // first field of what is signed
	keyIDLen   = 8
	msDigits   = 13 // of Unix milliseconds from 2001 to 2286: their order as text is their order in time
	macBytes   = 16
	macLen     = 22 // base64url without padding
	keyIDAt    = len(version) + 1
	notAfterAt = keyIDAt + keyIDLen + 1
	revAt      = notAfterAt + msDigits + 1
	valueMax   = revAt + 20 + 1 + macLen
	valueMin   = revAt + 1 + 1 + macLen
	pathMax    = 96 << 10
	messageSz  = 1 << 10 // room that suits nearly every call
)

// NotAfter is the part of a stamp's value that says until when it is good, as
// 13 digits of Unix milliseconds. It panics when value is not from a Signer.
func NotAfter(value []byte) []byte { return value[notAfterAt : notAfterAt+msDigits] }

// appendMessage writes what is signed: each field with its length before it, as
// four bytes big-endian, so that no two calls have the same message.
func (c *Call) appendMessage(b []byte, notAfter, revision string) []byte {
	b = appendField(b, context)
	b = appendField(b, notAfter)
	b = appendField(b, revision)
	b = appendField(b, c.DecisionID)
	b = appendField(b, c.Environment)
	b = appendField(b, c.Service)
	b = appendField(b, c.ProductID)
	b = appendField(b, c.ProductVersion)
	b = appendField(b, c.ABN)
	b = appendField(b, c.SoftwareID)
	b = appendField(b, c.ClientABN)
	b = appendField(b, c.Method)
	return appendField(b, c.Path)
}

func appendField(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// appendMillis writes 13 digits. A clock outside the years 2001 to 2286 gives
// what every verifier refuses as expired or as too far ahead.
func appendMillis(b []byte, ms int64) []byte {
	ms = min(max(ms, 0), 9_999_999_999_999)
	for div := int64(1_000_000_000_000); div > 0; div /= 10 {
		b = append(b, byte('0'+ms/div%10))
	}
	return b
}

// parts are the pieces of a value, as they stand in it.
type parts struct{ keyID, notAfter, revision, mac string }

// split takes a value apart; there is exactly one way to write a stamp.
func split(value string) (p parts, s Stamp, err error) {
	fail := func(what string) (parts, Stamp, error) {
		return parts{}, Stamp{}, fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	if value == "" {
		return parts{}, Stamp{}, ErrMissing
	}
	if len(value) < valueMin || len(value) > valueMax {
		return fail("its length")
	}
	if value[:keyIDAt] != version+"." || value[notAfterAt-1] != '.' || value[revAt-1] != '.' || value[len(value)-macLen-1] != '.' {
		return fail("its version or shape")
	}
	p = parts{value[keyIDAt : notAfterAt-1], value[notAfterAt : revAt-1], value[revAt : len(value)-macLen-1], value[len(value)-macLen:]}
	if strings.Trim(p.keyID, "0123456789abcdef") != "" {
		return fail("its key ID")
	}
	ms, ok := decimal(p.notAfter)
	if !ok || len(p.revision) > 1 && p.revision[0] == '0' {
		return fail("its numbers")
	}
	if s.Revision, ok = decimal(p.revision); !ok {
		return fail("its revision")
	}
	s.KeyID, s.NotAfter = p.keyID, time.UnixMilli(int64(ms))
	return p, s, nil
}

func decimal(s string) (n uint64, ok bool) {
	if s == "" || s[0] == '+' {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}

// putMAC writes a truncated MAC as text; comparing texts leaves no second
// spelling of the same bytes.
func putMAC(dst *[macLen]byte, sum []byte) {
	base64.RawURLEncoding.Encode(dst[:], sum[:macBytes])
}
