package anomaly

import "math"

// population is how large each signal is among subjects that have a past: what a
// newcomer is held against until it has one. It counts by powers of √2.
type population struct {
	count [kinds][firstRule][populationBins]float64
	total [kinds][firstRule]float64
}

const (
	populationBins = 64
	// populationMin is how many windows must have been seen for a tail to mean
	// something.
	populationMin = 2000
	// populationFade is how much of the past an hour leaves: about two weeks.
	populationFade = 1 - 1.0/(24*14)
)

func populationBin(v float64) int {
	if !(v > 0) {
		return 0
	}
	return min(max(1+int(math.Floor(2*math.Log2(v)))+16, 1), populationBins-1)
}

func (p *population) add(k Kind, s SignalName, v float64) {
	p.count[k][s][populationBin(v)]++
	p.total[k][s]++
}

// tail is the share of windows in which others' values were as large; 1 while
// too little is known of others.
func (p *population) tail(k Kind, s SignalName, v float64) float64 {
	if p.total[k][s] < populationMin {
		return 1
	}
	n := 1.0 // itself
	for _, c := range p.count[k][s][populationBin(v):] {
		n += c
	}
	return min(1, n/(p.total[k][s]+1))
}

func (p *population) fade() {
	for k := range p.count {
		for s := range p.count[k] {
			p.total[k][s] *= populationFade
			for b := range p.count[k][s] {
				p.count[k][s][b] *= populationFade
			}
		}
	}
}
