package control

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/translog"
)

// The audit log as the API shows it: what an auditor needs to check it without
// believing this control plane.

type checkpointView struct {
	Origin     string `json:"origin" doc:"The log's name, and its key's."`
	Size       int64  `json:"size" doc:"Entries."`
	Root       string `json:"root" doc:"Of the Merkle tree (RFC 6962), base64."`
	Checkpoint string `json:"checkpoint" doc:"The signed note of these (C2SP tlog-checkpoint). Keep it: no later log can deny what it covers."`
	Cosigned   string `json:"cosigned,omitempty" doc:"The newest checkpoint that every witness has cosigned (C2SP tlog-cosignature)."`
}

type auditEntryView struct {
	Index int64  `json:"index"`
	Hash  string `json:"hash" doc:"SHA-256(0x00 || leaf), base64."`
	Leaf  string `json:"leaf" doc:"The entry as it was hashed, byte for byte."`
}

type proofView struct {
	Size       int64           `json:"size"`
	Root       string          `json:"root"`
	Checkpoint string          `json:"checkpoint"`
	Entry      *auditEntryView `json:"entry,omitempty" doc:"For a proof of inclusion."`
	From       int64           `json:"from,omitempty" doc:"For a proof of consistency: the size that the tree had."`
	Hashes     []string        `json:"hashes" doc:"The proof (RFC 6962 §2.1.1 or §2.1.2), base64."`
}

var errNoAudit = fmt.Errorf("%w: this control plane keeps no audit log", registry.ErrNotFound)

func (s *server) auditCheckpoint(*call) (answer, error) {
	if s.audit == nil {
		return answer{}, errNoAudit
	}
	signed, st, err := s.audit.Checkpoint()
	if err != nil {
		return answer{}, err
	}
	return answer{data: checkpointView{
		Origin: s.audit.Origin(), Size: st.Size, Root: st.Root.String(), Checkpoint: string(signed), Cosigned: string(s.audit.Cosigned()),
	}}, nil
}

// auditEntries pages through the entries, the oldest first.
func (s *server) auditEntries(c *call) (answer, error) {
	if s.audit == nil {
		return answer{}, errNoAudit
	}
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	after, err := c.filterUint("after", 0, 1<<53, 0)
	if err != nil {
		return answer{}, err
	}
	st, err := s.audit.State()
	if err != nil {
		return answer{}, err
	}
	var total uint64
	if uint64(st.Size) > after {
		total = uint64(st.Size) - after
	}
	out := []any{}
	if skip := (page - 1) * limit; skip < total {
		entries, err := s.audit.Entries(c.r.Context(), int64(after+skip), int(limit))
		if err != nil {
			return answer{}, err
		}
		for i := range entries {
			out = append(out, viewEntry(&entries[i]))
		}
	}
	return answer{data: out, page: c.pageInfo(page, limit, total)}, nil
}

func viewEntry(e *translog.Entry) auditEntryView {
	return auditEntryView{Index: e.Index, Hash: e.Hash().String(), Leaf: string(e.Leaf)}
}

// auditProofs proves one entry (entry=) or that the log extends what it was (size=).
func (s *server) auditProofs(c *call) (answer, error) {
	if s.audit == nil {
		return answer{}, errNoAudit
	}
	_, byEntry := c.filter("entry")
	_, bySize := c.filter("size")
	index, err := c.filterUint("entry", 0, 1<<53, 0)
	if err != nil {
		return answer{}, err
	}
	size, err := c.filterUint("size", 1, 1<<53, 1)
	switch {
	case err != nil:
		return answer{}, err
	case byEntry == bySize:
		return answer{}, wrongParam("entry", "ask for one proof: entry=, that the log holds an entry; or size=, that it extends what it was with so many")
	}
	var v proofView
	var st translog.State
	if byEntry {
		e, p, at, perr := s.audit.ProveLeaf(c.r.Context(), int64(index))
		st, err = at, perr
		entry := viewEntry(&e)
		v.Entry, v.Hashes = &entry, hashTexts(p)
	} else {
		p, at, perr := s.audit.ProveTree(c.r.Context(), int64(size))
		st, err = at, perr
		v.From, v.Hashes = int64(size), hashTexts(p)
	}
	if err != nil {
		return answer{}, err
	}
	v.Size, v.Root, v.Checkpoint = st.Size, st.Root.String(), string(st.Checkpoint)
	return answer{data: v}, nil
}

func hashTexts(hashes []tlog.Hash) []string {
	out := make([]string, len(hashes))
	for i, h := range hashes {
		out[i] = h.String()
	}
	return out
}

// noteReading puts a reading of personal data on record before it is answered.
func (s *server) noteReading(c *call, a answer) error {
	if s.audit == nil || c.route.personal == "" {
		return nil
	}
	subjects := c.subjectsOf(a)
	if len(subjects) == 0 {
		return nil // an empty page tells of nobody
	}
	return s.noteReadingOf(c, subjects...)
}

func (s *server) noteReadingOf(c *call, subjects ...string) error {
	if s.audit == nil {
		return nil
	}
	leaf := translog.Leaf{Kind: translog.KindRead, Actor: c.actor.Name, Command: c.route.personal, Request: c.id, Subjects: subjects}
	err := s.audit.Append(c.r.Context(), leaf)
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("%w: the reading could not be put on record, so nothing is shown: %w", registry.ErrUnavailable, err)
	}
	return err
}

// subjectsOf are the records that an answer tells of.
func (c *call) subjectsOf(a answer) []string {
	if c.route.kind != registry.NoKind {
		return []string{c.route.kind.String() + "/" + cut(c.path(c.route.value), 200)}
	}
	items, list := a.data.([]any)
	if !list {
		items = []any{a.data}
	}
	var out []string
	for _, x := range items {
		if key := c.subjectOf(x); key != "" && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	return out
}

func (c *call) subjectOf(x any) string {
	switch x := x.(type) {
	case record:
		return c.subjectOf(x.value)
	case *registry.Entity:
		return "entity/" + x.ABN.String()
	case *registry.Subscription:
		return "subscription/" + x.SSID
	case memberView:
		return "entity/" + x.Entity.String()
	case invitationView:
		return "entity/" + x.Entity.String()
	case *assurance.Evidence:
		return "evidence/" + x.ID
	case registrationView:
		return "registration/" + x.ABN.String()
	case decisionView:
		return "decision/" + x.ID
	case explanation:
		return "decision/" + x.Decision.ID
	case meView:
		if x.Entity != nil {
			return "entity/" + x.Entity.ABN.String()
		}
	}
	return ""
}
