package registry

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// genABN draws a number whose check digits agree.
func genABN(t *rapid.T) ABN {
	nine := rapid.Uint64Range(0, 999_999_999).Draw(t, "nine")
	for check := uint64(10); check < 100; check++ {
		if a, err := ParseABN(fmt.Sprintf("%d%09d", check, nine)); err == nil {
			return a
		}
	}
	t.Fatalf("no check digits for %09d", nine)
	return 0
}

func TestABNRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := genABN(t)
		s := a.String()
		if got, err := ParseABN(s); err != nil || got != a || len(s) != 11 {
			t.Fatalf("%s reads as %d, %v", s, got, err)
		}
		if got, err := ParseABN(s[:2] + " " + s[2:5] + " " + s[5:8] + " " + s[8:]); err != nil || got != a {
			t.Fatalf("%s with spaces reads as %d, %v", s, got, err)
		}
	})
}

func TestABNMistypedDigitOrTwoSwapped(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := []byte(genABN(t).String())
		i := rapid.IntRange(0, 10).Draw(t, "at")
		wrong := append([]byte(nil), s...)
		wrong[i] = byte(rapid.IntRange('0', '9').Draw(t, "digit"))
		if string(wrong) != string(s) {
			if _, err := ParseABN(string(wrong)); err == nil {
				t.Fatalf("%s for %s", wrong, s)
			}
		}
		if i < 10 && i > 0 && s[i] != s[i+1] {
			s[i], s[i+1] = s[i+1], s[i]
			if _, err := ParseABN(string(s)); err == nil {
				t.Fatalf("%s with two digits swapped", s)
			}
		}
	})
}

func TestABNSamples(t *testing.T) {
	for s, ok := range map[string]bool{
		"65000000101": true, "73 000 000 606": true, "56000001313": true, "51824753556": true,
		"": false, "0": false, "65000000102": false, "650000001011": false, "6500000010": false, "06500000101": false,
		" 65000000101": false, "6500000010x": false, "65\u0660000000101": false, "+5000000101": false,
	} {
		if _, err := ParseABN(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
}
