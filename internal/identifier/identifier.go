// Package identifier knows the checksums of Australian identifiers, and finds
// tax file numbers in text that is about to be kept.
//
// Nothing here keeps, returns or prints an identifier that it found: the answer
// is whether and where, never what.
package identifier

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// ValidABN tells whether eleven digits (values, not characters) are an ABN: the
// first less one, weighted 10, 1, 3, …, 19, sums to a multiple of 89.
func ValidABN(d []byte) bool {
	if len(d) != 11 || d[0] == 0 {
		return false
	}
	sum := 10 * (int(d[0]) - 1)
	for i := 1; i < len(d); i++ {
		sum += (2*i - 1) * int(d[i])
	}
	return sum%89 == 0
}

// ValidTFN tells whether eight or nine digits (values, not characters) are a
// tax file number: weighted, they sum to a multiple of 11. All zeros are none.
func ValidTFN(d []byte) bool {
	weights := [...]int{1, 4, 3, 7, 5, 8, 6, 9, 10}
	w := weights[:]
	switch len(d) {
	case 8:
		w = []int{10, 7, 8, 4, 6, 3, 5, 1}
	case 9:
	default:
		return false
	}
	sum := 0
	for i, x := range w {
		sum += x * int(d[i])
	}
	return sum > 0 && sum%11 == 0
}

// HoldsTFN tells whether a text holds a checksum-valid tax file number: 8 or 9
// digits, single spaces, dots or hyphens allowed between groups. What is an
// ABN, an ISO 8601 date or a time with a fraction of a second is none. Digits of
// full width or of another script, and the spaces and dashes that word processors
// put, count as the plain ones; characters that nobody sees count for nothing.
func HoldsTFN(s string) bool {
	s = plainly(s)
	for i := 0; i < len(s); i++ {
		if !digit(s[i]) || i > 0 && digit(s[i-1]) {
			continue
		}
		// groups of digits that stand together, starting at this one
		if n := max(abnLen(s[i:]), dateLen(s[i:]), timeLen(s[i:])); n > 0 {
			i += n - 1
			continue
		}
		if tfnLen(s[i:]) > 0 {
			return true
		}
	}
	return false
}

// MaskTFN replaces the digits of every tax file number that HoldsTFN would find
// by asterisks. A text without one is returned as it is; one with one, with the
// plain digits, spaces and dashes that it was taken to have.
func MaskTFN(s string) string {
	if !HoldsTFN(s) {
		return s
	}
	s = plainly(s)
	b := []byte(s)
	for i := 0; i < len(s); i++ {
		if !digit(s[i]) || i > 0 && digit(s[i-1]) {
			continue
		}
		if n := max(abnLen(s[i:]), dateLen(s[i:]), timeLen(s[i:])); n > 0 {
			i += n - 1
			continue
		}
		n := tfnLen(s[i:])
		for j := i; j < i+n; j++ {
			if digit(b[j]) {
				b[j] = '*'
			}
		}
		i += max(n-1, 0)
	}
	return string(b)
}

// AppendSpelled appends an identifier as it is written without what people put
// between its digits and letters: spaces, tabs, dots, commas, underscores,
// slashes, dashes and apostrophes of every sort, and what nobody sees. Digits of
// other scripts become the plain ones, and zeros that lead a number are left out, as
// a program that reads a number takes them. So whatever an upstream may take for
// one person is one spelling here. It does not allocate when b has room.
func AppendSpelled(b []byte, id string) []byte {
	first, number := len(b), true
	for _, r := range id {
		switch r = plain(r); {
		case r < 0, unicode.IsSpace(r), strings.ContainsRune(` .,-_/'’+()`+"\u2212", r):
			continue
		}
		number = number && r >= '0' && r <= '9'
		b = utf8.AppendRune(b, r)
	}
	if !number {
		return b
	}
	zeros := first
	for zeros < len(b)-1 && b[zeros] == '0' {
		zeros++
	}
	return append(b[:first], b[zeros:]...)
}

// plainly is a text as somebody who reads it takes it.
func plainly(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0 {
		return s
	}
	return strings.Map(plain, s)
}

// plain is what somebody who reads a character takes it for, among digits.
func plain(r rune) rune {
	switch {
	case r < utf8.RuneSelf:
		return r
	case unicode.Is(unicode.Nd, r):
		return '0' + digitValue(r)
	case unicode.Is(unicode.Zs, r):
		return ' '
	case unicode.Is(unicode.Pd, r):
		return '-'
	case unicode.Is(unicode.Cf, r):
		return -1
	}
	return r
}

// digitValue is the value of a decimal digit of any script. Unicode has them ten
// by ten, zero first.
func digitValue(r rune) rune {
	for _, x := range unicode.Nd.R16 {
		if r >= rune(x.Lo) && r <= rune(x.Hi) {
			return (r - rune(x.Lo)) % 10
		}
	}
	for _, x := range unicode.Nd.R32 {
		if r >= rune(x.Lo) && r <= rune(x.Hi) {
			return (r - rune(x.Lo)) % 10
		}
	}
	return 0
}

// tfnLen is the length of the tax file number at the start of s, the longest, 0
// when there is none.
func tfnLen(s string) (found int) {
	var d [9]byte
	n := 0
	for j := range len(s) {
		if digit(s[j]) {
			if n == len(d) {
				return found
			}
			d[n] = s[j] - '0'
			n++
			if (j+1 == len(s) || !digit(s[j+1])) && ValidTFN(d[:n]) {
				found = j + 1
			}
			continue
		}
		if !strings.ContainsRune(" .-", rune(s[j])) || j+1 == len(s) || !digit(s[j+1]) {
			return found
		}
	}
	return found
}

func digit(c byte) bool { return c >= '0' && c <= '9' }

// abnLen is the length of the ABN at the start of s, 0 when there is none.
func abnLen(s string) int {
	var d [11]byte
	n := 0
	for i := range len(s) {
		if !digit(s[i]) {
			if s[i] != ' ' || i == 0 || s[i-1] == ' ' {
				return 0
			}
			continue
		}
		d[n] = s[i] - '0'
		if n++; n == len(d) {
			if i+1 < len(s) && digit(s[i+1]) || !ValidABN(d[:]) {
				return 0
			}
			return i + 1
		}
	}
	return 0
}

// dateLen is the length of the date 2026-11-22 at the start of s, 0 when there is none.
func dateLen(s string) int {
	const n = len(time.DateOnly)
	if len(s) < n || len(s) > n && digit(s[n]) {
		return 0
	}
	if _, err := time.Parse(time.DateOnly, s[:n]); err != nil {
		return 0
	}
	return n
}

// timeLen is the length of the time 09:30:00.123456789 at the start of s, 0
// when there is none: nanoseconds are nine digits, and one in eleven of them
// would pass for a tax file number.
func timeLen(s string) int {
	const n = len("15:04:05.")
	if len(s) <= n || s[n-1] != '.' && s[n-1] != ',' || !digit(s[n]) {
		return 0
	}
	if _, err := time.Parse(time.TimeOnly, s[:n-1]); err != nil {
		return 0
	}
	end := n
	for end < len(s) && digit(s[end]) {
		end++
	}
	if end-n > 9 {
		return 0
	}
	return end
}
