package console

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// A developer's own pages; people and tokens.

// refusals are the last refused calls of one code, with what to do about them.
type refusals struct {
	refusalCode
	Calls    []decision // the latest first
	Products []string
}

// productForm is another product as it is typed in.
type productForm struct {
	Name, Chain string
	Scenario    uint8
}

func (v *visit) own() error { return v.showOwn(http.StatusOK, ownPage{}) }

// addProduct enters another product of the entity that the person acts for.
func (v *visit) addProduct() error {
	p := ownPage{Form: productForm{Name: v.form("name"), Chain: v.form("chain")}}
	n, _ := strconv.ParseUint(v.form("scenario"), 10, 8) // 0 is refused as none
	p.Form.Scenario = uint8(n)
	chain := strings.FieldsFunc(p.Form.Chain, func(c rune) bool { return c == ',' || c == ';' })
	for i := range chain {
		chain[i] = strings.TrimSpace(chain[i])
	}
	var made product
	body := map[string]any{"name": p.Form.Name, "scenario": p.Form.Scenario, "chain": chain}
	err := v.send(http.MethodPost, api("registrations", v.person.Actor.Entity.String(), "products"), body, &made)
	if err == nil {
		return v.redirect(local("products", made.ID))
	}
	fields := map[string]string{"/name": "name", "/scenario": "scenario", "/chain": "chain"}
	for i := range chain {
		fields["/chain/"+strconv.Itoa(i)] = "chain"
	}
	if p.Problem = problemOf(err, fields); p.Problem == nil {
		return err
	}
	return v.showOwn(http.StatusUnprocessableEntity, p)
}

// openTest opens the test environments of a product that was entered without.
func (v *visit) openTest() error {
	err := v.send(http.MethodPost, api("registrations", v.person.Actor.Entity.String(), "test-environments"), map[string]any{"product_id": v.r.PathValue("id")}, nil)
	if err != nil {
		return err
	}
	return v.redirect(local("products", v.r.PathValue("id")))
}

func (v *visit) showOwn(status int, p ownPage) error {
	p.frame = v.frame("Your products")
	if _, err := v.get(&p.Me, "/v1/me"); err != nil {
		return err
	}
	if len(p.Me.Denials) > 0 {
		var codes []refusalCode
		if _, err := v.get(&codes, "/v1/problems", "limit", "100"); err != nil {
			return err
		}
		p.Refused = refusedBy(codes, p.Me.Denials)
	}
	if e := p.Me.Entity; e != nil && e.State == registry.EntityRegistered {
		var matrix struct {
			Rows []scenario `json:"rows"`
		}
		if _, err := v.get(&matrix, "/v1/role-matrix"); err != nil && !isMissing(err) {
			return err
		}
		p.Scenarios, p.MayAdd = matrix.Rows, len(matrix.Rows) > 0
	}
	return v.show(status, "own", p)
}

// refusedBy puts refused calls together by their codes, in the order in which
// these came last.
func refusedBy(codes []refusalCode, calls []decision) (out []refusals) {
	for _, d := range calls {
		i := slices.IndexFunc(out, func(r refusals) bool { return r.Code == d.Code })
		if i < 0 {
			r := refusals{refusalCode: refusalCode{Code: d.Code, Title: d.Code}}
			if j := slices.IndexFunc(codes, func(c refusalCode) bool { return c.Code == d.Code }); j >= 0 {
				r.refusalCode = codes[j]
			}
			out = append(out, r)
			i = len(out) - 1
		}
		out[i].Calls = append(out[i].Calls, d)
		if d.ProductID != "" && !slices.Contains(out[i].Products, d.ProductID) {
			out[i].Products = append(out[i].Products, d.ProductID)
		}
	}
	return out
}

func (v *visit) chooseEntity() error {
	abn, err := registry.ParseABN(v.form("entity"))
	if err != nil {
		return &apiError{Status: http.StatusUnprocessableEntity, Detail: "Choose one of the entities you act for"}
	}
	if err := v.c.cfg.SignIn.Choose(v.w, v.r, abn); err != nil {
		return err
	}
	return v.redirect("/console/")
}

func (v *visit) signOut() error {
	if v.person != nil {
		if err := v.c.cfg.SignIn.End(v.w, v.r); err != nil {
			return err
		}
	}
	return v.redirect("/console/signed-out")
}

func (v *visit) signedOut() error {
	v.person = nil
	return v.show(200, "signedout", signedOutPage{v.frame("Signed out")})
}

func (v *visit) people() error { return v.showPeople(http.StatusOK, peoplePage{}) }

func (v *visit) showPeople(status int, p peoplePage) error {
	asked := v.r.URL.Query().Get("entity")
	if asked == "" {
		asked = v.form("entity")
	}
	if asked == "" {
		asked = v.person.Actor.Entity.String()
	}
	var e entity
	if _, err := v.get(&e, api("entities", asked)); err != nil {
		return err
	}
	p.Entity, p.EntityName = e.ABN, e.Name
	if _, err := v.get(&p.Members, "/v1/people", "entity", e.ABN.String(), "limit", "100"); err != nil {
		return err
	}
	if _, err := v.get(&p.Invitations, "/v1/invitations", "entity", e.ABN.String(), "limit", "100"); err != nil {
		return err
	}
	p.frame = v.frame("People of " + e.Name)
	if p.Made != nil {
		p.JoinURL = v.c.cfg.PublicURL + "/console/join"
	}
	return v.show(status, "people", p)
}

func (v *visit) invite() error {
	p := peoplePage{Email: v.form("email")}
	var made invitation
	err := v.send(http.MethodPost, "/v1/invitations", map[string]any{"email": p.Email, "entity": v.form("entity")}, &made)
	if err == nil {
		return v.showPeople(http.StatusCreated, peoplePage{Made: &made})
	}
	if p.Problem = problemOf(err, map[string]string{"/email": "email"}); p.Problem != nil && p.Problem.Field != "" {
		return v.showPeople(http.StatusUnprocessableEntity, p)
	}
	return err
}

func (v *visit) removePerson() error {
	if err := v.send(http.MethodDelete, api("people", v.r.PathValue("id")), nil, nil); err != nil {
		return err
	}
	return v.redirect("/console/people?entity=" + url.QueryEscape(v.form("entity")))
}

func (v *visit) withdraw() error {
	if err := v.send(http.MethodDelete, api("invitations", v.r.PathValue("id")), nil, nil); err != nil {
		return err
	}
	return v.redirect("/console/people?entity=" + url.QueryEscape(v.form("entity")))
}

func (v *visit) joinForm() error {
	return v.show(200, "join", joinPage{frame: v.frame("Join an entity")})
}

func (v *visit) join() error {
	p := joinPage{frame: v.frame("Join an entity"), Code: v.form("code")}
	var m member
	err := v.send(http.MethodPost, "/v1/invitations/accept", map[string]any{"code": p.Code}, &m)
	if err == nil {
		if err := v.c.cfg.SignIn.Choose(v.w, v.r, m.Entity); err != nil {
			return err
		}
		return v.redirect("/console/")
	}
	if p.Problem = problemOf(err, map[string]string{"/code": "code"}); p.Problem != nil {
		return v.show(http.StatusUnprocessableEntity, "join", p)
	}
	return err
}

func (v *visit) tokens() error { return v.showTokens(http.StatusOK, tokensPage{Days: "90"}) }

func (v *visit) showTokens(status int, p tokensPage) error {
	if _, err := v.get(&p.Items, "/v1/tokens", "limit", "100"); err != nil {
		return err
	}
	p.frame, p.Permissions = v.frame("API tokens"), permissionNames(v.person.Actor)
	if p.Chosen == nil {
		p.Chosen = map[string]bool{}
	}
	return v.show(status, "tokens", p)
}

func (v *visit) makeToken() error {
	p := tokensPage{Name: v.form("name"), Days: v.form("days"), Chosen: map[string]bool{}}
	chosen := v.r.PostForm["permission"]
	for _, w := range chosen {
		p.Chosen[w] = true
	}
	days, err := strconv.ParseUint(p.Days, 10, 16)
	switch {
	case err != nil || days < 1 || days > 365:
		p.Problem = &problem{"A token lives from 1 to 365 days.", "days"}
	case len(chosen) == 0:
		p.Problem = &problem{"Choose at least one permission.", "permission"}
	}
	if p.Problem != nil {
		return v.showTokens(http.StatusUnprocessableEntity, p)
	}
	expires := registry.At(v.now().Add(time.Duration(days) * 24 * time.Hour))
	var made token
	err = v.send(http.MethodPost, "/v1/tokens", map[string]any{"name": p.Name, "permissions": chosen, "expires_at": expires}, &made)
	if err == nil {
		return v.showTokens(http.StatusCreated, tokensPage{Made: &made, Days: "90"})
	}
	if p.Problem = problemOf(err, map[string]string{"/name": "name", "/expires_at": "days", "/permissions": "permission"}); p.Problem != nil {
		return v.showTokens(http.StatusUnprocessableEntity, p)
	}
	return err
}

func (v *visit) revokeToken() error {
	if err := v.send(http.MethodDelete, api("tokens", v.r.PathValue("id")), nil, nil); err != nil {
		return err
	}
	return v.redirect("/console/tokens")
}
