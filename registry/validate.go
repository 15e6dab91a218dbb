package registry

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/dspgate/dspgate/internal/identifier"
)

// Bounds on what enters the register.
const (
	idBytesMax     = 64
	nameBytesMax   = 200
	reasonBytesMax = 500
	recordBytesMax = 256 << 10
	chainMax       = 16
	versionsMax    = 1000
	entitlesMax    = 500
	namedMax       = 5 // clients of a PVT entitlement (domain model §7)
)

// Dates outside these are slips of the pen.
var (
	timeFirst = At(time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC))
	timeLast  = At(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC))
)

// checkID bounds an identifier: letters, digits and . _ : - @, 64 bytes. The
// charset keeps it harmless in keys, paths, logs and spreadsheets.
func checkID(pointer, id string) error {
	if id == "" {
		return Field(pointer, "must be given")
	}
	if len(id) > idBytesMax {
		return Field(pointer, "has %d bytes; at most %d", len(id), idBytesMax)
	}
	for i := range len(id) {
		if c := id[i]; !letterOrDigit(c) && !strings.ContainsRune("._:-@", rune(c)) {
			return Field(pointer, "holds %q; use letters, digits and . _ : - @", rune(c))
		}
	}
	if !letterOrDigit(id[0]) {
		return Field(pointer, "starts with %q; start with a letter or a digit", rune(id[0]))
	}
	return nil
}

func letterOrDigit(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// checkText bounds a text for people: printable UTF-8, no control characters.
func checkText(pointer, s string, bytesMax int, needed bool) error {
	switch {
	case strings.TrimSpace(s) == "":
		if needed || s != "" {
			return Field(pointer, "must be given")
		}
		return nil
	case len(s) > bytesMax:
		return Field(pointer, "has %d bytes; at most %d", len(s), bytesMax)
	case !utf8.ValidString(s):
		return Field(pointer, "is not valid UTF-8")
	}
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return Field(pointer, "holds %q; only printable characters", c)
		}
	}
	return nil
}

// checkReason is checkText for text that people write freely and that is kept
// for good: it must hold no tax file number.
func checkReason(pointer, s string, needed bool) error {
	if err := checkText(pointer, s, reasonBytesMax, needed); err != nil {
		return err
	}
	if HoldsTFN(s) {
		return Field(pointer, "holds what looks like a tax file number; leave it out")
	}
	return nil
}

func checkABN(pointer string, abn ABN) error {
	if abn == 0 {
		return Field(pointer, "must be given")
	}
	if _, err := ParseABN(abn.String()); err != nil {
		return &FieldError{Field: pointer, Err: err}
	}
	return nil
}

func checkTime(pointer string, t Time) error {
	if t != 0 && (t < timeFirst || t > timeLast) {
		return Field(pointer, "%s is not between %s and %s", t, timeFirst, timeLast)
	}
	return nil
}

// checkOrder wants from before until, where both are set.
func checkOrder(fromPointer string, from Time, untilPointer string, until Time) error {
	if err := checkTime(fromPointer, from); err != nil {
		return err
	}
	if err := checkTime(untilPointer, until); err != nil {
		return err
	}
	if from != 0 && until != 0 && until <= from {
		return Field(untilPointer, "%s is not after %s %s", until, strings.TrimPrefix(fromPointer, "/"), from)
	}
	return nil
}

// checkVersion bounds a version string: letters, digits and . _ + -, 32 bytes.
func checkVersion(pointer, v string) error {
	if v == "" {
		return Field(pointer, "must be given")
	}
	if len(v) > 32 || !letterOrDigit(v[0]) {
		return Field(pointer, "%q is no version; start with a letter or a digit, at most 32 bytes", truncate(v, 40))
	}
	for i := range len(v) {
		if c := v[i]; !letterOrDigit(c) && !strings.ContainsRune("._+-", rune(c)) {
			return Field(pointer, "holds %q; use letters, digits and . _ + -", rune(c))
		}
	}
	return nil
}

// checkSSID wants ten digits (domain model §6).
func checkSSID(pointer, s string) error {
	if len(s) != 10 || strings.Trim(s, "0123456789") != "" {
		return Field(pointer, "an SSID is 10 digits")
	}
	return nil
}

func checkWord(pointer, s string, words ...string) error {
	if slices.Contains(words, s) {
		return nil
	}
	return Field(pointer, "%q is unknown here; use one of %s", truncate(s, 40), strings.Join(slices.DeleteFunc(slices.Clone(words), func(w string) bool { return w == "" }), ", "))
}

// at appends an index and a member to a JSON pointer.
func at(pointer string, i int, member string) string {
	if member == "" {
		return fmt.Sprintf("%s/%d", pointer, i)
	}
	return fmt.Sprintf("%s/%d/%s", pointer, i, member)
}

// HoldsTFN tells whether a text holds a checksum-valid tax file number: 8 or 9
// digits, single spaces, dots or hyphens allowed between groups. What is an
// ABN, an ISO date or a time with a fraction of a second is none.
func HoldsTFN(s string) bool { return identifier.HoldsTFN(s) }

func digit(c byte) bool { return c >= '0' && c <= '9' }
