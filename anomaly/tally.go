package anomaly

// services is how many classes of services a Tally tells apart, by a hash of
// their keys.
const services = 16

// Count is what a Tally counts, out of a closed set.
type Count uint8

const (
	Requests    Count = iota
	Identity          // refused: not who it said
	OddVersions       // refused: a version unknown, blocked or unsupported
	Pilot             // refused: a client not named in the verification test
	Limited           // refused by a limit
	Invalid           // answered by the upstream with 4xx
	Failed            // answered by the upstream with 5xx, or not at all
	Reads
	Lodges
	OffHours  // between 22:00 and 06:00, or at a weekend
	Protected // concerned a protected client
	Kilobytes // of response bodies
	counts
)

// Set is what a Tally counts the distinct ones of.
type Set uint8

const (
	Clients  Set = iota
	Persons      // whom calls concerned
	Lodged       // of whom something was lodged
	Networks     // where calls came from
	SSIDs
	Versions
	sets
)

// Tally is what one subject did in one span of time. Tallies of one subject
// merge, whichever sidecars they come from.
type Tally struct {
	Count   [counts]uint64
	Service [services]uint64
	Set     [sets]Sketch
	bytes   uint64 // below a kilobyte
	of      string // the product, of a client app or a subscription
}

// Merge adds o.
func (t *Tally) Merge(o *Tally) {
	for i, n := range o.Count {
		t.Count[i] += n
	}
	for i, n := range o.Service {
		t.Service[i] += n
	}
	for i := range o.Set {
		t.Set[i].Merge(&o.Set[i])
	}
	t.addBytes(o.bytes)
	if o.of != "" {
		t.of = o.of
	}
}

func (t *Tally) addBytes(n uint64) {
	t.bytes += n
	t.Count[Kilobytes] += t.bytes >> 10
	t.bytes &= 1<<10 - 1
}

func (t *Tally) reset() {
	t.Count, t.Service, t.bytes = [counts]uint64{}, [services]uint64{}, 0
	for i := range t.Set {
		t.Set[i].reset()
	}
}

// silent tells whether nothing was counted.
func (t *Tally) silent() bool { return t.Count == [counts]uint64{} && t.bytes == 0 }

// observe counts a call.
func (t *Tally) observe(o *Observation, offHours, protected bool) {
	t.Count[Requests]++
	switch o.Outcome {
	case RefusedIdentity:
		t.Count[Identity]++
	case RefusedVersion:
		t.Count[OddVersions]++
	case RefusedPilot:
		t.Count[Pilot]++
	case RefusedLimit:
		t.Count[Limited]++
	}
	if offHours {
		t.Count[OffHours]++
	}
	if protected {
		t.Count[Protected]++
	}
	t.add(Networks, o.Source)
	t.add(SSIDs, o.Subscription)
	t.add(Clients, o.Client)
	if o.Version != "" {
		t.Set[Versions].Add(uint32(hashString(o.Version)))
	}
	if o.Outcome != Allowed {
		return
	}
	t.Service[hashString(o.Service)%services]++
	switch o.Verb {
	case Read:
		t.Count[Reads]++
		t.add(Persons, o.Person)
	case Lodge:
		t.Count[Lodges]++
		t.add(Persons, o.Person)
		t.add(Lodged, o.Person)
	case Neither:
	}
}

func (t *Tally) add(s Set, h Hash) {
	if !h.zero() {
		t.Set[s].Add(h.short())
	}
}

// finish counts how an allowed call ended.
func (t *Tally) finish(f *Finished) {
	switch {
	case f.Status == 0 || f.Status >= 500:
		t.Count[Failed]++
	case f.Status >= 400:
		t.Count[Invalid]++
	}
	t.addBytes(min(f.BytesOut, 1<<40))
}

// hashString is FNV-1a with a finish that spreads its low bits: for names of the
// register, which no caller chooses.
func hashString(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	return h ^ h>>29
}
