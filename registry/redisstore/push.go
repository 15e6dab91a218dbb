package redisstore

import (
	"strconv"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// pushBytesMax bounds one message.
const pushBytesMax = 1 << 20

// notePush takes in a message. What is not wholly well-formed is a wake-up only:
// the poll that follows says what is wrong, if anything is.
func (s *Store) notePush(message string) { s.pushes.Note(decodePush(message)) }

// Pushed implements registry.Pusher.
func (s *Store) Pushed(after registry.Revision) []registry.Change { return s.pushes.Pushed(after) }

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
