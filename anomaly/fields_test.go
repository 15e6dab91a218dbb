package anomaly

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// What allowed calls lack is counted by product and service, in bounded memory;
// what cannot be sent is not lost, and refused calls do not count.
func TestWhatCallsLackIsCounted(t *testing.T) {
	c := NewCollector(CollectorConfig{})
	whole := Observation{Product: "P", Service: "s", Version: "1", Subscription: Hash{1}, Client: Hash{2}, Person: Hash{3}, Source: Hash{4}}
	bare := Observation{Product: "P", Service: "s"}
	refused := bare
	refused.Outcome = RefusedOther
	c.Observe([]Observation{whole, bare, refused, whole})
	taken := c.TakeFields()
	want := []FieldTally{{Product: "P", Service: "s", Calls: 3, Missing: [NFields]uint64{1, 1, 1, 1, 1}}}
	if d := cmp.Diff(want, taken); d != "" {
		t.Error(d)
	}
	if left := c.TakeFields(); len(left) != 0 {
		t.Errorf("counted twice: %v", left)
	}
	c.Observe([]Observation{bare})
	c.PutBackFields(taken)
	if got := c.TakeFields(); len(got) != 1 || got[0].Calls != 4 || got[0].Missing[FieldPerson] != 2 {
		t.Errorf("%+v", got)
	}
	var many []Observation
	for i := range 2 * fieldTalliesMax {
		many = append(many, Observation{Service: fmt.Sprint(i)})
	}
	c.Observe(many)
	if got := c.TakeFields(); len(got) != fieldTalliesMax || c.Lost() != fieldTalliesMax {
		t.Errorf("%d kept, %d lost", len(got), c.Lost())
	}
}

// A report carries them, and one of an older sidecar is read without.
func TestReportsCarryWhatCallsLack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Report{Sidecar: "s", Subjects: []SubjectTally{}, Fields: rapid.SliceOf(rapid.Custom(func(t *rapid.T) FieldTally {
			f := FieldTally{Product: rapid.StringN(0, 8, 64).Draw(t, "product"), Service: rapid.StringN(0, 8, 64).Draw(t, "service"), Calls: rapid.Uint64Range(0, countMax).Draw(t, "calls")}
			for i := range f.Missing {
				f.Missing[i] = rapid.Uint64Range(0, countMax).Draw(t, "missing")
			}
			return f
		})).Draw(t, "fields")}
		b := r.AppendBinary(nil)
		var got Report
		if err := got.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if len(r.Fields) == 0 {
			r.Fields = nil
		}
		if d := cmp.Diff(r.Fields, got.Fields); d != "" {
			t.Fatal(d)
		}
		for i := range b {
			if got.UnmarshalBinary(b[:i]) == nil {
				t.Fatalf("cut after %d bytes it reads", i)
			}
		}
	})
	old := (&Report{Sidecar: "s", Subjects: []SubjectTally{}}).AppendBinary(nil)
	old = append([]byte{2}, old[1:len(old)-1]...)
	var got Report
	if err := got.UnmarshalBinary(old); err != nil || got.Sidecar != "s" {
		t.Errorf("%+v, %v", got, err)
	}
}
