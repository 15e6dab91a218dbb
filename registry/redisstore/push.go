package redisstore

import (
	"strconv"
	"strings"
	"sync"

	"github.com/dspgate/dspgate/registry"
)

// Bounds of what came with wake-ups and was not fetched yet.
const (
	pushBytesMax   = 1 << 20 // of one message
	pushChangesMax = 4096
)

// pushes are the changes that came with wake-ups: without a gap, oldest first.
type pushes struct {
	mu      sync.Mutex
	changes []registry.Change
}

// note takes in a message. What is not wholly well-formed is a wake-up only:
// the poll that follows says what is wrong, if anything is.
func (p *pushes) note(message string) {
	changes := decodePush(message)
	if len(changes) == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.changes); n > 0 && (p.changes[n-1].Revision+1 != changes[0].Revision || n+len(changes) > pushChangesMax) {
		p.changes = nil
	}
	p.changes = append(p.changes, changes...)
}

// Pushed implements registry.Pusher. Only of a Redis that stands alone: where
// another may be promoted, a subscription can outlive its primary's term, and
// what that one still commits when it wakes up would reach sidecars that follow
// its successor by now, and hold them off until the next change (a chaos trial
// found it).
func (s *Store) Pushed(after registry.Revision) []registry.Change {
	if s.cfg.Master != "" || s.cfg.Cluster || len(s.cfg.Addrs) > 1 || s.cfg.Replicas > 0 {
		return nil
	}
	s.pushes.mu.Lock()
	defer s.pushes.mu.Unlock()
	all := s.pushes.changes
	s.pushes.changes = nil
	if len(all) == 0 || all[0].Revision > after+1 || all[len(all)-1].Revision <= after {
		return nil
	}
	return all[after+1-all[0].Revision:]
}

// decodePush reads what commit.lua publishes: the head's revision, and on the
// next line each change after its length and a colon.
func decodePush(message string) (changes []registry.Change) {
	_, rest, ok := strings.Cut(message, "\n")
	if !ok || len(message) > pushBytesMax {
		return nil
	}
	for rest != "" {
		digits, _, ok := strings.Cut(rest[:min(len(rest), 12)], ":")
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil {
			return nil
		}
		body := rest[len(digits)+1:]
		if n > uint64(len(body)) {
			return nil
		}
		c, err := decodeChange(body[:n])
		if err != nil || len(changes) > 0 && c.Revision != changes[len(changes)-1].Revision+1 {
			return nil
		}
		changes = append(changes, c)
		rest = body[n:]
	}
	return changes
}
