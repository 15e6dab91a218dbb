package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// decoder turns genuine records into entries. The two nouns of which there are
// a hundred thousand, and the one that many wait for, are read by a scanner for
// just the JSON that encoding/json writes of them; whatever else it meets it leaves to encoding/json, so that it
// can only be faster, never different. One goroutine at a time.
//
// Lists that many products have alike share their memory, for as long as one
// decoder lives: nothing in a View is ever modified.
type decoder struct {
	words        map[string]string
	versions     map[string][]Version
	entitlements map[string][]Entitlement
}

// sharedMax bounds what one decoder keeps to share, of each sort.
const sharedMax = 4096

// decode makes the entry of a record: a *Entry of the noun of its kind.
func (d *decoder) decode(r *Record) (entry any, err error) {
	switch r.Kind {
	case KindEntity:
		return decodeWith(r, func(v *Entity) bool { return v.ABN != 0 && v.ABN.String() == r.ID }, nil)
	case KindProduct:
		return decodeWith(r, func(v *Product) bool { return v.ID == r.ID }, d.product)
	case KindClientApp:
		return decodeWith(r, func(v *ClientApp) bool { return v.ClientID == r.ID }, d.clientApp)
	case KindCredential:
		return decodeWith(r, func(v *Credential) bool { return v.Thumbprint == r.ID }, nil)
	case KindSubscription:
		return decodeWith(r, func(v *Subscription) bool { return v.SSID == r.ID }, nil)
	case KindService:
		return decodeWith(r, func(v *Service) bool { return v.Key == r.ID }, nil)
	case KindSuspension:
		return decodeWith(r, func(v *Suspension) bool { return v.ID == r.ID }, d.suspension)
	case KindDenial:
		return decodeWith(r, func(v *Denial) bool { return v.ID == r.ID }, nil)
	case KindNotice:
		return decodeWith(r, func(v *Notice) bool { return v.ID == r.ID }, nil)
	case KindLimit:
		return decodeWith(r, func(v *Limit) bool { return v.ID == r.ID && v.ID == LimitID(v.Subject, v.Name) }, nil)
	case KindProtected:
		return decodeWith(r, func(v *Protected) bool { return v.well(r.ID) }, nil)
	case KindScreen:
		return decodeWith(r, func(v *Screen) bool { return v.ID == r.ID }, nil)
	}
	return nil, fmt.Errorf("%w: record kind %d", ErrInvalid, r.Kind)
}

// decodeWith reads by the fast way first, when there is one. named tells
// whether the value bears the record's own ID.
func decodeWith[T any](r *Record, named func(*T) bool, fast func([]byte, *T) bool) (any, error) {
	e := &Entry[T]{Revision: r.Revision, MAC: r.MAC}
	if fast == nil || !fast(r.Data, &e.Value) {
		var zero T
		e.Value = zero
		if err := json.Unmarshal(r.Data, &e.Value); err != nil {
			return nil, err
		}
	}
	if r.ID == "" || !named(&e.Value) {
		return nil, fmt.Errorf("%w: the value bears another ID", ErrInvalid)
	}
	e.ID = ownID(e, r.ID)
	return e, nil
}

// ownID is the ID from the value, where it has one as a string: one copy serves both.
func ownID(e any, id string) string {
	switch e := e.(type) {
	case *Entry[Product]:
		return e.Value.ID
	case *Entry[ClientApp]:
		return e.Value.ClientID
	case *Entry[Suspension]:
		return e.Value.ID
	}
	return strings.Clone(id) // it may be a piece of something longer
}

// word returns a string of the bytes, the same one for the same bytes.
func (d *decoder) word(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	if s, ok := d.words[string(b)]; ok {
		return s
	}
	s := string(b)
	if d.words == nil {
		d.words = map[string]string{}
	}
	if len(d.words) < sharedMax {
		d.words[s] = s
	}
	return s
}

func (d *decoder) product(data []byte, p *Product) bool {
	s := scanner{b: data}
	var id, name []byte
	seen := uint32(0)
	for s.open('{'); s.next('}'); {
		switch key := s.key(); string(key) {
		case "id":
			s.once(&seen, 0)
			id = s.text()
		case "name":
			s.once(&seen, 1)
			name = s.text()
		case "owner":
			s.once(&seen, 2)
			p.Owner = s.abn()
		case "chain":
			s.once(&seen, 3)
			p.Chain = s.abns()
		case "versions":
			s.once(&seen, 4)
			p.Versions = shared(&d.versions, s.array(), d.versionList)
			s.fail(p.Versions == nil)
		case "entitlements":
			s.once(&seen, 5)
			p.Entitlements = shared(&d.entitlements, s.array(), d.entitlementList)
			s.fail(p.Entitlements == nil)
		case "category":
			s.once(&seen, 6)
			p.Category = Category(d.word(s.text()))
		case "updated_at":
			s.once(&seen, 7)
			p.Updated = s.time()
		case "certification":
			s.once(&seen, 8)
			s.certification(&p.Certification)
		case "scenario":
			s.once(&seen, 9)
			p.Scenario = s.small()
		case "own_abn_only":
			s.once(&seen, 10)
			p.OwnABNOnly = s.bool()
		case "tier":
			s.once(&seen, 11)
			p.Tier = d.word(s.text())
		case "warn_builds":
			s.once(&seen, 12)
			p.WarnBuilds = s.bool()
		default:
			return false
		}
	}
	if !s.end() {
		return false
	}
	p.ID, p.Name = twoStrings(id, name)
	return true
}

func (d *decoder) clientApp(data []byte, a *ClientApp) bool {
	s := scanner{b: data}
	var id, product []byte
	seen := uint32(0)
	for s.open('{'); s.next('}'); {
		switch key := s.key(); string(key) {
		case "client_id":
			s.once(&seen, 0)
			id = s.text()
		case "product_id":
			s.once(&seen, 1)
			product = s.text()
		case "updated_at":
			s.once(&seen, 2)
			a.Updated = s.time()
		case "environment":
			s.once(&seen, 3)
			a.Environment = Environment(s.enum(environmentWords))
		case "disabled":
			s.once(&seen, 4)
			a.Disabled = s.bool()
		default:
			return false
		}
	}
	if !s.end() {
		return false
	}
	a.ClientID, a.ProductID = twoStrings(id, product)
	return true
}

// shared finds a list by its JSON, or reads and keeps it. Nil when it cannot be read.
func shared[T any](kept *map[string][]T, raw []byte, read func([]byte) []T) []T {
	if v, ok := (*kept)[string(raw)]; ok {
		return v
	}
	v := read(raw)
	if v != nil && len(*kept) < sharedMax {
		if *kept == nil {
			*kept = map[string][]T{}
		}
		(*kept)[string(raw)] = v
	}
	return v
}

func (d *decoder) versionList(raw []byte) []Version {
	var buf [16]Version
	list := buf[:0]
	s := scanner{b: raw}
	for s.open('['); s.next(']'); {
		var v Version
		seen := uint32(0)
		for s.open('{'); s.next('}'); {
			switch key := s.key(); string(key) {
			case "version":
				s.once(&seen, 0)
				v.Version = d.word(s.text())
			case "released_at":
				s.once(&seen, 1)
				v.Released = s.time()
			case "support_until":
				s.once(&seen, 2)
				v.SupportUntil = s.time()
			case "state":
				s.once(&seen, 3)
				v.State = VersionState(s.enum(versionStateWords))
			case "security_relevant":
				s.once(&seen, 4)
				v.SecurityRelevant = s.bool()
			default:
				return nil
			}
		}
		list = append(list, v)
	}
	if !s.end() || len(list) == 0 {
		return nil
	}
	return slices.Clip(slices.Clone(list))
}

func (d *decoder) entitlementList(raw []byte) []Entitlement {
	var buf [16]Entitlement
	list := buf[:0]
	s := scanner{b: raw}
	for s.open('['); s.next(']'); {
		var e Entitlement
		seen := uint32(0)
		for s.open('{'); s.next('}'); {
			switch key := s.key(); string(key) {
			case "service":
				s.once(&seen, 0)
				e.Service = d.word(s.text())
			case "named_clients":
				s.once(&seen, 1)
				e.NamedClients = s.abns()
			case "from":
				s.once(&seen, 2)
				e.From = s.time()
			case "until":
				s.once(&seen, 3)
				e.Until = s.time()
			case "environment":
				s.once(&seen, 4)
				e.Environment = Environment(s.enum(environmentWords))
			case "stage":
				s.once(&seen, 5)
				e.Stage = Stage(s.enum(stageWords))
			default:
				return nil
			}
		}
		list = append(list, e)
	}
	if !s.end() || len(list) == 0 {
		return nil
	}
	return slices.Clip(slices.Clone(list))
}

// twoStrings copies two strings in one allocation.
func twoStrings(a, b []byte) (string, string) {
	if len(a)+len(b) == 0 {
		return "", ""
	}
	both := make([]byte, 0, len(a)+len(b))
	both = append(append(both, a...), b...)
	s := unsafe.String(unsafe.SliceData(both), len(both)) // nobody else has both
	return s[:len(a)], s[len(a):]
}

// scanner reads JSON without white space, escapes, null, or a member twice.
// At the first thing it does not know it fails for good: every later read gives
// zero, and end is false.
type scanner struct {
	b      []byte
	i      int
	first  bool // of the object or array just opened
	failed bool
}

func (s *scanner) fail(when bool) {
	if when {
		s.failed = true
	}
}

func (s *scanner) end() bool { return !s.failed && s.i == len(s.b) }

// take reads one byte if it is c.
func (s *scanner) take(c byte) bool {
	if !s.failed && s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

func (s *scanner) open(c byte) {
	s.fail(!s.take(c))
	s.first = true
}

// next tells whether another element stands before the closing byte.
func (s *scanner) next(closing byte) bool {
	if s.failed {
		return false
	}
	if s.first {
		s.first = false
		return !s.take(closing)
	}
	if s.take(closing) {
		return false
	}
	s.fail(!s.take(','))
	return !s.failed
}

func (s *scanner) key() []byte {
	k := s.text()
	s.fail(!s.take(':'))
	return k
}

// once fails when a member comes again.
func (s *scanner) once(seen *uint32, bit uint) {
	s.fail(*seen&(1<<bit) != 0)
	*seen |= 1 << bit
}

// text reads a string; the bytes are those of the input.
func (s *scanner) text() []byte {
	if !s.take('"') {
		s.failed = true
		return nil
	}
	var high byte
	for i := s.i; i < len(s.b); i++ {
		switch c := s.b[i]; {
		case c == '"':
			t := s.b[s.i:i]
			s.i = i + 1
			s.fail(high >= utf8.RuneSelf && !utf8.Valid(t))
			return t
		case c == '\\' || c < ' ':
			s.failed = true
			return nil
		default:
			high |= c
		}
	}
	s.failed = true
	return nil
}

// array reads over an array and returns it, brackets and all.
func (s *scanner) array() []byte {
	from, depth := s.i, 0
	for s.i < len(s.b) && !s.failed {
		switch s.b[s.i] {
		case '"':
			s.text()
			continue
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		}
		s.i++
		if depth == 0 {
			return s.b[from:s.i]
		}
	}
	s.failed = true
	return nil
}

func (s *scanner) bool() bool {
	for _, v := range [...]struct {
		text  string
		value bool
	}{{"true", true}, {"false", false}} {
		if !s.failed && bytes.HasPrefix(s.b[s.i:], []byte(v.text)) {
			s.i += len(v.text)
			return v.value
		}
	}
	s.failed = true
	return false
}

// small reads a number of 0 to 255.
func (s *scanner) small() uint8 {
	n, from := 0, s.i
	for !s.failed && s.i < len(s.b) && s.b[s.i]-'0' <= 9 && s.i-from < 3 {
		n = n*10 + int(s.b[s.i]-'0')
		s.i++
	}
	s.fail(s.i == from || n > 255 || s.b[from] == '0' && s.i-from > 1)
	return uint8(n)
}

func (s *scanner) enum(words []string) uint8 {
	t := s.text()
	if !s.failed {
		for i, w := range words {
			if string(t) == w {
				return uint8(i)
			}
		}
	}
	s.failed = true
	return 0
}

func (s *scanner) abn() ABN {
	t := s.text()
	if s.failed || len(t) != 11 {
		s.failed = true
		return 0
	}
	n, err := ParseABN(unsafeString(t))
	s.fail(err != nil)
	return n
}

func (s *scanner) abns() []ABN {
	var buf [16]ABN
	list := buf[:0]
	for s.open('['); s.next(']'); {
		list = append(list, s.abn())
	}
	s.fail(len(list) == 0)
	return slices.Clip(slices.Clone(list))
}

func (s *scanner) certification(c *Certification) {
	seen := uint32(0)
	for s.open('{'); s.next('}'); {
		switch key := s.key(); string(key) {
		case "valid_from":
			s.once(&seen, 0)
			c.ValidFrom = s.time()
		case "valid_until":
			s.once(&seen, 1)
			c.ValidUntil = s.time()
		case "state":
			s.once(&seen, 2)
			c.State = CertState(s.enum(certStateWords))
		case "max_risk":
			s.once(&seen, 3)
			c.MaxRisk = Risk(s.small())
		default:
			s.failed = true
		}
	}
}

// time reads an instant just as Time.String writes it: 2026-11-22T09:00:00.000Z,
// from 1970 on.
func (s *scanner) time() Time {
	t := s.text()
	if s.failed || len(t) != 24 || t[4] != '-' || t[7] != '-' || t[10] != 'T' || t[13] != ':' || t[16] != ':' || t[19] != '.' || t[23] != 'Z' {
		s.failed = true
		return 0
	}
	digits := func(from, to int) (n int) {
		for _, c := range t[from:to] {
			s.fail(c-'0' > 9)
			n = n*10 + int(c-'0')
		}
		return n
	}
	year, month, day := digits(0, 4), digits(5, 7), digits(8, 10)
	hour, minute, second, milli := digits(11, 13), digits(14, 16), digits(17, 19), digits(20, 23)
	if s.failed || year < 1970 || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 59 {
		s.failed = true
		return 0
	}
	days := daysBefore(year, month) + day - 1
	return Time(((int64(days)*24+int64(hour))*60+int64(minute))*60_000 + int64(second)*1000 + int64(milli))
}

func leap(year int) bool { return year%4 == 0 && (year%100 != 0 || year%400 == 0) }

func daysIn(year, month int) int {
	if month == 2 && leap(year) {
		return 29
	}
	return [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
}

// daysBefore counts the days from 1970-01-01 to the first of a month (proleptic
// Gregorian; Hinnant's days_from_civil).
func daysBefore(year, month int) int {
	if month <= 2 {
		year--
		month += 12
	}
	era := year / 400
	yoe := year - era*400
	doy := (153*(month-3) + 2) / 5
	return era*146097 + yoe*365 + yoe/4 - yoe/100 + doy - 719468
}
