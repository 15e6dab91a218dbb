package anomaly

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// What a product did in weeks is what it is held against, also after a restart:
// strangers by the score are an alarm, and what it always does is none.
func TestAlarmsOutliveARestart(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, matureAge+1, "FP-1", 0.3)
	for _, s := range f.told {
		if s.Name.Alarm() {
			t.Errorf("alarm of an ordinary product: %s", s.Text())
		}
	}
	next := NewWatcher(WatcherConfig{})
	if err := f.w.Baselines(100, func(s Subject, b []byte) error {
		return next.Restore(s, b, time.Unix(f.now(), 0))
	}); err != nil {
		t.Fatal(err)
	}
	f.w = next
	strangers := 0
	f.until(t, 1, "FP-1", SignalHarvest, func(int) {
		for range 60 {
			strangers++
			f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Person: hashOf("stranger", strangers), Source: hashOf("net", 9), Service: "abr.lookup", Version: "1.2.0", Verb: Read})
		}
	})
	told := len(f.told)
	for range 5 { // it goes on: told once
		for range 60 {
			strangers++
			f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Person: hashOf("stranger", strangers), Source: hashOf("net", 9), Service: "abr.lookup", Version: "1.2.0", Verb: Read})
		}
		f.endMinute(t)
	}
	for _, s := range f.told[told:] {
		if s.Subject.Kind == Product && s.Name == SignalHarvest && s.Value < 2*60 {
			t.Errorf("told again: %s", s.Text())
		}
	}
}

// A new client's whole list of people is no news of its product's.
func TestANewClientIsNoAlarmOfItsProduct(t *testing.T) {
	f := newFleet(1, 6)
	f.days(t, matureAge+1, "FP-1", 0.3)
	told := len(f.told)
	for m := range 3 {
		for i := range 50 {
			f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Subscription: hashOf("ssid", 77), Client: hashOf("client", 77),
				Person: hashOf("new", 50*m+i), Source: hashOf("net", 7), Service: "abr.lookup", Version: "1.2.0", Verb: Read})
		}
		f.endMinute(t)
	}
	for _, s := range f.told[told:] {
		if s.Name.Alarm() {
			t.Errorf("alarm: %s", s.Text())
		}
	}
}

// An attack that goes on for days does not become usual while it does.
func TestABarDoesNotFollowAtOnce(t *testing.T) {
	a := &watch{}
	for day := range int64(40) {
		a.begin(day)
		a.Days = day
		if day >= 38 {
			a.Tide[0].Most[0][slotOf(day, vigilDays)] = 1000
		} else {
			a.Tide[0].Most[0][slotOf(day, vigilDays)] = 10
		}
	}
	a.begin(39)
	if got := a.bar(0, 0); got != alarmTimes*10 {
		t.Errorf("bar %v on the second day of it, want %v", got, alarmTimes*10)
	}
	a.begin(41)
	if got := a.bar(0, 0); got != driftTimes*10 {
		t.Errorf("bar %v two days later, want what the weeks before allow, %v", got, driftTimes*10)
	}
}

// Who begins in the middle of a minute is counted on when it ends.
func TestAnySixtySecondsAreAMinute(t *testing.T) {
	f := newFleet(1, 4)
	f.days(t, matureAge+1, "FP-1", 0.05)
	for half, told := range []bool{false, true} { // the last of one minute, the first of the next
		for i := range 14 {
			f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Person: hashOf("stranger", 20*half+i), Source: hashOf("net", 0), Service: "abr.lookup", Version: "1.2.0", Verb: Read})
		}
		f.w.Merge(&Report{Sidecar: "sc-0", From: f.now(), Seconds: 10, Subjects: f.collectors[0].Take()})
		after := 40 * time.Second
		if half == 1 {
			after = 20 * time.Second
		}
		got := false
		for _, s := range f.w.Tick(time.Unix(f.now(), 0).Add(after).Add(f.w.cfg.Grace)) {
			got = got || s.Name == SignalHarvest && s.Subject.Kind == Product && s.Value == 28
		}
		if got != told {
			t.Errorf("after %d of the halves, each of 14 strangers: told %v, want %v", half+1, got, told)
		}
		f.endMinute(t)
	}
}

func TestASlideCountsSixtySeconds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x slide
		var calls []int // in each ten seconds
		for now := 0; now < 40; now++ {
			n := rapid.IntRange(0, 3).Draw(t, "calls")
			calls = append(calls, n)
			if n == 0 && now%sixths != sixths-1 { // nobody looks when there was none
				continue
			}
			var values [nVigils]float64
			want := 0.0
			for back := range sixths {
				if now-back >= 0 {
					want += float64(calls[now-back])
				}
			}
			for at := now - now%sixths; at <= now; at++ {
				values[0] += float64(calls[at])
			}
			if x.to(int64(now/sixths), now%sixths, &values); values[0] != want {
				t.Fatalf("%v in the last sixty seconds, want %v of %v", values[0], want, calls)
			}
		}
	})
}

func TestSumsForget(t *testing.T) {
	var r rolling
	for s := range int64(100) {
		r.add(1000+s, 12, 1)
	}
	if r.sum() != 12 {
		t.Errorf("sum %v of the last 12 steps", r.sum())
	}
	if r.advance(1105, 12); r.sum() != 6 {
		t.Errorf("sum %v after 6 idle steps, want 6", r.sum())
	}
	if r.advance(5, 12); r.sum() != 0 {
		t.Errorf("sum %v after the clock went back, want none", r.sum())
	}
}

// Who reads about the clients of many subscriptions from a place none of them ever
// came from is told, however little that is beside what a large product does.
func TestManyClientsFromElsewhereAreAnAlarm(t *testing.T) {
	f := newFleet(2, 9)
	call := func(ssid, person int, net string, verb Verb) {
		f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Subscription: hashOf("ssid", ssid), Client: hashOf("client", ssid),
			Person: hashOf("p", 50*ssid+person), Source: hashOf(net, ssid), Service: "piitr.get", Version: "1.2.0", Verb: verb})
	}
	n := 0
	for m := range (matureAge + 9) * 24 * 60 {
		for i := range 20 { // of forty each is there twice an hour
			if m%15 != i%15 {
				continue
			}
			ssid := (2*i + m/15) % 40
			n++
			call(ssid, n%50, "home", Verb(1+n%3/2)) // two reads, one lodgment
		}
		f.endMinute(t)
	}
	quiet := len(f.told)
	for m := range 2 { // three that moved are none
		for ssid := range 3 {
			call(ssid, m, "moved", Read)
		}
		f.endMinute(t)
	}
	for _, s := range f.told[quiet:] {
		if s.Name.Alarm() {
			t.Errorf("alarm: %s", s.Text())
		}
	}
	for f.minute%60 != 0 {
		f.endMinute(t) // an hour in which nobody has lodged yet
	}
	for ssid := range 12 {
		call(3+ssid, 1, "addon", Read)
	}
	for _, s := range f.endMinute(t) {
		if s.Name == SignalElsewhere && s.Subject == (Subject{Product, "FP-1"}) && s.Value == 12 {
			return
		}
	}
	t.Error("twelve clients from elsewhere are told of nobody")
}

func TestWatchStateIsChecked(t *testing.T) {
	for name, spoil := range map[string]func(*watchState){
		"a step far ahead": func(s *watchState) { s.Sum[3].At = 1 << 50 },
		"a day before all": func(s *watchState) { s.Day = -1 },
		"not finite":       func(s *watchState) { s.Tide[0].Most[1][3] = float32(inf()) },
	} {
		p := &profile{watch: &watch{}}
		spoil(&p.watch.watchState)
		b, err := p.pack()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := unpackProfile(b); !errors.Is(err, ErrSnapshot) {
			t.Errorf("%s: %v, want it refused", name, err)
		}
	}
	if n := binary.Size(watchState{}); n > 8<<10 {
		t.Errorf("%d bytes for the alarms of one subject", n)
	}
}

func inf() float64 { x := 0.0; return 1 / x }

// What a client does counts as its product's once it is young no more: that is no
// rise of the product's, because what it did before is then its product's past.
func TestAClientThatIsYoungNoMoreIsNoAlarmOfItsProduct(t *testing.T) {
	f := newFleet(1, 8)
	person := 0
	read := func(ssid int) {
		person++
		f.call(Observation{Product: "FP-1", ClientApp: "FP-1-app", Subscription: hashOf("ssid", ssid), Client: hashOf("client", ssid),
			Person: hashOf("p", person), Source: hashOf("net", ssid), Service: "piitr.get", Version: "1.2.0", Verb: Read})
	}
	for m := range (2*matureAge + 5) * 24 * 60 {
		if m%60 == 0 {
			read(1)
		}
		if m > (matureAge+1)*24*60 && m%20 == 0 { // 72 a day, where the first has 24
			read(2)
		}
		f.endMinute(t)
	}
	for _, s := range f.told {
		if s.Name.Alarm() {
			t.Errorf("alarm at %s: %s", s.At, s.Text())
		}
	}
	for range 100 { // and its past is no licence
		for range 5 {
			read(1)
		}
		for _, s := range f.endMinute(t) {
			if s.Name == SignalHarvest && s.Subject.Kind == Product {
				return
			}
		}
	}
	t.Error("five hundred strangers are told of nobody")
}
