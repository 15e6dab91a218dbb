package control

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// registerView is one product of the public register: no reasons, no states.
type registerView struct {
	ProductID string       `json:"product_id"`
	Name      string       `json:"name"`
	Owner     registry.ABN `json:"owner"`
	OwnerName string       `json:"owner_name"`
	Services  []string     `json:"services"`
	Versions  []string     `json:"versions"`
}

// publicRegister is the public listing: it is for anybody, and reading 100,000
// standings for each caller is not. It is made again when the register changed or
// something in it ended by itself. One that takes long to make is made in the
// background, at most a tenth of the time, and shown meanwhile as it was.
type publicRegister struct {
	at       atomic.Pointer[publicList]
	mu       sync.Mutex // held while one is made
	building atomic.Bool
}

// publicList is the listing at one instant; immutable.
type publicList struct {
	of    *registry.View
	made  time.Time
	took  time.Duration
	until registry.Time // from then on the same View says something else; 0: never
	all   []registerView
	words wordIndex
	feed  func() ([]byte, error) // the Atom feed, made when it is asked for
	tag   string                 // an ETag: the same content has the same, wherever it was made
}

const (
	publicQuick    = 20 * time.Millisecond // what takes less is made at once
	publicStaleMax = 5 * time.Second       // nobody is shown anything older, if it changed since
)

func (p *publicRegister) get(v *registry.View, now func() time.Time) *publicList {
	cur := p.at.Load()
	if cur.holds(v, now()) {
		return cur
	}
	if cur != nil && cur.took > publicQuick && cur.age(now()) < publicStaleMax {
		if cur.age(now()) > 10*cur.took && p.building.CompareAndSwap(false, true) {
			go func() {
				defer p.building.Store(false)
				p.make(v, now)
			}()
		}
		return cur
	}
	return p.make(v, now)
}

func (p *publicRegister) make(v *registry.View, now func() time.Time) *publicList {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cur := p.at.Load(); cur.holds(v, now()) {
		return cur
	}
	l := newPublicList(v, now())
	l.took = now().Sub(l.made)
	p.at.Store(l)
	return l
}

// holds tells whether the listing is what would be made now.
func (l *publicList) holds(v *registry.View, now time.Time) bool {
	return l != nil && (l.of == v || l.of.Revision > v.Revision) && !now.Before(l.made) && (l.until == 0 || registry.At(now) < l.until)
}

func (l *publicList) age(now time.Time) time.Duration { return max(now.Sub(l.made), 0) }

func newPublicList(v *registry.View, now time.Time) *publicList {
	l := &publicList{of: v, made: now}
	at := registry.At(now)
	ends := func(times ...registry.Time) {
		for _, t := range times {
			if t > at && (l.until == 0 || t < l.until) {
				l.until = t
			}
		}
	}
	for _, e := range v.Suspensions() {
		if e.Value.LiftedAt == 0 {
			ends(e.Value.Starts, e.Value.Expires)
		}
	}
	hash := sha256.New()
	for _, e := range v.Products() {
		x := &e.Value
		if x.Certification.State != registry.CertWhitelisted {
			continue
		}
		ends(x.Certification.ValidFrom, x.Certification.ValidUntil)
		for i := range x.Entitlements {
			ends(x.Entitlements[i].From, x.Entitlements[i].Until)
		}
		for i := range x.Versions {
			ends(x.Versions[i].SupportUntil)
		}
		if st := productStanding(v, x, at); st.Code != registry.Good {
			continue
		}
		one := publicView(v, x, at)
		fmt.Fprintf(hash, "%q\n", []any{one.ProductID, one.Name, one.Owner.String(), one.OwnerName, one.Services, one.Versions, x.Updated.String()})
		l.words.add(len(l.all), one.Name+" "+one.ProductID, one.OwnerName+" "+one.Owner.String())
		l.all = append(l.all, one)
	}
	l.words.finish(len(l.all))
	l.feed = sync.OnceValues(func() ([]byte, error) { return feedOf(v, l.all) })
	l.tag = `"` + hex.EncodeToString(hash.Sum(nil)[:16]) + `"`
	return l
}

func publicView(v *registry.View, p *registry.Product, at registry.Time) registerView {
	out := registerView{ProductID: p.ID, Name: p.Name, Owner: p.Owner, Services: []string{}, Versions: []string{}}
	if e := v.Entity(p.Owner); e != nil {
		out.OwnerName = e.Name
	}
	for _, e := range p.Entitlements {
		if e.Environment == registry.PROD && e.Stage == registry.StagePROD && e.From <= at && (e.Until == 0 || at < e.Until) {
			out.Services = append(out.Services, e.Service)
		}
	}
	for _, ver := range p.Versions {
		if ver.State == registry.VersionActive && (ver.SupportUntil == 0 || at < ver.SupportUntil) {
			out.Versions = append(out.Versions, ver.Version)
		}
	}
	return out
}

func (s *server) listRegister(c *call) (answer, error) {
	product, byProduct := c.filter("product_id")
	owner, byOwner, err := c.filterABN("owner")
	if err != nil {
		return answer{}, err
	}
	words, err := c.filterWords("q")
	if err != nil {
		return answer{}, err
	}
	l := s.public.get(c.view, s.now)
	a, err := l.page(c, words, func(v *registerView) bool { return !byOwner || v.Owner == owner }, product, byProduct, owner, byOwner)
	if a.page != nil {
		a.page.Meta.Disclaimer = disclaimer
	}
	return a, err
}

func (l *publicList) page(c *call, words []string, keep func(*registerView) bool, product string, byProduct bool, owner registry.ABN, byOwner bool) (answer, error) {
	show := func(i int) any { return l.all[i] }
	if byProduct { // in order of their IDs
		var found []int
		i, ok := slices.BinarySearchFunc(l.all, product, func(v registerView, id string) int { return strings.Compare(v.ProductID, id) })
		if ok && keep(&l.all[i]) && (len(words) == 0 || l.words.find(words).has(i)) {
			found = []int{i}
		}
		return paged(c, found, nil, show)
	}
	if byOwner {
		words = append(words, owner.String()) // an ABN is a word, and few other words are one
	}
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	first := int((page - 1) * limit)
	out := []any{}
	if len(words) == 0 {
		for i := first; i < min(first+int(limit), len(l.all)); i++ {
			out = append(out, show(i))
		}
		return answer{data: out, page: c.pageInfo(page, limit, uint64(len(l.all)))}, nil
	}
	hits := l.words.find(words)
	if !byOwner {
		for _, i := range hits.cut(first, int(limit)) {
			out = append(out, show(i))
		}
		return answer{data: out, page: c.pageInfo(page, limit, uint64(hits.count()))}, nil
	}
	return paged(c, hits.cut(0, len(l.all)), func(i int) bool { return keep(&l.all[i]) }, show)
}

// wordIndex finds, of numbered texts, those that have words which begin so.
type wordIndex struct {
	at    map[string]int // by word: where its list is
	lists [][]uint32     // numbers of texts, each once, ascending
	words []string       // sorted
	n     int            // of texts
}

// add takes a text in, in parts that each count as many words as Words gives.
func (x *wordIndex) add(n int, parts ...string) {
	if x.at == nil {
		x.at = map[string]int{}
	}
	for _, part := range parts {
		registry.Words(part, func(w string) {
			i, known := x.at[w]
			if !known {
				i = len(x.lists)
				x.at[strings.Clone(w)] = i // w is a part of the whole text
				x.lists = append(x.lists, nil)
			}
			if list := x.lists[i]; len(list) == 0 || list[len(list)-1] != uint32(n) {
				x.lists[i] = append(list, uint32(n))
			}
		})
	}
}

func (x *wordIndex) finish(n int) {
	x.n = n
	x.words = make([]string, 0, len(x.at))
	for w := range x.at {
		x.words = append(x.words, w)
	}
	slices.Sort(x.words)
}

// bitset is a set of numbers below a bound.
type bitset []uint64

// find gives the numbers of the texts that have every word; at least one is asked for.
func (x *wordIndex) find(words []string) bitset {
	var all bitset
	for _, prefix := range words {
		one := make(bitset, (x.n+63)/64)
		i, _ := slices.BinarySearch(x.words, prefix)
		for ; i < len(x.words) && strings.HasPrefix(x.words[i], prefix); i++ {
			for _, n := range x.lists[x.at[x.words[i]]] {
				one[n/64] |= 1 << (n % 64)
			}
		}
		if all == nil {
			all = one
			continue
		}
		for i := range all {
			all[i] &= one[i]
		}
	}
	return all
}

func (b bitset) has(n int) bool { return b[n/64]&(1<<(n%64)) != 0 }

func (b bitset) count() (n int) {
	for _, w := range b {
		n += bits.OnesCount64(w)
	}
	return n
}

// cut lists some of the members, in order.
func (b bitset) cut(skip, most int) []int {
	var out []int
	for i, w := range b {
		if here := bits.OnesCount64(w); here <= skip {
			skip -= here
			continue
		}
		for ; w != 0 && len(out) < most; w &= w - 1 {
			if skip > 0 {
				skip--
				continue
			}
			out = append(out, 64*i+bits.TrailingZeros64(w))
		}
		if len(out) == most {
			break
		}
	}
	return out
}
