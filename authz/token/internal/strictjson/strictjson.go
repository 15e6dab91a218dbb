// Package strictjson reads JSON that can be read in one way only.
//
// encoding/json takes the last of two members with one name, matches names
// without regard to case and mends broken UTF-8; another reader of the same
// bytes does otherwise, and between the two an attacker passes. Here a name that
// comes twice in one object (after unescaping, at any depth), a lone surrogate,
// invalid UTF-8 and anything after the value is an error, and so is a document
// beyond the Limits.
package strictjson

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// The errors, all refusals of the document.
var (
	ErrSyntax    = errors.New("not strict JSON")
	ErrDuplicate = errors.New("a member name comes twice")
	ErrLimit     = errors.New("JSON beyond its limits")
)

// Limits bound a document. Its size is the caller's to bound.
type Limits struct {
	Depth  int // of nested arrays and objects; the outermost is 1
	Values int // values of every kind, in all
}

// Kind is the kind of a value.
type Kind uint8

// The kinds of JSON.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Value is one value. Its strings are parts of the document or, where it
// escaped something, copies.
type Value struct {
	Kind    Kind
	Text    string   // String: unescaped; Number: the literal
	True    bool     // Bool
	Items   []Value  // Array
	Members []Member // Object, in document order, no name twice
}

// Member is one member of an object.
type Member struct {
	Name  string // unescaped
	Value Value
}

// Get finds a member of an object by its exact name; nil when there is none.
func (v *Value) Get(name string) *Value {
	for i := range v.Members {
		if v.Members[i].Name == name {
			return &v.Members[i].Value
		}
	}
	return nil
}

// Variant finds a member whose name differs from the given one in case only (by
// Unicode's simple folding): another reader might take it for it.
func (v *Value) Variant(name string) bool {
	for i := range v.Members {
		if n := v.Members[i].Name; n != name && strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

// Parse reads one document, white space around it allowed.
func Parse(doc string, lim Limits) (*Value, error) {
	p := parser{s: doc, left: lim.Values}
	var v Value
	p.space()
	if err := p.value(&v, lim.Depth); err != nil {
		return nil, err
	}
	p.space()
	if p.i != len(p.s) {
		return nil, p.bad("something after the value")
	}
	return &v, nil
}

type parser struct {
	s    string
	i    int
	left int // values that may still come
}

func (p *parser) bad(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrSyntax, what, p.i)
}

func (p *parser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *parser) next() byte {
	if p.i < len(p.s) {
		return p.s[p.i]
	}
	return 0
}

func (p *parser) value(v *Value, depth int) (err error) {
	if p.left--; p.left < 0 {
		return fmt.Errorf("%w: too many values", ErrLimit)
	}
	switch c := p.next(); {
	case c == '{' || c == '[':
		if depth == 0 {
			return fmt.Errorf("%w: nested too deep", ErrLimit)
		}
		p.i++
		if c == '{' {
			return p.object(v, depth-1)
		}
		return p.array(v, depth-1)
	case c == '"':
		v.Kind = String
		v.Text, err = p.str()
		return err
	case c == '-' || c >= '0' && c <= '9':
		v.Kind = Number
		v.Text, err = p.number()
		return err
	}
	for _, w := range []struct {
		word string
		v    Value
	}{{"null", Value{}}, {"true", Value{Kind: Bool, True: true}}, {"false", Value{Kind: Bool}}} {
		if strings.HasPrefix(p.s[p.i:], w.word) {
			p.i += len(w.word)
			*v = w.v
			return nil
		}
	}
	return p.bad("no value")
}

func (p *parser) array(v *Value, depth int) error {
	v.Kind = Array
	p.space()
	if p.next() == ']' {
		p.i++
		return nil
	}
	for {
		var item Value
		p.space()
		if err := p.value(&item, depth); err != nil {
			return err
		}
		v.Items = append(v.Items, item)
		p.space()
		switch p.next() {
		case ',':
			p.i++
		case ']':
			p.i++
			return nil
		default:
			return p.bad("no comma or end of array")
		}
	}
}

// linear is up to how many members a scan finds a duplicate faster than a map.
const linear = 16

func (p *parser) object(v *Value, depth int) error {
	v.Kind = Object
	p.space()
	if p.next() == '}' {
		p.i++
		return nil
	}
	var seen map[string]bool
	for {
		p.space()
		if p.next() != '"' {
			return p.bad("no member name")
		}
		name, err := p.str()
		if err != nil {
			return err
		}
		if seen == nil && len(v.Members) == linear {
			seen = make(map[string]bool, 4*linear)
			for i := range v.Members {
				seen[v.Members[i].Name] = true
			}
		}
		if seen != nil && seen[name] || seen == nil && v.Get(name) != nil {
			return fmt.Errorf("%w: %.80q", ErrDuplicate, name)
		}
		if seen != nil {
			seen[name] = true
		}
		p.space()
		if p.next() != ':' {
			return p.bad("no colon")
		}
		p.i++
		p.space()
		m := Member{Name: name}
		if err := p.value(&m.Value, depth); err != nil {
			return err
		}
		v.Members = append(v.Members, m)
		p.space()
		switch p.next() {
		case ',':
			p.i++
		case '}':
			p.i++
			return nil
		default:
			return p.bad("no comma or end of object")
		}
	}
}

func (p *parser) number() (string, error) {
	start := p.i
	digits := func() bool {
		from := p.i
		for p.i < len(p.s) && p.s[p.i] >= '0' && p.s[p.i] <= '9' {
			p.i++
		}
		return p.i > from
	}
	if p.next() == '-' {
		p.i++
	}
	if p.next() == '0' {
		p.i++
	} else if !digits() {
		return "", p.bad("no digit")
	}
	if p.next() == '.' {
		p.i++
		if !digits() {
			return "", p.bad("no digit after the point")
		}
	}
	if c := p.next(); c == 'e' || c == 'E' {
		p.i++
		if c := p.next(); c == '+' || c == '-' {
			p.i++
		}
		if !digits() {
			return "", p.bad("no digit in the exponent")
		}
	}
	return p.s[start:p.i], nil
}

func (p *parser) str() (string, error) {
	p.i++ // the opening quote
	start := p.i
	for p.i < len(p.s) {
		switch c := p.s[p.i]; {
		case c == '"':
			s := p.s[start:p.i]
			p.i++
			if !utf8.ValidString(s) {
				return "", p.bad("invalid UTF-8 before")
			}
			return s, nil
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return "", p.bad("control character in a string")
		default:
			p.i++
		}
	}
	return "", p.bad("string without end")
}

// escaped goes on with a string at its first backslash.
func (p *parser) escaped(start int) (string, error) {
	b := append(make([]byte, 0, 64), p.s[start:p.i]...)
	for p.i < len(p.s) {
		c := p.s[p.i]
		p.i++
		switch {
		case c == '"':
			if !utf8.Valid(b) {
				return "", p.bad("invalid UTF-8 before")
			}
			return string(b), nil
		case c < ' ':
			return "", p.bad("control character in a string")
		case c != '\\':
			b = append(b, c)
			continue
		}
		c = p.next()
		p.i++
		if c == 'u' {
			r, ok := p.hex4()
			if utf16.IsSurrogate(r) && strings.HasPrefix(p.s[p.i:], `\u`) {
				p.i += 2
				low, okLow := p.hex4()
				r, ok = utf16.DecodeRune(r, low), ok && okLow
				// DecodeRune's answer to a broken pair is U+FFFD, which no pair encodes.
				ok = ok && r != utf8.RuneError
			} else if utf16.IsSurrogate(r) {
				ok = false
			}
			if !ok {
				return "", p.bad(`broken \u escape before`)
			}
			b = utf8.AppendRune(b, r)
			continue
		}
		k := strings.IndexByte(`"\/bfnrt`, c)
		if k < 0 || c == 0 {
			return "", p.bad("unknown escape before")
		}
		b = append(b, "\"\\/\b\f\n\r\t"[k])
	}
	return "", p.bad("string without end")
}

func (p *parser) hex4() (r rune, ok bool) {
	if len(p.s)-p.i < 4 {
		p.i = len(p.s)
		return 0, false
	}
	for range 4 {
		c := p.s[p.i]
		p.i++
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
