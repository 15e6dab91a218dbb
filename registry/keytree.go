package registry

import (
	"encoding/binary"
	"sort"
	"strings"
)

// keyTree is a sorted set of strings, made for a million keys of which
// neighbours have most of their bytes alike: an order-statistic B+tree whose
// leaves hold each key as what differs from the one before it (front coding:
// Witten, Moffat & Bell, Managing Gigabytes, 1999). A key takes some eight bytes, and a leaf
// one object for the collector to look at.
//
// It is persistent: a fork shares every node with its source until one of its
// own keys changes, and only the fork may be changed afterwards. Readers take no
// lock.
type keyTree struct {
	root  *keyNode // nil when empty
	owner *int     // of the nodes that may be changed in place
}

// Bounds of a node. Every entry of a leaf is read until a key is found.
const (
	leafKeysMax = 192
	kidsMax     = 64
)

// keyNode is a leaf, when kids is nil, or has kids, never none.
type keyNode struct {
	owner *int
	n     int    // keys below
	low   string // no key below is less
	kids  []*keyNode
	// leaf holds n entries: bytes shared with the key before, bytes that follow
	// (each a uvarint), and those bytes. What is shared is as long as can be.
	leaf []byte
}

func newKeyTree() keyTree { return keyTree{owner: new(int)} }

// fork is the tree to be changed; the source must not be changed any more.
func (t keyTree) fork() keyTree { return keyTree{t.root, new(int)} }

func (t keyTree) len() int {
	if t.root == nil {
		return 0
	}
	return t.root.n
}

// own returns the node, or a copy of it that may be changed.
func (t *keyTree) own(n *keyNode) *keyNode {
	if n.owner == t.owner {
		return n
	}
	c := *n
	c.owner = t.owner
	if n.kids != nil {
		c.kids = append(make([]*keyNode, 0, len(n.kids)+1), n.kids...)
	} else {
		c.leaf = append(make([]byte, 0, len(n.leaf)+len(n.leaf)/8+32), n.leaf...)
	}
	return &c
}

// insert adds a key; one that is there already stays.
func (t *keyTree) insert(key string) {
	if t.root == nil {
		t.root = &keyNode{owner: t.owner, low: strings.Clone(key)}
	}
	root, split, _ := t.insertIn(t.root, key)
	if split != nil {
		root = &keyNode{owner: t.owner, n: root.n + split.n, low: root.low, kids: []*keyNode{root, split}}
	}
	t.root = root
}

// insertIn returns the node with the key, and the second half of it when it had
// to be split.
func (t *keyTree) insertIn(n *keyNode, key string) (_, split *keyNode, added bool) {
	if n.kids == nil {
		at := searchLeaf(n.leaf, key)
		if at.found {
			return n, nil, false
		}
		n = t.own(n)
		n.low = min(n.low, key) // a piece of the key is kept by the first leaf only
		n.leaf = at.insert(n.leaf, key)
		if n.n++; n.n > leafKeysMax {
			split = t.splitLeaf(n)
		}
		return n, split, true
	}
	i := n.kidOf(key)
	kid, half, added := t.insertIn(n.kids[i], key)
	if !added {
		return n, nil, false
	}
	n = t.own(n)
	n.n++
	n.kids[i], n.low = kid, min(n.low, kid.low)
	if half == nil {
		return n, nil, true
	}
	n.kids = append(n.kids, nil)
	copy(n.kids[i+2:], n.kids[i+1:])
	n.kids[i+1] = half
	if len(n.kids) > kidsMax {
		mid := len(n.kids) / 2
		split = &keyNode{owner: t.owner, low: n.kids[mid].low, kids: append(make([]*keyNode, 0, kidsMax+1), n.kids[mid:]...)}
		clear(n.kids[mid:])
		n.kids = n.kids[:mid]
		for _, k := range split.kids {
			split.n += k.n
		}
		n.n -= split.n
	}
	return n, split, true
}

func (t *keyTree) splitLeaf(n *keyNode) *keyNode {
	var c leafReader
	c.leaf = n.leaf
	for range n.n / 2 {
		c.next()
	}
	cut := c.off
	c.next()
	key := string(c.key)
	second := appendEntry(make([]byte, 0, len(key)+len(n.leaf)-c.off+64), 0, key)
	half := &keyNode{owner: t.owner, n: n.n - n.n/2, low: key, leaf: append(second, n.leaf[c.off:]...)}
	n.n, n.leaf = n.n/2, n.leaf[:cut]
	return half
}

// remove takes a key away, if it is there.
func (t *keyTree) remove(key string) {
	if t.root == nil {
		return
	}
	root, _ := t.removeIn(t.root, key)
	for root != nil && len(root.kids) == 1 {
		root = root.kids[0]
	}
	t.root = root
}

// removeIn returns the node without the key; nil when nothing is left.
func (t *keyTree) removeIn(n *keyNode, key string) (_ *keyNode, removed bool) {
	if n.kids == nil {
		at := searchLeaf(n.leaf, key)
		if !at.found {
			return n, false
		}
		if n.n == 1 {
			return nil, true
		}
		n = t.own(n)
		n.n--
		n.leaf = at.remove(n.leaf)
		return n, true
	}
	i := n.kidOf(key)
	kid, removed := t.removeIn(n.kids[i], key)
	if !removed {
		return n, false
	}
	n = t.own(n)
	n.n--
	switch {
	case kid != nil:
		n.kids[i] = kid
		t.join(n, i)
	case len(n.kids) == 1:
		return nil, true
	default:
		n.kids = append(n.kids[:i], n.kids[i+1:]...)
	}
	return n, true
}

// join makes one leaf of a small one and its neighbour, where that is small too:
// what is changed again and again must not leave a leaf for each key.
func (t *keyTree) join(n *keyNode, i int) {
	if n.kids[i].kids != nil || n.kids[i].n > leafKeysMax/8 || len(n.kids) == 1 {
		return
	}
	i = max(i-1, 0)
	a, b := n.kids[i], n.kids[i+1]
	if a.n+b.n > leafKeysMax/2 {
		return
	}
	last, first := leafReader{leaf: a.leaf}, leafReader{leaf: b.leaf}
	for range a.n {
		last.next()
	}
	first.next()
	a = t.own(a)
	a.leaf = appendEntry(a.leaf, common(string(last.key), string(first.key)), string(first.key))
	a.leaf = append(a.leaf, b.leaf[first.off:]...)
	a.n += b.n
	n.kids[i] = a
	n.kids = append(n.kids[:i+1], n.kids[i+2:]...)
}

// kidOf is the kid that has the key, if one has.
func (n *keyNode) kidOf(key string) int {
	return max(sort.Search(len(n.kids), func(i int) bool { return n.kids[i].low > key })-1, 0)
}

func (t keyTree) has(key string) bool {
	n := t.root
	if n == nil {
		return false
	}
	for n.kids != nil {
		n = n.kids[n.kidOf(key)]
	}
	return searchLeaf(n.leaf, key).found
}

// rank is how many keys stand before one.
func (t keyTree) rank(key string) (rank int) {
	n := t.root
	if n == nil {
		return 0
	}
	for n.kids != nil {
		i := n.kidOf(key)
		for _, k := range n.kids[:i] {
			rank += k.n
		}
		n = n.kids[i]
	}
	return rank + searchLeaf(n.leaf, key).index
}

// place is where a key stands in a leaf, or would stand.
type place struct {
	found        bool
	index, off   int // of the first entry that is not less
	before, then int // bytes that the key shares with the entry before, and with that one
}

// searchLeaf finds a key without putting any together. While the entries share
// more with one another than the last of them did with the key, they are as much
// less than it as that one was.
func searchLeaf(leaf []byte, key string) (p place) {
	for p.off < len(leaf) {
		shared, rest, next := entryAt(leaf, p.off)
		switch {
		case shared < p.before:
			p.then = shared
			return p
		case shared == p.before:
			l := common(unsafeString(rest), key[shared:])
			switch {
			case shared+l == len(key):
				p.then, p.found = len(key), l == len(rest)
				return p
			case l < len(rest) && rest[l] > key[shared+l]:
				p.then = shared + l
				return p
			}
			p.before = shared + l
		}
		p.off = next
		p.index++
	}
	return p
}

// insert puts the key in at its place.
func (p place) insert(leaf []byte, key string) []byte {
	var head [32]byte
	entry := append(appendHeader(head[:0], p.before, len(key)-p.before), key[p.before:]...)
	if p.off == len(leaf) {
		return append(leaf, entry...)
	}
	shared, rest, next := entryAt(leaf, p.off)
	after := appendHeader(nil, p.then, len(rest)-(p.then-shared))
	after = append(append(entry, after...), rest[p.then-shared:]...)
	return splice(leaf, p.off, next, after)
}

// remove takes the entry at the place away.
func (p place) remove(leaf []byte) []byte {
	shared, rest, next := entryAt(leaf, p.off)
	if next == len(leaf) {
		return leaf[:p.off]
	}
	shared2, rest2, next2 := entryAt(leaf, next)
	if shared2 <= shared {
		return splice(leaf, p.off, next, nil)
	}
	more := shared2 - shared
	entry := append(appendHeader(nil, shared, more+len(rest2)), rest[:more]...)
	return splice(leaf, p.off, next2, append(entry, rest2...))
}

// splice puts bytes, which must not be of the leaf, in the place of leaf[from:to].
func splice(leaf []byte, from, to int, put []byte) []byte {
	grow, was := len(put)-(to-from), len(leaf)
	if grow > 0 {
		leaf = append(leaf, put[:grow]...) // whatever: for the room
	}
	copy(leaf[to+grow:], leaf[to:was])
	copy(leaf[from:], put)
	return leaf[:was+grow]
}

// entryAt reads the entry that begins at off; next is where the one after it begins.
func entryAt(leaf []byte, off int) (shared int, rest []byte, next int) {
	s, l := uint64(leaf[off]), uint64(leaf[off+1])
	if s|l < 0x80 { // as a rule
		next = off + 2
	} else {
		var k int
		s, k = binary.Uvarint(leaf[off:])
		off += k
		l, k = binary.Uvarint(leaf[off:])
		next = off + k
	}
	return int(s), leaf[next : next+int(l)], next + int(l)
}

func appendHeader(b []byte, shared, rest int) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, uint64(shared)), uint64(rest))
}

func appendEntry(b []byte, shared int, key string) []byte {
	return append(appendHeader(b, shared, len(key)-shared), key[shared:]...)
}

func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// leafReader reads a leaf's keys, one after the other.
type leafReader struct {
	leaf []byte
	off  int
	key  []byte // until next is called again
}

func (r *leafReader) next() bool {
	if r.off >= len(r.leaf) {
		return false
	}
	shared, rest, next := entryAt(r.leaf, r.off)
	r.key = append(r.key[:shared], rest...)
	r.off = next
	return true
}

// keyCursor reads a tree's keys in their order, from where it was put.
type keyCursor struct {
	leafReader
	path []step
}

// step is a node with kids, and the kid that was gone into.
type step struct {
	n *keyNode
	i int
}

// from puts a cursor before the first key that is not less.
func (t keyTree) from(key string) *keyCursor {
	c := &keyCursor{}
	c.seek(t, key)
	return c
}

func (c *keyCursor) seek(t keyTree, key string) {
	c.path, c.leafReader = c.path[:0], leafReader{key: c.key[:0]}
	n := t.root
	if n == nil {
		return
	}
	for n.kids != nil {
		i := n.kidOf(key)
		c.path = append(c.path, step{n, i})
		n = n.kids[i]
	}
	c.leaf = n.leaf
	for off := 0; c.leafReader.next(); off = c.off {
		if unsafeString(c.key) >= key {
			c.off = off
			// The entry is read again: what it shares with the one before is still there.
			return
		}
	}
}

// at puts a cursor before the key of a rank.
func (t keyTree) at(rank int) *keyCursor {
	c := &keyCursor{}
	n := t.root
	if n == nil {
		return c
	}
	for n.kids != nil {
		i := 0
		for i < len(n.kids)-1 && rank >= n.kids[i].n {
			rank -= n.kids[i].n
			i++
		}
		c.path = append(c.path, step{n, i})
		n = n.kids[i]
	}
	c.leaf = n.leaf
	for range min(rank, n.n) {
		c.leafReader.next()
	}
	return c
}

// next goes to the next key; false at the end.
func (c *keyCursor) next() bool {
	for !c.leafReader.next() {
		for len(c.path) > 0 && c.path[len(c.path)-1].i == len(c.path[len(c.path)-1].n.kids)-1 {
			c.path = c.path[:len(c.path)-1]
		}
		if len(c.path) == 0 {
			return false
		}
		last := &c.path[len(c.path)-1]
		last.i++
		n := last.n.kids[last.i]
		for n.kids != nil {
			c.path = append(c.path, step{n, 0})
			n = n.kids[0]
		}
		c.leaf, c.off = n.leaf, 0
	}
	return true
}
