package ratelimittest

import (
	"cmp"
	"slices"

	rl "github.com/dspgate/dspgate/ratelimit"
)

// Who has a seat, with which standing parts, and what those leave behind who
// ended.

type seat struct {
	name         string
	beat         uint64
	index, parts int
	granted      bool
	absent       bool
	until        int64 // the greatest rl.Request.Until
	whole        bool
	low          int // the fewest parts there were since it was whole: its part was never larger
	born         int64
}

// dead is what is known of those who held a standing part and may have spent from it.
type dead struct {
	tenure uint64 // the last of them who did not say how much
	low    int    // the fewest parts of such, 0 when there was none
	until  int64  // they spent from periods that began by then
	over   int64  // seconds at least since it ended
}

// join seats a sidecar at the lowest index that is free. It gets no part before
// everybody shares out among enough.
func (p *Pool) join(req *rl.Request, rep *rl.Reply) {
	taken := map[int]bool{}
	for tenure, s := range p.seats {
		if req.Dead && s.name == req.Seat && s.born < req.Born {
			p.drop(tenure, false)
			continue
		}
		taken[s.index] = true
	}
	index := 0
	for taken[index] {
		index++
	}
	if len(p.seats) == 0 {
		// The first of a new fleet has the parts of all that were before.
		p.parts, p.granted = 0, 0
		if len(p.dirty) > 0 {
			first := p.dirty[0]
			for _, d := range p.dirty {
				first.until = max(first.until, d.until)
			}
			p.dirty[0] = first
		}
	}
	p.counter++
	p.seats[p.counter] = &seat{name: req.Seat, beat: req.Beat, index: index, until: req.Until, whole: req.Whole, born: req.Born}
	if n := max(p.parts, len(p.seats), index+1); n > p.parts {
		p.parts = n
		p.ring(rl.Hint{})
	}
	rep.Tenure = p.counter
	p.grant(p.counter, 0, rep)
}

// grant answers which part a seat has, and gives it one when it may.
func (p *Pool) grant(tenure uint64, reqParts int, rep *rl.Reply) {
	s := p.seats[tenure]
	if !s.granted {
		for t, o := range p.seats {
			if t != tenure && o.granted && o.parts < p.parts {
				return
			}
		}
		s.granted, s.parts, s.low = true, p.parts, p.parts
		if s.index >= p.granted {
			// Its part is what the others made theirs smaller by.
			for t, o := range p.seats {
				if t != tenure && o.granted && !o.whole {
					d := p.dirty[s.index]
					d.until = max(d.until, o.until)
					p.dirty[s.index] = d
				}
			}
			p.granted = s.index + 1
		}
	}
	if reqParts == 0 { // it does not know yet that it has a part: the answer may have got lost
		for key := range p.records {
			rep.Hot = append(rep.Hot, key)
		}
		slices.SortFunc(rep.Hot, func(a, b rl.HotLimit) int {
			return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Period, b.Period))
		})
		if d, spent := p.dirty[s.index]; spent && p.Plant != FullSpentParts {
			rep.Spent, rep.SpentUntil = true, d.until
		}
	}
	rep.Parts, rep.Index = p.parts, s.index
}

// drop ends a tenure. Who did not say what it spent may have spent all of its
// standing parts.
func (p *Pool) drop(tenure uint64, said bool) {
	s := p.seats[tenure]
	if !said && s.granted {
		d := p.dirty[s.index]
		if d.tenure, d.over, d.until = tenure, 0, max(d.until, s.until); d.low == 0 || s.low < d.low {
			d.low = s.low
		}
		p.dirty[s.index] = d
	}
	delete(p.seats, tenure)
	p.gen++
}

func (p *Pool) claim(by uint64, claims []rl.Claim) {
	for _, c := range claims {
		s := p.seats[c.Tenure]
		if s == nil && c.Gone {
			for index, d := range p.dirty {
				if d.tenure == c.Tenure && d.low > 0 {
					d.over = max(d.over, c.Over)
					p.dirty[index] = d
				}
			}
		}
		if s == nil || c.Tenure == by || s.beat != c.Beat && p.Plant != TrustClaims {
			continue
		}
		if c.Gone {
			p.drop(c.Tenure, false)
		} else if !s.absent {
			s.absent = true
			p.gen++
		}
	}
}

// missing is what may have been spent of a limit that nobody spoke of, beyond
// the standing parts of those who have a seat: from parts that were larger, which
// are the pool's by now, and by the dead. Of a rate it comes back by itself.
func (p *Pool) missing(kind rl.Kind, total rl.Share, begin int64) (tokens int64) {
	known := map[int]int64{} // by index, what of it is not the pool's, or is counted
	for _, s := range p.seats {
		if s.granted {
			was, is := rl.Standing(kind, total, s.low, s.index), rl.Standing(kind, total, s.parts, s.index)
			tokens += max(was.Cap-is.Cap, 0)
			known[s.index] = is.Cap
			if kind.Calendar() { // it leaves alone what its predecessor may have spent
				known[s.index] = max(was.Cap, is.Cap)
			}
		}
	}
	for index, d := range p.dirty {
		if d.low == 0 || kind.Calendar() && d.until < begin || p.Plant == ForgetDead {
			continue
		}
		was := rl.Standing(kind, total, d.low, index)
		more := max(was.Cap-known[index], 0)
		if kind == rl.Rate {
			more = min(more, max(was.Cap-was.Rate*d.over, 0))
		}
		tokens += more
	}
	return tokens
}
