package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// History is what one trial saw, all by one clock.
type History struct {
	Requests    []Request
	Arrivals    []Arrival
	Suspensions []Suspension
	Finals      []Final
	// Ends is what was found wrong in the end: a process that did not recover.
	Ends []string
}

// Request is one call by a client through an Envoy.
type Request struct {
	Product    string
	Risk       registry.Risk // of the service called
	Envoy      int
	Sent, Done time.Time
	Status     int    // 0: no answer
	Code       string // of a denial
	Decision   string // ID, when the upstream answered
}

// Arrival is one request that the upstream let in: its stamp was good.
type Arrival struct {
	Product  string
	Risk     registry.Risk
	At       time.Time
	Decision string
}

// Suspension is one that was answered as done: committed and durable.
type Suspension struct {
	ID, Product      string
	Called, Returned time.Time
	Complete         bool
	Sidecars         []registry.SidecarState
	// LiftCalled is when a lift of it was first asked for; zero: never.
	LiftCalled time.Time
}

// Final is how the end of the trial found a suspension that nobody lifted.
type Final struct {
	Suspension string
	Envoy      int  // -1: the control plane's own answer
	Denied     bool // or, for the control plane, active
	What       string
}

// Limits are what the promises are counted with.
type Limits struct {
	// Stamp is how long after its decision a request may reach the upstream: the
	// stamp's validity and the declared skew.
	Stamp time.Duration
	// Exposure is the longest that an answer may name: a lease, its margin, and how
	// long the suspend itself took.
	Exposure time.Duration
	// SidecarsOf are the sidecars of each Envoy.
	SidecarsOf map[int][]string
}

// Violation is one promise broken.
type Violation struct {
	Promise string // P1, P2, P3, lost, end
	What    string
}

// Judge holds a history against what a suspend promises: with ret its return,
//
//	P1   no Check that starts after ret is allowed,
//	P2   no request reaches an upstream that verifies stamps after ret,
//	P3   otherwise the answer names who may still serve and until when, and that
//	     holds for P1 and P2,
//
// each until a lift is asked for; and what was answered as durable is in force
// in the end.
func Judge(h *History, l Limits) (found []Violation) {
	envoyOf := map[string]int{} // of a decision, when its client knows
	for i := range h.Requests {
		if r := &h.Requests[i]; r.Decision != "" {
			envoyOf[r.Decision] = r.Envoy
		}
	}
	add := func(promise, format string, args ...any) {
		found = append(found, Violation{promise, fmt.Sprintf(format, args...)})
	}
	for i := range h.Suspensions {
		s := &h.Suspensions[i]
		if !s.Complete {
			judgeNames(s, &l, add)
		}
		for j := range h.Requests {
			r := &h.Requests[j]
			// Answered before a lift was asked for, it was decided before.
			if r.Product != s.Product || r.Status != 200 || !s.LiftCalled.IsZero() && !r.Done.Before(s.LiftCalled) {
				continue
			}
			bound := s.bound(r.Risk, l.SidecarsOf[r.Envoy])
			if r.Sent.After(bound) {
				add(s.promise("P1"), "%s: a request sent %v after the return of %s, %v after the bound, was allowed through Envoy %d at rating %d (decision %s)",
					s.Product, r.Sent.Sub(s.Returned), s.ID, r.Sent.Sub(bound), r.Envoy+1, r.Risk, r.Decision)
			}
		}
		for _, a := range h.Arrivals {
			if a.Product != s.Product || !s.LiftCalled.IsZero() && !a.At.Before(s.LiftCalled) {
				continue
			}
			var sidecars []string // all, when nobody knows through which Envoy it came
			if e, known := envoyOf[a.Decision]; known {
				sidecars = l.SidecarsOf[e]
			} else {
				for _, more := range l.SidecarsOf {
					sidecars = append(sidecars, more...)
				}
			}
			bound := s.bound(a.Risk, sidecars)
			if !s.Complete {
				bound = bound.Add(l.Stamp) // what is named is until when it is decided
			}
			if a.At.After(bound) {
				add(s.promise("P2"), "%s: decision %s reached the upstream %v after the return of %s, %v after the bound, at rating %d",
					s.Product, a.Decision, a.At.Sub(s.Returned), s.ID, a.At.Sub(bound), a.Risk)
			}
		}
	}
	for _, f := range h.Finals {
		if !f.Denied {
			add("lost", "%s was answered as durable, nobody lifted it, and it is not in force: %s", f.Suspension, f.What)
		}
	}
	for _, e := range h.Ends {
		add("end", "%s", e)
	}
	return found
}

// promise is P3 where the answer was that it is not complete.
func (s *Suspension) promise(whole string) string {
	if s.Complete {
		return whole
	}
	return "P3"
}

// bound is from when on nothing of the product may be allowed by any of these
// sidecars, at a rating.
func (s *Suspension) bound(risk registry.Risk, sidecars []string) time.Time {
	bound := s.Returned
	if s.Complete {
		return bound
	}
	for i := range s.Sidecars {
		c := &s.Sidecars[i]
		if c.State == registry.Acknowledged || c.ID != registry.UnknownSidecars && !slices.Contains(sidecars, c.ID) {
			continue
		}
		// The millisecond named is over only at its end.
		if until := c.Until[risk].Std().Add(time.Millisecond); until.After(bound) {
			bound = until
		}
	}
	return bound
}

// boundAll is from when on nothing of the product may be allowed by anybody.
func (s *Suspension) boundAll() time.Time {
	bound := s.Returned
	for i := range s.Sidecars {
		if c := &s.Sidecars[i]; !s.Complete && c.State != registry.Acknowledged {
			for _, until := range c.Until {
				if u := until.Std().Add(time.Millisecond); u.After(bound) {
					bound = u
				}
			}
		}
	}
	return bound
}

// judgeNames: an answer that is not complete names who is not, until when for
// every rating, and no further off than a lease.
func judgeNames(s *Suspension, l *Limits, add func(string, string, ...any)) {
	pending := 0
	for i := range s.Sidecars {
		c := &s.Sidecars[i]
		if c.State == registry.Acknowledged {
			continue
		}
		if c.State == registry.Pending {
			pending++
		}
		for _, risk := range []registry.Risk{1, 2, 3, 4} {
			until, ok := c.Until[risk]
			switch {
			case !ok:
				add("P3", "%s of %s: %s is %s, and no instant is named for rating %d", s.ID, s.Product, c.ID, c.State, risk)
			case until.Std().After(s.Returned.Add(l.Exposure)):
				add("P3", "%s of %s: %s is named as exposed for %v at rating %d, longer than any lease", s.ID, s.Product, c.ID, until.Std().Sub(s.Returned), risk)
			}
		}
	}
	if pending == 0 {
		add("P3", "%s of %s: not complete, and nobody is named as pending", s.ID, s.Product)
	}
}
