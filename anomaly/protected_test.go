package anomaly

import (
	"errors"
	"strings"
	"testing"
)

func TestProtectedClientsAreReadStrictly(t *testing.T) {
	good := "# high wealth\n0123456789abcdef0123456789ABCDEF # two\n\nffffffffffffffffffffffffffffffff\n"
	got, err := ParseHashes(strings.NewReader(good))
	if err != nil || len(got) != 2 || got[0][0] != 0x01 || got[1][15] != 0xff {
		t.Errorf("%x, %v", got, err)
	}
	for name, text := range map[string]string{
		"an ABN":       "ffffffffffffffffffffffffffffffff\n51824753556\n",
		"no hex":       "ffffffffffffffffffffffffffffffff\nzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz\n",
		"two in a row": "\nffffffffffffffffffffffffffffffff ffffffffffffffffffffffffffffffff\n",
	} {
		if _, err := ParseHashes(strings.NewReader(text)); !errors.Is(err, ErrHashes) || !strings.Contains(err.Error(), "line 2 is not 32 hexadecimal digits") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
