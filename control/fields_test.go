package control_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// schema is one of the description, as far as fields are looked for in it.
type schema struct {
	Ref        string `json:"$ref"`
	Type       any
	Properties map[string]*schema
	Items      *schema
}

func (s *schema) is(what string) bool {
	switch t := s.Type.(type) {
	case string:
		return t == what
	case []any:
		return slices.Contains(t, any(what))
	}
	return false
}

// wrongFields are JSON pointers to every field of a body, each with a value of
// another type than it has.
func wrongFields(all map[string]*schema, s *schema, at string, depth int) map[string]any {
	out := map[string]any{}
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = all[name]
	}
	for name, p := range s.Properties {
		if r, ok := strings.CutPrefix(p.Ref, "#/components/schemas/"); ok {
			p = all[r]
		}
		switch pointer := at + "/" + name; {
		case p.is("object") || len(p.Properties) > 0:
			out[pointer] = 7
			if depth > 0 {
				maps.Copy(out, wrongFields(all, p, pointer, depth-1))
			}
		case p.is("array"):
			out[pointer] = 7
			if depth > 0 && p.Items != nil {
				item := p.Items
				if r, ok := strings.CutPrefix(item.Ref, "#/components/schemas/"); ok {
					item = all[r]
				}
				if len(item.Properties) > 0 {
					maps.Copy(out, wrongFields(all, item, pointer+"/0", depth-1))
				} else {
					out[pointer+"/0"] = map[string]any{"x": 1}
				}
			}
		case p.Type != nil:
			out[pointer] = map[string]any{"x": 1}
		}
	}
	return out
}

// withField puts a value at a JSON pointer, making what is missing on the way.
func withField(body any, pointer []string, value any) any {
	if len(pointer) == 0 {
		return value
	}
	if pointer[0] == "0" {
		var first any
		if list, ok := body.([]any); ok && len(list) > 0 {
			first = list[0]
		}
		return []any{withField(first, pointer[1:], value)}
	}
	m, _ := body.(map[string]any)
	m = maps.Clone(m)
	if m == nil {
		m = map[string]any{}
	}
	m[pointer[0]] = withField(m[pointer[0]], pointer[1:], value)
	return m
}

// Any field of any body that is of the wrong type: 422, its pointer, and one
// plain sentence; and nothing is changed.
func TestAnyWrongFieldIsNamed(t *testing.T) {
	w := newWorld(t)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID, Description string
			RequestBody              *struct {
				Content map[string]struct{ Schema *schema }
			}
		}
		Components struct{ Schemas map[string]*schema }
	}
	if err := json.Unmarshal([]byte(w.call(nobody, "GET", "/openapi.json", nil).body), &doc); err != nil {
		t.Fatal(err)
	}
	by := map[string]string{"operator": operator2, "incident-officer": officer, "registrar": registrar, "assessor": assessor, "developer": wattlebird}
	before := w.revision(t)
	fields := 0
	for path, ops := range doc.Paths {
		for method, op := range ops {
			if op.RequestBody == nil || op.RequestBody.Content["application/json"].Schema == nil || op.OperationID == "make-token" { // for people only
				continue
			}
			who := wattlebird
			if named, ok := strings.CutPrefix(op.Description, "For: "); ok {
				named, _, _ = strings.Cut(named, ".")
				roles := strings.Split(named, ", ")
				who = by[roles[0]]
			}
			var good any
			if err := json.Unmarshal([]byte(bodies[op.OperationID]), &good); err != nil {
				t.Errorf("%s: no body: %v", op.OperationID, err)
				continue
			}
			for pointer, value := range wrongFields(doc.Components.Schemas, op.RequestBody.Content["application/json"].Schema, "", 2) {
				fields++
				r := w.call(who, strings.ToUpper(method), fillPath(path), withField(good, strings.Split(pointer, "/")[1:], value))
				what := fmt.Sprintf("%s, %s = %v", op.OperationID, pointer, value)
				e, ok := namedField(r, pointer)
				switch {
				case r.status != 422:
					t.Errorf("%s: %s", what, r)
				case !ok:
					t.Errorf("%s: nothing points there: %s", what, r)
				case e.Detail == "" || len(e.Detail) > 300 || strings.ContainsAny(e.Detail, "\n{}") || strings.Contains(e.Detail, "json:") || strings.Contains(e.Detail, "unmarshal"):
					t.Errorf("%s: %q is no plain sentence", what, e.Detail)
				}
			}
		}
	}
	if after := w.revision(t); after != before {
		t.Errorf("something was changed: revision %d became %d", before, after)
	}
	if fields < 300 {
		t.Errorf("only %d fields", fields)
	}
	t.Logf("%d fields", fields)
}

// namedField finds the error that points at a field.
func namedField(r reply, pointer string) (apiError, bool) {
	var env struct{ Errors []apiError }
	if json.Unmarshal([]byte(r.body), &env) != nil {
		return apiError{}, false
	}
	i := slices.IndexFunc(env.Errors, func(e apiError) bool { return e.Source.Pointer == pointer })
	if i < 0 {
		return apiError{}, false
	}
	return env.Errors[i], true
}
