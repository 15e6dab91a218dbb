package policy

import (
	"cmp"
	"encoding/hex"
	"hash/fnv"
	"slices"
	"strconv"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Effect is how well a policy has done: of its enforced versions, and of what it
// did in shadow, apart.
type Effect struct {
	Policy   string `json:"policy"`
	Enforced Tally  `json:"enforced"`
	Shadow   Tally  `json:"shadow"`
}

// Tally counts alarms. Times are the median and the longest of those confirmed.
type Tally struct {
	Alarms    int             `json:"alarms"`
	Open      int             `json:"open"`
	Confirmed int             `json:"confirmed"`
	Dismissed int             `json:"dismissed"`
	Outcomes  map[Outcome]int `json:"outcomes"`
	// Precision is the share of those judged that were confirmed; absent until one
	// was judged.
	Precision *float64 `json:"precision,omitempty"`
	// ToDetect is from the beginning to the alarm, ToContain from the beginning to
	// the measure, by the policy or, from its incident, by a person; in seconds.
	ToDetect  *Spread `json:"seconds_to_detect,omitempty"`
	ToContain *Spread `json:"seconds_to_contain,omitempty"`
	detect    []time.Duration
	contain   []time.Duration
}

// Spread is of durations, in seconds.
type Spread struct {
	Median float64 `json:"median"`
	Most   float64 `json:"most"`
	Of     int     `json:"of"`
}

// MedianText is the median in words, such as 1m30s.
func (s *Spread) MedianText() string { return secondsText(s.Median) }

// MostText is the longest in words.
func (s *Spread) MostText() string { return secondsText(s.Most) }

func secondsText(s float64) string {
	return (time.Duration(s * float64(time.Second))).Round(time.Second).String()
}

// Measure makes an Effect of a policy's alarms. contained tells when the
// incident of an alarm was contained, not set when it was not.
func Measure(policy string, alarms func(yield func(*Alarm) bool), contained func(incident string) registry.Time) Effect {
	e := Effect{Policy: policy}
	for a := range alarms {
		t := &e.Enforced
		if a.Shadow {
			t = &e.Shadow
		}
		t.add(a, contained)
	}
	e.Enforced.finish()
	e.Shadow.finish()
	return e
}

func (t *Tally) add(a *Alarm, contained func(string) registry.Time) {
	if t.Outcomes == nil {
		t.Outcomes = map[Outcome]int{}
	}
	t.Alarms++
	t.Outcomes[a.Outcome]++
	switch a.State {
	case Confirmed:
		t.Confirmed++
	case Dismissed:
		t.Dismissed++
	default:
		t.Open++
	}
	if a.State != Confirmed {
		return
	}
	t.detect = append(t.detect, after(a.Began(), a.RaisedAt))
	at := a.ContainedAt
	if !at.Set() && a.Incident != "" {
		at = contained(a.Incident)
	}
	if at.Set() {
		t.contain = append(t.contain, after(a.Began(), at))
	}
}

func after(from, to registry.Time) time.Duration { return max(0, to.Std().Sub(from.Std())) }

func (t *Tally) finish() {
	if n := t.Confirmed + t.Dismissed; n > 0 {
		p := float64(t.Confirmed) / float64(n)
		t.Precision = &p
	}
	t.ToDetect, t.ToContain = spread(t.detect), spread(t.contain)
	if t.Outcomes == nil {
		t.Outcomes = map[Outcome]int{}
	}
}

func spread(all []time.Duration) *Spread {
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, cmp.Compare[time.Duration])
	return &Spread{Median: all[(len(all)-1)/2].Seconds(), Most: all[len(all)-1].Seconds(), Of: len(all)}
}

// shortHash names some texts shortly.
func shortHash(texts ...string) string {
	h := fnv.New128a()
	for _, t := range texts {
		_, _ = h.Write([]byte(strconv.Itoa(len(t)) + ":" + t)) // never fails, says hash.Hash
	}
	return hex.EncodeToString(h.Sum(nil))
}
