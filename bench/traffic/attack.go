package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/dspgate/dspgate/anomaly"
)

// shape is one of the ways in which the framework's scenarios say that callers
// go wrong.
type shape uint8

const (
	stolenCredential   shape = iota // one SSID, another network, strangers at the rate limit
	slowEnumeration                 // at most 200 strangers a day, around the clock, below every limit
	fanOut                          // one credential, one SSID after the other, half of them refused
	exfiltration                    // one SSID asks for the prefill of everybody
	churning                        // a new version every few hours
	fraudulentNewcomer              // a product nobody knew, which only asks
	compromisedAddOn                // reads everybody of every client, at night or by day, from elsewhere
	shapes
)

var shapeNames = [shapes]string{
	"stolen credential", "slow enumeration", "fan-out over SSIDs", "exfiltration by prefill", "churning product", "fraudulent newcomer", "compromised add-on",
}

// loud attacks make a call a second or more.
func (s shape) loud() bool { return s != slowEnumeration && s != churning }

// lasts is for how long one goes on unless it is told, in seconds.
func (s shape) lasts() int64 {
	switch s {
	case slowEnumeration:
		return 86400
	case churning:
		return 5 * 86400
	}
	return 3600
}

// attack is one that is made.
type attack struct {
	shape   shape
	victim  *product
	sub     *subscription
	start   int64
	pace    float64 // seconds between calls
	found   float64 // share of those asked about that there are
	network uint64
	home    bool // comes from where its victim does
	pick    int  // which of its victim's subscriptions

	next    float64 // second of its next call
	n       int     // calls so far
	builds  int
	victims []uint64 // whom it knows of
	let     int      // calls that were let through until it was told
	told    int64    // when it was, 0 before
	by      string

	suspended bool
}

// newAttacks are n of each shape, one a victim, between two instants.
func newAttacks(w *world, seed uint64, n int, from, to int64) []*attack {
	r := rand.New(rand.NewPCG(seed, 2))
	order := r.Perm(len(w.products))
	var out []*attack
	for s := range shapes {
		for i := range n {
			a := &attack{shape: s, network: w.someone(), found: 0.05 + 0.95*r.Float64(), pace: 1 / (1 + 3*r.Float64())}
			a.start = from + int64(r.Float64()*float64(to-from-s.lasts()))
			if s == fraudulentNewcomer {
				a.victim = &product{id: fmt.Sprintf("FP-9%d%02d", s, i), kind: ledger + kind(r.IntN(3)), version: 1}
				a.sub = &subscription{product: a.victim, ssid: hash(w.someone()), client: hash(w.someone())}
				out = append(out, a)
				continue
			}
			for len(order) > 0 && a.victim == nil {
				if p := w.products[order[0]]; p.kind != lookup {
					a.victim = p
				}
				order = order[1:]
			}
			if a.victim == nil {
				return out // nobody is left
			}
			a.pick = r.IntN(1 << 20)
			switch s {
			case slowEnumeration:
				a.pace = 86400 / (120 + 80*r.Float64())
			case churning:
				a.pace = 240
			case exfiltration:
				a.home = i%2 == 0
			case compromisedAddOn:
				if i%2 == 0 { // between one and four at night
					a.start = w.night(a.start)
				}
			}
			out = append(out, a)
		}
	}
	return out
}

func (a *attack) over(at int64) bool { return at >= a.start+a.shape.lasts() }

// minute makes the attack's calls of one minute.
func (a *attack) minute(w *world, at int64, call caller) {
	if at+60 <= a.start || a.over(at) {
		return
	}
	if a.next == 0 {
		a.next = float64(a.start)
		a.prepare(w)
	}
	for ; a.next < float64(at+60); a.next += a.pace * (0.5 + w.r.Float64()) {
		a.one(w, int64(a.next), call)
		a.n++
	}
}

// prepare learns whom the victim deals with.
func (a *attack) prepare(w *world) {
	if a.sub == nil {
		a.sub = a.victim.subs[a.pick%len(a.victim.subs)]
	}
	switch a.shape {
	case exfiltration:
		a.victims = append(a.victims, a.sub.people...)
		fallthrough
	case compromisedAddOn:
		for _, s := range a.victim.subs {
			a.victims = append(a.victims, s.people...)
		}
		w.r.Shuffle(len(a.victims), func(i, j int) { a.victims[i], a.victims[j] = a.victims[j], a.victims[i] })
	}
}

func (a *attack) one(w *world, at int64, call caller) {
	p := a.victim
	o := anomaly.Observation{
		At: at, Product: p.id, ClientApp: p.id + "-app", Subscription: a.sub.ssid, Client: a.sub.client, Source: hash(a.network),
		Service: services[p.kind][0], Verb: anomaly.Read, Version: fmt.Sprintf("%s-%d.0", p.id, p.version),
	}
	f := anomaly.Finished{Status: 200, BytesOut: uint64(2000 + 6000*w.r.ExpFloat64())}
	if w.r.Float64() >= a.found {
		f.Status, f.BytesOut = 404, 300
	}
	if a.home {
		o.Source = hash(a.sub.networks[0])
	}
	switch a.shape {
	case stolenCredential, slowEnumeration, fraudulentNewcomer:
		o.Person = hash(w.someone())
	case fanOut:
		o.Subscription, o.Client, o.Person = hash(w.someone()), hash(w.someone()), hash(w.someone())
		if w.r.IntN(2) == 0 {
			o.Outcome, o.Person = anomaly.RefusedIdentity, anomaly.Hash{}
		}
	case exfiltration, compromisedAddOn:
		o.Person, f.Status = hash(a.victims[a.n%len(a.victims)]), 200
		if a.shape == compromisedAddOn {
			s := p.subs[a.n%len(p.subs)]
			o.Subscription, o.Client = s.ssid, s.client
		}
	case churning:
		if a.n%60 == 0 { // one in some four hours
			a.builds++
		}
		s := p.subs[w.r.IntN(len(p.subs))]
		o.Subscription, o.Client, o.Source = s.ssid, s.client, hash(s.networks[0])
		o.Person = hash(s.people[w.r.IntN(len(s.people))])
		o.Service, o.Verb, o.Version = services[p.kind][1], anomaly.Lodge, fmt.Sprintf("%s-%d.%d", p.id, p.version, a.builds)
		f.Status = 200
	}
	call(at, &o, &f)
}

// night is between one and four o'clock of an instant's day.
func (w *world) night(at int64) int64 {
	t := time.Unix(at, 0).In(w.zone)
	return time.Date(t.Year(), t.Month(), t.Day(), 1+t.Hour()/8, t.Minute(), t.Second(), 0, w.zone).Unix()
}
