package control

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"github.com/dspgate/dspgate/registry"
)

// Bounds on a page.
const (
	limitDefault = 10
	limitMax     = 100
	pageMax      = 1_000_000
)

// pageInfo goes beside the data of a listing.
type pageInfo struct {
	Meta  pageMeta
	Links links
}

type pageMeta struct {
	Page       uint64 `json:"page"`
	Limit      uint64 `json:"limit"`
	TotalItems uint64 `json:"total_items"`
	TotalPages uint64 `json:"total_pages"`
	// Revision is the register's revision the page was read at: two pages of
	// different revisions may overlap or leave a gap.
	Revision registry.Revision `json:"revision"`
	// Disclaimer goes with the public register.
	Disclaimer string `json:"disclaimer,omitempty"`
}

type links struct {
	Self string `json:"self"`
	Prev string `json:"prev,omitempty"`
	Next string `json:"next,omitempty"`
}

// paging reads page and limit.
func (c *call) paging() (page, limit uint64, err error) {
	if page, err = c.filterUint("page", 1, pageMax, 1); err != nil {
		return 0, 0, err
	}
	limit, err = c.filterUint("limit", 1, limitMax, limitDefault)
	return page, limit, err
}

// paged cuts a page out of all the items that keep wants; keep nil wants all.
// It stops looking at nothing: the total is part of the answer.
func paged[T any](c *call, all []T, keep func(T) bool, show func(T) any) (answer, error) {
	page, limit, err := c.paging()
	if err != nil {
		return answer{}, err
	}
	first := (page - 1) * limit
	out := make([]any, 0, limit)
	var total uint64
	if keep == nil {
		total = uint64(len(all))
		for i := first; i < total && i < first+limit; i++ {
			out = append(out, show(all[i]))
		}
	} else {
		for _, x := range all {
			if !keep(x) {
				continue
			}
			if total >= first && total < first+limit {
				out = append(out, show(x))
			}
			total++
		}
	}
	return answer{data: out, page: c.pageInfo(page, limit, total)}, nil
}

func (c *call) pageInfo(page, limit, total uint64) *pageInfo {
	p := &pageInfo{Meta: pageMeta{Page: page, Limit: limit, TotalItems: total, TotalPages: (total + limit - 1) / limit, Revision: c.view.Revision}}
	p.Links.Self = c.link(page)
	if page > 1 && total > 0 {
		p.Links.Prev = c.link(min(page-1, p.Meta.TotalPages))
	}
	if page < p.Meta.TotalPages {
		p.Links.Next = c.link(page + 1)
	}
	return p
}

func (c *call) link(page uint64) string {
	q := url.Values{}
	for k, v := range c.query {
		q[k] = v
	}
	q.Set("page", strconv.FormatUint(page, 10))
	return c.r.URL.EscapedPath() + "?" + q.Encode()
}

// listing is a sorted listing of one kind of record, made once for each View
// that is asked for: sorting 100,000 records takes tens of milliseconds.
type listing[T any] struct {
	mu  sync.Mutex
	of  *registry.View
	all []*registry.Entry[T]
}

func (l *listing[T]) get(v *registry.View, list func(*registry.View) []*registry.Entry[T]) []*registry.Entry[T] {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of != v {
		l.of, l.all = v, list(v)
	}
	return l.all
}

// record is one record as the API shows it: its members and its revision.
type record struct {
	value any
	rev   registry.Revision
}

// show renders an entry of the register.
func show[T any](e *registry.Entry[T]) any { return record{&e.Value, e.Revision} }

// MarshalJSON puts the revision in front of the record's own members.
func (r record) MarshalJSON() ([]byte, error) { return r.appendJSON(nil) }

func (r record) appendJSON(out []byte) ([]byte, error) {
	b, err := json.Marshal(r.value)
	if err != nil {
		return nil, err
	}
	if len(b) < 2 || b[0] != '{' {
		return nil, fmt.Errorf("record %T is no JSON object", r.value)
	}
	out = slices.Grow(out, len(b)+32)
	out = append(out, `{"revision":`...)
	out = strconv.AppendUint(out, uint64(r.rev), 10)
	if b[1] != '}' {
		out = append(out, ',')
	}
	return append(out, b[1:]...), nil
}
