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

const baselineVersion = 3

// baselineMax is more than any baseline is, unpacked.
const baselineMax = 512 << 10

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

// Baselines hands over the pasts of up to n subjects for somebody to keep: first
// of those that did more than ever, which a watcher that dies must not forget, or
// the next would take it for news; then those not handed over for longest. A baseline takes 1 to 60 KiB, and up to
// 300 of one who deals with tens of thousands.
func (w *Watcher) Baselines(n int, keep func(s Subject, baseline []byte) error) error {
	w.mu.Lock()
	type due struct {
		s    Subject
		rose bool
		kept int64
	}
	var all []due
	for s, p := range w.subjects {
		if (p.last > p.kept || p.learned) && s.Kind != Network {
			all = append(all, due{s, p.rose, p.kept})
		}
	}
	slices.SortFunc(all, func(a, b due) int {
		return cmp.Or(b2i(b.rose)-b2i(a.rose), cmp.Compare(a.kept, b.kept), compareSubjects(a.s, b.s))
	})
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
		p.learned, p.rose = false, false
		b, err := p.pack()
		w.mu.Unlock()
		if err != nil {
			return err
		}
		if err := keep(d.s, b); err != nil {
			w.mu.Lock()
			p.learned, p.rose = true, p.rose || d.rose
			w.mu.Unlock()
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
	w.admit(s, p)
	return nil
}

// fleetBaseline is what is known of all subjects together.
type fleetBaseline struct {
	Count     [kinds][firstRule][populationBins]float64
	Total     [kinds][firstRule]float64
	Only, All [kinds]float64 // readers
	By        [kinds][nVigils]float64
}

// Fleet hands over what is known of all subjects together, for somebody to keep:
// what newcomers are held against. It takes some 10 KiB.
func (w *Watcher) Fleet() ([]byte, error) {
	w.mu.Lock()
	f := fleetBaseline{w.others.count, w.others.total, w.readers.only, w.readers.all, w.common.by}
	w.mu.Unlock()
	raw, err := binary.Append([]byte{baselineVersion}, binary.LittleEndian, &f)
	if err != nil {
		return nil, err
	}
	return deflate(raw)
}

// RestoreFleet takes what Fleet handed over in the place of what is known. It
// refuses what no calls lead to; then nothing changes.
func (w *Watcher) RestoreFleet(b []byte) error {
	raw, err := inflate(b)
	if err != nil {
		return fmt.Errorf("what is known of all: %w: %v", ErrSnapshot, err)
	}
	var f fleetBaseline
	if len(raw) != 1+binary.Size(f) || raw[0] != baselineVersion {
		return fmt.Errorf("what is known of all: %w: none of version %d", ErrSnapshot, baselineVersion)
	}
	if _, err := binary.Decode(raw[1:], binary.LittleEndian, &f); err != nil {
		return fmt.Errorf("what is known of all: %w: %v", ErrSnapshot, err)
	}
	if !counted(reflect.ValueOf(f)) {
		return fmt.Errorf("what is known of all: %w: a number that cannot be", ErrSnapshot)
	}
	for k := range f.By {
		for i := range f.By[k] {
			f.By[k][i] = min(f.By[k][i], commonMax)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.others.count, w.others.total = f.Count, f.Total
	w.readers.only, w.readers.all = f.Only, f.All
	w.common.by = f.By
	return nil
}

// counted tells whether all numbers are finite and none is below nothing.
func counted(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Float64:
		return v.Float() >= 0 && v.Float() <= math.MaxFloat32
	case reflect.Struct:
		for i := range v.NumField() {
			if !counted(v.Field(i)) {
				return false
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			if !counted(v.Index(i)) {
				return false
			}
		}
	}
	return true
}

func inflate(b []byte) ([]byte, error) {
	return io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(b)), baselineMax+1))
}

func deflate(raw []byte) ([]byte, error) {
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
			raw = binary.LittleEndian.AppendUint16(raw, uint16(len(filter)))
			for _, v := range filter {
				raw = binary.LittleEndian.AppendUint64(raw, v)
			}
		}
	}
	if p.watch != nil {
		if raw, err = binary.Append(raw, binary.LittleEndian, &p.watch.watchState); err != nil {
			return nil, err
		}
	}
	return deflate(raw)
}

var errBaseline = errors.New("cut short, or longer than it says")

func unpackProfile(b []byte) (*profile, error) {
	raw, err := inflate(b)
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
	for _, s := range learned {
		if f.Known&(1<<s) == 0 {
			continue
		}
		if raw, err = p.known[s].unpack(raw); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrSnapshot, err)
		}
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

// unpack reads the filters that raw begins with, and returns what follows them.
func (k *known) unpack(raw []byte) ([]byte, error) {
	if len(raw) < 4 {
		return nil, errBaseline
	}
	k.n, raw = binary.LittleEndian.Uint32(raw), raw[4:]
	for _, into := range [...]*[]uint64{&k.young, &k.old} {
		if len(raw) < 2 {
			return nil, errBaseline
		}
		words := int(binary.LittleEndian.Uint16(raw))
		raw = raw[2:]
		switch {
		case words == 0 && into == &k.old: // there is none yet
			continue
		case words < knownWords || words > knownWordsMax || words&(words-1) != 0 || len(raw) < 8*words:
			return nil, errBaseline
		}
		*into = make([]uint64, words)
		for i := range *into {
			(*into)[i] = binary.LittleEndian.Uint64(raw[8*i:])
		}
		raw = raw[8*words:]
	}
	return raw, nil
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
