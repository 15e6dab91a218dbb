package registry

import (
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
	keys    keyTree                        // code of kind and index, value NUL ID
	forking *sync.Mutex                    // shared by all of one family: btree's Copy writes to its source
	codes   *codes                         // shared likewise
	packs   *packs                         // shared likewise
	found   *found                         // shared likewise
}

type caseEntry struct {
	Revision Revision
	MAC      MAC
	packed
}

func newCasebook(types map[CaseKind]CaseType) *Casebook {
	return &Casebook{
		View: &View{}, types: types, forking: &sync.Mutex{}, codes: newCodes(), packs: newPacks(), found: &found{},
		entries: new(btree.Map[string, *caseEntry]), keys: newKeyTree(),
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
	f.entries, f.keys = b.entries.Copy(), b.keys.fork()
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
		err := t.keys(old.body(), func(index, value string) { b.keys.remove(b.indexKey(string(c.Kind), index, value, c.ID)) })
		if err != nil {
			return err
		}
	}
	for _, key := range add {
		b.keys.insert(key)
	}
	b.keys.insert(b.indexKey(string(c.Kind), "", "", c.ID))
	b.entries.Set(c.Key(), &caseEntry{c.Revision, c.MAC, b.packs.pack(c.Kind, c.Data)})
	b.sum = b.sum.add(old, c.MAC)
	b.settled = max(b.settled, c.Revision)
	return nil
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
	return b.keys.has(b.indexKey(kind, w.Index, w.Value, id))
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
