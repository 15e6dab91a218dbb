package incident

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dspgate/dspgate/registry"
)

// Signalled raises what monitoring found, as part of another's change, or adds
// to the incident that is live for the same key: one subject and one type make
// one incident, however often it is signalled. suspension is the measure taken,
// "" for none; note a line for the timeline. The ID comes back.
//
// Only when a person has triaged it does it count against the entity that it
// was not the entity that told of it: a false alarm is nobody's omission.
func (d *Desk) Signalled(t *registry.Tx, x Incident, suspension, note string) (id string, err error) {
	note = Harmless(note)
	old, err := liveSignal(t, x.Signal)
	if err != nil {
		return "", err
	}
	if old != nil {
		y := *old
		if suspension != "" {
			y.Containment = append(slices.Clip(y.Containment), suspension)
		}
		if len(y.Timeline) < timelineMax-10 { // what is found later must find room
			y.told(t, "signal", note)
		}
		return y.ID, registry.PutCase(t, y.ID, y)
	}
	x.ID, x.State, x.Channel, x.ReportedAt, x.Timeline = fmt.Sprintf("INC-%d", t.Revision()), Reported, BySignal, t.Now(), nil
	x.Reporter.Name = t.Actor().Name
	if suspension != "" {
		x.Containment = []string{suspension}
	}
	x.sanitise()
	if err := d.checkAll(t, t.Actor(), &x); err != nil {
		return "", err
	}
	x.told(t, "raised", string(x.Channel))
	x.told(t, "signal", note)
	if err := d.announce(t, &x, "raised"); err != nil {
		return "", err
	}
	return x.ID, registry.CreateCase(t, x.ID, x)
}

// liveSignal finds the live incident of a signal's key; nil when there is none.
func liveSignal(t *registry.Tx, key string) (*Incident, error) {
	book, err := t.Casebook()
	if err != nil {
		return nil, err
	}
	for id := range book.All(registry.Query{Kind: "incident", Where: []registry.Where{{Index: "signal", Value: key}, {Index: "live", Value: "true"}}}) {
		c, err := registry.TxCase[Incident](t, id)
		if errors.Is(err, registry.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.Body.Signal == key && c.Body.State.Live() {
			return &c.Body, nil
		}
	}
	return nil, nil
}

// Harmless makes a text keepable: bounded, without control characters, and with
// every digit struck out when it holds a tax file number.
func Harmless(s string) string { return harmless(s) }

// ContainedAt is when the harm was stopped by a person, not set when it was not.
func (x *Incident) ContainedAt() registry.Time {
	for i := range x.Timeline {
		if x.Timeline[i].What == "contained" {
			return x.Timeline[i].At
		}
	}
	return 0
}
