package intake

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dspgate/dspgate/registry"
)

// Line is one product as an existing register has it.
type Line struct {
	ProductID string `json:"product_id"`
	Name      string `json:"name"`
	OwnerABN  string `json:"owner_abn"`
	// OwnerName, Contact and Roles enter the owner when it is not registered yet.
	OwnerName string   `json:"owner_name,omitempty"`
	Contact   string   `json:"contact,omitempty"`
	Roles     []string `json:"roles,omitempty"`
	Chain     []string `json:"chain,omitempty"` // ABNs of others that deliver it
	Scenario  uint8    `json:"scenario"`
	Versions  []string `json:"versions,omitempty"`
	// Whitelisted: the agency had approved it for Services.
	Whitelisted bool     `json:"whitelisted,omitempty"`
	Services    []string `json:"services,omitempty"`
	Records     uint64   `json:"records,omitempty"` // unique client records
	Offshore    bool     `json:"offshore,omitempty"`
}

// columns are the names of a CSV's columns, in the order of an export.
func columns() []string {
	return []string{"product_id", "name", "owner_abn", "owner_name", "contact", "roles", "chain", "scenario", "versions", "whitelisted", "services", "records", "offshore"}
}

// Format is how lines are written.
type Format string

// The formats: CSV with a header (RFC 4180; lists separated by spaces, yes and
// no), and JSON, an array of objects or one object after the other.
const (
	CSV  Format = "csv"
	JSON Format = "json"
)

// Bounds on a file.
const (
	FileBytesMax = 128 << 20
	lineBytesMax = 64 << 10
	// readBytesMax is how much is read in search of a line's end: more would be held in
	// memory, for the sake of a quote that was left open.
	readBytesMax = 1 << 20
	listMax      = 500
)

// lineError is a line that cannot be read; the next one may be.
type lineError struct{ err error }

func (e *lineError) Error() string { return e.err.Error() }
func (e *lineError) Unwrap() error { return e.err }

func badLine(pointer, format string, args ...any) error {
	return &lineError{registry.Field(pointer, format, args...)}
}

// reader reads lines. next gives a line's number, from 1 for the first product;
// io.EOF after the last; a lineError for one that is wrong.
type reader interface {
	next() (Line, int, error)
}

func newReader(r io.Reader, f Format) (reader, error) {
	b := &bounded{r: io.LimitReader(r, FileBytesMax+1), left: readBytesMax}
	switch f {
	case CSV:
		return newCSV(b)
	case JSON:
		return newJSON(b)
	}
	return nil, registry.Field("/format", "%q; use csv or json", f)
}

// bounded reads no more than so much for one line.
type bounded struct {
	r    io.Reader
	left int
}

var errEndless = errors.New("the line does not end")

func (b *bounded) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, errEndless
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// endless tells of a line that is longer than what is read of it; where the next one begins
// is not known, so that nothing after it is read.
func endless(n int) error {
	return registry.Field("", "line %d is longer than %d KiB: is a quote left open in it, or in the one before? Nothing from it on was read", n, readBytesMax>>10)
}

type csvReader struct {
	in   *bounded
	r    *csv.Reader
	cols []string
	n    int
}

func newCSV(r *bounded) (reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	if bom, err := b.Peek(3); err == nil && bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		_, _ = b.Discard(3) // just peeked at
	}
	c := &csvReader{in: r, r: csv.NewReader(b)}
	c.r.ReuseRecord = true
	head, err := c.r.Read()
	if err != nil {
		return nil, registry.Field("", "the file has no header; its first line names the columns: %s", strings.Join(columns(), ","))
	}
	c.cols = slices.Clone(head)
	for i, name := range c.cols {
		if !slices.Contains(columns(), name) || slices.Contains(c.cols[:i], name) {
			return nil, registry.Field("", "there is no column %q, or it stands twice; use %s", cut(name), strings.Join(columns(), ","))
		}
	}
	for _, name := range []string{"product_id", "name", "owner_abn", "scenario"} {
		if !slices.Contains(c.cols, name) {
			return nil, registry.Field("", "the column %s is needed", name)
		}
	}
	return c, nil
}

func (c *csvReader) next() (Line, int, error) {
	c.in.left = readBytesMax
	cells, err := c.r.Read()
	if errors.Is(err, io.EOF) {
		return Line{}, c.n, io.EOF
	}
	c.n++
	if errors.Is(err, errEndless) {
		return Line{}, c.n, endless(c.n)
	}
	if err != nil {
		if errors.Is(err, csv.ErrFieldCount) {
			return Line{}, c.n, badLine("", "has %d cells; the header has %d", len(cells), len(c.cols))
		}
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			return Line{}, c.n, badLine("", "is no CSV: %v", parse.Err)
		}
		return Line{}, c.n, err
	}
	var l Line
	size := 0
	for i, cell := range cells {
		if size += len(cell); size > lineBytesMax {
			return Line{}, c.n, badLine("", "is longer than %d bytes", lineBytesMax)
		}
		if !utf8.ValidString(cell) {
			return Line{}, c.n, badLine("/"+c.cols[i], "is not UTF-8")
		}
		if err := l.set(c.cols[i], strings.TrimSpace(unguard(cell))); err != nil {
			return Line{}, c.n, err
		}
	}
	return l, c.n, nil
}

// set reads one cell.
func (l *Line) set(column, cell string) (err error) {
	number := func(bits int) (n uint64) {
		if cell == "" {
			return 0
		}
		if n, err = strconv.ParseUint(cell, 10, bits); err != nil {
			err = badLine("/"+column, "%q is no whole number", cut(cell))
		}
		return n
	}
	word := func() bool {
		if cell != "yes" && cell != "no" && cell != "" {
			err = badLine("/"+column, "%q; write yes or no", cut(cell))
		}
		return cell == "yes"
	}
	switch column {
	case "product_id":
		l.ProductID = cell
	case "name":
		l.Name = cell
	case "owner_abn":
		l.OwnerABN = cell
	case "owner_name":
		l.OwnerName = cell
	case "contact":
		l.Contact = cell
	case "roles":
		l.Roles = strings.Fields(cell)
	case "chain":
		l.Chain = strings.Fields(cell)
	case "scenario":
		l.Scenario = uint8(number(8))
	case "versions":
		l.Versions = strings.Fields(cell)
	case "whitelisted":
		l.Whitelisted = word()
	case "services":
		l.Services = strings.Fields(cell)
	case "records":
		l.Records = number(53)
	case "offshore":
		l.Offshore = word()
	}
	return err
}

// jsonReader reads an array of objects, or one object after the other. Of the
// latter, one that is broken is refused by itself: the next begins on the next line
// that begins with a brace.
type jsonReader struct {
	in    *bounded
	b     *bufio.Reader
	array bool
	d     *json.Decoder // of the array, or of the objects between two such lines
	held  []byte        // the line that the next of them begin with
	n     int
}

func newJSON(r *bounded) (reader, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	for {
		c, err := b.ReadByte()
		if err != nil {
			return nil, registry.Field("", "the file is empty")
		}
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			continue
		}
		if c != '[' && c != '{' {
			return nil, registry.Field("", "the file is no JSON: it begins with neither an array nor an object")
		}
		if err := b.UnreadByte(); err != nil {
			return nil, err
		}
		j := &jsonReader{in: r, b: b, array: c == '['}
		if j.array {
			j.d = json.NewDecoder(b)
			_, _ = j.d.Token() // the bracket just seen
		}
		return j, nil
	}
}

func (j *jsonReader) next() (Line, int, error) {
	j.in.left = readBytesMax
	if j.array {
		return j.nextOfArray()
	}
	for {
		if j.d == nil {
			objects, err := j.upToBrace()
			if errors.Is(err, errEndless) {
				j.n++
				return Line{}, j.n, endless(j.n)
			}
			if err != nil {
				return Line{}, j.n, err
			}
			j.d = json.NewDecoder(bytes.NewReader(objects))
		}
		var raw json.RawMessage
		err := j.d.Decode(&raw)
		if errors.Is(err, io.EOF) {
			j.d = nil
			continue
		}
		j.n++
		if err != nil {
			j.d = nil
			return Line{}, j.n, badLine("", "is no JSON")
		}
		return j.line(raw)
	}
}

// upToBrace reads lines up to the next that begins with a brace; io.EOF when
// there are none.
func (j *jsonReader) upToBrace() ([]byte, error) {
	lines := j.held
	j.held = nil
	for {
		line, err := j.b.ReadBytes('\n')
		text := bytes.TrimSpace(line)
		if len(text) > 0 && text[0] == '{' && len(lines) > 0 {
			j.held = line
			return lines, nil
		}
		if len(text) > 0 {
			lines = append(lines, line...)
		}
		switch {
		case errors.Is(err, io.EOF) && len(lines) > 0:
			return lines, nil
		case err != nil:
			return nil, err
		case len(lines) > readBytesMax:
			return nil, errEndless
		}
	}
}

func (j *jsonReader) nextOfArray() (Line, int, error) {
	if !j.d.More() {
		if _, err := j.d.Token(); err != nil {
			return Line{}, j.n, registry.Field("", "the file breaks off after product %d", j.n)
		}
		if j.d.More() {
			return Line{}, j.n, registry.Field("", "something follows the array")
		}
		j.array, j.d = false, nil // and nothing is left to read
		return Line{}, j.n, io.EOF
	}
	j.n++
	var raw json.RawMessage
	if err := j.d.Decode(&raw); errors.Is(err, errEndless) {
		return Line{}, j.n, endless(j.n)
	} else if err != nil {
		// Where the next one begins cannot be known.
		return Line{}, j.n, registry.Field("", "product %d is no JSON (near byte %d); with one object a line the others could be read", j.n, j.d.InputOffset())
	}
	return j.line(raw)
}

func (j *jsonReader) line(raw []byte) (Line, int, error) {
	if len(raw) > lineBytesMax {
		return Line{}, j.n, badLine("", "is longer than %d bytes", lineBytesMax)
	}
	l, err := parseObject(raw)
	return l, j.n, err
}

// parseObject reads one object strictly: no unknown and no repeated member.
func parseObject(raw []byte) (Line, error) {
	var l Line
	if !utf8.Valid(raw) {
		return l, badLine("", "is not UTF-8")
	}
	if len(raw) == 0 || raw[0] != '{' {
		return l, badLine("", "is no JSON object")
	}
	seen := map[string]bool{}
	d := json.NewDecoder(bytes.NewReader(raw))
	_, _ = d.Token() // the brace
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return l, badLine("", "is no JSON object")
		}
		name, _ := key.(string)
		if seen[name] {
			return l, badLine("/"+cut(name), "stands twice")
		}
		if !slices.Contains(columns(), name) {
			return l, badLine("/"+cut(name), "there is no such member; use %s", strings.Join(columns(), ", "))
		}
		seen[name] = true
		var skip json.RawMessage
		if err := d.Decode(&skip); err != nil {
			return l, badLine("/"+name, "is no JSON")
		}
		if string(skip) == "null" {
			return l, badLine("/"+name, "null means nothing here: leave the member out")
		}
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		var typ *json.UnmarshalTypeError
		if errors.As(err, &typ) {
			return l, badLine("/"+typ.Field, "is a %s where a %s is needed", typ.Value, typ.Type)
		}
		return l, badLine("", "is no JSON object")
	}
	return l, nil
}

// parsed is a line made ready: what can be wrong without the register is known.
type parsed struct {
	Line
	owner registry.ABN
	chain []registry.ABN
}

func (l Line) parse() (parsed, error) {
	p := parsed{Line: l}
	var err error
	if p.owner, err = registry.ParseABN(l.OwnerABN); err != nil {
		return p, &registry.FieldError{Field: "/owner_abn", Err: err}
	}
	for i, text := range l.Chain {
		abn, err := registry.ParseABN(text)
		if err != nil {
			return p, &registry.FieldError{Field: fmt.Sprintf("/chain/%d", i), Err: err}
		}
		p.chain = append(p.chain, abn)
	}
	switch {
	case l.Scenario < 1 || l.Scenario > 6:
		return p, registry.Field("/scenario", "deployment scenarios are 1 to 6")
	case len(l.Versions) > listMax || len(l.Services) > listMax || len(l.Roles) > 8:
		return p, registry.Field("", "holds too long a list")
	case l.Whitelisted && len(l.Services) == 0:
		return p, registry.Field("/services", "name the services that it was whitelisted for")
	case registry.HoldsTFN(l.Name), registry.HoldsTFN(l.OwnerName), registry.HoldsTFN(l.Contact):
		return p, registry.Field("", "holds what looks like a tax file number; leave it out")
	}
	return p, nil
}

func cut(s string) string {
	if len(s) > 40 {
		return strings.ToValidUTF8(s[:40], "") + "…"
	}
	return s
}

// guard keeps a cell from being a formula where a spreadsheet opens the file:
// whatever begins like one, or with the mark itself, gets an apostrophe.
func guard(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r\n'|%", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}

// unguard takes guard's apostrophe away.
func unguard(cell string) string {
	if len(cell) > 1 && cell[0] == '\'' && strings.ContainsRune("=+-@\t\r\n'|%", rune(cell[1])) {
		return cell[1:]
	}
	return cell
}

// Guard is the cell of a CSV that no spreadsheet takes for a formula.
func Guard(cell string) string { return guard(cell) }
