package anomaly

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
)

// ProtectedMax bounds a list of protected clients.
const ProtectedMax = 1 << 18

// ErrHashes is wrapped by every refusal of ParseHashes. It never holds what was
// refused: that may be a number that nobody is to keep.
var ErrHashes = errors.New("no list of keyed hashes")

// ParseHashes reads keyed hashes as decision records show them (client_hash,
// subject_hash): one a line, 32 hexadecimal digits; what follows a # is a
// comment. They come back in order, each once.
func ParseHashes(r io.Reader) ([]Hash, error) {
	var out []Hash
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := bytes.Cut(lines.Bytes(), []byte("#"))
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		var h Hash
		if len(line) != hex.EncodedLen(len(h)) {
			return nil, fmt.Errorf("%w: line %d is not 32 hexadecimal digits", ErrHashes, n)
		}
		if _, err := hex.Decode(h[:], line); err != nil {
			return nil, fmt.Errorf("%w: line %d is not 32 hexadecimal digits", ErrHashes, n)
		}
		if out = append(out, h); len(out) > ProtectedMax {
			return nil, fmt.Errorf("%w: more than %d", ErrHashes, ProtectedMax)
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return nil, fmt.Errorf("%w: a line is too long", ErrHashes)
	} else if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b Hash) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(out), nil
}
