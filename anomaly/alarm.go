package anomaly

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// A signal is told once in a thousand ordinary windows, which is often. An alarm
// is for a person to look at, and seldom: one of a few harmful patterns, counted
// over a minute, an hour or a day, reaches several times what the subject ever
// did in weeks of its own past, at these hours. What rises for many at once, as
// at tax time or after an outage, raises the bar for all.

// stat is what a pattern counts.
type stat uint8

const (
	// statUnlodged: people dealt with for the first time, less those first lodged for.
	statUnlodged stat = iota
	// statRead: different people read about, less those lodged for.
	statRead
	// statCalls: calls that read, and were answered.
	statCalls
	// statSSIDs: software IDs seen for the first time.
	statSSIDs
	// statVersions: versions seen for the first time, refused ones too.
	statVersions
	// statElsewhere: subscriptions of a product that read about people from a network
	// they did not come from an hour ago, and lodge nothing.
	statElsewhere
)

// atHome are those of which it matters whether it comes from where the subject
// always comes from: it may well work through all its people there.
func (s stat) atHome() bool { return s == statRead || s == statCalls }

// horizon is how long a pattern counts.
type horizon uint8

const (
	minuteLong horizon = iota
	hourLong
	dayLong
	weekLong
)

var horizonWords = [...]string{"minute", "hour", "day", "week"}

// vigils are what is watched: below floor nothing is worth a person's time.
var vigils = [...]struct {
	stat    stat
	horizon horizon
	floor   float64
	name    SignalName
}{
	{statUnlodged, minuteLong, 20, SignalHarvest},
	{statUnlodged, hourLong, 40, SignalHarvest},
	{statUnlodged, dayLong, 80, SignalHarvest},
	{statRead, minuteLong, 30, SignalSweep},
	{statRead, hourLong, 100, SignalSweep},
	{statCalls, minuteLong, 60, SignalRush},
	{statCalls, hourLong, 600, SignalRush},
	{statSSIDs, minuteLong, 10, SignalFanOut},
	{statSSIDs, hourLong, 20, SignalFanOut},
	{statSSIDs, dayLong, 40, SignalFanOut},
	{statVersions, weekLong, 5, SignalChurn},
	{statElsewhere, minuteLong, 8, SignalElsewhere},
}

const (
	nVigils = len(vigils)

	// vigilDays is how many days of the past count, and lagDays how many of the
	// last do not yet: an attack that goes on must not become usual meanwhile.
	vigilDays, lagDays = 35, 2
	// longLag is the same of a second bar, against a rise in small steps.
	longLag = 8
	// settleDays are a subject's first, in which everything is new.
	settleDays = 7
	// matureDays is how many days a subject must have called on, after these, to
	// be held against its own past, and matureAge how old it must be: two weeks
	// show what it does once a week.
	matureDays, matureAge = 3, 15
	// alarmTimes is how many times the most of the past an alarm takes, and
	// driftTimes the same of what lies longLag back.
	alarmTimes, driftTimes = 3, 6
	// homeTimes is how much more it takes to call a run over everybody a sweep when
	// it comes from where the subject always comes from.
	homeTimes = 2
	// commonMax bounds how far what rises for many raises the bar.
	commonMax = 5
	// quietFor is for how long a pattern must not have been there to be told again.
	quietFor = 86400
)

// tide is the most of each day lately: at work, and off hours.
type tide struct {
	Most [2][vigilDays]float32
}

// before is the most of the days that lie at least lag back.
func (t *tide) before(day int64, lag int64, class int) float64 {
	most := float32(0)
	for d := day - vigilDays + 1; d <= day-lag; d++ {
		most = max(most, t.Most[class][slotOf(d, vigilDays)])
	}
	return float64(most)
}

// slotOf is where the nth of something is kept among size.
func slotOf(n, size int64) int64 { return (n%size + size) % size }

// rolling is a sum over the last of some equal steps.
type rolling struct {
	Slot [24]float32
	At   int64 // the step added to last
}

// advance forgets what is size steps old.
func (r *rolling) advance(step, size int64) {
	if step-r.At >= size || step < r.At {
		r.Slot = [24]float32{}
	} else {
		for s := r.At + 1; s <= step; s++ {
			r.Slot[slotOf(s, size)] = 0
		}
	}
	r.At = step
}

func (r *rolling) add(step, size int64, v float64) {
	r.advance(step, size)
	r.Slot[slotOf(step, size)] += float32(v)
}

func (r *rolling) sum() (total float64) {
	for _, v := range r.Slot {
		total += float64(v)
	}
	return total
}

// rollings are the sums kept of what is new.
const (
	newPersonsHour = iota
	newLodgedHour
	newSSIDsHour
	newNetworksHour
	newPersonsDay
	newLodgedDay
	newSSIDsDay
	newVersionsWeek
	nRollings
)

// watch is what alarms know of one subject.
type watch struct {
	watchState
	slide  slide
	bars   [nVigils][2]float64 // today's, before what is common to all
	barsOf int64               // the day they are of
}

// watchState is fixed in size and made of numbers only, so that a baseline is a
// copy.
type watchState struct {
	Day    int64 // of the zone, lately
	Days   int64 // on which it called, since it settled
	Called bool  // today
	Sum    [nRollings]rolling
	Tide   [nVigils]tide
	Told   [signals - firstAlarm]struct {
		Until int64   // as long as the pattern counts as told
		Times float32 // how far it was beyond its bar when told last
	}
	Joined bool // of a subscription: its past is in that of its product
}

// fresh is what a minute brought that was not there before.
type fresh struct{ persons, lodged, ssids, networks, versions float64 }

// steps are the numbers of the rolling steps an instant lies in.
func steps(when int64) (five, hour, day int64) { return when / 300, when / 3600, when / 86400 }

// values are what the vigils count, with an open minute's news added.
func (a *watch) values(p *profile, f fresh, y *young, elsewhere float64, when int64) (v [nVigils]float64) {
	five, hour, day := steps(when)
	for i := range a.Sum {
		switch {
		case i < newPersonsDay:
			a.Sum[i].advance(five, 12)
		case i < newVersionsWeek:
			a.Sum[i].advance(hour, 24)
		default:
			a.Sum[i].advance(day, 7)
		}
	}
	unlodged := func(persons, lodged int) float64 {
		return a.Sum[persons].sum() - a.Sum[lodged].sum() + f.persons - f.lodged
	}
	v = [nVigils]float64{
		f.persons - f.lodged, unlodged(newPersonsHour, newLodgedHour), unlodged(newPersonsDay, newLodgedDay),
		math.Max(0, p.minute.read()-y.minute), math.Max(0, p.hour.read()-y.hour),
		math.Max(0, p.minute.answered()-y.calls), math.Max(0, p.hour.answered()-y.callsHour),
		f.ssids, a.Sum[newSSIDsHour].sum() + f.ssids, a.Sum[newSSIDsDay].sum() + f.ssids,
		a.Sum[newVersionsWeek].sum() + f.versions,
		elsewhere,
	}
	return v
}

// read is of how many people it was read about and nothing lodged for.
func (t *Tally) read() float64 { return t.Set[Persons].Distinct() - t.Set[Lodged].Distinct() }

// answered is how many calls read and got an answer: in an outage callers try again.
func (t *Tally) answered() float64 {
	return math.Max(0, float64(t.Count[Reads])-float64(t.Count[Failed]))
}

// young is what the subscriptions of a product that have no past yet did: a new
// client of a product begins with a whole list of people, which is no news of
// the product's. Whether it is one of the client's is held against what others do.
type young struct {
	persons, lodged float64 // fresh, in this minute
	minute, hour    float64 // read

	calls, callsHour float64 // answered
}

// countClients finds what is left out of the products' and client apps' counts,
// and how many of a product's subscriptions read from elsewhere.
func (w *Watcher) countClients() {
	clear(w.young)
	clear(w.elsewhere)
	five, _, _ := steps(w.local(w.minute))
	for _, x := range w.calling {
		s, p := x.s, x.p
		if s.Kind != Subscription || p.of == "" {
			continue
		}
		if w.age(p) >= matureAge {
			w.join(p)
			if p.elsewhere(five) {
				w.elsewhere[p.of]++
			}
			continue
		}
		f, y := p.news(s, false), w.young[p.of]
		y.persons, y.lodged = y.persons+f.persons, y.lodged+f.lodged
		y.minute, y.hour = y.minute+p.minute.read(), y.hour+p.hour.read()
		y.calls, y.callsHour = y.calls+p.minute.answered(), y.callsHour+p.hour.answered()
		w.young[p.of] = y
	}
}

// elsewhere tells whether a subscription reads about people from a network it did
// not come from before the last hour, and has lodged nothing in the open one. With
// a run of one client from a new place this happens; with one of many it is
// somebody who has come by what lets him act for them all.
func (p *profile) elsewhere(five int64) bool {
	if p.watch == nil || p.minute.read() < 1 || p.minute.Count[Lodges]+p.hour.Count[Lodges] > 0 {
		return false
	}
	networks := &p.watch.Sum[newNetworksHour]
	networks.advance(five, 12)
	k := &p.known[Networks]
	return networks.sum() >= 1 || slices.ContainsFunc(p.minute.Set[Networks].least, func(h uint32) bool { return !k.holds(h) })
}

// join adds the past of a subscription that is young no more to its product's, and
// to that of the client apps: from now on what it does counts there, and would
// look like a rise. It at most doubles what these did, or adds what is worth a
// person's time: clients that come in order to raise a bar do not raise it far.
func (w *Watcher) join(p *profile) {
	a := p.watch
	if a == nil || a.Joined {
		return
	}
	a.Joined = true
	for _, x := range w.order {
		if (x.s.Kind != Product || x.s.ID != p.of) && (x.s.Kind != ClientApp || x.p.of != p.of) || x.p.watch == nil {
			continue
		}
		whole := x.p.watch
		for i := range whole.Tide {
			for class := range whole.Tide[i].Most {
				most := max(float32(whole.Tide[i].before(whole.Day, 0, class)), float32(vigils[i].floor))
				for d := max(whole.Day, a.Day) - vigilDays + 1; d <= min(whole.Day, a.Day); d++ {
					at := slotOf(d, vigilDays)
					whole.Tide[i].Most[class][at] += min(a.Tide[i].Most[class][at], most)
				}
			}
		}
		whole.barsOf = -1
	}
}

// age is in days.
func (w *Watcher) age(p *profile) int64 { return (w.minute*60 - p.first) / 86400 }

// add takes a minute that is over into the sums.
func (a *watch) add(f fresh, when int64) {
	five, hour, day := steps(when)
	a.Sum[newPersonsHour].add(five, 12, f.persons)
	a.Sum[newLodgedHour].add(five, 12, f.lodged)
	a.Sum[newSSIDsHour].add(five, 12, f.ssids)
	a.Sum[newNetworksHour].add(five, 12, f.networks)
	a.Sum[newPersonsDay].add(hour, 24, f.persons)
	a.Sum[newLodgedDay].add(hour, 24, f.lodged)
	a.Sum[newSSIDsDay].add(hour, 24, f.ssids)
	a.Sum[newVersionsWeek].add(day, 7, f.versions)
}

// begin makes room for a new day in what is kept of each.
func (a *watch) begin(day int64) {
	if day == a.Day {
		return
	}
	from := max(a.Day+1, day-vigilDays+1)
	for i := range a.Tide {
		for d := from; d <= day; d++ {
			for class := range a.Tide[i].Most {
				a.Tide[i].Most[class][slotOf(d, vigilDays)] = 0
			}
		}
	}
	a.Day, a.Called = day, false
}

// bar is what a vigil's value must exceed, by the subject's own past alone.
func (a *watch) bar(i, class int) float64 {
	if a.barsOf != a.Day {
		a.barsOf = a.Day
		for i := range a.Tide {
			for c := range a.bars[i] {
				b := alarmTimes * a.Tide[i].before(a.Day, lagDays, c)
				if a.Days > longLag+settleDays {
					b = min(b, driftTimes*a.Tide[i].before(a.Day, longLag, c))
				}
				a.bars[i][c] = max(b, vigils[i].floor)
			}
		}
	}
	return a.bars[i][class]
}

// offHours tells whether an instant of the zone's own clock is out of hours.
func offHours(when int64) bool {
	day, week := slot(when)
	weekday := week / hoursOfDay // Sunday is 0
	return day >= 22 || day < 6 || weekday == 0 || weekday == 6
}

func (h horizon) class(when int64) int {
	if h < dayLong && offHours(when) {
		return 1
	}
	return 0
}

// common is how far subjects of a kind are beyond what each of them ever did, in
// this minute: what holds for one in ten of them is no news of any.
type common struct {
	seen [kinds][nVigils][]float64
	by   [kinds][nVigils]float64
}

// commonMin is how many subjects say something about all.
const commonMin = 20

func (c *common) note(k Kind, i int, times float64) { c.seen[k][i] = append(c.seen[k][i], times) }

// end closes a minute.
func (c *common) end() {
	for k := range c.seen {
		for i, x := range c.seen[k] {
			now := 1.0
			if len(x) >= commonMin {
				slices.Sort(x)
				now = min(max(x[len(x)*9/10], 1), commonMax)
			}
			c.by[k][i] = max(now, 1+(c.by[k][i]-1)*0.99) // and for about two hours after
			c.seen[k][i] = x[:0]
		}
	}
}

// alarms looks for patterns in what a subject did up to now.
func (w *Watcher) alarms(out []Signal, s Subject, p *profile, f fresh, over bool, when int64) []Signal {
	if s.Kind == Network || p.minute.Count[Requests] == 0 {
		return out
	}
	if p.watch == nil {
		p.watch = &watch{watchState: watchState{Day: when / 86400}}
	}
	a := p.watch
	a.begin(when / 86400)
	age := w.age(p)
	settled, mature := age >= settleDays, age >= matureAge && a.Days >= matureDays
	if over && !a.Called {
		a.Called = true
		if settled {
			a.Days++
		}
	}
	var y young
	if s.Kind != Subscription && age >= matureAge {
		y = w.young[cmp.Or(p.of, s.ID)]
		f.persons, f.lodged = math.Max(0, f.persons-y.persons), math.Max(0, f.lodged-y.lodged)
	}
	elsewhere := 0.0
	if s.Kind == Product {
		elsewhere = w.elsewhere[s.ID]
	}
	values := a.values(p, f, &y, elsewhere, when)
	a.slide.to(w.minute, w.sixth, &values)
	if !mature {
		out = w.newcomer(out, s, p, f)
	}
	for i := range vigils {
		v := &vigils[i]
		class := v.horizon.class(when)
		most := a.bar(i, class) * max(1, w.common.by[s.Kind][i])
		if v.stat.atHome() && a.Sum[newNetworksHour].sum()+f.networks < 1 {
			most *= homeTimes
		}
		if over && (settled || v.stat.atHome()) {
			day := &a.Tide[i].Most[class][slotOf(a.Day, vigilDays)]
			learn := max(values[i], a.slide.most[i])
			if mature {
				learn = min(learn, most)
			}
			if float32(learn) > *day {
				*day = float32(learn)
				p.rose = p.rose || alarmTimes*learn > a.bar(i, class)
			}
		}
		if !mature {
			continue
		}
		if over {
			if past := a.bar(i, class); past > v.floor {
				w.common.note(s.Kind, i, values[i]*alarmTimes/past)
			}
		}
		if values[i] >= most {
			past := a.Tide[i].before(a.Day, lagDays, class)
			out = w.alarm(out, s, p, Signal{Subject: s, Name: v.name, Value: values[i], Reasons: []string{
				fmt.Sprintf("%s in a %s, where the most in weeks was %s%s", number(values[i]), horizonWords[v.horizon], number(past), classWords[class]),
			}}, values[i]/most)
		}
	}
	if over {
		a.add(f, when)
	}
	return out
}

var classWords = [2]string{"", " at night and at weekends"}

// Of how many people a newcomer must have read to be judged by what others do.
const newcomerMinute, newcomerHour, newcomerDay = 30, 60, 100

// newcomer holds a subject without a past against all others of its kind: hardly
// any of them reads about many people and lodges for none.
func (w *Watcher) newcomer(out []Signal, s Subject, p *profile, f fresh) []Signal {
	if !w.readers.seldom(s.Kind) {
		return out
	}
	a := p.watch
	for _, x := range [...]struct {
		persons, lodged float64 // before this minute
		least           float64
		horizon         horizon
	}{
		{0, 0, newcomerMinute, minuteLong},
		{a.Sum[newPersonsHour].sum(), a.Sum[newLodgedHour].sum(), newcomerHour, hourLong},
		{a.Sum[newPersonsDay].sum(), a.Sum[newLodgedDay].sum(), newcomerDay, dayLong},
	} {
		persons, lodged := x.persons+f.persons, x.lodged+f.lodged
		if persons < x.least || lodged > readerShare*persons {
			continue
		}
		out = w.alarm(out, s, p, Signal{Subject: s, Name: SignalNewcomer, Newcomer: true, Value: persons - lodged, Reasons: []string{
			fmt.Sprintf("%s people in its first days within a %s, and lodged for %s of them; hardly any other does so", number(persons), horizonWords[x.horizon], number(math.Max(0, lodged))),
		}}, persons/x.least)
		break
	}
	return out
}

// alarm tells of a pattern once, and again when it has doubled or was away.
func (w *Watcher) alarm(out []Signal, s Subject, p *profile, signal Signal, times float64) []Signal {
	t := &p.watch.Told[signal.Name-firstAlarm]
	at := w.minute * 60
	again := at >= t.Until || times >= 2*float64(t.Times)
	if at >= t.Until {
		t.Times = 0
	}
	t.Until = at + quietFor
	if !again {
		return out
	}
	t.Times = float32(times)
	return append(out, w.tell(p, signal))
}

// readers count who, of those that have a past, reads about people and lodges
// for hardly any, a day each.
type readers struct{ only, all [kinds]float64 }

const (
	readerShare = 0.1
	readersMin  = 20
	// readersFade is how much of the past a day leaves.
	readersFade = 1 - 1.0/14
)

func (r *readers) add(k Kind, persons, lodged float64) {
	r.all[k]++
	if lodged <= readerShare*persons {
		r.only[k]++
	}
}

func (r *readers) seldom(k Kind) bool { return r.all[k] >= readersMin && r.only[k] <= 0.1*r.all[k] }

// endDay counts a subject among the readers.
func (w *Watcher) endDay(k Kind, a *watch, when int64) {
	_, hour, _ := steps(when)
	a.Sum[newPersonsDay].advance(hour, 24)
	a.Sum[newLodgedDay].advance(hour, 24)
	persons, lodged := a.Sum[newPersonsDay].sum(), a.Sum[newLodgedDay].sum()
	if a.Days >= matureDays && persons >= 10 {
		w.readers.add(k, persons, lodged)
	}
}

func (r *readers) fade() {
	for k := range r.all {
		r.only[k] *= readersFade
		r.all[k] *= readersFade
	}
}

// rulesVersion changes with what the rules above mean, where no number says so.
const rulesVersion = 4

// Fixed are all numbers that decide what is told, as text: who wants to know
// whether two watchers are the same compares them.
func Fixed() string {
	return fmt.Sprintf("%v %v %v %v %+v %+v %v %v %v %v %v %v %v %v %v %v %v %v %v %v %v %v", rulesVersion, knownWords, knownWordsMax, DefaultParameters(), vigils,
		vigilDays, lagDays, longLag, settleDays, matureDays, matureAge, alarmTimes, driftTimes, homeTimes, commonMax, commonMin, quietFor,
		newcomerMinute, newcomerHour, newcomerDay, readerShare, readersMin)
}
