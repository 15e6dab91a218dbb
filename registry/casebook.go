package registry

import (
	"iter"
	"sort"
	"strings"
	"sync"

	"github.com/tidwall/btree"
)

// Casebook is the casework at one revision, as a control plane holds it, and an
// index over it and over the register's entities and products. It is immutable;
// two Casebooks share all that did not change. Readers take no lock.
//
// Bodies are kept as they are stored and decoded when they are read: of a
// hundred thousand cases few are read at a time.
type Casebook struct {
	// View is the register at the same revision.
	View *View

	sum     CaseSum
	settled Revision // the highest revision among the bodies; above the View's when they were read later
	types   map[CaseKind]CaseType
	entries *btree.Map[string, *caseEntry] // by kind/ID
	keys    *btree.Set[string]             // code of kind and index, value NUL ID
	forking *sync.Mutex                    // shared by all of one family: btree's Copy writes to its source
	codes   *codes                         // shared likewise
	packs   *packs                         // shared likewise
}

type caseEntry struct {
	Revision Revision
	MAC      MAC
	packed
}

func newCasebook(types map[CaseKind]CaseType) *Casebook {
	return &Casebook{
		View: &View{}, types: types, forking: &sync.Mutex{}, codes: newCodes(), packs: newPacks(),
		entries: new(btree.Map[string, *caseEntry]), keys: new(btree.Set[string]),
	}
}

// Revision is the register's revision that the Casebook is of.
func (b *Casebook) Revision() Revision { return b.View.Revision }

// Len counts the cases.
func (b *Casebook) Len() int { return b.entries.Len() }

func (b *Casebook) entry(kind CaseKind, id string) *caseEntry {
	e, _ := b.entries.Get(string(kind) + "/" + id)
	return e
}

// fork copies the Casebook, in constant time, to be changed.
func (b *Casebook) fork() *Casebook {
	b.forking.Lock()
	defer b.forking.Unlock()
	f := *b
	f.entries, f.keys = b.entries.Copy(), b.keys.Copy()
	return &f
}

// after is the Casebook after a change made here, bodies and all; nil stays nil.
func (b *Casebook) after(c *Change, old, now *View) *Casebook {
	if b == nil {
		return nil
	}
	f := b.fork()
	for i := range c.Cases {
		if err := f.set(&c.Cases[i]); err != nil {
			panic("registry: casework that was just encoded: " + err.Error())
		}
	}
	f.index(c, old, now)
	f.View = now
	return f
}

// set takes in a body, unless a newer one is held. Only on a fork.
func (b *Casebook) set(c *CaseRecord) error {
	old := b.entry(c.Kind, c.ID)
	if old != nil && old.Revision >= c.Revision {
		return nil
	}
	var add []string
	t, known := b.types[c.Kind]
	if known {
		err := t.keys(c.Data, func(index, value string) { add = append(add, b.indexKey(string(c.Kind), index, value, c.ID)) })
		if err != nil {
			return err
		}
	}
	if old != nil && known {
		err := t.keys(old.body(), func(index, value string) { b.keys.Delete(b.indexKey(string(c.Kind), index, value, c.ID)) })
		if err != nil {
			return err
		}
	}
	for _, key := range add {
		b.keys.Insert(key)
	}
	b.keys.Insert(b.indexKey(string(c.Kind), "", "", c.ID))
	b.entries.Set(c.Key(), &caseEntry{c.Revision, c.MAC, b.packs.pack(c.Kind, c.Data)})
	b.sum = b.sum.add(old, c.MAC)
	b.settled = max(b.settled, c.Revision)
	return nil
}

// Where is one condition of a Query: a value of an index. Index "word" wants
// a word that begins with Value; every other index wants Value itself.
type Where struct{ Index, Value string }

// Query selects cases of one kind, or the register's "entity", "product",
// "client-app" or "subscription".
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
	lo, hi := main[0], main[1]
	first := b.rank(lo)
	if total = b.rank(hi) - first; len(rest) == 0 && (!b.repeats(q) || total > repeatsMax) {
		for i := range max(min(q.Limit, total-q.Offset), 0) {
			key, _ := b.keys.GetAt(first + q.Offset + i)
			ids = append(ids, key[strings.LastIndexByte(key, 0)+1:])
		}
		return ids, total
	}
	total = 0
	seen := map[string]bool{} // one may have two words that begin alike
	words := strings.HasPrefix(lo, b.codes.of(q.Kind, "word"))
	b.keys.Ascend(lo, func(key string) bool {
		if key >= hi {
			return false
		}
		id := key[strings.LastIndexByte(key, 0)+1:]
		if words && seen[id] {
			return true
		}
		for _, w := range rest {
			if !b.has(q.Kind, w, id) {
				return true
			}
		}
		if words {
			seen[id] = true
		}
		if total >= q.Offset && len(ids) < q.Limit {
			ids = append(ids, id)
		}
		total++
		return true
	})
	return ids, total
}

// All visits the IDs that match, in Find's order.
func (b *Casebook) All(q Query) iter.Seq[string] {
	return func(yield func(string) bool) {
		q.Offset, q.Limit = 0, b.keys.Len()
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
	b.keys.Ascend(prefix+id, func(key string) bool {
		next, ok := strings.CutPrefix(key, prefix)
		if !ok || len(ids) == n {
			return false
		}
		if next != id {
			ids = append(ids, next)
		}
		return true
	})
	return ids
}

// repeatsMax is how many a search may find and still be told one by one; above
// it, what has two words that begin alike counts, and is listed, twice.
const repeatsMax = 5000

// repeats tells whether a query may meet an ID more than once.
func (b *Casebook) repeats(q Query) bool {
	return len(q.Where) > 0 && q.Where[0].Index == "word"
}

// narrowest picks the condition that fewest meet, as a range of keys, and
// returns the other conditions.
func (b *Casebook) narrowest(q Query) (best [2]string, rest []Where) {
	if len(q.Where) == 0 {
		q.Where = []Where{{"", ""}}
	}
	pick, fewest := 0, -1
	for i, w := range q.Where {
		r := b.keyRange(q.Kind, w)
		if i == 0 && (q.From != "" || q.To != "") {
			prefix := b.codes.of(q.Kind, w.Index)
			r = [2]string{prefix + clean(q.From), prefix + "\xff"}
			if q.To != "" {
				r[1] = prefix + clean(q.To)
			}
			return r, q.Where[1:] // the order is that of its values
		}
		if n := b.rank(r[1]) - b.rank(r[0]); fewest < 0 || n < fewest {
			pick, fewest, best = i, n, r
		}
	}
	for i, w := range q.Where {
		if i != pick {
			rest = append(rest, w)
		}
	}
	return best, rest
}

func (b *Casebook) keyRange(kind string, w Where) [2]string {
	prefix := b.codes.of(kind, w.Index) + clean(w.Value)
	if w.Index == "word" {
		return [2]string{prefix, prefix + "\xff"}
	}
	return [2]string{prefix + "\x00", prefix + "\x01"}
}

// has tells whether what has this ID meets a condition: of an entity and a
// product by looking at it, which is sooner done than looking in the index.
func (b *Casebook) has(kind string, w Where, id string) bool {
	switch kind {
	case "entity":
		e := value(b.View.entities.get(id))
		switch {
		case e == nil:
			return false
		case w.Index == "word":
			return hasWord(e.Name, w.Value) || strings.HasPrefix(id, w.Value)
		case w.Index == "state":
			return e.State.String() == w.Value
		}
	case "product":
		p := b.View.Product(id)
		switch {
		case p == nil:
			return false
		case w.Index == "word":
			return hasWord(p.Name, w.Value) || hasWord(p.ID, w.Value)
		case w.Index == "certification":
			return p.Certification.State.String() == w.Value
		case w.Index == "category":
			return string(p.Category) == w.Value
		case w.Index == "owner":
			return p.Owner.String() == w.Value
		}
	default:
		if e, t := b.entry(CaseKind(kind), id), b.types[CaseKind(kind)]; w.Index == "word" && e != nil && t.keys != nil {
			found := false
			_ = t.keys(e.body(), func(index, value string) { // decoded before, when it was put in
				found = found || index == "word" && strings.HasPrefix(value, w.Value)
			})
			return found
		}
	}
	return b.keys.Contains(b.indexKey(kind, w.Index, w.Value, id))
}

// HasWord tells whether a text has a word, as Words gives them, that begins with
// prefix, as Words gives it too: what a Query by the index "word" finds.
func HasWord(text, prefix string) bool { return hasWord(text, prefix) }

// hasWord tells whether a text has a word, as Words gives them, that begins so.
func hasWord(text, prefix string) bool {
	inside := false
	for i := range len(text) {
		c := text[i]
		if !wordByte(c) {
			inside = false
			continue
		}
		if !inside && len(text)-i >= len(prefix) && strings.EqualFold(text[i:i+len(prefix)], prefix) {
			return true
		}
		inside = true
	}
	return false
}

// wordByte tells whether a byte is of a word: letters, digits, and whatever is not ASCII.
func wordByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

// rank is how many keys stand before one.
func (b *Casebook) rank(key string) int {
	return sort.Search(b.keys.Len(), func(i int) bool {
		k, _ := b.keys.GetAt(i)
		return k >= key
	})
}

func (b *Casebook) indexKey(kind, index, value, id string) string {
	return b.codes.of(kind, index) + clean(value) + "\x00" + id
}

// indexValueMax bounds a value in an index; what is longer is found by its beginning.
const indexValueMax = 64

// clean keeps the parts of a key apart.
func clean(value string) string {
	value = value[:min(len(value), indexValueMax)]
	if strings.ContainsFunc(value, func(c rune) bool { return c < ' ' }) {
		return strings.Map(func(c rune) rune {
			if c < ' ' {
				return ' '
			}
			return c
		}, value)
	}
	return value
}

// Words gives the words of a text as they are searched for: lower-case, without
// punctuation, each once, the first 16 of them.
func Words(text string, add func(word string)) {
	seen := make([]string, 0, 16)
next:
	for _, w := range strings.FieldsFunc(strings.ToLower(text), func(c rune) bool {
		return c < '0' || c > '9' && c < 'a' || c > 'z' && c < 0x80
	}) {
		for _, s := range seen {
			if s == w {
				continue next
			}
		}
		if len(seen) == 16 {
			return
		}
		seen = append(seen, w)
		add(w)
	}
}
