package ratelimit

// subjectsKept is how many subjects a sidecar remembers of one limit at least,
// and half of how many at most. One that it forgot is counted once more when it
// comes again, until the pool has said that it is known.
const subjectsKept = 65536

// subjects are distinct subjects of a day, as keyed hashes: the last ones that
// were seen for the first time. nil is empty.
type subjects struct {
	now, before map[[16]byte]struct{}
}

func (s *subjects) len() int {
	if s == nil {
		return 0
	}
	return len(s.now) + len(s.before)
}

func (s *subjects) has(h *[16]byte) bool {
	if s == nil {
		return false
	}
	_, ok := s.now[*h]
	if !ok {
		_, ok = s.before[*h]
	}
	return ok
}

func (s *subjects) add(h *[16]byte) {
	if len(s.now) >= subjectsKept {
		s.before, s.now = s.now, nil
	}
	if s.now == nil {
		s.now = map[[16]byte]struct{}{}
	}
	s.now[*h] = struct{}{}
}

func (s *subjects) remove(h *[16]byte) bool {
	if !s.has(h) {
		return false
	}
	delete(s.now, *h)
	delete(s.before, *h)
	return true
}
