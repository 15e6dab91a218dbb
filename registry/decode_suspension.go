package registry

import "math"

// suspension reads a Suspension. A thousand of them at once go to every sidecar,
// and whoever imposed them waits for the last: reading them by encoding/json was
// two thirds of the work of applying them.
func (d *decoder) suspension(data []byte, x *Suspension) bool {
	s := scanner{b: data}
	var id, subject, reason, liftReason []byte
	seen := uint32(0)
	for s.open('{'); s.next('}'); {
		switch key := s.key(); string(key) {
		case "id":
			s.once(&seen, 0)
			id = s.text()
		case "subject":
			s.once(&seen, 1)
			subject = s.subject(&x.Subject)
		case "reason":
			s.once(&seen, 2)
			reason = s.text()
		case "emergency":
			s.once(&seen, 3)
			x.Emergency = s.bool()
		case "automatic":
			s.once(&seen, 4)
			x.Automatic = s.bool()
		case "imposed_by":
			s.once(&seen, 5)
			x.ImposedBy = d.word(s.text())
		case "imposed_at":
			s.once(&seen, 6)
			x.ImposedAt = s.time()
		case "confirmed_by":
			s.once(&seen, 7)
			x.ConfirmedBy = d.word(s.text())
		case "starts_at":
			s.once(&seen, 8)
			x.Starts = s.time()
		case "expires_at":
			s.once(&seen, 9)
			x.Expires = s.time()
		case "lifted_at":
			s.once(&seen, 10)
			x.LiftedAt = s.time()
		case "lifted_by":
			s.once(&seen, 11)
			x.LiftedBy = d.word(s.text())
		case "lift_reason":
			s.once(&seen, 12)
			liftReason = s.text()
		case "notice_id":
			s.once(&seen, 13)
			x.NoticeID = d.word(s.text())
		case "incident_id":
			s.once(&seen, 14)
			x.IncidentID = d.word(s.text())
		case "revision":
			s.once(&seen, 15)
			x.Revision = Revision(s.number())
		case "rate":
			s.once(&seen, 16)
			n := s.number()
			s.fail(n > math.MaxInt64)
			x.Rate = int64(n)
		case "max_risk":
			s.once(&seen, 17)
			n := s.number()
			s.fail(n > 255)
			x.MaxRisk = Risk(n)
		case "effect":
			s.once(&seen, 18)
			x.Effect = Effect(s.enum(effectWords))
		default:
			return false
		}
	}
	if !s.end() {
		return false
	}
	x.ID, x.Subject.ID = twoStrings(id, subject)
	x.Reason, x.LiftReason = d.word(reason), d.word(liftReason)
	return true
}

// subject reads what is suspended, and returns its ID to be copied.
func (s *scanner) subject(x *SubjectRef) (id []byte) {
	seen := uint32(0)
	for s.open('{'); s.next('}'); {
		switch key := s.key(); string(key) {
		case "kind":
			s.once(&seen, 0)
			x.Kind = Kind(s.enum(kindWords))
		case "id":
			s.once(&seen, 1)
			id = s.text()
		default:
			s.failed = true
		}
	}
	return id
}

// number reads a whole number of up to 19 digits.
func (s *scanner) number() (n uint64) {
	from := s.i
	for !s.failed && s.i < len(s.b) && s.b[s.i]-'0' <= 9 && s.i-from < 19 {
		n = n*10 + uint64(s.b[s.i]-'0')
		s.i++
	}
	s.fail(s.i == from || s.b[from] == '0' && s.i-from > 1)
	return n
}
