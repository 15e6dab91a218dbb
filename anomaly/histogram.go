package anomaly

import "math"

const bins = 64

// histogramFrom is how many observations set the first width of the bins.
const histogramFrom = 20

// histogram counts how often values of each size were seen. When a value falls
// outside, the bins double their width and pairs of them merge.
type histogram struct {
	Low, Width float64
	Total      uint32
	Count      [bins]uint16
}

// rarity is how surprising v is, in nats: minus the logarithm of the share of
// the past that was about as large. It counts v.
func (h *histogram) rarity(v float64, seen span, n uint32) float64 {
	if h.Width == 0 && !h.begin(v, seen, n) {
		return 0
	}
	i := h.bin(v)
	c := float64(h.Count[i])
	if i > 0 {
		c += float64(h.Count[i-1]) / 2
	}
	if i < bins-1 {
		c += float64(h.Count[i+1]) / 2
	}
	r := -math.Log((c + 1) / (float64(h.Total) + bins))
	h.add(i)
	return r
}

// begin sets the width so that what was seen fills half of the bins.
func (h *histogram) begin(v float64, seen span, n uint32) bool {
	wide := seen.High - seen.Low
	if n < histogramFrom || wide == 0 {
		if n < histogramFrom || v == seen.Low {
			return false
		}
		wide = math.Abs(v - seen.Low) // nothing ever moved until now
	}
	h.Width = wide * 2 / bins
	h.Low = (seen.High+seen.Low)/2 - wide
	h.Total = n
	return h.Width > 0
}

// bin is where v belongs, after the bins were widened to hold it.
func (h *histogram) bin(v float64) int {
	for range 64 {
		i := math.Floor((v - h.Low) / h.Width)
		if i >= 0 && i < bins {
			return int(i)
		}
		h.widen(i < 0)
	}
	if v < h.Low {
		return 0
	}
	return bins - 1
}

func (h *histogram) widen(down bool) {
	base := 0
	var merged [bins]uint16
	if down {
		base = bins / 2
		h.Low -= h.Width * bins
	}
	for i, c := range h.Count {
		m := &merged[base+i/2]
		*m = uint16(min(math.MaxUint16, uint32(*m)+uint32(c)))
	}
	h.Count = merged
	h.Width *= 2
}

// add counts one in bin i; a full bin halves all of them, which forgets evenly.
func (h *histogram) add(i int) {
	if h.Count[i] == math.MaxUint16 {
		for j := range h.Count {
			h.Count[j] /= 2
		}
		h.Total /= 2
	}
	h.Count[i]++
	h.Total++
}
