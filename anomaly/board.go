package anomaly

import (
	"math"
	"sync/atomic"
	"time"
)

// Board is where a decision finds what is known of its subjects: one atomic
// load and a look into a small map, never a wait, never more than a number. It
// holds only subjects that stand out. The zero value is empty.
type Board struct {
	marks atomic.Pointer[posted]
}

type posted struct {
	product, app, subscription map[string]mark
}

type mark struct {
	surprise float64
	until    int64 // ns
}

// boardMax bounds what a board holds.
const boardMax = 1 << 16

// Post replaces what the board says. A mark that is no number, or not above
// nothing, is left out.
func (b *Board) Post(marks []Mark) {
	p := &posted{map[string]mark{}, map[string]mark{}, map[string]mark{}}
	for _, m := range marks[:min(len(marks), boardMax)] {
		if !(m.Surprise > 0) || math.IsInf(m.Surprise, 0) {
			continue
		}
		if into := p.of(m.Subject.Kind); into != nil {
			into[m.Subject.ID] = mark{m.Surprise, m.Until.UnixNano()}
		}
	}
	b.marks.Store(p)
}

func (p *posted) of(k Kind) map[string]mark {
	switch k {
	case Product:
		return p.product
	case ClientApp:
		return p.app
	case Subscription:
		return p.subscription
	}
	return nil
}

// Surprise is how much a subject stands out: −log10 of a tail probability, 0
// when it does not, or not any more, or nobody has said so. A nil board says
// nothing.
func (b *Board) Surprise(k Kind, id string, now time.Time) float64 {
	if b == nil {
		return 0
	}
	p := b.marks.Load()
	if p == nil {
		return 0
	}
	m, ok := p.of(k)[id]
	if !ok || now.UnixNano() >= m.until {
		return 0
	}
	return m.surprise
}
