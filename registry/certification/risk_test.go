package certification

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// Every input of the domain model's list is in the model.
func TestRiskInputsAreAllThere(t *testing.T) {
	f := framework(t)
	for _, name := range strings.Fields(`max_risk records client_controlled offshore roles chain_length entity_age_days_short eligibility_flags
		evidence_age_months open_findings incidents_high releases_90_days unsupported_versions_used error_percent validation_failure_percent
		new_clients_per_day tfn_fanout read_lodge_ratio off_hours_percent foreign_percent unknown_versions signals shared_evidence`) {
		if !slices.ContainsFunc(f.Risk.Inputs, func(i RiskInput) bool { return i.Name == name }) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestRiskOfAnExample(t *testing.T) {
	f := framework(t)
	in := RiskInputs{}
	for _, i := range f.Risk.Inputs {
		in[i.Name] = 0
	}
	p, err := f.Risk.Profile(in)
	if err != nil || p.Score != 0 || p.Level != RiskLow || p.Unknown != 0 {
		t.Fatalf("nothing speaks against it: %+v, %v", p, err)
	}
	in["max_risk"], in["records"], in["incidents_high"], in["tfn_fanout"] = 4, 10_000, 1, 300
	if p, err = f.Risk.Profile(in); err != nil || p.Score != 62 || p.Level != RiskHigh {
		t.Fatalf("%+v, %v", p, err)
	}
	var top []string
	for _, c := range p.Contributions[:4] {
		top = append(top, c.Input)
		if c.Because == "" || c.Value == nil {
			t.Errorf("%s is not shown: %+v", c.Input, c)
		}
	}
	slices.Sort(top)
	if d := cmp.Diff([]string{"incidents_high", "max_risk", "records", "tfn_fanout"}, top); d != "" {
		t.Error(d)
	}
	delete(in, "tfn_fanout")
	if p, err = f.Risk.Profile(in); err != nil || p.Score != 54 || p.Unknown != 1 {
		t.Errorf("not knowing is not harmless: %+v, %v", p, err)
	}
}

// The score is the sum of what is shown; a worse value never lowers it; and not
// knowing never beats knowing that nothing is there.
func TestRiskIsTheSumOfItsParts(t *testing.T) {
	f := framework(t)
	rapid.Check(t, func(t *rapid.T) {
		in := RiskInputs{}
		for _, i := range f.Risk.Inputs {
			if rapid.Bool().Draw(t, "known") {
				in[i.Name] = rapid.Float64Range(0, 1e6).Draw(t, i.Name)
			}
		}
		p, err := f.Risk.Profile(in)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0
		for _, c := range p.Contributions {
			sum += c.Points
		}
		if sum != p.Score || len(p.Contributions) != len(f.Risk.Inputs) {
			t.Fatalf("score %d, parts %d", p.Score, sum)
		}
		one := rapid.SampledFrom(f.Risk.Inputs).Draw(t, "input").Name
		before, known := in[one]
		in[one] = before + rapid.Float64Range(0, 1e6).Draw(t, "more")
		more, err := f.Risk.Profile(in)
		if err != nil || known && more.Score < p.Score {
			t.Fatalf("more %s lowered the score from %d to %d, %v", one, p.Score, more.Score, err)
		}
		if !known {
			in[one] = 0
			if none, _ := f.Risk.Profile(in); none.Score > p.Score {
				t.Fatalf("knowing that there is no %s costs more than not knowing", one)
			}
		}
	})
}

func TestRiskInputsRefused(t *testing.T) {
	f := framework(t)
	for _, in := range []RiskInputs{{"nonsense": 1}, {"records": -1}, {"records": math.NaN()}, {"records": math.Inf(1)}} {
		if _, err := f.Risk.Profile(in); err == nil {
			t.Errorf("%v was taken", in)
		}
	}
}

func seed(b byte) []byte {
	s := make([]byte, SeedBytes)
	for i := range s {
		s[i] = b
	}
	return s
}

func candidates(t *rapid.T) []Candidate {
	ids := rapid.SliceOfNDistinct(rapid.StringMatching(`FP-[0-9]{4}`), 0, 60, rapid.ID[string]).Draw(t, "ids")
	var out []Candidate
	for _, id := range ids {
		out = append(out, Candidate{
			ID: id, Category: rapid.SampledFrom(Categories()).Draw(t, "category"), FirstTime: rapid.Bool().Draw(t, "first"),
			Incident: rapid.Bool().Draw(t, "incident"), Score: rapid.IntRange(0, 100).Draw(t, "score"),
		})
	}
	return out
}

// A draw can be computed again from what is published, whatever the order of the
// list; what must be verified is; and as many more as the rule says.
func TestDrawCanBeComputedAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := candidates(t)
		rule := SelectionRule{rapid.IntRange(0, 100).Draw(t, "random"), rapid.IntRange(0, 100).Draw(t, "ranked")}
		s := rapid.SliceOfN(rapid.Byte(), SeedBytes, SeedBytes).Draw(t, "seed")
		at := time.Unix(1_790_000_000, 5)
		d, err := Select(s, "2026", rule, list, at)
		if err != nil {
			t.Fatal(err)
		}
		shuffled := rapid.Permutation(list).Draw(t, "order")
		again, err := Select(s, "2026", rule, shuffled, at)
		if err != nil || cmp.Diff(d, again) != "" {
			t.Fatalf("%v %s", err, cmp.Diff(d, again))
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var published Draw
		if err := json.Unmarshal(b, &published); err != nil {
			t.Fatal(err)
		}
		if err := published.Verify(Commit(s)); err != nil {
			t.Fatal(err)
		}
		count := map[Basis]int{}
		for _, x := range d.Outcome {
			count[x.Basis]++
			must := x.Category == "A" || x.FirstTime || x.Incident
			if must != (x.Basis == ByCategory || x.Basis == ByFirstTime || x.Basis == ByIncident) {
				t.Fatalf("%+v", x)
			}
		}
		rest := len(list) - count[ByCategory] - count[ByFirstTime] - count[ByIncident]
		random := (rest*rule.RandomPercent + 99) / 100
		ranked := min((rest*rule.RankedPercent+99)/100, rest-random)
		if count[ByDraw] != random || count[ByRank] != ranked {
			t.Fatalf("%d drawn and %d ranked of %d, want %d and %d", count[ByDraw], count[ByRank], rest, random, ranked)
		}
	})
}

// The riskiest are ranked first among what the draw left.
func TestRankedAreTheRiskiest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d, err := Select(seed(1), "2026", SelectionRule{10, 20}, candidates(t), time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		least, most := math.MaxInt, -1
		for _, x := range d.Outcome {
			switch x.Basis {
			case ByRank:
				least = min(least, x.Score)
			case NotSelected:
				most = max(most, x.Score)
			}
		}
		if most > least {
			t.Fatalf("%d was left out and %d ranked", most, least)
		}
	})
}

// Whoever changes what was published is found out.
func TestDrawThatWasChanged(t *testing.T) {
	list := []Candidate{{ID: "FP-1", Category: "C"}, {ID: "FP-2", Category: "C", Score: 9}, {ID: "FP-3", Category: "A"}, {ID: "FP-4", Category: "B"}}
	for name, change := range map[string]func(*Draw){
		"another seed":        func(d *Draw) { d.Seed = strings.Repeat("07", SeedBytes); d.Commitment = Commit(seed(7)) },
		"another period":      func(d *Draw) { d.Period = "2027" },
		"another score":       func(d *Draw) { d.Outcome[0].Score = 99 },
		"one left out":        func(d *Draw) { d.Outcome = d.Outcome[1:] },
		"another outcome":     func(d *Draw) { d.Outcome[2].Basis = NotSelected },
		"another ticket":      func(d *Draw) { d.Outcome[0].Ticket = strings.Repeat("0", 64) },
		"another rule":        func(d *Draw) { d.Rule.RandomPercent = 100 },
		"a seed that is none": func(d *Draw) { d.Seed = "xx" },
	} {
		d, err := Select(seed(3), "2026", SelectionDefault(), list, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		change(d)
		if err := d.Verify(Commit(seed(3))); err == nil {
			t.Errorf("%s: not found out", name)
		}
	}
}

// Over many seeds, everybody is drawn about equally often.
func TestDrawIsFair(t *testing.T) {
	var list []Candidate
	for _, id := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} {
		list = append(list, Candidate{ID: id, Category: "C"})
	}
	times := map[string]int{}
	const draws = 2000
	for i := range draws {
		s := seed(0)
		s[0], s[1] = byte(i), byte(i>>8)
		d, err := Select(s, "2026", SelectionRule{RandomPercent: 10}, list, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range d.Selected() {
			times[x.ID]++
		}
	}
	for _, c := range list { // expected 200; five standard deviations are 67
		if n := times[c.ID]; n < 133 || n > 267 {
			t.Errorf("%s was drawn %d times of %d", c.ID, n, draws)
		}
	}
}

func TestDrawsRefused(t *testing.T) {
	ok := []Candidate{{ID: "a"}}
	for name, err := range map[string]error{
		"short seed": second(Select(seed(1)[:16], "2026", SelectionDefault(), ok, time.Time{})),
		"no period":  second(Select(seed(1), "", SelectionDefault(), ok, time.Time{})),
		"percent":    second(Select(seed(1), "2026", SelectionRule{RandomPercent: 101}, ok, time.Time{})),
		"twice":      second(Select(seed(1), "2026", SelectionDefault(), []Candidate{{ID: "a"}, {ID: "a"}}, time.Time{})),
		"no ID":      second(Select(seed(1), "2026", SelectionDefault(), []Candidate{{}}, time.Time{})),
	} {
		var f *FieldError
		if !asField(err, &f) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }
