package control_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// apiOperation is one of the description, as far as it is looked at here.
type apiOperation struct {
	OperationID string
	Parameters  []struct{ Name, In string }
	RequestBody *struct{ Content map[string]any }
	Responses   map[string]struct {
		Headers map[string]any
		Content map[string]struct {
			Schema struct{ Properties map[string]any }
		}
	}
}

func (o *apiOperation) takes(in string, names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool {
		return !slices.ContainsFunc(o.Parameters, func(p struct{ Name, In string }) bool { return p.In == in && p.Name == name })
	})
}

// streams tells whether the answer goes on until the caller hangs up.
func (o *apiOperation) streams() bool {
	_, ok := o.Responses["200"].Content["text/event-stream"]
	return ok
}

// filters counts the parameters of the query beside the page's.
func (o *apiOperation) filters() (n int) {
	for _, p := range o.Parameters {
		if p.In == "query" && p.Name != "page" && p.Name != "limit" {
			n++
		}
	}
	return n
}

func apiOperations(t *testing.T, w *world) map[string]map[string]*apiOperation {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]*apiOperation
	}
	if err := json.Unmarshal([]byte(w.call(nobody, "GET", "/openapi.json", nil).body), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Paths
}

// Collections that are small by their nature, or listed under one record, and
// need no filter of their own.
var unfiltered = []string{
	"list-checks", "list-versions", "list-tiers", "list-sidecars", "list-tokens", "list-signals", "list-standards", "list-draws", "list-lessons", "list-problems",
	"list-product-limits", "list-affected", "preview-incident-notices",
}

// What changes one record takes If-Match, but for these: they are done with at
// once, or have no state that another could have changed in between.
var unmatched = []string{"revoke-token", "remove-person", "withdraw-invitation"}

// Every collection is paged and filtered, every read can be asked whether it
// changed, and every command can be sent again. A route that is added without
// fails here.
func TestEveryCollectionAndCommandHasWhatTheOthersHave(t *testing.T) {
	w := newWorld(t)
	collections := 0
	for path, ops := range apiOperations(t, w) {
		for method, op := range ops {
			name := strings.ToUpper(method) + " " + path
			if op.streams() {
				continue
			}
			if method == "get" {
				if _, ok := op.Responses["304"]; !ok {
					t.Errorf("%s: no 304", name)
				}
				if _, ok := op.Responses["200"].Headers["ETag"]; !ok {
					t.Errorf("%s: no ETag", name)
				}
				if op.Responses["200"].Content["application/json"].Schema.Properties["_meta"] == nil {
					continue
				}
				collections++
				if !op.takes("query", "page", "limit") {
					t.Errorf("%s: not paged", name)
				}
				if op.filters() == 0 && !slices.Contains(unfiltered, op.OperationID) {
					t.Errorf("%s: nothing to filter by", name)
				}
				continue
			}
			if op.RequestBody != nil && op.RequestBody.Content["application/octet-stream"] != nil {
				continue // a file: sending it again changes nothing
			}
			if !op.takes("header", "Idempotency-Key") {
				t.Errorf("%s: no Idempotency-Key", name)
			}
			if (method == "put" || method == "delete") && !op.takes("header", "If-Match") && !slices.Contains(unmatched, op.OperationID) {
				t.Errorf("%s: no If-Match", name)
			}
		}
	}
	if collections < 25 {
		t.Errorf("only %d collections", collections)
	}
}

// Every collection that can be read, read: one item to a page when asked, the
// way to the next, 304 for who has it already, HEAD like GET.
func TestEveryCollectionRead(t *testing.T) {
	w := newWorld(t)
	read, unchanged := 0, 0
	for path, ops := range apiOperations(t, w) {
		op := ops["get"]
		if op == nil || strings.Contains(path, "{") || op.streams() {
			continue
		}
		for _, as := range []string{operator, auditor, assessor, wattlebird} {
			r := w.call(as, "GET", path, nil)
			if r.status != 200 {
				if r.status >= 500 {
					t.Errorf("%s as %s: %s", path, as, r)
				}
				continue
			}
			tag := r.header.Get("ETag")
			if tag == "" {
				t.Errorf("%s as %s: no ETag", path, as)
			}
			head := w.call(as, "HEAD", path, nil)
			if head.status != 200 || head.body != "" {
				t.Errorf("HEAD %s as %s: %s", path, as, head)
			}
			again := w.call(as, "GET", path, nil, header("If-None-Match", `"other", W/`+tag))
			switch {
			case again.status == http.StatusNotModified && again.body == "":
				unchanged++
			case again.status == 200 && again.header.Get("ETag") != tag: // it did change: a reading put on record, a sidecar that polled
			default:
				t.Errorf("%s as %s, again: %d, ETag %s then %s", path, as, again.status, tag, again.header.Get("ETag"))
			}
			if op.takes("query", "page", "limit") {
				read++
				checkPages(t, w, as, path)
			}
		}
	}
	if read < 40 || unchanged < 40 {
		t.Errorf("%d collections read, %d answers unchanged", read, unchanged)
	}
}

func checkPages(t *testing.T, w *world, as, path string) {
	t.Helper()
	var body struct {
		Data []json.RawMessage
		Meta struct {
			Total int `json:"total_items"`
			Pages int `json:"total_pages"`
		} `json:"_meta"`
		Links struct{ Next string } `json:"_links"`
	}
	r := w.call(as, "GET", path+"?limit=1", nil)
	if err := json.Unmarshal([]byte(r.body), &body); err != nil || r.status != 200 {
		t.Fatalf("%s: %v %s", path, err, r)
	}
	if len(body.Data) > 1 || body.Meta.Total > 0 && len(body.Data) == 0 || (body.Links.Next != "") != (body.Meta.Total > 1) || body.Meta.Pages != body.Meta.Total {
		t.Errorf("%s as %s: %d items of %+v, next %q", path, as, len(body.Data), body.Meta, body.Links.Next)
	}
	for _, bad := range []string{"?limit=0", "?limit=101", "?page=0", "?page=x", "?page=99999999999999999999", "?nonsense=1", "?limit=1&limit=2"} {
		if r := w.call(as, "GET", path+bad, nil); r.status != 422 {
			t.Errorf("%s%s: %s", path, bad, r)
		}
	}
}
