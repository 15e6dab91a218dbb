package control_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/registry"
)

// person calls the API as the console does for somebody who has signed in there.
func (w *world) person(a registry.Actor, method, path, body string) reply {
	w.t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r = r.WithContext(control.As(w.t.Context(), a))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, r)
	return reply{rec.Code, rec.Header(), rec.Body.String()}
}

var op1 = registry.Actor{Name: operator, Permissions: registry.PermOperator | registry.PermRegistrar}

type madeToken struct {
	ID, Token   string
	Permissions []string
}

func (w *world) makeToken(a registry.Actor, perms string) madeToken {
	w.t.Helper()
	var m madeToken
	w.person(a, "POST", "/v1/tokens", `{"name":"nightly","permissions":[`+perms+`],"expires_at":"`+registry.At(time.Now().Add(time.Hour)).String()+`"}`).data(w.t, 201, &m)
	return m
}

// TestTokensOfPeople: made by a person, never by a program; scoped, listed
// without their secret, revoked at once; under the person's own name.
func TestTokensOfPeople(t *testing.T) {
	w := retried(newWorld(t))
	tok := w.makeToken(op1, `"operator"`)
	with := header("Authorization", "Bearer "+tok.Token)
	w.call(nobody, "GET", "/v1/products/FP-1001", nil, with).data(t, 200, &struct{}{})
	w.call(nobody, "POST", "/v1/entities", "{}", with).refused(t, 403, "forbidden") // a registrar's
	w.call(nobody, "POST", "/v1/tokens", `{"name":"heir","expires_at":"2027-01-01T00:00:00Z"}`, with).refused(t, 403, "forbidden")
	w.call(operator, "POST", "/v1/tokens", `{"name":"heir","expires_at":"2027-01-01T00:00:00Z"}`).refused(t, 403, "forbidden")

	// Four eyes see through tokens: it is the same person.
	var s struct{ ID string }
	w.call(nobody, "POST", "/v1/suspensions", map[string]any{"subject": map[string]any{"kind": "product", "id": "FP-1003"}, "reason": "finding"}, with).data(t, 201, &s)
	w.person(op1, "POST", "/v1/suspensions/"+s.ID+"/lift", "").refused(t, 403, "forbidden")
	w.call(nobody, "POST", "/v1/suspensions/"+s.ID+"/confirm", "", with).refused(t, 403, "forbidden")

	list := w.call(nobody, "GET", "/v1/tokens", nil, with)
	if list.status != 200 || !strings.Contains(list.body, tok.ID) || strings.Contains(list.body, tok.Token) || strings.Contains(list.body, "sum") {
		t.Errorf("list: %s", list)
	}
	if r := w.call(operator2, "GET", "/v1/tokens", nil); strings.Contains(r.body, tok.ID) {
		t.Errorf("somebody else's list: %s", r)
	}
	w.call(wattlebird, "DELETE", "/v1/tokens/"+tok.ID, nil).refused(t, 404, "not-found")
	w.call(nobody, "DELETE", "/v1/tokens/"+tok.ID, nil, with).data(t, 200, &struct{}{})
	w.call(nobody, "GET", "/v1/products/FP-1001", nil, with).refused(t, 401, "unauthenticated")
	for _, forged := range []string{"dspgate_", "dspgate_" + strings.Repeat("A", 52), tok.Token + "x"} {
		w.call(nobody, "GET", "/v1/me", nil, header("Authorization", "Bearer "+forged)).refused(t, 401, "unauthenticated")
	}
	if strings.Contains(w.log.String(), tok.Token) {
		t.Error("the token is in the log")
	}
}

// TestInvitationsByAPI: the people of an entity see and let in their own only.
func TestInvitationsByAPI(t *testing.T) {
	w := retried(newWorld(t))
	var inv struct{ ID, Code, Email string }
	w.call(kookaburra, "POST", "/v1/invitations", `{"email":"ana@kookaburra.example"}`).data(t, 201, &inv)
	list := w.call(kookaburra, "GET", "/v1/invitations", nil)
	if !strings.Contains(list.body, inv.ID) || strings.Contains(list.body, inv.Code) {
		t.Errorf("list: %s", list)
	}
	for path, method := range map[string]string{
		"/v1/invitations?entity=31000000202": "GET", "/v1/people?entity=31000000202": "GET", "/v1/invitations/" + inv.ID: "DELETE",
	} {
		w.call(wattlebird, method, path, nil).refused(t, 404, "not-found")
	}
	w.call(wattlebird, "POST", "/v1/invitations", `{"email":"a@b.example","entity":"31000000202"}`).refused(t, 404, "not-found")
	ana := registry.Actor{Name: "ana@kookaburra.example"}
	w.person(registry.Actor{Name: "eve@kookaburra.example"}, "POST", "/v1/invitations/accept", `{"code":"`+inv.Code+`"}`).refused(t, 422, "invalid")
	var m struct{ ID string }
	w.person(ana, "POST", "/v1/invitations/accept", `{"code":"`+inv.Code+`"}`).data(t, 201, &m)
	if r := w.call(kookaburra, "GET", "/v1/people", nil); !strings.Contains(r.body, ana.Name) || !strings.Contains(r.body, "dev@kookaburra.example") {
		t.Errorf("people: %s", r)
	}
	w.call(wattlebird, "DELETE", "/v1/people/"+m.ID, nil).refused(t, 404, "not-found")
	w.call(kookaburra, "DELETE", "/v1/people/"+m.ID, nil).data(t, 200, &struct{}{})
	w.call(kookaburra, "DELETE", "/v1/people/"+m.ID, nil).data(t, 200, &struct{}{})
	if r := w.call(kookaburra, "GET", "/v1/people", nil); strings.Contains(r.body, ana.Name) {
		t.Errorf("people: %s", r)
	}
	w.call(operator2, "GET", "/v1/people", nil).refused(t, 422, "invalid") // of whom?
}

// TestNoHeaderIsAPerson: the console's way in is not open to the network.
func TestNoHeaderIsAPerson(t *testing.T) {
	w := retried(newWorld(t))
	r := httptest.NewRequest("GET", "/v1/me", nil)
	for _, h := range []string{"X-Actor", "Cookie", "X-Forwarded-User", "Remote-User"} {
		r.Header.Set(h, operator)
	}
	rec := httptest.NewRecorder()
	w.api.ServeHTTP(rec, r)
	if rec.Code != http.StatusUnauthorized {
		t.Errorf("got %d", rec.Code)
	}
}
