package anomaly

import (
	"math"
	"math/rand/v2"
)

// stream is a made series of an ordinary shape, a value every five minutes.
type stream struct {
	name string
	next func(i int, r *rand.Rand) float64
}

const (
	streamStart = 1_700_006_400 // a Wednesday, midnight
	streamStep  = 300
	dayRows     = 86400 / streamStep
)

func at(i int) int64 { return streamStart + int64(i)*streamStep }

// daylight is the time of day as a height from 0 to 1.
func daylight(i int) float64 { return 0.5 - 0.5*math.Cos(2*math.Pi*float64(i)/dayRows) }

func poisson(r *rand.Rand, mean float64) float64 {
	limit, k, p := math.Exp(-mean), 0, r.Float64()
	for ; p > limit; k++ {
		p *= r.Float64()
	}
	return float64(k)
}

// ordinary are the shapes API callers have on a day on which nothing happens.
func ordinary() []stream {
	var auto, walk float64
	return []stream{
		{"steady", func(_ int, r *rand.Rand) float64 { return 50 + 2*r.NormFloat64() }},
		{"daily", func(i int, r *rand.Rand) float64 { return 20 + 50*daylight(i) + 3*r.NormFloat64() }},
		{"weekly", func(i int, r *rand.Rand) float64 {
			share := 1.0
			if i/dayRows%7 >= 5 {
				share = 0.4
			}
			mean := 30 + 200*daylight(i)*share
			return math.Round(mean + 1.5*math.Sqrt(mean)*r.NormFloat64())
		}},
		{"bursty", func(_ int, r *rand.Rand) float64 {
			auto = 0.8*auto + 0.6*r.NormFloat64()
			return 10 * math.Exp(0.5*auto)
		}},
		{"wandering", func(_ int, r *rand.Rand) float64 {
			walk = 0.995*walk + 0.1*r.NormFloat64()
			return 100 + 3*walk + 0.5*r.NormFloat64()
		}},
		{"counts", func(i int, r *rand.Rand) float64 { return poisson(r, 0.5+6*daylight(i)) }},
		{"square", func(i int, r *rand.Rand) float64 {
			v := 20 + 0.7*r.NormFloat64()
			if i%dayRows < 100 {
				v += 60
			}
			return v
		}},
		{"constant", func(int, *rand.Rand) float64 { return 7 }},
	}
}

func seeded(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }
