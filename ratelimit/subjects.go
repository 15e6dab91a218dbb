package ratelimit

// subjects are the distinct subjects of a day, as keyed hashes. nil is empty.
type subjects struct {
	seen map[[16]byte]struct{}
}

func (s *subjects) len() int {
	if s == nil {
		return 0
	}
	return len(s.seen)
}

func (s *subjects) has(h *[16]byte) bool {
	if s == nil {
		return false
	}
	_, ok := s.seen[*h]
	return ok
}

func (s *subjects) add(h *[16]byte) {
	if s.seen == nil {
		s.seen = map[[16]byte]struct{}{}
	}
	s.seen[*h] = struct{}{}
}

func (s *subjects) remove(h *[16]byte) bool {
	if !s.has(h) {
		return false
	}
	delete(s.seen, *h)
	return true
}
