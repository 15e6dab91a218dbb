package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/anomaly"
)

// kind is what a product is for, and so what its calls look like.
type kind uint8

const (
	payroll  kind = iota // lodges, in runs of a whole workforce
	ledger               // activity statements: read, then lodged at deadlines
	agent                // tax agents: lists, prefills, lodges days later
	clearing             // asks about members and lodges for most
	lookup               // reads of no person
	kinds
)

var kindNames = [kinds]string{"payroll", "ledger", "agent", "clearing", "lookup"}

// services of a kind: read, and lodge.
var services = [kinds][2]string{
	{"receipts.get", "payevnt.0004.submit"}, {"as.0004.get", "as.0004.submit"}, {"piitr.get", "iitr.submit"},
	{"stic.validate", "payevnt.0004.submit"}, {"abr.lookup", "abr.lookup"},
}

// habits of a kind: how often a session reads, deals with somebody new, lodges for
// whom it read; how many calls it makes; and what tax time makes of it.
var habits = [kinds]struct{ read, fresh, lodged, calls, taxTime float64 }{
	payroll:  {0.15, 0.02, 0.95, 25, 1.3},
	ledger:   {0.5, 0.05, 0.85, 4, 1.5},
	agent:    {0.65, 0.25, 0.8, 8, 4},
	clearing: {0.5, 0.1, 0.9, 15, 1.4},
	lookup:   {1, 0, 0, 3, 1.2},
}

// product is a benign one.
type product struct {
	id        string
	kind      kind
	version   int
	adopt     int64 // when the version before gives way, in seconds
	nextBuild int64
	hotfixes  int
	born      int64 // second of its first call
	subs      []*subscription
	down      int64 // fails until
	expired   int64 // its credential is refused until
	growth    float64
	arrivals  float64 // new subscriptions a day for each there is
	sharp     float64 // hours a day it is busy
}

// subscription is one client's instance.
type subscription struct {
	product  *product
	ssid     anomaly.Hash
	client   anomaly.Hash
	born     int64
	people   []uint64
	networks []uint64
	rate     float64 // sessions a day
	bulkDay  int     // day of the week of a run over everybody, -1 for none
	bulkHour int
	lag      bool // lodges for those it read later
	owed     []uint64
	session  []session
}

// session is a spell of work.
type session struct {
	left   int
	paceMs int // between calls
	bulk   int // index of the next person of a run, -1 for none
}

// subscriptionsMax bounds how far a product grows.
const subscriptionsMax = 250

// world is everybody benign.
type world struct {
	r        *rand.Rand
	zone     *time.Location
	products []*product
	serial   uint64
	outage   [kinds]int64 // until when a service fails
	pentUp   [kinds]int64 // until when what it held up is caught up with
	begin    int64
}

// someone is a fresh person, client, SSID or network.
func (w *world) someone() uint64 { w.serial++; return w.serial }

// hash of somebody: uniform, and never that of anybody else.
func hash(n uint64) (h anomaly.Hash) {
	x := n * 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	binary.LittleEndian.PutUint64(h[:], x^x>>31)
	binary.LittleEndian.PutUint64(h[8:], n|1<<63)
	return h
}

func newWorld(seed uint64, products int, begin int64, zone *time.Location) *world {
	w := &world{r: rand.New(rand.NewPCG(seed, 1)), zone: zone, begin: begin}
	for i := range products {
		w.products = append(w.products, w.newProduct(fmt.Sprintf("FP-%04d", 2000+i), begin))
	}
	return w
}

func (w *world) newProduct(id string, born int64) *product {
	r := w.r
	p := &product{id: id, kind: kind(r.IntN(int(kinds))), born: born, version: 1, growth: math.Exp(0.02 * r.NormFloat64()), sharp: 8 + 4*r.Float64()}
	p.nextBuild = born + int64(86400*(10+30*r.Float64()))
	p.arrivals = 1.0 / 300
	if r.IntN(10) == 0 { // one in ten doubles in six weeks
		p.arrivals = 1.0 / 60
	}
	most := 40.0
	if r.IntN(60) == 0 { // and some are large
		most = 200
	}
	for range 1 + int(math.Min(most, most/40*math.Exp(1+0.9*r.NormFloat64()))) {
		p.subs = append(p.subs, w.newSubscription(p))
	}
	return p
}

func (w *world) newSubscription(p *product) *subscription {
	r := w.r
	s := &subscription{product: p, born: p.born, ssid: hash(w.someone()), client: hash(w.someone()), rate: math.Min(60, math.Exp(1+r.NormFloat64())), bulkDay: -1, lag: p.kind == agent}
	for range 3 + int(math.Min(600, math.Exp(3.5+r.NormFloat64()))) {
		s.people = append(s.people, w.someone())
	}
	for range 1 + r.IntN(3) {
		s.networks = append(s.networks, w.someone())
	}
	if (p.kind == agent || p.kind == payroll) && r.IntN(3) == 0 {
		s.bulkDay, s.bulkHour = 1+r.IntN(5), 7+r.IntN(14)
	}
	return s
}

// rhythm is how busy an instant is, 1 on the mean of a working day.
func (w *world) rhythm(p *product, t time.Time) float64 {
	h := float64(t.Hour()) + float64(t.Minute())/60
	x := math.Exp(-math.Pow((h-13)/(p.sharp/2), 4)) * 24 / p.sharp
	x = 0.03 + 0.97*x
	if d := t.Weekday(); d == time.Saturday || d == time.Sunday {
		x *= 0.25
	}
	if t.Month() == time.December && t.Day() > 20 || t.Month() == time.January && t.Day() < 8 {
		x *= 0.4
	}
	switch d := t.Day(); { // the days before statements are due
	case p.kind == ledger && (d >= 18 && d <= 21 || d >= 26 && d <= 28):
		x *= 3
	case p.kind == payroll && (d == 14 || d == 15 || d >= 28):
		x *= 1.8
	}
	// Tax time begins at once, and fades into October.
	if m := t.YearDay(); m >= 182 && m < 305 {
		x *= 1 + (habits[p.kind].taxTime-1)*math.Exp(-float64(m-182)/40)
	}
	weeks := float64(t.Unix()-w.begin) / (7 * 86400)
	return x * math.Pow(p.growth, weeks)
}

// events are releases, outages, newcomers to a product: once a minute.
func (w *world) events(t time.Time) {
	r, at := w.r, t.Unix()
	for k := range w.outage {
		if r.Float64() < 1.0/(12*1440) { // one in twelve days and kind
			w.outage[k] = at + int64(300+5400*r.Float64())
			w.pentUp[k] = w.outage[k] + 3600
		}
	}
	for _, p := range w.products {
		if at < p.born {
			continue
		}
		if at >= p.nextBuild {
			p.version++
			p.adopt = at + int64(86400*(1+4*r.Float64()))
			if p.hotfixes == 0 && r.IntN(4) == 0 {
				p.hotfixes = 1 + r.IntN(2)
			} else if p.hotfixes > 0 {
				p.hotfixes--
			}
			p.nextBuild = at + int64(86400*(14+42*r.Float64()))
			if p.hotfixes > 0 {
				p.nextBuild = at + int64(86400*(0.5+2*r.Float64()))
			}
		}
		if r.Float64() < 1.0/(40*1440) {
			p.down = at + int64(300+7200*r.Float64())
		}
		if r.Float64() < 1.0/(120*1440) { // somebody forgot to renew a certificate
			p.expired = at + int64(1800+6*3600*r.Float64())
		}
		n := float64(len(p.subs))
		if r.Float64() < n*p.arrivals/1440 && len(p.subs) < subscriptionsMax {
			p.subs = append(p.subs, w.newSubscription(p))
			p.subs[len(p.subs)-1].born = at
		}
		if len(p.subs) > 1 && r.Float64() < n/(400*1440) { // and some leave
			i := r.IntN(len(p.subs))
			p.subs = slices.Delete(p.subs, i, i+1)
		}
	}
}

// around says what goes on around a product.
func (w *world) around(p *product, at int64) string {
	var out []string
	ago := func(what string, then int64) {
		if then > at-2*86400 {
			out = append(out, fmt.Sprintf("%s until %.1f h ago", what, float64(at-then)/3600))
		}
	}
	ago("outage", w.outage[p.kind])
	ago("down", p.down)
	ago("certificate expired", p.expired)
	for _, s := range p.subs {
		if s.born > at-30*86400 {
			out = append(out, fmt.Sprintf("subscription of %d people for %.1f days", len(s.people), float64(at-s.born)/86400))
		}
	}
	return fmt.Sprintf("%s, %d subscriptions, %s", kindNames[p.kind], len(p.subs), strings.Join(out, ", "))
}

// caller makes the calls of the world in one minute.
type caller func(at int64, o *anomaly.Observation, f *anomaly.Finished)

func (w *world) minute(t time.Time, call caller) {
	w.events(t)
	at := t.Unix()
	for _, p := range w.products {
		if at < p.born {
			continue
		}
		busy := w.rhythm(p, t)
		factor := busy / 1440
		if at < w.pentUp[p.kind] && at >= w.outage[p.kind] {
			factor *= 2.5
		}
		for _, s := range p.subs {
			if w.r.Float64() < s.rate*factor {
				h := habits[p.kind]
				s.session = append(s.session, session{left: 1 + int(w.r.ExpFloat64()*h.calls), paceMs: 1000 + int(20000*w.r.Float64()), bulk: -1})
			}
			if s.bulkDay == int(t.Weekday()) && s.bulkHour == t.Hour() && t.Minute() == 10 {
				s.session = append(s.session, session{left: len(s.people), paceMs: 700, bulk: 0})
			}
			w.work(s, at, call)
		}
	}
}

// work goes on with the sessions of a subscription for one minute.
func (w *world) work(s *subscription, at int64, call caller) {
	kept := s.session[:0]
	for _, x := range s.session {
		for ms := w.r.IntN(x.paceMs + 1); ms < 60_000 && x.left > 0; ms += x.paceMs/2 + w.r.IntN(x.paceMs) {
			w.one(s, &x, at+int64(ms/1000), call)
			x.left--
		}
		if x.left > 0 {
			kept = append(kept, x)
		}
	}
	s.session = kept
}

// whom is the person the next call is about.
func (w *world) whom(s *subscription, x *session, lodge bool) uint64 {
	r, h := w.r, habits[s.product.kind]
	switch {
	case x.bulk >= 0:
		x.bulk++
		return s.people[(x.bulk-1)%len(s.people)]
	case lodge && len(s.owed) > 0:
		i := r.IntN(len(s.owed))
		p := s.owed[i]
		s.owed[i] = s.owed[len(s.owed)-1]
		s.owed = s.owed[:len(s.owed)-1]
		return p
	case r.Float64() < h.fresh:
		p := w.someone()
		if len(s.people) < 3000 {
			s.people = append(s.people, p)
		} else {
			s.people[r.IntN(len(s.people))] = p
		}
		return p
	}
	return s.people[r.IntN(len(s.people))]
}

// one makes one call, and what comes back.
func (w *world) one(s *subscription, x *session, at int64, call caller) {
	r, p, h := w.r, s.product, habits[s.product.kind]
	lodge := r.Float64() >= h.read
	if s.lag && x.bulk < 0 && len(s.owed) > 0 && r.Float64() < 0.35 {
		lodge = true
	}
	o := anomaly.Observation{At: at, Product: p.id, ClientApp: p.id + "-app", Subscription: s.ssid, Client: s.client, Version: w.versionOf(p, at)}
	if r.IntN(400) == 0 { // a caller on the move
		s.networks[r.IntN(len(s.networks))] = w.someone()
	}
	o.Source = hash(s.networks[r.IntN(len(s.networks))])
	o.Service, o.Verb = services[p.kind][0], anomaly.Read
	if lodge {
		o.Service, o.Verb = services[p.kind][1], anomaly.Lodge
	}
	if p.kind != lookup {
		who := w.whom(s, x, lodge)
		o.Person = hash(who)
		if !lodge && r.Float64() < h.lodged && len(s.owed) < 2000 {
			s.owed = append(s.owed, who)
		}
	}
	f := anomaly.Finished{Status: 200, BytesOut: uint64(400 + 4000*r.ExpFloat64())}
	again := 1
	switch {
	case at < p.expired:
		o.Outcome, o.Person = anomaly.RefusedIdentity, anomaly.Hash{}
	case at < w.outage[p.kind], at < p.down:
		f.Status, f.BytesOut = 503, 100
		again = 1 + r.IntN(4)
	case r.IntN(50) == 0:
		f.Status = 422
	}
	for range again {
		copied, finished := o, f
		call(at, &copied, &finished)
	}
}

// versionOf is what a call says it is: users change over in some days.
func (w *world) versionOf(p *product, at int64) string {
	v := p.version
	if at < p.adopt && w.r.IntN(2) == 0 && v > 1 {
		v--
	}
	return fmt.Sprintf("%s-%d.0", p.id, v)
}
