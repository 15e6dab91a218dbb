package translog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// What Verify finds wrong.
var (
	ErrEntries    = errors.New("the entries are not those that were signed")
	ErrTruncated  = errors.New("entries are missing at the end")
	ErrRewritten  = errors.New("history was rewritten")
	ErrSignature  = errors.New("the checkpoint is not signed by this log")
	ErrUnwitness  = errors.New("the checkpoint lacks a witness's cosignature")
	ErrOrder      = errors.New("the entries contradict each other")
	errExportForm = errors.New("not an export of the audit log")
)

// exportLineMax bounds a line of an export.
const exportLineMax = 1 << 20

// Exports are lines of JSON: first the checkpoint, then each entry in order.
type exportHead struct {
	Checkpoint string `json:"checkpoint"`
}

type exportEntry struct {
	Index int64  `json:"index"`
	Leaf  string `json:"leaf"`
}

// WriteExport writes the head of an export; entries follow by WriteEntry.
func WriteExport(w io.Writer, checkpoint []byte) error {
	return json.NewEncoder(w).Encode(exportHead{string(checkpoint)})
}

// WriteEntry writes one entry of an export.
func WriteEntry(w io.Writer, e Entry) error {
	return json.NewEncoder(w).Encode(exportEntry{e.Index, string(e.Leaf)})
}

// Check is what an export is held against.
type Check struct {
	// Log verifies the log's own signature. Needed.
	Log note.Verifier
	// Earlier are checkpoints that were kept, signed by the log: the export must
	// extend each.
	Earlier [][]byte
	// Witnesses must each have cosigned the export's checkpoint or, Earlier being
	// cosigned too, one of those.
	Witnesses []note.Verifier
}

// Report is what a verified export holds.
type Report struct {
	Tree     tlog.Tree
	Kinds    map[string]int64 // entries by kind
	Extended int              // earlier checkpoints that it extends
	Revision uint64           // of the last change with an entry
}

// Verify reads an export, computes the whole tree from its entries and holds
// it against the signed checkpoint and everything in c. Memory does not grow
// with the export.
func Verify(r io.Reader, c Check) (*Report, error) {
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 0, 64<<10), exportLineMax)
	var head exportHead
	if !in.Scan() || strict(in.Bytes(), &head) != nil || head.Checkpoint == "" {
		return nil, fmt.Errorf("line 1: %w", errors.Join(errExportForm, in.Err()))
	}
	tree, err := OpenCheckpoint([]byte(head.Checkpoint), c.Log)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	earlier, err := c.open()
	if err != nil {
		return nil, err
	}
	rep := &Report{Tree: tree, Kinds: map[string]int64{}}
	f := &frontier{roots: map[int64]tlog.Hash{}}
	for _, e := range earlier {
		f.roots[e.N] = tlog.Hash{} // asked for
	}
	for in.Scan() {
		var e exportEntry
		if err := strict(in.Bytes(), &e); err != nil {
			return nil, fmt.Errorf("line %d: %w: %w", f.n+2, errExportForm, err)
		}
		if e.Index != f.n {
			return nil, fmt.Errorf("%w: entry %d stands where %d should", ErrEntries, e.Index, f.n)
		}
		if err := rep.follow(e); err != nil {
			return nil, err
		}
		f.add([]byte(e.Leaf))
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("line %d: %w", f.n+2, err)
	}
	if err := rep.judge(f, earlier); err != nil {
		return nil, err
	}
	return rep, c.cosigned(head.Checkpoint)
}

// follow checks what entries say of each other: revisions go up, one by one.
func (rep *Report) follow(e exportEntry) error {
	leaf, err := ParseLeaf([]byte(e.Leaf))
	if err != nil {
		return fmt.Errorf("entry %d: %w", e.Index, err)
	}
	rep.Kinds[leaf.Kind]++
	switch rev := uint64(leaf.Revision); leaf.Kind {
	case KindBegin, KindGap:
		rep.Revision = rev
	case KindChange:
		if rev != rep.Revision+1 {
			return fmt.Errorf("%w: entry %d is of revision %d, the one before of %d", ErrOrder, e.Index, rev, rep.Revision)
		}
		rep.Revision = rev
	}
	return nil
}

func (rep *Report) judge(f *frontier, earlier []tlog.Tree) error {
	for _, e := range earlier {
		switch {
		case e.N > f.n:
			return fmt.Errorf("%w: an earlier checkpoint has %d entries, the export %d", ErrTruncated, e.N, f.n)
		case f.rootAt(e.N) != e.Hash:
			return fmt.Errorf("%w: the first %d entries are not those of the checkpoint kept earlier", ErrRewritten, e.N)
		}
		rep.Extended++
	}
	switch {
	case f.n < rep.Tree.N:
		return fmt.Errorf("%w: the checkpoint has %d entries, the export %d", ErrTruncated, rep.Tree.N, f.n)
	case f.n > rep.Tree.N:
		return fmt.Errorf("%w: the export has %d entries, the checkpoint only %d", ErrEntries, f.n, rep.Tree.N)
	case f.rootAt(f.n) != rep.Tree.Hash:
		return fmt.Errorf("%w: their root is %v, the signed one %v", ErrEntries, f.rootAt(f.n), rep.Tree.Hash)
	}
	return nil
}

func (c *Check) open() ([]tlog.Tree, error) {
	var out []tlog.Tree
	for i, b := range c.Earlier {
		t, err := OpenCheckpoint(b, c.Log)
		if err != nil {
			return nil, fmt.Errorf("earlier checkpoint %d: %w: %w", i+1, ErrSignature, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// cosigned asks for every witness's cosignature, on the export's checkpoint or an earlier one.
func (c *Check) cosigned(checkpoint string) error {
	for _, w := range c.Witnesses {
		found := false
		for _, b := range append([][]byte{[]byte(checkpoint)}, c.Earlier...) {
			n, err := note.Open(b, note.VerifierList(c.Log, w))
			found = found || err == nil && hasSignature(n, w)
		}
		if !found {
			return fmt.Errorf("%w: %s", ErrUnwitness, w.Name())
		}
	}
	return nil
}

func hasSignature(n *note.Note, v note.Verifier) bool {
	for _, s := range n.Sigs {
		if s.Name == v.Name() && s.Hash == v.KeyHash() {
			return true
		}
	}
	return false
}

func strict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if d.More() {
		return errors.New("more than one value on a line")
	}
	return nil
}

// frontier is the right edge of a tree that grows: the roots of its complete
// subtrees, largest first.
type frontier struct {
	n     int64
	stack []tlog.Hash
	roots map[int64]tlog.Hash // by size, for the sizes asked for
}

func (f *frontier) add(leaf []byte) {
	h := tlog.RecordHash(leaf)
	for n := f.n; n&1 == 1; n >>= 1 { // each trailing one completes a subtree
		h = tlog.NodeHash(f.stack[len(f.stack)-1], h)
		f.stack = f.stack[:len(f.stack)-1]
	}
	f.stack = append(f.stack, h)
	f.n++
	if _, asked := f.roots[f.n]; asked {
		f.roots[f.n] = f.root()
	}
}

func (f *frontier) root() tlog.Hash {
	if len(f.stack) == 0 {
		return emptyRoot()
	}
	h := f.stack[len(f.stack)-1]
	for i := len(f.stack) - 2; i >= 0; i-- {
		h = tlog.NodeHash(f.stack[i], h)
	}
	return h
}

func (f *frontier) rootAt(n int64) tlog.Hash {
	switch n {
	case f.n:
		return f.root()
	case 0:
		return emptyRoot()
	}
	return f.roots[n]
}
