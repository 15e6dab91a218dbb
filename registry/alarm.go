package registry

// AlarmKind says what a Mirror found wrong with its store: a closed set. None
// of them is ordinary trouble such as a store that does not answer; each means
// that somebody should look.
type AlarmKind uint8

// The alarms.
const (
	// AlarmTampered: a record, change or head does not verify under the register key.
	AlarmTampered AlarmKind = iota
	// AlarmRewound: the store's head is behind what was held already (a lost
	// write, a restored dump, FLUSHALL), in revision or in epoch.
	AlarmRewound
	// AlarmShrunk: the store holds fewer than half of the records held already.
	AlarmShrunk
	// AlarmDigest: the set of records differs from what the head or a change says it is.
	AlarmDigest
	// AlarmGap: the log skips, repeats or reorders a revision, or its epoch went down.
	AlarmGap
	// AlarmUndecodable: a genuine record cannot be read; the writer is of a newer version.
	AlarmUndecodable
	// AlarmForgetful: the store may forget what it holds: it evicts, or no longer
	// writes each commit to disk.
	AlarmForgetful

	alarmKinds
)

var alarmWords = []string{"tampered", "rewound", "shrunk", "digest-mismatch", "gap", "undecodable", "forgetful"}

func (k AlarmKind) String() string { return enumText(alarmWords, uint8(k)) }

// AlarmKinds lists the closed set, for metrics.
func AlarmKinds() []AlarmKind {
	all := make([]AlarmKind, alarmKinds)
	for i := range all {
		all[i] = AlarmKind(i)
	}
	return all
}

// Alarm is one finding. A condition that lasts is told once, when it begins.
type Alarm struct {
	Kind  AlarmKind
	What  string   // the record key, or which part of the store's answer
	Held  Revision // by the mirror, 0 when none
	Store Revision // the store's head as far as known
	Err   error
}

// alarmError carries an alarm to the one place that raises it.
type alarmError struct{ Alarm }

func (e *alarmError) Error() string { return e.Kind.String() + ": " + e.What + ": " + e.Err.Error() }

func (e *alarmError) Unwrap() error { return e.Err }
