package console

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/dspgate/dspgate/registry/translog"
)

// The audit log with its proofs, and the log of changes; newest first.

const auditRows = 25

type auditRow struct {
	Index int64
	translog.Leaf
}

func row(e auditEntry) auditRow {
	leaf, err := translog.ParseLeaf([]byte(e.Leaf))
	if err != nil {
		leaf = translog.Leaf{Kind: "unreadable"}
	}
	return auditRow{e.Index, leaf}
}

// window is the part of n things, the newest first, that ends before ?before=.
func (v *visit) window(n int64, here string) (after int64, limit int, older, newer string) {
	before := n
	if b, err := strconv.ParseInt(v.query("before"), 10, 64); err == nil && b > 0 && b < n {
		before = b
	}
	after = max(before-auditRows, 0)
	if after > 0 {
		older = here + "?before=" + strconv.FormatInt(after, 10)
	}
	if before < n {
		newer = here + "?before=" + strconv.FormatInt(min(before+auditRows, n), 10)
	}
	return after, int(before - after), older, newer
}

func (v *visit) audit() error {
	p := auditPage{frame: v.frame("Audit log")}
	if _, err := v.get(&p.Checkpoint, "/v1/audit/checkpoint"); err != nil {
		return err
	}
	after, limit, older, newer := v.window(p.Checkpoint.Size, "/console/audit")
	p.Older, p.Newer = older, newer
	var entries []auditEntry
	if _, err := v.get(&entries, "/v1/audit/entries", "after", strconv.FormatInt(after, 10), "limit", strconv.Itoa(max(limit, 1))); err != nil {
		return err
	}
	for i := len(entries) - 1; i >= 0; i-- {
		p.Items = append(p.Items, row(entries[i]))
	}
	return v.show(200, "audit", p)
}

func (v *visit) auditEntry() error {
	index, err := strconv.ParseInt(v.r.PathValue("index"), 10, 64)
	if err != nil || index < 0 {
		return &apiError{Status: http.StatusNotFound, Detail: "There is no such entry"}
	}
	p := auditEntryPage{frame: v.frame("Entry " + strconv.FormatInt(index, 10)), Index: index}
	if _, err := v.get(&p.Proof, "/v1/audit/proofs", "entry", strconv.FormatInt(index, 10)); err != nil {
		return err
	}
	p.Leaf = row(p.Proof.Entry)
	var b bytes.Buffer
	if json.Indent(&b, []byte(p.Proof.Entry.Leaf), "", "  ") == nil {
		p.Pretty = b.String()
	}
	return v.show(200, "auditentry", p)
}

func (v *visit) changes() error {
	p := changesPage{frame: v.frame("Changes")}
	m, err := v.get(nil, "/v1/changes", "limit", "1")
	if err != nil {
		return err
	}
	after, limit, older, newer := v.window(int64(m.TotalItems), "/console/changes")
	p.Older, p.Newer = older, newer
	var all []change
	if _, err := v.get(&all, "/v1/changes", "after", strconv.FormatInt(after, 10), "limit", strconv.Itoa(max(limit, 1))); err != nil {
		return err
	}
	for i := len(all) - 1; i >= 0; i-- {
		p.Items = append(p.Items, all[i])
	}
	return v.show(200, "changes", p)
}
