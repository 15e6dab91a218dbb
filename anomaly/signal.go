package anomaly

import "math"

// SignalName is a signal that is watched of every subject, out of a closed set.
type SignalName uint8

// The signals. Those named by the minute are closed every minute, the others
// every hour, and looked at every minute on the way there.
const (
	SignalRequests SignalName = iota
	SignalIdentity
	SignalInvalid
	SignalFailed
	SignalClients
	SignalPersons
	SignalNetworks
	SignalBytes
	SignalPersonsHour
	SignalNewPersons
	SignalNewClients
	SignalNewNetworks
	SignalUnlodged
	SignalReadShare
	SignalServiceMix
	SignalVersions
	SignalSSIDs
	SignalPilot
	SignalOffHours
	// SignalProtected is a rule, not a score: a call concerned a protected client.
	SignalProtected
	// SignalHarvest, and what follows it, are alarms: patterns that a person should
	// look at. It reads about people it never dealt with, and lodges nothing.
	SignalHarvest
	// SignalSweep reads about far more people than ever.
	SignalSweep
	// SignalRush makes far more calls that read than ever.
	SignalRush
	// SignalFanOut uses many software IDs it never used.
	SignalFanOut
	// SignalChurn calls in one new version after another.
	SignalChurn
	// SignalNewcomer reads about many people in its first days, and lodges for none.
	SignalNewcomer
	// SignalElsewhere reads about the clients of many subscriptions at once, from
	// where these never came from.
	SignalElsewhere
	signals
)

// firstAlarm is the first that is not told of ordinary callers once in a thousand
// windows, but next to never.
const firstAlarm = SignalHarvest

// Alarm tells whether a person should look at it. All others are facts beside it.
func (s SignalName) Alarm() bool { return s >= firstAlarm && s < signals || s == SignalProtected }

// hourly are the signals from SignalPersonsHour to SignalOffHours.
const firstHourly, firstRule = SignalPersonsHour, SignalProtected

// signalWords are a signal's name and what its value is, in an operator's words.
var signalWords = [signals]struct{ name, words string }{
	SignalRequests:    {"requests", "calls a minute"},
	SignalIdentity:    {"identity-refused", "calls a minute refused for who they said they were"},
	SignalInvalid:     {"invalid", "calls a minute the service found invalid"},
	SignalFailed:      {"failed", "calls a minute that failed"},
	SignalClients:     {"clients", "different clients a minute"},
	SignalPersons:     {"persons", "different people a minute"},
	SignalNetworks:    {"networks", "different networks a minute"},
	SignalBytes:       {"bytes-out", "kilobytes answered a minute"},
	SignalPersonsHour: {"persons-hour", "different people an hour"},
	SignalNewPersons:  {"new-persons", "people an hour it never dealt with before"},
	SignalNewClients:  {"new-clients", "clients an hour it never acted for before"},
	SignalNewNetworks: {"new-networks", "networks an hour it never came from before"},
	SignalUnlodged:    {"read-not-lodged", "people an hour read about and nothing lodged for"},
	SignalReadShare:   {"read-share", "of its calls only read"},
	SignalServiceMix:  {"service-mix", "of its calls go to other services than usual"},
	SignalVersions:    {"versions", "versions an hour, with those refused"},
	SignalSSIDs:       {"subscriptions", "software IDs an hour"},
	SignalPilot:       {"pilot-refused", "calls an hour for clients not named in its verification test"},
	SignalOffHours:    {"off-hours", "of the last day's calls at night or at weekends"},
	SignalProtected:   {"protected-client", "calls a minute that concern protected clients"},
	SignalHarvest:     {"harvest", "people read about whom it never dealt with before, and nothing lodged for"},
	SignalSweep:       {"sweep", "people read about and nothing lodged for"},
	SignalRush:        {"rush", "calls that read"},
	SignalFanOut:      {"fan-out", "software IDs it never used before"},
	SignalChurn:       {"churn", "versions it never called in before"},
	SignalNewcomer:    {"newcomer", "people read about in its first days, and nothing lodged for"},
	SignalElsewhere:   {"elsewhere", "subscriptions that only read, from networks they never came from"},
}

func (s SignalName) String() string {
	if s < signals {
		return signalWords[s].name
	}
	return "unknown"
}

// SignalNames are all signals by name, in their order.
func SignalNames() []string {
	names := make([]string, signals)
	for i := range names {
		names[i] = signalWords[i].name
	}
	return names
}

// ParseSignalName finds a signal by its name.
func ParseSignalName(name string) (SignalName, bool) {
	for i := range signals {
		if signalWords[i].name == name {
			return i, true
		}
	}
	return 0, false
}

// Words say what the value of the signal is: "calls a minute".
func (s SignalName) Words() string {
	if s < signals {
		return signalWords[s].words
	}
	return ""
}

// minuteValue is the value of a signal in a tally of one minute.
func (s SignalName) minuteValue(t *Tally) float64 {
	switch s {
	case SignalRequests:
		return float64(t.Count[Requests])
	case SignalIdentity:
		return float64(t.Count[Identity])
	case SignalInvalid:
		return float64(t.Count[Invalid])
	case SignalFailed:
		return float64(t.Count[Failed])
	case SignalClients:
		return t.Set[Clients].Distinct()
	case SignalPersons:
		return t.Set[Persons].Distinct()
	case SignalNetworks:
		return t.Set[Networks].Distinct()
	case SignalBytes:
		return float64(t.Count[Kilobytes])
	case SignalProtected:
		return float64(t.Count[Protected])
	}
	return 0
}

// hourValue is the value of a signal in a tally of one hour. What it was new to,
// and how it was before, are the profile's.
func (s SignalName) hourValue(p *profile, t *Tally) float64 {
	switch s {
	case SignalPersonsHour:
		return t.Set[Persons].Distinct()
	case SignalNewPersons:
		return p.fresh[Persons]
	case SignalNewClients:
		return p.fresh[Clients]
	case SignalNewNetworks:
		return p.fresh[Networks]
	case SignalUnlodged:
		both := t.Set[Persons].clone()
		both.Merge(&t.Set[Lodged])
		return math.Max(0, both.Distinct()-t.Set[Lodged].Distinct())
	case SignalReadShare:
		reads, all := float64(t.Count[Reads]), float64(t.Count[Reads]+t.Count[Lodges])
		return reads / (all + shareCalls)
	case SignalServiceMix:
		return p.mix.distance(t)
	case SignalVersions:
		return t.Set[Versions].Distinct() + float64(t.Count[OddVersions])
	case SignalSSIDs:
		return t.Set[SSIDs].Distinct()
	case SignalPilot:
		return float64(t.Count[Pilot])
	case SignalOffHours:
		return p.off / (p.all + shareCalls)
	}
	return 0
}

// counting signals only grow in the course of their window, so that they can be
// told before it ends.
func (s SignalName) counting() bool {
	return s != SignalReadShare && s != SignalServiceMix && s != SignalOffHours
}

// shareCalls is how many calls keep a share of few calls from being all or
// nothing.
const shareCalls = 20

// mix is how a subject's calls are spread over services, fading by the week.
type mix struct {
	Share [services]float32
	Seen  float32 // calls, fading
}

// mixFade is how much of the past an hour leaves.
const mixFade = 1 - 1.0/(24*7)

// distance is the share of the calls that would have to go elsewhere to be
// spread as before (total variation), less when there are few.
func (m *mix) distance(t *Tally) float64 {
	var all float64
	for _, n := range t.Service {
		all += float64(n)
	}
	if all == 0 || m.Seen == 0 {
		return 0
	}
	d := 0.0
	for i, n := range t.Service {
		d += math.Abs(float64(n)/all-float64(m.Share[i]/m.Seen)) / 2
	}
	return d * all / (all + shareCalls)
}

func (m *mix) learn(t *Tally) {
	for i, n := range t.Service {
		m.Share[i] = m.Share[i]*mixFade + float32(n)
	}
	m.Seen = 0
	for _, s := range m.Share {
		m.Seen += s
	}
}
