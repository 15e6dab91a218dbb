package anomaly

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// fleet is a Watcher and the sidecars that report to it, a minute at a time.
type fleet struct {
	w          *Watcher
	collectors []*Collector
	r          *rand.Rand
	minute     int64
	decision   uint64
	told       []Signal
}

func newFleet(sidecars int, seed uint64) *fleet {
	f := &fleet{w: NewWatcher(WatcherConfig{}), r: seeded(seed), minute: streamStart / 60}
	for range sidecars {
		f.collectors = append(f.collectors, NewCollector(CollectorConfig{}))
	}
	return f
}

func (f *fleet) now() int64 { return f.minute * 60 }

// call makes one call through a sidecar chosen at random.
func (f *fleet) call(o Observation) {
	c := f.collectors[f.r.IntN(len(f.collectors))]
	f.decision++
	o.At, o.Decision = f.now(), f.decision
	c.Observe([]Observation{o})
	if o.Outcome == Allowed {
		c.Finish(Finished{Decision: o.Decision, Status: 200, BytesOut: 2000})
	}
}

// endMinute has every sidecar report, and the watcher close the minute.
func (f *fleet) endMinute(t *testing.T) []Signal {
	t.Helper()
	for i, c := range f.collectors {
		report := Report{Sidecar: fmt.Sprint("sc-", i), From: f.now(), Seconds: 60, Subjects: c.Take()}
		var sent Report
		if err := sent.UnmarshalBinary(report.AppendBinary(nil)); err != nil {
			t.Fatal(err)
		}
		f.w.Merge(&sent)
	}
	f.minute++
	told := f.w.Tick(time.Unix(f.now(), 0).Add(f.w.cfg.Grace))
	f.told = append(f.told, told...)
	return told
}

func hashOf(kind string, n int) (h Hash) {
	binary.LittleEndian.PutUint64(h[:], hashString(fmt.Sprint(kind, n))*0x9e3779b97f4a7c15)
	binary.LittleEndian.PutUint64(h[8:], 1)
	return h
}

// ordinaryProduct is a product with a day and a week, 400 clients and their
// people, two networks: what it does in one minute.
func (f *fleet) ordinaryProduct(id string, scale float64) {
	i := int(f.now()-streamStart) / streamStep
	busy := 0.2 + daylight(i)
	if i/dayRows%7 >= 5 {
		busy *= 0.3
	}
	for range int(poisson(f.r, scale*busy)) {
		person := f.r.IntN(400)
		verb, service := Read, "abr.lookup"
		if f.r.IntN(3) > 0 {
			verb, service = Lodge, "as.submit"
		}
		f.call(Observation{
			Product: id, ClientApp: id + "-app", Client: hashOf("client", person/4), Person: hashOf(id, person),
			Source: hashOf("net", f.r.IntN(2)), Service: service, Version: "1.2.0", Verb: verb,
		})
	}
}

func (f *fleet) days(t *testing.T, n int, product string, scale float64) {
	for range n * 24 * 60 {
		f.ordinaryProduct(product, scale)
		f.endMinute(t)
	}
}

// until goes on until a signal about the product is told, and returns it with
// the minutes that took.
func (f *fleet) until(t *testing.T, limit int, product string, want SignalName, attack func(minute int)) int {
	t.Helper()
	for m := range limit {
		f.ordinaryProduct(product, 3)
		attack(m)
		for _, s := range f.endMinute(t) {
			if s.Subject == (Subject{Product, product}) && s.Name == want {
				t.Logf("after %d minutes: %s (P %.2g)", m+1, s.Text(), s.P)
				return m + 1
			}
		}
	}
	t.Errorf("%v not told in %d minutes", want, limit)
	return limit
}

func TestOrdinaryProductsRaiseFewAlarms(t *testing.T) {
	f := newFleet(3, 1)
	f.days(t, 7, "FP-1", 3)
	before := len(f.told)
	f.days(t, 21, "FP-1", 3)
	count := map[SignalName]int{}
	for _, s := range f.told[before:] {
		count[s.Name]++
		if s.P > 0.001 || s.Text() == "" {
			t.Errorf("told with P %v: %q", s.P, s.Text())
		}
	}
	// 20,160 minutes of 8 signals and 504 hours of 11, of two subjects: one in a
	// thousand is 330.
	t.Logf("%d signals in 21 days: %v", len(f.told)-before, count)
	if n := len(f.told) - before; n > 330 {
		t.Errorf("%d signals in 21 ordinary days, more than one in a thousand: %v", n, count)
	}
}

func TestAttacksAreTold(t *testing.T) {
	stranger := func(f *fleet, n int) Observation {
		return Observation{Product: "FP-1", ClientApp: "FP-1-app", Client: hashOf("client", 3), Person: hashOf("stranger", n),
			Source: hashOf("net", 0), Service: "abr.lookup", Version: "1.2.0", Verb: Read}
	}
	persons := 0
	for name, c := range map[string]struct {
		signal SignalName
		within int
		attack func(f *fleet, m int)
	}{
		"stolen credential, many calls": {SignalRequests, 1, func(f *fleet, _ int) {
			for range 200 {
				o := stranger(f, 1)
				o.Person = hashOf("FP-1", f.r.IntN(400))
				f.call(o)
			}
		}},
		"enumeration of one person a minute": {SignalNewPersons, 200, func(f *fleet, _ int) { persons++; f.call(stranger(f, persons)) }},
		"enumeration of one person in five minutes": {SignalNewPersons, 1000, func(f *fleet, m int) {
			if m%5 == 0 {
				persons++
				f.call(stranger(f, persons))
			}
		}},
		"guessed tokens": {SignalIdentity, 1, func(f *fleet, _ int) {
			for range 20 {
				f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Outcome: RefusedIdentity, Source: hashOf("net", 0)})
			}
		}},
		"from many networks": {SignalNetworks, 1, func(f *fleet, m int) {
			for n := range 10 {
				o := stranger(f, 1)
				o.Source = hashOf("elsewhere", n)
				f.call(o)
			}
		}},
		"other services": {SignalServiceMix, 120, func(f *fleet, m int) {
			for range 8 {
				o := stranger(f, 1)
				o.Person, o.Service = hashOf("FP-1", f.r.IntN(400)), "piitr.get"
				f.call(o)
			}
		}},
		"old versions": {SignalVersions, 5, func(f *fleet, _ int) {
			for range 5 {
				f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Outcome: RefusedVersion, Version: "0.9"})
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(3, 11)
			f.days(t, 10, "FP-1", 3)
			persons = 0
			f.until(t, c.within, "FP-1", c.signal, func(m int) { c.attack(f, m) })
			if marks := f.w.Marks(time.Unix(f.now(), 0)); len(marks) == 0 || marks[0].Surprise < 3 {
				t.Errorf("marks %v, want the product's", marks)
			}
		})
	}
}

// A caller spread thinly over twenty sidecars is seen as one through a single one.
func TestSpreadOverSidecarsIsSeenWhole(t *testing.T) {
	one, twenty := newFleet(1, 5), newFleet(20, 5)
	var got [2][]string
	for i, f := range []*fleet{one, twenty} {
		calls := seeded(99) // the same calls, through whichever sidecar
		for m := range 4 * 24 * 60 {
			for range int(poisson(calls, 2)) {
				p := calls.IntN(300)
				f.call(Observation{Product: "FP-1", Person: hashOf("p", p), Client: hashOf("c", p/3), Service: "s", Verb: Read})
			}
			if m >= 3*24*60 { // each sidecar sees two more a minute
				for range 40 {
					f.call(Observation{Product: "FP-1", Person: hashOf("x", calls.IntN(1e6)), Service: "s", Verb: Read})
				}
			}
			for _, s := range f.endMinute(t) {
				got[i] = append(got[i], fmt.Sprint(s.At.Unix(), s.Name, s.P, s.Value))
			}
		}
	}
	if len(got[0]) == 0 || len(got[0]) != len(got[1]) {
		t.Fatalf("%d signals through one sidecar, %d through twenty", len(got[0]), len(got[1]))
	}
	for i := range got[0] {
		if got[0][i] != got[1][i] {
			t.Fatalf("signal %d is %s through one sidecar and %s through twenty", i, got[0][i], got[1][i])
		}
	}
}

func TestProtectedClientIsToldAtOnce(t *testing.T) {
	f := newFleet(2, 3)
	f.days(t, 1, "FP-1", 1)
	for _, c := range f.collectors {
		c.Protect([]Hash{hashOf("vip", 1)})
	}
	f.call(Observation{Product: "FP-1", Client: hashOf("vip", 1), Verb: Read})
	told := f.endMinute(t)
	for _, s := range told {
		if s.Name == SignalProtected && s.Subject.ID == "FP-1" && s.Value == 1 {
			return
		}
	}
	t.Errorf("told %v, want protected-client", told)
}

// What is too large is told in the minute in which it happens, not after it.
func TestLoudIsToldBeforeTheMinuteEnds(t *testing.T) {
	f := newFleet(2, 3)
	f.days(t, 4, "FP-1", 3)
	now := time.Unix(f.now(), 0)
	c := f.collectors[0]
	for i := range 500 {
		c.Observe([]Observation{{Decision: uint64(i) + 1e6, At: f.now(), Product: "FP-1", Service: "s", Verb: Read}})
	}
	f.w.Merge(&Report{Sidecar: "sc-0", From: f.now(), Seconds: 10, Subjects: c.Take()})
	told := f.w.Tick(now.Add(10 * time.Second).Add(f.w.cfg.Grace))
	if len(told) == 0 || told[0].Name != SignalRequests {
		t.Fatalf("told %v ten seconds into the minute", told)
	}
	if again := f.w.Tick(now.Add(12 * time.Second).Add(f.w.cfg.Grace)); len(again) != 0 {
		t.Errorf("told again two seconds later: %v", again)
	}
}

func TestMissingReportsAreNotSilence(t *testing.T) {
	f := newFleet(2, 3)
	f.days(t, 4, "FP-1", 20)
	before := len(f.told)
	for range 30 { // Redis is away: nothing comes in
		f.minute++
		f.told = append(f.told, f.w.Tick(time.Unix(f.now(), 0).Add(f.w.cfg.Grace))...)
	}
	if n := len(f.told) - before; n != 0 {
		t.Errorf("%d signals of minutes nobody reported of: %v", n, f.told[before:])
	}
}

func TestNewcomerIsHeldAgainstTheOthers(t *testing.T) {
	f := newFleet(1, 8)
	for range 2 * 24 * 60 {
		for i := range 5 {
			f.ordinaryProduct(fmt.Sprint("FP-", i), 2)
		}
		f.endMinute(t)
	}
	for range 3 {
		for i := range 400 {
			f.call(Observation{Product: "FP-new", Person: hashOf("n", i), Service: "s", Verb: Read})
		}
		for _, s := range f.endMinute(t) {
			if s.Subject.ID == "FP-new" && s.Name == SignalRequests && s.Newcomer && s.P < 0.001 {
				return
			}
		}
	}
	t.Error("a newcomer with a hundred times the others' calls is not told")
}

func TestWatcherIsBounded(t *testing.T) {
	w := NewWatcher(WatcherConfig{Subjects: 100})
	r := Report{Sidecar: "a", From: streamStart, Seconds: 60}
	for i := range 1000 {
		s := SubjectTally{Subject: Subject{Product, fmt.Sprint("P", i)}}
		s.Tally.Count[Requests] = 1
		r.Subjects = append(r.Subjects, s)
	}
	w.Merge(&r)
	if st := w.Stats(); st.Subjects != 100 || st.Refused != 900 {
		t.Errorf("%+v, want 100 subjects and 900 refused", st)
	}
	r.From += 2 * 3600 // those from before are idle by now
	r.Subjects = r.Subjects[500:510]
	w.Merge(&r)
	if st := w.Stats(); st.Subjects > 100 || st.Refused != 900 || st.Forgotten != 12 {
		t.Errorf("%+v, want room made for ten, by an eighth that is forgotten", st)
	}
	w.Resize(2000)
	for i := range 1000 {
		s := SubjectTally{Subject: Subject{Product, fmt.Sprint("Q", i)}}
		s.Tally.Count[Requests] = 1
		r.Subjects = append(r.Subjects, s)
	}
	w.Merge(&r)
	if st := w.Stats(); st.Subjects < 1000 || st.Refused != 900 || st.Room != 2000 {
		t.Errorf("%+v, want room for a thousand more", st)
	}
}

func TestBoard(t *testing.T) {
	var b Board
	now := time.Unix(1000, 0)
	if got := b.Surprise(Product, "FP-1", now); got != 0 {
		t.Errorf("an empty board says %v", got)
	}
	b.Post([]Mark{
		{Subject{Product, "FP-1"}, 4, now.Add(time.Minute)},
		{Subject{Product, "FP-2"}, math.NaN(), now.Add(time.Minute)},
		{Subject{Product, "FP-3"}, math.Inf(1), now.Add(time.Minute)},
		{Subject{Product, "FP-4"}, -3, now.Add(time.Minute)},
		{Subject{Kind(99), "FP-5"}, 3, now.Add(time.Minute)},
	})
	for id, want := range map[string]float64{"FP-1": 4, "FP-2": 0, "FP-3": 0, "FP-4": 0, "FP-5": 0, "": 0} {
		if got := b.Surprise(Product, id, now); got != want {
			t.Errorf("%s: %v, want %v", id, got, want)
		}
	}
	if got := b.Surprise(Product, "FP-1", now.Add(time.Minute)); got != 0 {
		t.Errorf("a mark that is over says %v", got)
	}
	if got := b.Surprise(ClientApp, "FP-1", now); got != 0 {
		t.Errorf("another kind of the same name says %v", got)
	}
	if n := testing.AllocsPerRun(100, func() { b.Surprise(Product, "FP-1", now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAWatcherInheritsMarks: what the one before posted stands until it runs
// out, or its subject earns a mark here.
func TestAWatcherInheritsMarks(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	w := NewWatcher(WatcherConfig{})
	mark := Mark{Subject: Subject{Kind: Product, ID: "FP-1"}, Surprise: 4, Until: now.Add(time.Minute)}
	w.Inherit([]Mark{mark, {Subject: Subject{Kind: Product, ID: "FP-2"}, Surprise: 4, Until: now}})
	if got := w.Marks(now); len(got) != 1 || got[0] != mark {
		t.Errorf("%v", got)
	}
	if got := w.Marks(now.Add(time.Minute)); len(got) != 0 {
		t.Errorf("after its end: %v", got)
	}
}
