package translog

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// The kinds of leaves.
const (
	KindBegin  = "begin"  // the log begins at Revision; what was changed before has no leaves
	KindChange = "change" // a change of the register
	KindRead   = "read"   // personal data were read
	KindAccess = "access" // a sign-in, a session's end, a token made or revoked, an invitation
	KindGap    = "gap"    // changes up to Revision were trimmed from the register's log before they had leaves
)

// Bounds of a leaf.
const (
	subjectsMax   = 32
	leafBytesMax  = 16 << 10
	subjectCutMax = 300 // bytes
)

// Leaf is one entry of the log; its JSON is what is hashed.
type Leaf struct {
	At   registry.Time `json:"at"`
	Kind string        `json:"kind"`
	// Actor is who did it, as in the register's log.
	Actor string `json:"actor,omitempty"`
	// Command is what was done, such as suspend, or the name of what was read.
	Command string `json:"command,omitempty"`
	// Revision and MAC are of the register's change. The MAC seals its whole
	// content under the register key: who holds the change can show that it is
	// this one, and nobody can guess the content from it.
	Revision registry.Revision `json:"revision,omitempty"`
	MAC      string            `json:"mac,omitempty"`
	// Subjects are the records changed or read, as kind/id; More counts those
	// beyond the first 32.
	Subjects []string `json:"subjects,omitempty"`
	More     int      `json:"more,omitempty"`
	// Request is the x-request-id of a reading.
	Request string `json:"request,omitempty"`
}

// Encode renders the leaf as it is hashed.
func (l *Leaf) Encode() ([]byte, error) {
	out := *l
	if len(out.Subjects) > subjectsMax {
		out.More += len(out.Subjects) - subjectsMax
		out.Subjects = out.Subjects[:subjectsMax]
	}
	masked := make([]string, len(out.Subjects))
	for i, s := range out.Subjects {
		masked[i] = mask(s)
	}
	out.Subjects = masked
	b, err := json.Marshal(&out)
	if err != nil {
		return nil, fmt.Errorf("encode leaf: %w", err)
	}
	if len(b) > leafBytesMax {
		return nil, fmt.Errorf("%w: a leaf of %d bytes, at most %d", registry.ErrInvalid, len(b), leafBytesMax)
	}
	return b, nil
}

// ParseLeaf reads a leaf.
func ParseLeaf(b []byte) (l Leaf, err error) {
	if err := json.Unmarshal(b, &l); err != nil {
		return l, fmt.Errorf("%w: no leaf: %w", registry.ErrInvalid, err)
	}
	return l, nil
}

// mask keeps a tax file number that somebody used as an ID out of the log; the
// change's MAC still says which record it was.
func mask(subject string) string {
	kind, id, ok := strings.Cut(subject, "/")
	if !ok {
		kind, id = "", subject
	}
	if registry.HoldsTFN(id) {
		id = "masked"
	}
	if ok {
		id = kind + "/" + id
	}
	if len(id) > subjectCutMax {
		id = strings.ToValidUTF8(id[:subjectCutMax], "")
	}
	return id
}

// changeLeaf is a change without its content.
func changeLeaf(c *registry.Change) Leaf {
	l := Leaf{
		At: c.At, Kind: KindChange, Actor: c.Actor, Command: c.Command, Revision: c.Revision, MAC: fmt.Sprintf("%x", c.MAC[:]),
	}
	n := min(len(c.Puts), subjectsMax)
	for i := range n {
		l.Subjects = append(l.Subjects, c.Puts[i].Key())
	}
	cases := min(len(c.Cases), subjectsMax-n)
	for i := range cases {
		l.Subjects = append(l.Subjects, c.Cases[i].Key())
	}
	l.More = len(c.Puts) + len(c.Cases) - n - cases
	return l
}
