package certification

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/dspgate/dspgate/internal/identifier"
	"pgregory.net/rapid"
)

const (
	pdf  = "%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj"
	png  = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
	docx = "PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00[Content_Types].xml …word/document.xml"
)

func TestSniff(t *testing.T) {
	for text, want := range map[string]Media{
		pdf: PDF, png: PNG, "\xff\xd8\xff\xe0\x00\x10JFIF": JPEG, docx: DOCX, strings.Replace(docx, "word/", "xl/", 1): XLSX,
		"2026-11-22 login ok\n": Text, "\xef\xbb\xbfa,b\n": Text, `{"a":1}`: JSON, "[{\"a\":1}]": JSON, "é": Text,
		"<html>": "", "  <svg xmlns=": "", "<?xml version": "", "MZ\x90\x00": "", "\x7fELF": "", "PK\x03\x04 evil.exe": "", "%PDF-9": Text,
		strings.Replace(docx, "word/", "word/vbaProject.bin", 1): "", "\xff\xfea\x00b\x00": "", "a\x00b": "", "\x1b[2J": "", "GIF89a": Text,
	} {
		got, ok := Sniff([]byte(text))
		if got != want || ok != (want != "") {
			t.Errorf("%.20q is %q, want %q", text, got, want)
		}
	}
	// A character cut in two where the head ends is no binary data.
	if m, ok := Sniff([]byte(strings.Repeat("é", 3000))[:sniffBytes-1]); ok && m != Text {
		t.Errorf("cut text is %q", m)
	}
	if m, _ := Sniff([]byte("x" + strings.Repeat("é", 3000))[:sniffBytes]); m != Text {
		t.Errorf("cut text is %q", m)
	}
}

func TestTakeEvidence(t *testing.T) {
	log := strings.Repeat("2026-11-22T09:00:00Z user=u1 session=s1 login ok\n", 300)
	for name, x := range map[string]struct {
		typ  EvidenceType
		body string
		says string // "" when it is taken
	}{
		"a certificate":               {Certificate, pdf, ""},
		"a log":                       {SampleLog, log, ""},
		"a log with a TFN":            {SampleLog, log + "x tfn=220 115 957\n" + log, "line 301"},
		"a log with a TFN at the end": {SampleLog, log + "220115957", "line 301"},
		"a log that turns binary":     {SampleLog, log + "\x00\x01", "line 301"},
		"a log in another encoding":   {SampleLog, "caf\xe9\n", "is of a type"},
		"a line without an end":       {SampleLog, strings.Repeat("a", scanLineMax+1), "line 1"},
		"a log as a PDF":              {SampleLog, pdf, "is application/pdf"},
		"a text that turns binary":    {Policy, strings.Repeat("policy ", 1000) + "\x00", "binary"},
		"a page":                      {Policy, "<html><script>", "not accepted"},
		"nothing":                     {Policy, "", "empty"},
		"an executable":               {Certificate, "MZ\x90\x00\x03", "not accepted"},
		"an unknown type":             {"poem", "roses", "poem"},
	} {
		t.Run(name, func(t *testing.T) {
			var kept bytes.Buffer
			e, err := TakeEvidence(x.typ, iotest.HalfReader(strings.NewReader(x.body)), &kept)
			if x.says == "" {
				sum := sha256.Sum256([]byte(x.body))
				if err != nil || e.Address != "sha256:"+hex.EncodeToString(sum[:]) || e.Bytes != int64(len(x.body)) || kept.String() != x.body {
					t.Errorf("%+v, %v, %d bytes kept", e, err, kept.Len())
				}
				if d, err := ParseAddress(e.Address); err != nil || len(d) != 64 {
					t.Errorf("address %s: %v", e.Address, err)
				}
				return
			}
			var f *FieldError
			if !asField(err, &f) || !strings.Contains(err.Error(), x.says) || strings.Contains(err.Error(), "115") {
				t.Errorf("got %v, want %q", err, x.says)
			}
		})
	}
}

func TestEvidenceTooLarge(t *testing.T) {
	for _, rule := range EvidenceRules() {
		head, line := pdf, "a line of text\n"
		if rule.Type == SampleLog {
			head = line
		}
		if rule.Type == Screenshot {
			head = png
		}
		body := func(n int64) io.Reader {
			return io.MultiReader(strings.NewReader(head), io.LimitReader(&repeated{line: line}, n-int64(len(head))))
		}
		if _, err := TakeEvidence(rule.Type, body(rule.BytesMax), io.Discard); err != nil {
			t.Errorf("%s of %d bytes: %v", rule.Type, rule.BytesMax, err)
		}
		if _, err := TakeEvidence(rule.Type, body(rule.BytesMax+1), io.Discard); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s of %d bytes: %v", rule.Type, rule.BytesMax+1, err)
		}
		if rule.BytesMax > EvidenceBytesMax {
			t.Errorf("%s may be larger than EvidenceBytesMax", rule.Type)
		}
	}
}

// repeated reads one line for ever.
type repeated struct {
	line string
	at   int
}

func (r *repeated) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = r.line[r.at]
		r.at = (r.at + 1) % len(r.line)
	}
	return len(b), nil
}

func TestEvidenceThatBreaksOff(t *testing.T) {
	broken := errors.New("broken")
	for _, typ := range []EvidenceType{Certificate, SampleLog, Policy} {
		body := map[EvidenceType]string{Certificate: pdf, SampleLog: strings.Repeat("line\n", 2000), Policy: strings.Repeat("text ", 2000)}[typ]
		if _, err := TakeEvidence(typ, io.MultiReader(strings.NewReader(body), iotest.ErrReader(broken)), io.Discard); !errors.Is(err, broken) {
			t.Errorf("%s: %v", typ, err)
		}
	}
}

func TestEvidenceDates(t *testing.T) {
	at := now(t)
	for name, x := range map[string]struct {
		typ   EvidenceType
		d     Dates
		field string
	}{
		"a certificate":             {Certificate, Dates{Issued: at.AddDate(0, -1, 0), Expires: at.AddDate(1, 0, 0)}, ""},
		"a policy without dates":    {Policy, Dates{}, ""},
		"a certificate without end": {Certificate, Dates{}, "/expires_at"},
		"expired":                   {Certificate, Dates{Expires: at}, "/expires_at"},
		"of tomorrow":               {Policy, Dates{Issued: at.AddDate(0, 0, 1)}, "/issued_at"},
		"the wrong way round":       {Policy, Dates{Issued: at, Expires: at.AddDate(0, 0, -1)}, "/expires_at"},
		"of no type":                {"poem", Dates{}, "/type"},
	} {
		err := CheckDates(x.typ, x.d, at)
		var f *FieldError
		if (err == nil) != (x.field == "") || err != nil && (!asField(err, &f) || f.Field != x.field) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A log is refused at the first line that holds a number, wherever it stands,
// and is taken when no line does.
func TestScanTFNNamesTheFirstLine(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOfN(rapid.StringMatching(`[a-z =:,\[\]"0-9]{0,40}`), 1, 30).Draw(t, "lines")
		if at := rapid.IntRange(-1, len(lines)-1).Draw(t, "at"); at >= 0 {
			lines[at] += " tfn=220115957"
		}
		want := 0
		for i, l := range lines {
			if want == 0 && identifier.HoldsTFN(l) {
				want = i + 1
			}
		}
		line, found, err := ScanTFN(strings.NewReader(strings.Join(lines, "\n")))
		if err != nil || found != (want > 0) || found && line != want {
			t.Fatalf("line %d, %v, %v; want %d", line, found, err, want)
		}
	})
}

func FuzzTakeEvidence(f *testing.F) {
	for _, s := range []string{pdf, png, docx, "a\n220115957\n", "{}", "\xff"} {
		f.Add(0, []byte(s))
		f.Add(4, []byte(s))
	}
	f.Fuzz(func(t *testing.T, typ int, b []byte) {
		rules := EvidenceRules()
		rule := rules[((typ%len(rules))+len(rules))%len(rules)]
		var kept bytes.Buffer
		e, err := TakeEvidence(rule.Type, bytes.NewReader(b), &kept)
		if err != nil {
			return
		}
		sum := sha256.Sum256(b)
		if e.Address != "sha256:"+hex.EncodeToString(sum[:]) || !bytes.Equal(kept.Bytes(), b) {
			t.Fatal("what was taken is not what was sent")
		}
		if rule.NoTFN {
			for _, line := range strings.Split(string(b), "\n") {
				if identifier.HoldsTFN(line) {
					t.Fatalf("taken with a number in %q", line)
				}
			}
		}
	})
}
