package anomaly

import (
	"fmt"
	"math"
	"slices"
)

// Part is one of the ways in which a value strays from a series' past.
type Part uint8

const (
	// PartLevel is a value outside the range the series has kept.
	PartLevel Part = iota
	// PartRhythm is a departure from the hour of the week outside the range of
	// such departures.
	PartRhythm
	// PartRarity is a run of values more seldom than any before.
	PartRarity
	// PartDrift is a mean departure from the rhythm outside its range.
	PartDrift
	// PartTexture is a mean step from value to value outside its range: a
	// series that fell silent, or became restless.
	PartTexture
	// PartCreep is a range widened e-fold by steps too small to be told.
	PartCreep
	// PartMoment is a change large for this series and this hour, which may yet
	// lie in its range.
	PartMoment

	parts = 7
)

var partNames = [parts]string{"level", "rhythm", "rarity", "drift", "texture", "creep", "moment"}

func (p Part) String() string {
	if int(p) < len(partNames) {
		return partNames[p]
	}
	return fmt.Sprintf("part(%d)", uint8(p))
}

// Score is what one observation amounts to.
type Score struct {
	// P is the tail probability, above 0 and at most 1: about this share of the
	// observations of an ordinary series scores as low. 1 is nothing to tell;
	// an alarm that holds is told again only when it grows.
	P float64
	// Known is false until the series is warm: then nothing can be said, also
	// not that all is well.
	Known bool
	// Ignored is true of a value that was none: it changed nothing.
	Ignored bool
	// Strongest is the part that decided P.
	Strongest Part
	// Parts are the tail probabilities of the parts, each by itself.
	Parts [parts]float64
	// Value is what was observed, Expected what the hour has usually, and Low
	// and High the range before it.
	Value, Expected, Low, High float64
}

// Reason is one part of a score, in words.
type Reason struct {
	Part Part
	P    float64
	Text string
}

// Reasons are the parts that have something to tell, the most telling first.
func (s Score) Reasons() []Reason {
	var out []Reason
	for i, p := range s.Parts {
		if p < 1 && s.Known && !s.Ignored {
			out = append(out, Reason{Part(i), p, s.words(Part(i))})
		}
	}
	slices.SortStableFunc(out, func(a, b Reason) int {
		switch {
		case a.P < b.P:
			return -1
		case a.P > b.P:
			return 1
		}
		return 0
	})
	return out
}

func (s Score) words(p Part) string {
	// A mean extrapolated beyond what there ever was is no words to an operator.
	expected := min(max(s.Expected, s.Low), s.High)
	switch p {
	case PartLevel:
		return fmt.Sprintf("%.4g is outside the range it has kept, %.4g to %.4g", s.Value, s.Low, s.High)
	case PartRhythm:
		return fmt.Sprintf("%.4g where about %.4g is usual at this hour of the week", s.Value, expected)
	case PartRarity:
		return fmt.Sprintf("values like %.4g have hardly ever been seen", s.Value)
	case PartDrift:
		return "it has departed from its rhythm for longer or further than ever"
	case PartTexture:
		return "it has never been so quiet, or so restless"
	case PartCreep:
		return fmt.Sprintf("small steps have together widened its range more than twofold, to %.4g to %.4g", s.Low, s.High)
	case PartMoment:
		return fmt.Sprintf("a sudden change to %.4g where about %.4g is usual", s.Value, expected)
	}
	return ""
}

// leastNovelty is the smallest excursion told at all. A record that beats the
// last one by less is what records do.
const leastNovelty = 0.1

// novelProbability is the share of observations of an ordinary series whose
// novelty, in widths of its range times the logarithm of its length, is as
// large. It lies a little above what streams of ten shapes, made and public,
// have in common.
func novelProbability(y float64) float64 {
	if y < leastNovelty {
		return 1
	}
	return 0.004 * math.Pow(1+10*y, -1.25)
}

// momentProbability is the same of a sudden change, in usual ones. A change
// that stays inside the range a series has always had is never taken for rarer
// than one in five hundred, however abrupt.
func momentProbability(z float64) float64 {
	if z <= 0 {
		return 1
	}
	return 0.002 + 0.04*math.Pow(1+z/2, -1.75)
}
