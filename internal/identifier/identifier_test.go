package identifier

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"pgregory.net/rapid"
)

func digits(s string) []byte {
	var d []byte
	for i := range len(s) {
		d = append(d, s[i]-'0')
	}
	return d
}

func TestChecksums(t *testing.T) {
	for _, abn := range []string{"65000000101", "73000000606", "86000000303", "31000000202", "52000000404", "56000001313"} {
		if !ValidABN(digits(abn)) {
			t.Errorf("ABN %s refused", abn)
		}
		for i := range abn { // one digit off is never an ABN
			d := digits(abn)
			d[i] = (d[i] + 1) % 10
			if ValidABN(d) {
				t.Errorf("ABN %s with digit %d changed accepted", abn, i)
			}
		}
	}
	// The number is the one the agency publishes for its sandbox.
	if !ValidTFN(digits("220115957")) || ValidTFN(digits("220115958")) || ValidTFN(digits("000000000")) || ValidTFN(digits("2201159")) {
		t.Error("TFN checksum is wrong")
	}
}

func TestHoldsTFN(t *testing.T) {
	for text, want := range map[string]bool{
		"220115957":                  true,
		"tfn=220 115 957;":           true,
		"220-115-957":                true,
		"220.115.957":                true,
		"x220115957y":                true,
		"220\u00a0115\u00a0957":      true,  // spaces that do not break
		"220\u2013115\u2013957":      true,  // dashes
		"２２０１１５９５７":                  true,  // of full width
		"220\u200b115\u200b957":      true,  // spaces of no width
		"٢٢٠١١٥٩٥٧":                  true,  // of another script
		"1220115957":                 false, // ten digits
		"220115958":                  false,
		"":                           false,
		"65 000 000 101":             false, // an ABN
		"65000000101 then 220115957": true,
		"2026-11-22":                 false,
		"2026-11-22 220115957":       true,
		"2026-11-22T09:30:00.220115957Z login ok": false,
		"2026-11-22T09:30:00,220115957Z login ok": false,
		"09:30:00.220115957 tfn 220115957":        true,
		"99:30:00.220115957":                      true, // no time
	} {
		if got := HoldsTFN(text); got != want {
			t.Errorf("HoldsTFN(%q) = %v, want %v", text, got, want)
		}
	}
}

// Whatever stands around it, a tax file number written in groups is found,
// unless digits touch it.
func TestHoldsTFNAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SliceOfN(rapid.IntRange(0, 9), 8, 8).Draw(t, "digits")
		var tfn string
		for last := range 10 { // a nine-digit number with these first digits, if there is one
			text := strings.Trim(strings.ReplaceAll(fmt.Sprint(append(d[:8:8], last)), " ", ""), "[]")
			if ValidTFN(digits(text)) {
				tfn = text
			}
		}
		if tfn == "" {
			return // one in eleven beginnings has no such number
		}
		sep := rapid.SampledFrom([]string{"", " ", "-", "."}).Draw(t, "separator")
		grouped := tfn[:3] + sep + tfn[3:6] + sep + tfn[6:]
		before := rapid.StringMatching(`[a-z:"{=\[]{1,12}`).Draw(t, "before")
		after := rapid.StringMatching(`([a-z:"}\],][^0-9]{0,12})?`).Draw(t, "after")
		if !HoldsTFN(before + grouped + after) {
			t.Fatalf("%q not found in %q", grouped, before+grouped+after)
		}
	})
}

func FuzzHoldsTFN(f *testing.F) {
	f.Add("220115957")
	f.Add("2026-11-22T09:30:00.220115957Z")
	f.Add("65 000 000 101")
	f.Fuzz(func(t *testing.T, s string) {
		// Appending one after a letter is always found: nothing before it may hide it.
		if !HoldsTFN(s + "x220115957") {
			t.Errorf("hidden by %q", s)
		}
	})
}

func TestMaskTFN(t *testing.T) {
	for in, want := range map[string]string{
		"220115957":                          "*********",
		"for 220 115 957.":                   "for *** *** ***.",
		"/individuals/v1/220115957/prefill":  "/individuals/v1/*********/prefill",
		"a 220115957 and 220-115-957":        "a ********* and ***-***-***",
		"31 000 000 202 on 2026-11-22":       "31 000 000 202 on 2026-11-22",
		"nothing here":                       "nothing here",
		"at 2026-11-22T09:30:00.220115957Z.": "at 2026-11-22T09:30:00.220115957Z.",
		"für ２２０１１５９５７":                      "für *********",
		"220\u00a0115\u2013957":              "*** ***-***",
		"220\u200b115957":                    "*********",
	} {
		if got := MaskTFN(in); got != want || HoldsTFN(got) {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func FuzzMaskTFN(f *testing.F) {
	f.Add("x 220115957 31 000 000 202 220 115 957 1 220115957")
	f.Add("2201159 57-22011595 7")
	f.Fuzz(func(t *testing.T, s string) {
		if got := MaskTFN(s); HoldsTFN(got) || len(got) != len(plainly(s)) && got != s {
			t.Errorf("%q became %q", s, got)
		}
	})
}

// What digitValue stands on: Unicode has decimal digits in whole tens.
func TestDigitsOfEveryScriptComeByTens(t *testing.T) {
	for _, x := range unicode.Nd.R16 {
		if x.Stride != 1 || (x.Hi-x.Lo+1)%10 != 0 {
			t.Errorf("digits %x to %x by %d", x.Lo, x.Hi, x.Stride)
		}
	}
	for _, x := range unicode.Nd.R32 {
		if x.Stride != 1 || (x.Hi-x.Lo+1)%10 != 0 {
			t.Errorf("digits %x to %x by %d", x.Lo, x.Hi, x.Stride)
		}
	}
}
