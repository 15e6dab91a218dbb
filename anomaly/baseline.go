package anomaly

import (
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"slices"
	"time"
)

// A baseline is the past of one subject as kept over restarts: fixed parts, then
// the series there are, then what was known.

const baselineVersion = 2

// baselineMax is more than any baseline is, unpacked.
const baselineMax = 96 << 10

// fixedBaseline is what every baseline begins with.
type fixedBaseline struct {
	First, Last int64
	Off, All    float64
	Mix         mix
	Idle        [firstRule]uint32
	Have        uint32 // a bit for each series
	Known       uint8  // a bit for each set that has filters
	Watched     bool   // there is a watchState
}

// Baselines hands over the pasts of up to n subjects, those not handed over for
// longest first, for somebody to keep. A baseline takes 1 to 60 KiB.
func (w *Watcher) Baselines(n int, keep func(s Subject, baseline []byte) error) error {
	w.mu.Lock()
	type due struct {
		s    Subject
		kept int64
	}
	var all []due
	for s, p := range w.subjects {
		if p.last > p.kept && s.Kind != Network {
			all = append(all, due{s, p.kept})
		}
	}
	slices.SortFunc(all, func(a, b due) int { return cmp.Or(cmp.Compare(a.kept, b.kept), compareSubjects(a.s, b.s)) })
	all = all[:min(len(all), n)]
	w.mu.Unlock()
	for _, d := range all {
		w.mu.Lock()
		p := w.subjects[d.s]
		if p == nil {
			w.mu.Unlock()
			continue
		}
		last := p.last
		b, err := p.pack()
		w.mu.Unlock()
		if err != nil {
			return err
		}
		if err := keep(d.s, b); err != nil {
			return fmt.Errorf("keep the baseline of %s %q: %w", d.s.Kind, d.s.ID, err)
		}
		w.mu.Lock()
		p.kept = last
		w.mu.Unlock()
	}
	return nil
}

// Restore gives a subject the past that Baselines handed over. A subject that
// has been seen since keeps what it has. A baseline that does not read, or that
// no past leads to, is refused, and then the subject is a newcomer.
func (w *Watcher) Restore(s Subject, baseline []byte, now time.Time) error {
	p, err := unpackProfile(baseline)
	if err != nil {
		return fmt.Errorf("baseline of %s %q: %w", s.Kind, s.ID, err)
	}
	if s.Kind >= kinds || len(s.ID) > subjectIDMax || s.ID == "" {
		return fmt.Errorf("%w: no subject", ErrSnapshot)
	}
	if p.last > now.Unix() {
		p.last = now.Unix()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.subjects[s] != nil || len(w.subjects) >= w.cfg.Subjects {
		return nil
	}
	w.subjects[s] = p
	w.networks += b2i(s.Kind == Network)
	return nil
}

func (p *profile) pack() ([]byte, error) {
	f := fixedBaseline{First: p.first, Last: p.last, Off: p.off, All: p.all, Mix: p.mix, Idle: p.idle, Watched: p.watch != nil}
	for i, x := range p.series {
		if x != nil {
			f.Have |= 1 << i
		}
	}
	for _, s := range learned {
		if p.known[s].young != nil {
			f.Known |= 1 << s
		}
	}
	raw, err := binary.Append([]byte{baselineVersion}, binary.LittleEndian, &f)
	if err != nil {
		return nil, err
	}
	for _, x := range p.series {
		if x == nil {
			continue
		}
		if raw, err = x.AppendBinary(raw); err != nil {
			return nil, err
		}
	}
	for _, s := range learned {
		k := &p.known[s]
		if k.young == nil {
			continue
		}
		raw = binary.LittleEndian.AppendUint32(raw, k.n)
		for _, filter := range [...][]uint64{k.young, k.old} {
			words := filter
			if words == nil {
				words = make([]uint64, knownWords)
			}
			for _, v := range words {
				raw = binary.LittleEndian.AppendUint64(raw, v)
			}
		}
	}
	if p.watch != nil {
		if raw, err = binary.Append(raw, binary.LittleEndian, &p.watch.watchState); err != nil {
			return nil, err
		}
	}
	var out bytes.Buffer
	z, err := flate.NewWriter(&out, flate.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(raw); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

var errBaseline = errors.New("cut short, or longer than it says")

func unpackProfile(b []byte) (*profile, error) {
	raw, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), baselineMax+1))
	if err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	fixed := binary.Size(fixedBaseline{})
	if len(raw) < 1+fixed || len(raw) > baselineMax || raw[0] != baselineVersion {
		return nil, fmt.Errorf("%w: no baseline of version %d", ErrSnapshot, baselineVersion)
	}
	var f fixedBaseline
	if _, err := binary.Decode(raw[1:], binary.LittleEndian, &f); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	if err := f.check(); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	p := &profile{first: f.First, last: f.Last, off: f.Off, all: f.All, mix: f.Mix, idle: f.Idle, kept: f.Last}
	raw = raw[1+fixed:]
	for i := range p.series {
		if f.Have&(1<<i) == 0 {
			continue
		}
		if len(raw) < SnapshotSize() {
			return nil, fmt.Errorf("%w: %v", ErrSnapshot, errBaseline)
		}
		x := &Series{}
		if err := x.UnmarshalBinary(raw[:SnapshotSize()]); err != nil {
			return nil, err
		}
		p.series[i], raw = x, raw[SnapshotSize():]
	}
	const filters = 4 + 2*8*knownWords
	for _, s := range learned {
		if f.Known&(1<<s) == 0 {
			continue
		}
		if len(raw) < filters {
			return nil, fmt.Errorf("%w: %v", ErrSnapshot, errBaseline)
		}
		k := &p.known[s]
		k.n = binary.LittleEndian.Uint32(raw)
		k.young, k.old = make([]uint64, knownWords), make([]uint64, knownWords)
		for i := range knownWords {
			k.young[i] = binary.LittleEndian.Uint64(raw[4+8*i:])
			k.old[i] = binary.LittleEndian.Uint64(raw[4+8*(knownWords+i):])
		}
		raw = raw[filters:]
	}
	if f.Watched {
		p.watch = &watch{}
		if len(raw) < binary.Size(watchState{}) {
			return nil, fmt.Errorf("%w: %v", ErrSnapshot, errBaseline)
		}
		if _, err := binary.Decode(raw, binary.LittleEndian, &p.watch.watchState); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrSnapshot, err)
		}
		if err := p.watch.check(); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrSnapshot, err)
		}
		raw = raw[binary.Size(watchState{}):]
	}
	if len(raw) > 0 {
		return nil, fmt.Errorf("%w: %v", ErrSnapshot, errBaseline)
	}
	return p, nil
}

// check refuses numbers no calls lead to.
func (f *fixedBaseline) check() error {
	sound := func(v float64) bool { return v >= 0 && v < math.MaxFloat32 }
	ok := sound(f.Off) && sound(f.All) && sound(float64(f.Mix.Seen)) && f.Have < 1<<firstRule
	for _, s := range f.Mix.Share {
		ok = ok && sound(float64(s))
	}
	if !ok {
		return errors.New("a number that cannot be")
	}
	return nil
}

// check refuses a state no calls lead to: a step far ahead would be counted up to.
func (a *watchState) check() error {
	ok := finite(reflect.ValueOf(*a)) && a.Day >= 0 && a.Days >= 0
	for _, r := range a.Sum {
		ok = ok && r.At >= 0 && r.At < 1<<40
	}
	if !ok {
		return errors.New("a number that cannot be")
	}
	return nil
}
