package certification

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dspgate/dspgate/internal/identifier"
)

// EvidenceType is what a piece of evidence is.
type EvidenceType string

// The types of evidence (domain model §4).
const (
	Certificate     EvidenceType = "certificate"
	Workbook        EvidenceType = "self-assessment"
	Policy          EvidenceType = "policy"
	Screenshot      EvidenceType = "screenshot"
	SampleLog       EvidenceType = "sample-log"
	ScanReport      EvidenceType = "scan-report"
	Diagram         EvidenceType = "diagram"
	Attestation     EvidenceType = "attestation"
	TestReport      EvidenceType = "test-report"
	ExceptionLetter EvidenceType = "exception-letter"
)

// Media is what the bytes of a piece of evidence are, told from the bytes.
type Media string

// The media that evidence may be. There is no HTML, no SVG, no macro format and
// no archive but the two Office formats, which are shown to nobody inline.
const (
	PDF  Media = "application/pdf"
	PNG  Media = "image/png"
	JPEG Media = "image/jpeg"
	Text Media = "text/plain"
	JSON Media = "application/json"
	DOCX Media = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
	XLSX Media = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
)

// EvidenceRule is what evidence of one type may be.
type EvidenceRule struct {
	Type     EvidenceType `json:"type"`
	Title    string       `json:"title"`
	Media    []Media      `json:"media"`
	BytesMax int64        `json:"bytes_max"`
	// Dated: it says itself until when it holds, which is asked for.
	Dated bool `json:"expiry_needed"`
	// NoTFN: it is scanned for tax file numbers, line by line.
	NoTFN bool `json:"scanned_for_tfns"`
}

const mib = 1 << 20

// EvidenceRules is what evidence of each type may be.
func EvidenceRules() []EvidenceRule {
	documents := []Media{PDF, DOCX, Text}
	return []EvidenceRule{
		{Certificate, "Certificate of an independent assessor", []Media{PDF, PNG, JPEG}, 10 * mib, true, false},
		{Workbook, "Self-assessment workbook", []Media{PDF, XLSX, DOCX, JSON}, 20 * mib, false, false},
		{Policy, "Policy or procedure", documents, 10 * mib, false, false},
		{Screenshot, "Screenshots of a workflow", []Media{PNG, JPEG, PDF}, 10 * mib, false, false},
		{SampleLog, "Sample of a log, redacted", []Media{Text, JSON}, 5 * mib, false, true},
		{ScanReport, "Report of a scan or of an automated check", []Media{PDF, Text, JSON}, 20 * mib, false, false},
		{Diagram, "Diagram of architecture or delivery chain", []Media{PDF, PNG, JPEG}, 10 * mib, false, false},
		{Attestation, "Signed attestation", []Media{PDF, Text}, 5 * mib, false, false},
		{TestReport, "Report of a test", []Media{PDF, Text, JSON, DOCX}, 20 * mib, false, false},
		{ExceptionLetter, "Letter granting an exception", []Media{PDF}, 5 * mib, true, false},
	}
}

// EvidenceBytesMax is the size of the largest evidence of any type.
const EvidenceBytesMax = 20 * mib

func evidenceRule(t EvidenceType) *EvidenceRule {
	rules := EvidenceRules()
	if i := slices.IndexFunc(rules, func(r EvidenceRule) bool { return r.Type == t }); i >= 0 {
		return &rules[i]
	}
	return nil
}

// Evidence is a piece of evidence as received: what it is called is not kept
// with it, only what it holds.
type Evidence struct {
	// Address is "sha256:" and the hexadecimal digest of the bytes.
	Address string       `json:"address"`
	Type    EvidenceType `json:"type"`
	Media   Media        `json:"media"`
	Bytes   int64        `json:"bytes"`
}

// ParseAddress reads a content address and gives the hexadecimal digest.
func ParseAddress(s string) (digest string, err error) {
	digest, ok := strings.CutPrefix(s, "sha256:")
	if b, err := hex.DecodeString(digest); !ok || err != nil || len(b) != sha256.Size || digest != strings.ToLower(digest) {
		return "", fmt.Errorf("%w: %q is no content address; write sha256: and 64 lower-case hexadecimal digits", ErrInvalid, cut(s))
	}
	return digest, nil
}

// ErrTooLarge: evidence beyond the bound of its type.
var ErrTooLarge = errors.New("the evidence is too large")

// sniffBytes is how much of the beginning tells what the bytes are.
const sniffBytes = 4096

// TakeEvidence reads evidence to its end, or to the first thing that is wrong
// with it, copying what it reads to keep; after an error nothing that was
// copied may be kept. It holds no more than a line of it in memory.
func TakeEvidence(t EvidenceType, r io.Reader, keep io.Writer) (Evidence, error) {
	rule := evidenceRule(t)
	if rule == nil {
		return Evidence{}, Invalid("/type", "%q is no type of evidence; use %s", cut(string(t)), evidenceTypes())
	}
	sum := sha256.New()
	count := &counter{}
	in := bufio.NewReaderSize(io.TeeReader(io.LimitReader(r, rule.BytesMax+1), io.MultiWriter(keep, sum, count)), 64<<10)
	head, err := in.Peek(sniffBytes)
	if err != nil && !errors.Is(err, io.EOF) {
		return Evidence{}, fmt.Errorf("read evidence: %w", err)
	}
	if len(head) == 0 {
		return Evidence{}, Invalid("/content", "the file is empty")
	}
	media, ok := Sniff(head)
	if !ok || !slices.Contains(rule.Media, media) {
		return Evidence{}, Invalid("/content", "the file %s; a %s is %s", saysWhat(media, ok), strings.ToLower(rule.Title), joinMedia(rule.Media))
	}
	if err := readThrough(in, media, rule.NoTFN); err != nil {
		return Evidence{}, err
	}
	if count.n > rule.BytesMax {
		return Evidence{}, fmt.Errorf("%w: at most %d MiB for a %s", ErrTooLarge, rule.BytesMax/mib, strings.ToLower(rule.Title))
	}
	return Evidence{Address: "sha256:" + hex.EncodeToString(sum.Sum(nil)), Type: t, Media: media, Bytes: count.n}, nil
}

func readThrough(in *bufio.Reader, media Media, noTFN bool) error {
	if noTFN {
		line, found, err := ScanTFN(in)
		switch {
		case err != nil:
			return err
		case found:
			return Invalid("/content", "line %d holds what looks like a tax file number: redact it and send the log again", line)
		}
		return nil
	}
	if media != Text && media != JSON {
		_, err := io.Copy(io.Discard, in)
		return err
	}
	// What begins as text must go on as text.
	for {
		chunk, err := in.ReadSlice('\n')
		if bytes.IndexByte(chunk, 0) >= 0 {
			return Invalid("/content", "the file begins as text and holds binary data")
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return fmt.Errorf("read evidence: %w", err)
		}
	}
}

// scanLineMax bounds a line of a log; a longer one is refused, since a number
// may stand across any two pieces of it.
const scanLineMax = 1 << 20

// ScanTFN reads a text to its end and finds the first line, from 1, that holds
// a checksum-valid tax file number. What the number is, is told to nobody.
func ScanTFN(r io.Reader) (line int, found bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 64<<10), scanLineMax)
	for lines.Scan() {
		line++
		text := lines.Bytes()
		if bytes.IndexByte(text, 0) >= 0 || !utf8.Valid(text) {
			return line, false, Invalid("/content", "line %d is no UTF-8 text: send the log as plain text", line)
		}
		if !found && identifier.HoldsTFN(string(text)) {
			return line, true, nil
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return line + 1, false, Invalid("/content", "line %d is longer than %d bytes: send one event a line", line+1, scanLineMax)
	}
	if err := lines.Err(); err != nil {
		return line, false, fmt.Errorf("read evidence: %w", err)
	}
	return line, false, nil
}

// Sniff tells from the beginning of a file what it is. What it does not know it
// does not guess. Text is UTF-8 without control characters, and nothing that a
// browser would take for a page.
func Sniff(head []byte) (Media, bool) {
	switch {
	case bytes.HasPrefix(head, []byte("%PDF-1.")), bytes.HasPrefix(head, []byte("%PDF-2.")):
		return PDF, true
	case bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1a\n")):
		return PNG, true
	case bytes.HasPrefix(head, []byte{0xff, 0xd8, 0xff}):
		return JPEG, true
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return sniffOffice(head)
	}
	text := bytes.TrimPrefix(head, []byte("\xef\xbb\xbf"))
	if len(head) == sniffBytes { // the last character may be cut in two
		for i := 0; i < utf8.UTFMax && len(text) > 0 && !utf8.Valid(text); i++ {
			text = text[:len(text)-1]
		}
	}
	if !utf8.Valid(text) || bytes.ContainsFunc(text, func(r rune) bool { return r < 0x20 && r != '\t' && r != '\n' && r != '\r' || r == 0x7f }) {
		return "", false
	}
	trimmed := bytes.TrimSpace(text)
	if bytes.HasPrefix(trimmed, []byte("<")) { // HTML, SVG, XML: may carry scripts
		return "", false
	}
	if bytes.HasPrefix(trimmed, []byte("{")) || bytes.HasPrefix(trimmed, []byte("[{")) {
		return JSON, true
	}
	return Text, true
}

// sniffOffice tells the two Office formats by the names of the first members; a
// format with macros has another content type and is none.
func sniffOffice(head []byte) (Media, bool) {
	switch {
	case bytes.Contains(head, []byte("vbaProject.bin")), bytes.Contains(head, []byte("macroEnabled")):
		return "", false
	case !bytes.Contains(head, []byte("[Content_Types].xml")) && !bytes.Contains(head, []byte("_rels/.rels")):
		return "", false
	case bytes.Contains(head, []byte("word/")):
		return DOCX, true
	case bytes.Contains(head, []byte("xl/")):
		return XLSX, true
	}
	return "", false
}

func saysWhat(m Media, known bool) string {
	if !known {
		return "is of a type that is not accepted"
	}
	return "is " + string(m)
}

func joinMedia(all []Media) string {
	words := make([]string, len(all))
	for i, m := range all {
		words[i] = string(m)
	}
	return strings.Join(words, " or ")
}

func evidenceTypes() string {
	var words []string
	for _, r := range EvidenceRules() {
		words = append(words, string(r.Type))
	}
	return strings.Join(words, ", ")
}

// Dates are what a piece of evidence says of itself.
type Dates struct {
	Issued  time.Time `json:"issued,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
}

// CheckDates refuses dates that cannot be, and evidence that has expired.
func CheckDates(t EvidenceType, d Dates, now time.Time) error {
	rule := evidenceRule(t)
	switch {
	case rule == nil:
		return Invalid("/type", "%q is no type of evidence; use %s", cut(string(t)), evidenceTypes())
	case rule.Dated && d.Expires.IsZero():
		return Invalid("/expires_at", "a %s says until when it holds: give that date", strings.ToLower(rule.Title))
	case !d.Issued.IsZero() && d.Issued.After(now):
		return Invalid("/issued_at", "lies in the future")
	case !d.Expires.IsZero() && !d.Expires.After(now):
		return Invalid("/expires_at", "has passed: send evidence that holds now")
	case !d.Issued.IsZero() && !d.Expires.IsZero() && !d.Expires.After(d.Issued):
		return Invalid("/expires_at", "is not after issued_at")
	}
	return nil
}

type counter struct{ n int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}
