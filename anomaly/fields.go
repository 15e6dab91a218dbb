package anomaly

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// Field is something of a call that monitoring needs to know, out of a closed
// set. What is never missing in an allowed call (its decision, product, service,
// the holder of the credential) is not among them.
type Field uint8

// The fields.
const (
	FieldVersion      Field = iota // of the product
	FieldSubscription              // the software ID
	FieldClient                    // on whose behalf
	FieldPerson                    // whom it concerns
	FieldNetwork                   // where it came from
	// NFields is how many there are.
	NFields
)

var fieldNames = [NFields]string{"product_version", "software_id", "client_abn", "subject_hash", "network"}

func (f Field) String() string {
	if f < NFields {
		return fieldNames[f]
	}
	return "unknown"
}

// FieldTally is how many allowed calls of a product to a service there were, and
// how many of them lacked what.
type FieldTally struct {
	Product, Service string
	Calls            uint64
	Missing          [NFields]uint64
}

// Add adds o's counts.
func (t *FieldTally) Add(o *FieldTally) {
	t.Calls += o.Calls
	for i, n := range o.Missing {
		t.Missing[i] += n
	}
}

// fieldTalliesMax bounds the products with a service that are told apart between
// two reports, some 150 bytes each; calls of others are counted in Lost.
const fieldTalliesMax = 4096

type fieldKey struct{ product, service string }

// fieldCounts are of one sidecar since its last report.
type fieldCounts map[fieldKey]*FieldTally

// observe counts what an allowed call lacks; false when there was no room.
func (m fieldCounts) observe(o *Observation) bool {
	t := m.of(o.Product, o.Service)
	if t == nil {
		return false
	}
	t.Calls++
	for f, missing := range [NFields]bool{o.Version == "", o.Subscription.zero(), o.Client.zero(), o.Person.zero(), o.Source.zero()} {
		if missing {
			t.Missing[f]++
		}
	}
	return true
}

func (m fieldCounts) of(product, service string) *FieldTally {
	if t := m[fieldKey{product, service}]; t != nil {
		return t
	}
	if len(m) >= fieldTalliesMax || len(product) > subjectIDMax || len(service) > subjectIDMax {
		return nil
	}
	t := &FieldTally{Product: product, Service: service}
	m[fieldKey{product, service}] = t
	return t
}

// TakeFields hands over what allowed calls lacked, and begins anew.
func (c *Collector) TakeFields() []FieldTally {
	c.mu.Lock()
	taken := c.fields
	c.fields = fieldCounts{}
	c.mu.Unlock()
	out := make([]FieldTally, 0, len(taken))
	for _, t := range taken {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b FieldTally) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Service, b.Service))
	})
	return out
}

// PutBackFields adds what was taken and could not be sent to what is counted now.
func (c *Collector) PutBackFields(taken []FieldTally) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range taken {
		if t := c.fields.of(taken[i].Product, taken[i].Service); t != nil {
			t.Add(&taken[i])
		} else {
			c.lost.Add(taken[i].Calls)
		}
	}
}

func appendFields(b []byte, all []FieldTally) []byte {
	b = binary.AppendUvarint(b, uint64(len(all)))
	for i := range all {
		t := &all[i]
		b = appendString(appendString(b, t.Product), t.Service)
		b = binary.AppendUvarint(b, t.Calls)
		b = appendSparse(b, t.Missing[:])
	}
	return b
}

func (d *reader) fields() []FieldTally {
	n := d.uvarint("fields", fieldTalliesMax)
	if n > uint64(len(d.b)) {
		d.fail("fields")
	}
	if n == 0 || d.err != nil {
		return nil
	}
	out := make([]FieldTally, 0, n)
	for range n {
		if d.err != nil {
			break
		}
		t := FieldTally{Product: d.string("product"), Service: d.string("service"), Calls: d.uvarint("calls", countMax)}
		d.sparse("missing", t.Missing[:])
		out = append(out, t)
	}
	return out
}
