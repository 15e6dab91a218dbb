package registry

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Builder makes a View from another and some records. Not safe for concurrent
// use; the parent View is not touched.
type Builder struct {
	v             View
	d             decoder
	routesChanged bool
	own           struct {
		entities, products, apps, credentials, subscriptions, services, suspensions, denials, notices, clientSubs owned
		suspended                                                                                                 [KindService + 1]owned
		limits, protected, screens                                                                                owned
		limited                                                                                                   [KindTier + 1]owned
	}
}

// NewBuilder starts from a View, or from the empty register when v is nil. A
// View depends on its records alone; the instant is not used.
func NewBuilder(v *View, _ Time) *Builder {
	b := &Builder{}
	if v != nil {
		b.v = *v
	}
	return b
}

// Put decodes a genuine record into the register. A record older than the one
// held is passed over, so that a snapshot read while the register changes
// converges once the log is replayed over it. On an error nothing has changed.
func (b *Builder) Put(r *Record) error {
	entry, err := b.d.decode(r)
	if err != nil {
		return fmt.Errorf("record %s: %w", r.Key(), err)
	}
	b.insert(entry)
	return nil
}

// insert takes in what a decoder made of a record.
func (b *Builder) insert(entry any) {
	switch e := entry.(type) {
	case *Entry[Entity]:
		insert(b, &b.v.entities, &b.own.entities, e)
	case *Entry[Product]:
		insert(b, &b.v.products, &b.own.products, e)
	case *Entry[ClientApp]:
		insert(b, &b.v.apps, &b.own.apps, e)
	case *Entry[Credential]:
		insert(b, &b.v.credentials, &b.own.credentials, e)
	case *Entry[Subscription]:
		if old, ok := insert(b, &b.v.subscriptions, &b.own.subscriptions, e); ok {
			b.indexSubscription(old, &e.Value)
		}
	case *Entry[Service]:
		if _, ok := insert(b, &b.v.services, &b.own.services, e); ok {
			b.routesChanged = true
		}
	case *Entry[Suspension]:
		if old, ok := insert(b, &b.v.suspensions, &b.own.suspensions, e); ok {
			b.indexSuspension(old, &e.Value)
		}
	case *Entry[Denial]:
		insert(b, &b.v.denials, &b.own.denials, e)
	case *Entry[Notice]:
		insert(b, &b.v.notices, &b.own.notices, e)
	case *Entry[Limit]:
		if _, ok := insert(b, &b.v.limits, &b.own.limits, e); ok {
			b.indexLimit(e)
		}
	case *Entry[Protected]:
		if _, ok := insert(b, &b.v.protected, &b.own.protected, e); ok {
			b.v.protectedRevision = max(b.v.protectedRevision, e.Revision)
		}
	case *Entry[Screen]:
		if _, ok := insert(b, &b.v.screens, &b.own.screens, e); ok {
			b.indexScreens()
		}
	default:
		panic(fmt.Sprintf("registry: a decoder made a %T", entry))
	}
}

// insert sets an entry unless a newer one is held; ok tells whether it did, old
// is the value replaced, nil when it is new.
func insert[T any](b *Builder, t *table[T], o *owned, e *Entry[T]) (old *T, ok bool) {
	held := t.get(e.ID)
	if held != nil && held.Revision >= e.Revision {
		return nil, false
	}
	t.put(e, o)
	b.v.Digest = b.v.Digest.Add(e.MAC)
	if held == nil {
		b.v.Records++
		return nil, true
	}
	b.v.Digest = b.v.Digest.Sub(held.MAC)
	return &held.Value, true
}

func (b *Builder) indexSuspension(old, s *Suspension) {
	b.v.curbs += curbs(s) - curbs(old)
	if old != nil {
		b.suspendedList(old.Subject, func(list []*Suspension) []*Suspension {
			return slices.DeleteFunc(list, func(x *Suspension) bool { return x.ID == s.ID })
		})
	}
	if s.LiftedAt == 0 {
		b.suspendedList(s.Subject, func(list []*Suspension) []*Suspension {
			at, _ := slices.BinarySearchFunc(list, s, endsLater)
			return slices.Insert(list, at, s)
		})
	}
}

// curbs counts a suspension that curbs and is not lifted.
func curbs(s *Suspension) int {
	if s == nil || s.LiftedAt != 0 || s.Effect == EffectStop {
		return 0
	}
	return 1
}

// endsLater orders suspensions: without end first, then those that expire last.
func endsLater(a, b *Suspension) int {
	end := func(s *Suspension) Time {
		if s.Expires == 0 {
			return math.MaxInt64
		}
		return s.Expires
	}
	return cmp.Or(cmp.Compare(end(b), end(a)), cmp.Compare(a.ID, b.ID))
}

// suspendedList puts a changed copy of a subject's list in place of the list.
func (b *Builder) suspendedList(subject SubjectRef, change func([]*Suspension) []*Suspension) {
	if !subject.Kind.Suspendable() {
		return
	}
	t := &b.v.suspended[subject.Kind]
	e := &Entry[[]*Suspension]{ID: subject.ID}
	if held := t.get(subject.ID); held != nil {
		e.Value = slices.Clone(held.Value)
	}
	e.Value = change(e.Value)
	t.put(e, &b.own.suspended[subject.Kind])
}

func (b *Builder) indexSubscription(old, s *Subscription) {
	if old != nil && (old.ProductID != s.ProductID || old.ClientABN != s.ClientABN) {
		b.clientSubsList(old, func(list []string) []string {
			return slices.DeleteFunc(list, func(ssid string) bool { return ssid == s.SSID })
		})
	}
	b.clientSubsList(s, func(list []string) []string {
		if at, found := slices.BinarySearch(list, s.SSID); !found {
			return slices.Insert(list, at, s.SSID)
		}
		return list
	})
}

func (b *Builder) clientSubsList(s *Subscription, change func([]string) []string) {
	e := &Entry[[]string]{ID: string(clientSubsKey(nil, s.ProductID, s.ClientABN))}
	if held := b.v.clientSubs.get(e.ID); held != nil {
		e.Value = slices.Clone(held.Value)
	}
	e.Value = change(e.Value)
	b.v.clientSubs.put(e, &b.own.clientSubs)
}

// View finishes: the register as it then stands at a revision. The Builder
// must not be used afterwards.
func (b *Builder) View(rev Revision, epoch Epoch) (*View, error) {
	if b.routesChanged {
		var all []*Service
		for _, e := range sorted(&b.v.services) {
			all = append(all, &e.Value)
		}
		r, err := CompileRoutes(all)
		if err != nil {
			return nil, fmt.Errorf("routes: %w", err)
		}
		b.v.routes = r
	}
	v := b.v
	v.Revision, v.Epoch = rev, epoch
	return &v, nil
}
