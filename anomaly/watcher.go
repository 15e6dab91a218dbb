package anomaly

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Signal is something told of a subject.
type Signal struct {
	Subject Subject
	Name    SignalName
	At      time.Time
	// P is the tail probability of the value; 0 for a rule.
	P float64
	// Value is what was observed, in the words of Name.
	Value float64
	// Newcomer: its own past is too short, and it was held against that of all others.
	Newcomer bool
	// Reasons are the parts, in words, the most telling first.
	Reasons []string
}

// Surprise is −log10 of P, so that 3 is one in a thousand; ruleSurprise for a
// rule, and 0 when P is no probability.
func (s Signal) Surprise() float64 {
	switch {
	case s.P == 0:
		return ruleSurprise
	case s.P > 0 && s.P <= 1:
		return -math.Log10(s.P)
	}
	return 0
}

// Text is the signal in one sentence.
func (s Signal) Text() string {
	text := fmt.Sprintf("%s %s: %s %s", s.Subject.Kind, strconv.Quote(s.Subject.ID), number(s.Value), s.Name.Words())
	for i, r := range s.Reasons {
		if i == 0 {
			text += ": "
		} else {
			text += "; "
		}
		text += r
	}
	return text
}

func number(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// WatcherConfig bounds a Watcher. The zero value of a field takes the default.
type WatcherConfig struct {
	// Subjects is how many have a past here at once, 4 to 75 KiB each, and up to
	// 400 of one who deals with tens of thousands; beyond it
	// the one idle for longest is forgotten. Default 4096.
	Subjects int
	// Tell is the greatest tail probability that is told. Default 0.001: of an
	// ordinary signal, one window in a thousand.
	Tell float64
	// Hold is how long a subject's mark stands after what earned it. Default 15m.
	Hold time.Duration
	// Grace is how long after a minute the reports of it are waited for. Default 15s.
	Grace time.Duration
	// Zone is where the hours of the day and the week are counted. Default UTC.
	Zone *time.Location
	// Parameters of the scorer. Default DefaultParameters.
	Parameters *Parameters
}

// Watcher merges the reports of all sidecars by subject, so that a caller who
// spreads over twenty of them is seen whole, and scores what each subject does
// against its own past. Safe for concurrent use.
type Watcher struct {
	cfg    WatcherConfig
	scorer *Scorer

	mu           sync.Mutex
	subjects     map[Subject]*profile
	order        []seat           // the subjects in order, as of the last Tick
	arrived      []seat           // since
	calling      []seat           // that have called in the open minute
	inherited    map[Subject]Mark // what the watcher before this one posted
	networks     int              // of them
	minute       int64            // the open minute, counted from 1970
	sixth        int              // of the open minute
	reported     map[string]int64 // sidecars, and the last minute each reported of
	whole        bool             // every sidecar that reported of the minute before has reported of this one
	any          bool             // some sidecar reported of this minute
	wholeMinutes int              // of this hour
	others       population
	common       common
	readers      readers
	young        map[string]young // by product
	elsewhere    map[string]float64
	refused      uint64
	forgotten    uint64
}

// NewWatcher makes a Watcher.
func NewWatcher(cfg WatcherConfig) *Watcher {
	cfg.Subjects = cmp.Or(cfg.Subjects, 4096)
	cfg.Tell = cmp.Or(cfg.Tell, 0.001)
	cfg.Hold = cmp.Or(cfg.Hold, 15*time.Minute)
	cfg.Grace = cmp.Or(cfg.Grace, 15*time.Second)
	if cfg.Zone == nil {
		cfg.Zone = time.UTC
	}
	p := DefaultParameters()
	if cfg.Parameters != nil {
		p = *cfg.Parameters
	}
	return &Watcher{cfg: cfg, scorer: NewScorer(p), subjects: map[Subject]*profile{}, reported: map[string]int64{}, young: map[string]young{}, elsewhere: map[string]float64{}}
}

// Resize changes for how many subjects there is room. Where it has become less,
// those idle for longest go when others come.
func (w *Watcher) Resize(subjects int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cfg.Subjects = max(subjects, 1)
}

// sidecarsMax bounds how many sidecars are told apart.
const sidecarsMax = 4096

// Merge adds a report. One of a minute that is over counts for the one that is
// open: late is better than lost.
func (w *Watcher) Merge(r *Report) {
	w.mu.Lock()
	defer w.mu.Unlock()
	minute := r.From / 60
	if _, ok := w.reported[r.Sidecar]; ok || len(w.reported) < sidecarsMax {
		w.reported[r.Sidecar] = max(minute, w.reported[r.Sidecar])
	}
	w.any = true
	for i := range r.Subjects {
		s := &r.Subjects[i]
		p := w.profile(s.Subject, r.From)
		if p == nil {
			continue
		}
		if s.Tally.Count[Requests] > 0 && p.minute.Count[Requests] == 0 {
			w.calling = append(w.calling, seat{s.Subject, p})
		}
		p.minute.Merge(&s.Tally)
		if s.Tally.of != "" {
			p.of = s.Tally.of
		}
		p.last = max(p.last, r.From)
	}
}

// profile is that of a subject, made when there is room for it.
func (w *Watcher) profile(s Subject, at int64) *profile {
	if p := w.subjects[s]; p != nil {
		return p
	}
	most := w.cfg.Subjects
	if s.Kind == Network {
		most /= 4 // anybody can come from many: they drive out nobody else's past
	}
	if (len(w.subjects) >= w.cfg.Subjects || s.Kind == Network && w.networks >= most) && !w.evict(s.Kind, at) {
		w.refused++
		return nil
	}
	p := &profile{first: at, last: at}
	w.admit(s, p)
	return p
}

// seat is a subject and what is known of it.
type seat struct {
	s Subject
	p *profile
}

// admit gives a subject a past here.
func (w *Watcher) admit(s Subject, p *profile) {
	w.networks += b2i(s.Kind == Network)
	w.subjects[s] = p
	w.arrived = append(w.arrived, seat{s, p})
}

// idleMin is how long a subject must have been idle to make room for another:
// or whoever comes with many names would drive out everybody's past.
const idleMin = 3600

// evict forgets about an eighth of the subjects, those idle for longest.
func (w *Watcher) evict(k Kind, at int64) bool {
	type idle struct {
		s    Subject
		last int64
	}
	var all []idle
	for s, p := range w.subjects {
		if at-p.last >= idleMin && (s.Kind == Network || k != Network) {
			all = append(all, idle{s, p.last})
		}
	}
	slices.SortFunc(all, func(a, b idle) int {
		return cmp.Or(cmp.Compare(a.last, b.last), compareSubjects(a.s, b.s))
	})
	all = all[:min(len(all), max(1, w.cfg.Subjects/8))]
	for _, i := range all {
		w.subjects[i.s].gone = true
		delete(w.subjects, i.s)
		w.forgotten++
		w.networks -= b2i(i.s.Kind == Network)
	}
	return len(all) > 0
}

// Tick looks at what has come in. It closes the open minute when the reports of
// it are due, and an hour with its last minute; otherwise it looks at how far
// the counts of the open windows have got. It returns what there is to tell; of
// minutes without a call, when the subject calls again or the hour ends.
func (w *Watcher) Tick(now time.Time) []Signal {
	w.mu.Lock()
	defer w.mu.Unlock()
	minute := now.Add(-w.cfg.Grace).Unix() / 60
	if w.minute == 0 {
		w.minute = minute
	}
	var out []Signal
	over := minute > w.minute
	w.sixth = sixths - 1
	if !over {
		w.sixth = int(min(max(now.Add(-w.cfg.Grace).Unix()-w.minute*60, 0)/(60/sixths), sixths-1))
	}
	w.whole = w.complete()
	if over && w.whole {
		w.wholeMinutes++
	}
	w.countClients()
	for _, x := range w.inOrder(over) {
		if !over || x.p.minute.Count[Requests] > 0 || w.minute*60-x.p.last < dormantAfter {
			out = w.look(out, x.s, x.p, over)
		}
	}
	if over {
		w.calling = w.calling[:0]
		if w.minute/60 != minute/60 {
			w.others.fade()
			w.wholeMinutes = 0
		}
		if w.local(w.minute)/86400 != w.local(minute)/86400 {
			w.readers.fade()
		}
		w.common.end()
		w.forgetSidecars()
		w.minute = minute
		w.any = false
	}
	slices.SortFunc(out, func(a, b Signal) int {
		return cmp.Or(compareSubjects(a.Subject, b.Subject), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// dormantAfter is after how many seconds without a call a subject's silence says
// nothing more: it is looked at again when it calls.
const dormantAfter = 86400

// inOrder are the subjects, always in the same order, so that equal reports are
// scored equally: all when a minute is over, and those that have called in it
// otherwise.
func (w *Watcher) inOrder(over bool) []seat {
	if over {
		w.seatAll()
		return w.order
	}
	slices.SortFunc(w.calling, compareSeats)
	return w.calling
}

// seatAll puts those that arrived among the others, and leaves out those that went.
func (w *Watcher) seatAll() {
	if len(w.arrived) == 0 && len(w.order) == len(w.subjects) {
		return
	}
	slices.SortFunc(w.arrived, compareSeats)
	out := make([]seat, 0, len(w.subjects))
	next := w.arrived
	for _, x := range w.order {
		for len(next) > 0 && compareSeats(next[0], x) < 0 {
			out, next = append(out, next[0]), next[1:]
		}
		out = append(out, x)
	}
	out = append(out, next...)
	w.order, w.arrived = slices.DeleteFunc(out, func(x seat) bool { return x.p.gone }), w.arrived[:0]
}

func compareSeats(a, b seat) int { return compareSubjects(a.s, b.s) }

func compareSubjects(a, b Subject) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
}

// complete tells whether every sidecar known to report has reported of the open
// minute: what is missing would look like silence.
func (w *Watcher) complete() bool {
	for _, last := range w.reported {
		if last < w.minute {
			return false
		}
	}
	return w.any
}

// silentMax is for how many minutes a sidecar that does not report is waited
// for: then it has gone, and what there is is whole.
const silentMax = 2

func (w *Watcher) forgetSidecars() {
	for s, last := range w.reported {
		if w.minute-last >= silentMax {
			delete(w.reported, s)
		}
	}
}

// local is when a minute began, in seconds of the zone's own clock.
func (w *Watcher) local(minute int64) int64 {
	t := time.Unix(minute*60, 0).In(w.cfg.Zone)
	_, offset := t.Zone()
	return t.Unix() + int64(offset)
}

// hourWhole is of how many minutes of an hour all reports must be there for its
// silence to be believed.
const hourWhole = 55

// alarmCalls is from how many calls in a minute patterns are looked for before
// it is over.
const alarmCalls = 5

// look scores one subject. Counts are told as soon as they are too large,
// whatever is still to come; what is small is told, and learnt, only of a window
// that is whole.
func (w *Watcher) look(out []Signal, s Subject, p *profile, over bool) []Signal {
	when := w.local(w.minute)
	if n := p.minute.Count[Protected]; n > 0 && p.told[SignalProtected] == 0 {
		p.told[SignalProtected] = 1
		out = append(out, w.tell(p, Signal{Subject: s, Name: SignalProtected, Value: float64(n)}))
	}
	hourOver := over && (w.minute+1)%60 == 0
	if over && p.minute.silent() {
		if w.whole {
			out = w.beSilent(out, s, p)
		}
		if !hourOver {
			return out // the hour's counts are what they were
		}
		out = w.catchUp(out, s, p)
	} else {
		out = w.lookAtMinute(out, s, p, over, when)
		if !over {
			return out
		}
	}
	for name := firstHourly; name < firstRule; name++ {
		value := name.hourValue(p, &p.hour)
		if hourOver || name.counting() && value != p.peeked[name-firstHourly] {
			p.peeked[name-firstHourly] = value
			out = w.score(out, s, p, name, value, hourOver && w.wholeMinutes >= hourWhole, when, 3600)
		}
	}
	if hourOver {
		p.endHour()
		if p.watch != nil && (when+60)%86400 == 0 {
			w.endDay(s.Kind, p.watch, when)
		}
	}
	return out
}

// lookAtMinute scores what the open minute has brought, and ends it when it is over.
func (w *Watcher) lookAtMinute(out []Signal, s Subject, p *profile, over bool, when int64) []Signal {
	out = w.catchUp(out, s, p)
	for name := range firstHourly {
		out = w.score(out, s, p, name, name.minuteValue(&p.minute), over && w.whole, when, 60)
	}
	if over || p.minute.Count[Requests] >= alarmCalls {
		out = w.alarms(out, s, p, p.news(s, over), over, when)
	}
	if over {
		p.learned = true
		p.hour.Merge(&p.minute)
		p.minute.reset()
		clear(p.told[:firstHourly])
		p.told[SignalProtected] = 0
	}
	return out
}

// beSilent puts down that a subject did nothing in a minute that is over. Most
// do nothing in most minutes: to score each of these at once would take most of
// the watcher's time, and finds each series where no cache has it any more.
func (w *Watcher) beSilent(out []Signal, s Subject, p *profile) []Signal {
	if p.silent != 0 && p.silentHour != w.minute/60 {
		out = w.catchUp(out, s, p)
	}
	p.silentHour = w.minute / 60
	p.silent |= 1 << (w.minute % 60)
	return out
}

// catchUp scores the silent minutes put down, when the subject calls again or
// the hour is over.
func (w *Watcher) catchUp(out []Signal, s Subject, p *profile) []Signal {
	if p.silent == 0 {
		return out
	}
	hour := w.local(p.silentHour * 60)
	for name := range firstHourly {
		for left := p.silent; left != 0; left &= left - 1 {
			p.told[name] = 0
			out = w.score(out, s, p, name, 0, true, hour+60*int64(bits.TrailingZeros64(left)), 60)
		}
		p.told[name] = 0
	}
	p.silent = 0
	return out
}

// dayFade is how much of a day an hour leaves.
const dayFade = 1 - 1.0/24

func (p *profile) endHour() {
	p.mix.learn(&p.hour)
	p.off = p.off*dayFade + float64(p.hour.Count[OffHours])
	p.all = p.all*dayFade + float64(p.hour.Count[Requests])
	p.hour.reset()
	p.fresh = [sets]float64{}
	p.peeked = [firstRule - firstHourly]float64{}
	clear(p.told[firstHourly:firstRule])
}

// reasonsMax is how many parts a signal names: the rest say the same.
const reasonsMax = 3

// again is by how much a probability must fall within a window to be told again.
const again = 0.1

func (w *Watcher) score(out []Signal, s Subject, p *profile, name SignalName, value float64, learn bool, when, step int64) []Signal {
	var score Score
	if value == 0 && !learn {
		return out
	}
	if learn {
		score = p.close(w.scorer, name, when, step, value)
	} else {
		score = p.peek(w.scorer, name, when, step, value)
		if value <= score.Expected { // it may yet come
			return out
		}
	}
	signal := Signal{Subject: s, Name: name, P: score.P, Value: value}
	switch {
	case score.Ignored:
		return out
	case !score.Known:
		signal.Newcomer = true
		signal.P = w.others.tail(s.Kind, name, value)
	case learn:
		w.others.add(s.Kind, name, value)
	}
	if signal.P > w.cfg.Tell || p.told[name] != 0 && signal.P > again*p.told[name] {
		return out
	}
	p.told[name] = signal.P
	if signal.Newcomer {
		signal.Reasons = []string{fmt.Sprintf("only one in %s of the others' is as large, and it has no past of its own yet", number(1/signal.P))}
	}
	reasons := score.Reasons()
	for _, r := range reasons[:min(len(reasons), reasonsMax)] {
		signal.Reasons = append(signal.Reasons, r.Text)
	}
	return append(out, w.tell(p, signal))
}

// ruleSurprise is what a rule counts in a mark.
const ruleSurprise = 6

// tell dates a signal and marks its subject.
func (w *Watcher) tell(p *profile, s Signal) Signal {
	s.At = time.Unix(w.minute*60, 0).UTC()
	surprise := s.Surprise()
	if at := w.minute * 60; surprise >= p.surprise || at >= p.until {
		p.surprise, p.until = surprise, at+int64(w.cfg.Hold/time.Second)
	}
	return s
}

// Mark is the number of a subject that the decision path loads.
type Mark struct {
	Subject Subject
	// Surprise is −log10 of the least tail probability lately: 3 is one in a
	// thousand. 6 stands for a rule.
	Surprise float64
	Until    time.Time
}

// Inherit takes over the marks a watcher before this one posted: each stands
// until it runs out, or its subject earns one here.
func (w *Watcher) Inherit(marks []Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inherited = map[Subject]Mark{}
	for _, m := range marks[:min(len(marks), boardMax)] {
		w.inherited[m.Subject] = m
	}
}

// Marks are those that still stand.
func (w *Watcher) Marks(now time.Time) []Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []Mark
	for s, p := range w.subjects {
		if p.surprise > 0 && p.until > now.Unix() {
			out = append(out, Mark{s, p.surprise, time.Unix(p.until, 0).UTC()})
			delete(w.inherited, s)
		}
	}
	for s, m := range w.inherited {
		if !m.Until.After(now) {
			delete(w.inherited, s)
			continue
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b Mark) int { return compareSubjects(a.Subject, b.Subject) })
	return out
}

// Stats are what a Watcher holds.
type Stats struct {
	Subjects, Sidecars int
	Room               int    // for so many subjects
	Refused            uint64 // tallies of subjects there was no room for, and which nobody looked at
	Forgotten          uint64 // subjects that made room for others, with their past
}

// Stats counts.
func (w *Watcher) Stats() Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	return Stats{len(w.subjects), len(w.reported), w.cfg.Subjects, w.refused, w.forgotten}
}

// Share is a product's share of the calls of about the last day, in percent;
// negative when there were none.
func (w *Watcher) Share(product string) float64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all, own float64
	for s, p := range w.subjects {
		if s.Kind != Product {
			continue
		}
		n := p.all + float64(p.hour.Count[Requests]+p.minute.Count[Requests])
		all += n
		if s.ID == product {
			own = n
		}
	}
	if !(all > 0) {
		return -1
	}
	return 100 * own / all
}

// Holds tells whether a subject has a past here.
func (w *Watcher) Holds(s Subject) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.subjects[s] != nil
}
