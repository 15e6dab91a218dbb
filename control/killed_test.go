package control_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/registry/registrytest"
)

// retried is a world in which every command that succeeds is sent twice.
func retried(w *world) *world {
	w.twice = true
	return w
}

// keyed tells whether a request takes an Idempotency-Key, has none, and commits.
func keyed(req *http.Request) bool {
	switch req.Method {
	case http.MethodPost, http.MethodPut, http.MethodDelete:
	default:
		return false
	}
	media := req.Header.Get("Content-Type")
	return (media == "" || media == "application/json") && req.Header.Get("Idempotency-Key") == "" && !strings.HasSuffix(req.URL.Path, "/preview") &&
		!strings.HasSuffix(req.URL.Path, "/evidence") && // a file sent again is the same file
		req.Method+req.URL.Path[:min(len(req.URL.Path), 11)] != "DELETE/v1/tokens/" // who revokes the own token is nobody then
}

// again sends a command with an Idempotency-Key whose answer gets lost between the
// commit and the place where answers are kept, and sends it again: the answer
// must be the same, and nothing more may be committed.
func (w *world) again(req *http.Request) reply {
	w.t.Helper()
	w.keys++
	req.Header.Set("Idempotency-Key", fmt.Sprint("again-", w.keys))
	w.link.Set(registrytest.Fault{Forgetful: true})
	defer w.link.Set(registrytest.Fault{})
	first := w.do(req)
	if first.status >= 300 {
		return first
	}
	view, err := w.reg.View()
	if err != nil {
		w.t.Fatal(err)
	}
	if req.GetBody != nil {
		if req.Body, err = req.GetBody(); err != nil {
			w.t.Fatal(err)
		}
	}
	second := w.do(req)
	now, err := w.reg.View()
	if err != nil {
		w.t.Fatal(err)
	}
	if now.Revision != view.Revision {
		w.t.Errorf("%s %s: done twice, revisions %d and %d", req.Method, req.URL.Path, view.Revision, now.Revision)
	}
	if second.status != first.status || second.header.Get("ETag") != first.header.Get("ETag") {
		w.t.Errorf("%s %s: %d %s, then %d %s: %s", req.Method, req.URL.Path, first.status, first.header.Get("ETag"), second.status, second.header.Get("ETag"), second.body)
		return first
	}
	var a, b any
	if err := json.Unmarshal([]byte(first.body), &a); err != nil {
		w.t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(second.body), &b); err != nil {
		w.t.Fatal(err)
	}
	if d := cmp.Diff(a, b, cmp.FilterPath(func(p cmp.Path) bool {
		i, ok := p.Last().(cmp.MapIndex)
		return ok && slices.Contains([]string{"elapsed_ms", "until", "assessment_due"}, i.Key().String()) // told as of now
	}, cmp.Ignore())); d != "" {
		w.t.Errorf("%s %s: another answer -first +second:\n%s", req.Method, req.URL.Path, d)
	}
	return first
}
