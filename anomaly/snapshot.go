package anomaly

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
)

// ErrSnapshot is wrapped by every refusal of a snapshot.
var ErrSnapshot = errors.New("not a snapshot of a series")

// seriesVersion changes with the meaning or order of state's fields.
const seriesVersion = 1

// AppendBinary appends the series, fixed in size, to b.
func (x *Series) AppendBinary(b []byte) ([]byte, error) {
	b = append(b, seriesVersion)
	return binary.Append(b, binary.LittleEndian, &x.s)
}

// UnmarshalBinary restores what AppendBinary wrote. It refuses any other size
// or version, and a state that no observations lead to; then x is unchanged.
func (x *Series) UnmarshalBinary(b []byte) error {
	switch {
	case len(b) != SnapshotSize():
		return fmt.Errorf("%w: %d bytes, want %d", ErrSnapshot, len(b), SnapshotSize())
	case b[0] != seriesVersion:
		return fmt.Errorf("%w: version %d, want %d", ErrSnapshot, b[0], seriesVersion)
	}
	var s state
	if _, err := binary.Decode(b[1:], binary.LittleEndian, &s); err != nil {
		return fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	if err := s.check(); err != nil {
		return fmt.Errorf("%w: %v", ErrSnapshot, err)
	}
	x.s = s
	return nil
}

// SnapshotSize is how many bytes AppendBinary writes.
func SnapshotSize() int { return 1 + binary.Size(state{}) }

// check refuses a poisoned state: whatever is not finite would score nothing
// for ever, and a range inside out would score everything.
func (s *state) check() error {
	if !finite(reflect.ValueOf(*s)) {
		return errors.New("a number that is not finite")
	}
	for _, r := range []span{s.Level, s.Beat, s.Rare, {float64(s.Drift.PendLow), float64(s.Drift.PendHigh)}, {float64(s.Text.PendLow), float64(s.Text.PendHigh)}} {
		if r.High < r.Low {
			return errors.New("a range that ends before it begins")
		}
	}
	if s.Hist.Width < 0 || s.Rhythm.Unit < 0 || s.Sudden < 0 || s.Unusual < 0 || s.StepMean < 0 || s.Crept < 0 {
		return errors.New("a size below nothing")
	}
	return nil
}

func finite(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Float32, reflect.Float64:
		return !math.IsNaN(v.Float()) && math.Abs(v.Float()) <= math.MaxFloat32
	case reflect.Struct:
		for i := range v.NumField() {
			if !finite(v.Field(i)) {
				return false
			}
		}
	case reflect.Array:
		for i := range v.Len() {
			if !finite(v.Index(i)) {
				return false
			}
		}
	}
	return true
}
