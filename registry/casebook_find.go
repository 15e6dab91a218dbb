package registry

import (
	"bytes"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
)

// Where is one condition of a Query: a value of an index. Index "word" wants
// a word that begins with Value; every other index wants Value itself.
type Where struct{ Index, Value string }

// Query selects cases of one kind, or the register's "entity", "product",
// "client-app", "subscription" or "suspension" (those not lifted).
type Query struct {
	Kind  string
	Where []Where // all of them; none selects all
	// From and To bound the value of the first Where's index instead of naming it:
	// From ≤ value < To. To "" is without end.
	From, To string
	// Offset and Limit cut the page.
	Offset, Limit int
}

// Find returns the IDs of one page and how many match in all. They are in the
// order of their IDs; by the index's values first, when a range of those was
// asked for.
func (b *Casebook) Find(q Query) (ids []string, total int) {
	main, rest := b.narrowest(q)
	if len(rest) == 0 && (!b.repeats(q, main) || main.n > repeatsMax) {
		c := b.keys.at(main.first + q.Offset)
		for range max(min(q.Limit, main.n-q.Offset), 0) {
			c.next()
			ids = append(ids, string(idOf(c.key)))
		}
		return ids, main.n
	}
	all := b.found.get(b.keys.root, &q, func() (all []string) {
		b.each(q.Kind, main, rest, func(id []byte) { all = append(all, string(id)) })
		return all
	})
	from := min(q.Offset, len(all))
	return slices.Clone(all[from:min(from+q.Limit, len(all))]), len(all)
}

// Values visits an index's values with the ID of what has each, in the order of the
// values, from one on.
func (b *Casebook) Values(kind, index, from string) iter.Seq2[string, string] {
	return func(yield func(value, id string) bool) {
		prefix := b.codes.of(kind, index)
		for c := b.keys.from(prefix + clean(from)); c.next() && strings.HasPrefix(unsafeString(c.key), prefix); {
			value, id, _ := strings.Cut(string(c.key[len(prefix):]), "\x00")
			if !yield(value, id) {
				return
			}
		}
	}
}

// found keeps what the latest searches came to, for as long as no key of the index
// changes: whoever turns the pages of a search asks the same again. Shared by all
// Casebooks of one family.
type found struct {
	mu   sync.Mutex
	root *keyNode // of the index searched
	at   map[string][]string
	ids  int // in all of at
}

// foundMax is how many IDs are kept.
const foundMax = 20_000

func (f *found) get(root *keyNode, q *Query, search func() []string) []string {
	var key strings.Builder
	for _, part := range []string{q.Kind, q.From, q.To} {
		fmt.Fprintf(&key, "%q ", part)
	}
	for _, w := range q.Where {
		fmt.Fprintf(&key, "%q=%q ", w.Index, w.Value)
	}
	f.mu.Lock()
	all, ok := f.at[key.String()]
	ok = ok && f.root == root
	f.mu.Unlock()
	if ok {
		return all
	}
	all = search()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.at == nil || f.root != root || f.ids+len(all) > foundMax || len(f.at) == foundQueriesMax {
		f.root, f.at, f.ids = root, map[string][]string{}, 0
	}
	if len(all) <= foundMax {
		f.at[key.String()] = all
		f.ids += len(all)
	}
	return all
}

// foundQueriesMax is how many searches are kept.
const foundQueriesMax = 256

// All visits the IDs that match, in Find's order.
func (b *Casebook) All(q Query) iter.Seq[string] {
	return func(yield func(string) bool) {
		q.Offset, q.Limit = 0, b.keys.len()
		ids, _ := b.Find(q)
		for _, id := range ids {
			if !yield(id) {
				return
			}
		}
	}
}

// After lists the IDs of one kind that come after one, in their order, n at most.
func (b *Casebook) After(kind, id string, n int) (ids []string) {
	prefix := b.indexKey(kind, "", "", "")
	for c := b.keys.from(prefix + id); len(ids) < n && c.next() && strings.HasPrefix(unsafeString(c.key), prefix); {
		if next := string(c.key[len(prefix):]); next != id {
			ids = append(ids, next)
		}
	}
	return ids
}

// span is the keys that meet a condition: lo ≤ key < hi.
type span struct {
	lo, hi   string
	first, n int // the rank of the first, and how many
	values   values
}

// values is how many values of an index a span may hold.
type values uint8

const (
	oneValue   values = iota // the IDs are in their order
	manyValues               // of a range
	manyWords                // that begin alike: of one ID perhaps more than one
)

func (b *Casebook) span(lo, hi string, v values) span {
	first := b.keys.rank(lo)
	return span{lo, hi, first, b.keys.rank(hi) - first, v}
}

// idOf is the end of a key.
func idOf(key []byte) []byte { return key[bytes.LastIndexByte(key, 0)+1:] }

// idOf is the end of a key of the span.
func (s *span) idOf(key []byte) []byte {
	if s.values == oneValue {
		return key[len(s.hi):] // the value is followed by NUL in the key, and by another byte in hi
	}
	return idOf(key)
}

// repeatsMax is how many a search may find and still be told one by one; above
// it, what has two words that begin alike counts, and is listed, twice.
const repeatsMax = 5000

// repeats tells whether a query may meet an ID more than once.
func (b *Casebook) repeats(q Query, main span) bool {
	return len(q.Where) > 0 && q.Where[0].Index == "word" && len(b.runs(main)) != 1
}

// narrowest picks the condition that fewest meet, and returns the others.
func (b *Casebook) narrowest(q Query) (best span, rest []Where) {
	if len(q.Where) == 0 {
		q.Where = []Where{{"", ""}}
	}
	pick := -1
	for i, w := range q.Where {
		if i == 0 && (q.From != "" || q.To != "") {
			prefix := b.codes.of(q.Kind, w.Index)
			hi := prefix + "\xff"
			if q.To != "" {
				hi = prefix + clean(q.To)
			}
			return b.span(prefix+clean(q.From), hi, manyValues), q.Where[1:] // the order is that of its values
		}
		if s := b.spanOf(q.Kind, w); pick < 0 || s.n < best.n {
			pick, best = i, s
		}
	}
	for i, w := range q.Where {
		if i != pick {
			rest = append(rest, w)
		}
	}
	return best, rest
}

func (b *Casebook) spanOf(kind string, w Where) span {
	prefix := b.codes.of(kind, w.Index) + clean(w.Value)
	if w.Index == "word" {
		return b.span(prefix, prefix+"\xff", manyWords)
	}
	return b.span(prefix+"\x00", prefix+"\x01", oneValue)
}

// runsMax is how many words that begin alike are each gone through beside one
// another.
const runsMax = 8

// runs cuts a span of words into those of one word each: the IDs of one are in
// their order. None when there are more than runsMax, or it is a range.
func (b *Casebook) runs(s span) (runs []span) {
	switch {
	case s.values == oneValue || s.n == 0:
		return []span{s}
	case s.values == manyValues:
		return nil
	}
	for lo, first := s.lo, s.first; first < s.first+s.n; {
		if len(runs) == runsMax {
			return nil
		}
		c := b.keys.from(lo)
		c.next()
		end := string(c.key[:bytes.LastIndexByte(c.key, 0)]) + "\x01"
		next := b.keys.rank(end)
		runs = append(runs, span{lo: lo, hi: end, first: first, n: next - first, values: oneValue})
		lo, first = end, next
	}
	return runs
}

// sieveKeysMax is how many keys of another condition are gone through for each
// key of the narrowest, rather than to look each up.
const sieveKeysMax = 16

// each visits the IDs of a span that meet the other conditions, each once.
func (b *Casebook) each(kind string, main span, rest []Where, visit func(id []byte)) {
	runs := b.runs(main)
	inOrder := runs != nil
	if !inOrder {
		runs = []span{main}
	}
	var seen map[string]bool // one may have two words that begin alike
	if main.values == manyWords && (len(runs) > 1 || !inOrder) {
		seen = map[string]bool{}
	}
	for _, run := range runs {
		sieves := make([]sieve, len(rest))
		for i, w := range rest {
			sieves[i] = b.sieve(kind, w, run, inOrder)
		}
		c := b.keys.at(run.first)
	next:
		for range run.n {
			c.next()
			id := run.idOf(c.key)
			if seen != nil && seen[string(id)] {
				continue
			}
			for i := range sieves {
				if !sieves[i].has(id) {
					continue next
				}
			}
			if seen != nil {
				seen[string(id)] = true
			}
			visit(id)
		}
	}
}

// sieve tells whether an ID meets a condition: by going through the condition's
// own keys beside, when it is asked in the order of the IDs, or by looking it up.
type sieve struct {
	beside []beside
	ask    func(id []byte) bool
}

type beside struct {
	c    *keyCursor
	left int
	id   []byte // the cursor's; nil at its end
	run  span
}

func (b *Casebook) sieve(kind string, w Where, run span, inOrder bool) sieve {
	s := b.spanOf(kind, w)
	if runs := b.runs(s); inOrder && runs != nil && s.n <= sieveKeysMax*run.n {
		x := sieve{beside: make([]beside, len(runs))}
		for i, r := range runs {
			x.beside[i] = beside{c: b.keys.at(r.first), left: r.n, run: r}
			x.beside[i].next()
		}
		return x
	}
	return sieve{ask: func(id []byte) bool { return b.has(kind, w, string(id)) }}
}

func (x *beside) next() {
	if x.id = nil; x.left > 0 {
		x.c.next()
		x.left--
		x.id = x.run.idOf(x.c.key)
	}
}

func (s *sieve) has(id []byte) bool {
	if s.ask != nil {
		return s.ask(id)
	}
	for i := range s.beside {
		x := &s.beside[i]
		for x.id != nil && bytes.Compare(x.id, id) < 0 {
			x.next()
		}
		if bytes.Equal(x.id, id) && x.id != nil {
			return true
		}
	}
	return false
}
