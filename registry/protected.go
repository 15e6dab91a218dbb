package registry

import (
	"bytes"
	"encoding/hex"
	"maps"
	"slices"
)

// ClientHash stands for a client or a person: a keyed hash as decision records
// show it, so that nobody without the key can try out who it is.
type ClientHash = [16]byte

// Protected is a part of the list of protected clients: those whose hash begins
// with the byte that the ID says, as two hexadecimal digits. So a change of one
// client writes one small record. Only hashes are in the register, and no API
// shows them.
type Protected struct {
	ID string `json:"id"`
	// Hashes are in order, 16 bytes each, one after the other.
	Hashes  []byte `json:"hashes,omitempty"`
	Updated Time   `json:"updated_at,omitempty"`
}

// Screen refuses single calls that concern a protected client: what an enforced
// policy says. The ID is the policy's name.
type Screen struct {
	ID string `json:"id"`
	// Products are the only ones it holds for, none for all of them; Except those
	// it never holds for.
	Products []string `json:"products,omitempty"`
	Except   []string `json:"except,omitempty"`
	// MinRisk is the lowest rating of the services it holds for; 0: all.
	MinRisk Risk   `json:"min_risk,omitempty"`
	By      string `json:"by"`
	At      Time   `json:"at"`
	Removed Time   `json:"removed_at,omitempty"`
}

// ProtectedMax bounds the list of protected clients.
const ProtectedMax = 1 << 18

const hashBytes = len(ClientHash{})

// well tells whether a part of the list is one that can be looked up in.
func (p *Protected) well(id string) bool {
	if p.ID != id || len(id) != 2 || len(p.Hashes)%hashBytes != 0 {
		return false
	}
	var last []byte
	for h := range slices.Chunk(p.Hashes, hashBytes) {
		if last != nil && bytes.Compare(last, h) >= 0 || protectedID(h) != id {
			return false
		}
		last = h
	}
	return true
}

// protectedID names the part that a hash belongs to.
func protectedID(h []byte) string { return hex.EncodeToString(h[:1]) }

// IsProtected tells whether a client or person is on the list of protected
// clients. It does not allocate.
func (v *View) IsProtected(h ClientHash) bool {
	if v.protected.n == 0 || h == (ClientHash{}) {
		return false
	}
	const digits = "0123456789abcdef"
	id := [2]byte{digits[h[0]>>4], digits[h[0]&15]}
	e := v.protected.get(unsafeString(id[:]))
	if e == nil {
		return false
	}
	all := e.Value.Hashes
	low, high := 0, len(all)/hashBytes
	for low < high {
		mid := int(uint(low+high) / 2)
		switch bytes.Compare(all[mid*hashBytes:(mid+1)*hashBytes], h[:]) {
		case 0:
			return true
		case -1:
			low = mid + 1
		default:
			high = mid
		}
	}
	return false
}

// Screened finds what refuses calls about protected clients, of a product and a
// service of that rating; nil when nothing does. A rating that is not known is
// the highest.
func (v *View) Screened(product string, risk Risk) *Screen {
	for _, s := range v.screening {
		if s.Holds(product, risk) {
			return s
		}
	}
	return nil
}

// Holds tells whether it is about a product's calls of a service of that rating.
func (s *Screen) Holds(product string, risk Risk) bool {
	return (risk == 0 || risk >= s.MinRisk) && !slices.Contains(s.Except, product) &&
		(len(s.Products) == 0 || slices.Contains(s.Products, product))
}

// Screens lists all that refuse calls about protected clients, by ID.
func (v *View) Screens() []*Screen { return v.screening }

// ProtectedRevision is the revision that last changed the list of protected
// clients; 0 while there never was one.
func (v *View) ProtectedRevision() Revision { return v.protectedRevision }

// ProtectedClients is the list of protected clients, in order.
func (v *View) ProtectedClients() []ClientHash {
	var out []ClientHash
	for _, e := range sorted(&v.protected) {
		for h := range slices.Chunk(e.Value.Hashes, hashBytes) {
			out = append(out, ClientHash(h))
		}
	}
	return out
}

// indexScreens makes the list that decisions look at.
func (b *Builder) indexScreens() {
	b.v.screening = nil
	for _, e := range sorted(&b.v.screens) {
		if !e.Value.Removed.Set() {
			b.v.screening = append(b.v.screening, &e.Value)
		}
	}
}

// SetProtected replaces the list of protected clients, hashes in order and each
// once. Only the parts that differ are written.
func (t *Tx) SetProtected(hashes []ClientHash) error {
	if len(hashes) > ProtectedMax {
		return Field("", "at most %d clients are protected; there are %d", ProtectedMax, len(hashes))
	}
	parts := map[string][]byte{}
	for i := range hashes {
		id := protectedID(hashes[i][:])
		parts[id] = append(parts[id], hashes[i][:]...)
	}
	for _, e := range sorted(&t.view.protected) {
		if _, ok := parts[e.ID]; !ok {
			parts[e.ID] = nil
		}
	}
	for _, id := range slices.Sorted(maps.Keys(parts)) {
		if old := t.view.protected.get(id); old != nil && bytes.Equal(old.Value.Hashes, parts[id]) || old == nil && len(parts[id]) == 0 {
			continue
		}
		p := Protected{ID: id, Hashes: parts[id], Updated: t.now}
		if !p.well(id) {
			return Field("", "the hashes do not come in order, each once")
		}
		if err := t.put(KindProtected, id, &p); err != nil {
			return err
		}
	}
	return nil
}

// Screen has calls about protected clients refused, in the name of a policy.
func (t *Tx) Screen(s Screen) error {
	if err := needSuspend(t.actor); err != nil {
		return err
	}
	if err := checkID("/id", s.ID); err != nil {
		return err
	}
	s.By, s.At, s.Removed = t.actor.Name, t.now, 0
	return t.put(KindScreen, s.ID, &s)
}

// Unscreen ends what Screen began; where nothing was it does nothing.
func (t *Tx) Unscreen(id string) error {
	e := t.view.screens.get(id)
	if e == nil || e.Value.Removed.Set() {
		return nil
	}
	s := e.Value
	s.Removed = t.now
	return t.put(KindScreen, id, &s)
}
