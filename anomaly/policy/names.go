package policy

import (
	"encoding/hex"
	"sync"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// Names finds the subscription that a signal is about. Signals name
// subscriptions by a keyed hash; who holds the key can hash those of the
// register and see which it is. The nil Names finds none. Safe for concurrent
// use.
type Names struct {
	hash func(kind, id string) [16]byte
	now  func() time.Time

	mu     sync.Mutex
	ssids  map[string]string // by the hash in hexadecimal
	of     registry.Revision // of the register they are of
	looked time.Time
}

// namesEvery is how often the register is gone through again for a hash that is
// not known.
const namesEvery = 10 * time.Second

// NewNames makes a Names of the hash that sidecars use
// (authz.SubjectHasher.Sum).
func NewNames(hash func(kind, id string) [16]byte) *Names {
	return &Names{hash: hash, now: time.Now}
}

// FactsOf looks a subject up in the register, a subscription too.
func (n *Names) FactsOf(v *registry.View, s anomaly.Subject) Facts {
	if s.Kind != anomaly.Subscription || n == nil {
		return FactsOf(v, s)
	}
	sub := v.Subscription(n.ssid(v, s.ID))
	if sub == nil {
		return Facts{}
	}
	f := FactsOf(v, anomaly.Subject{Kind: anomaly.Product, ID: sub.ProductID})
	if f.Product != "" {
		f.Subscription = sub.SSID
	}
	return f
}

func (n *Names) ssid(v *registry.View, hash string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if ssid, ok := n.ssids[hash]; ok || n.of == v.Revision || n.now().Sub(n.looked) < namesEvery {
		return ssid
	}
	n.ssids, n.of, n.looked = map[string]string{}, v.Revision, n.now()
	for _, e := range v.Subscriptions() {
		h := n.hash("software_id", e.ID)
		n.ssids[hex.EncodeToString(h[:])] = e.ID
	}
	return n.ssids[hash]
}
