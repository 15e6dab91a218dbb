package registrytest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Sealer seals under a key that all tests share.
func Sealer(t testing.TB) *registry.Sealer {
	t.Helper()
	s, err := registry.NewSealer([]byte("a register key for tests, 32 bytes or more"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Record makes an unsealed record of one of the nouns of package registry. It
// panics on any other value.
func Record(value any) registry.Record {
	var kind registry.Kind
	var id string
	switch v := value.(type) {
	case registry.Entity:
		kind, id = registry.KindEntity, v.ABN.String()
	case registry.Product:
		kind, id = registry.KindProduct, v.ID
	case registry.ClientApp:
		kind, id = registry.KindClientApp, v.ClientID
	case registry.Credential:
		kind, id = registry.KindCredential, v.Thumbprint
	case registry.Subscription:
		kind, id = registry.KindSubscription, v.SSID
	case registry.Service:
		kind, id = registry.KindService, v.Key
	case registry.Suspension:
		kind, id = registry.KindSuspension, v.ID
	case registry.Denial:
		kind, id = registry.KindDenial, v.ID
	case registry.Notice:
		kind, id = registry.KindNotice, v.ID
	case registry.Limit:
		kind, id = registry.KindLimit, v.ID
	case registry.Protected:
		kind, id = registry.KindProtected, v.ID
	case registry.Screen:
		kind, id = registry.KindScreen, v.ID
	default:
		panic(fmt.Sprintf("registrytest: no record of %T", value))
	}
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return registry.Record{Kind: kind, ID: id, Data: data}
}

// View makes a View of some nouns, all written at one revision, without a
// store: for whatever only reads Views.
func View(t testing.TB, revision registry.Revision, values ...any) *registry.View {
	t.Helper()
	return Next(t, nil, revision, values...)
}

// Next makes a View that follows another (nil: the empty register) by some nouns.
func Next(t testing.TB, v *registry.View, revision registry.Revision, values ...any) *registry.View {
	t.Helper()
	s := Sealer(t)
	b := registry.NewBuilder(v, registry.At(time.Now()))
	for _, value := range values {
		r := Record(value)
		s.Seal(&r, revision)
		if err := b.Put(&r); err != nil {
			t.Fatal(err)
		}
	}
	next, err := b.View(revision, 1)
	if err != nil {
		t.Fatal(err)
	}
	return next
}

// Writer commits records as a control plane would, without rules or
// permissions. It is the only writer while its epoch stands. Not safe for
// concurrent use.
type Writer struct {
	Epoch  registry.Epoch
	View   *registry.View // as committed
	ledger registry.Ledger
	sealer *registry.Sealer
	t      testing.TB
	macs   map[string]registry.MAC // of the cases committed or made so far
}

// NewWriter takes the writer's claim of an empty store.
func NewWriter(t testing.TB, l registry.Ledger) *Writer {
	t.Helper()
	epoch, err := l.Lead(context.Background(), "writer", 0, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &Writer{Epoch: epoch, View: &registry.View{}, ledger: l, sealer: Sealer(t), t: t, macs: map[string]registry.MAC{}}
}

// NewWriterAt goes on from what a View shows, in the name of whoever holds an epoch.
func NewWriterAt(t testing.TB, l registry.Ledger, epoch registry.Epoch, v *registry.View) *Writer {
	t.Helper()
	return &Writer{Epoch: epoch, View: v, ledger: l, sealer: Sealer(t), t: t}
}

// Put commits one change of some nouns and returns its revision.
func (w *Writer) Put(values ...any) registry.Revision {
	w.t.Helper()
	c, head, next := w.Change(values...)
	if err := w.ledger.Commit(context.Background(), w.Epoch, w.View.Mark(), c, head); err != nil {
		w.t.Fatalf("commit %d: %v", c.Revision, err)
	}
	w.View = next
	return c.Revision
}

// Change makes the change that Put would commit, with the head and the View
// after it.
func (w *Writer) Change(values ...any) (*registry.Change, *registry.Head, *registry.View) {
	w.t.Helper()
	rev := w.View.Revision + 1
	c := &registry.Change{Revision: rev, Epoch: w.Epoch, At: registry.At(time.Now()), Actor: "writer", Command: "test"}
	b := registry.NewBuilder(w.View, c.At)
	var cases []registry.CaseRecord
	for _, v := range values {
		if x, ok := v.(registry.CaseRecord); ok {
			w.sealer.SealCase(&x, rev)
			cases = append(cases, x)
			continue
		}
		r := Record(v)
		w.sealer.Seal(&r, rev)
		if err := b.Put(&r); err != nil {
			w.t.Fatal(err)
		}
		c.Puts = append(c.Puts, r)
	}
	next, err := b.View(rev, w.Epoch)
	if err != nil {
		w.t.Fatal(err)
	}
	c.Cases = cases
	w.sumCases(cases, next)
	c.Digest, c.CaseSum = next.Digest, next.CaseSum
	c.MAC = w.sealer.Change(c)
	head := &registry.Head{Revision: rev, Epoch: w.Epoch, Records: next.Records, Digest: next.Digest, CaseSum: next.CaseSum}
	head.MAC = w.sealer.Head(head)
	return c, head, next
}

// sumCases counts cases in a View that follows the one they were made on. Each
// Change with cases should be committed: the Writer remembers them.
func (w *Writer) sumCases(cases []registry.CaseRecord, v *registry.View) {
	for i := range cases {
		key := cases[i].Key()
		if old, was := w.macs[key]; was {
			v.CaseSum.Digest = v.CaseSum.Digest.Sub(old)
		} else {
			v.CaseSum.Count++
		}
		v.CaseSum.Digest = v.CaseSum.Digest.Add(cases[i].MAC)
		w.macs[key] = cases[i].MAC
	}
}
