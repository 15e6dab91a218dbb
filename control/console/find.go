package console

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// One search for whatever has a name or an ID.

type findPage struct {
	frame
	Query      string
	Rows       []foundRow
	Products   int // in all; the first of them are rows
	Entities   int
	CanSuspend bool
}

// foundRow is one thing that was found.
type foundRow struct {
	Kind, ID, Name, State string
	Link                  string // "": it has no page
	Suspend               string // the ID to suspend it by; "": it cannot be
}

const foundMax = 10 // of a kind

func (v *visit) find() error {
	p := findPage{frame: v.frame("Find"), Query: v.query("q"), CanSuspend: v.person.Actor.MaySuspend()}
	if len(p.Query) > 200 {
		p.Query = strings.ToValidUTF8(p.Query[:200], "")
	}
	if to := caseLink(p.Query); to != "" {
		return v.redirect(to)
	}
	if p.Query == "" {
		return v.show(200, "find", p)
	}
	if err := v.findExact(&p); err != nil {
		return err
	}
	if err := v.findNamed(&p); err != nil {
		return err
	}
	return v.show(200, "find", p)
}

// caseLink is the page of what an ID alone names.
func caseLink(q string) string {
	kind, number, ok := strings.Cut(q, "-")
	digits := ok && number != "" && strings.Trim(number, "0123456789") == ""
	switch {
	case len(q) == 26 && strings.Trim(q, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") == "":
		return local("decisions", q)
	case digits && kind == "SU":
		return local("suspensions", q)
	case digits && kind == "FN":
		return local("findings", q)
	}
	return ""
}

// findExact looks for what is named by its ID alone.
func (v *visit) findExact(p *findPage) error {
	if id, version, ok := strings.Cut(p.Query, "@"); ok {
		var x product
		if found, err := v.maybe(&x, api("products", id)); err != nil {
			return err
		} else if found && x.Version(version) != nil {
			p.Rows = append(p.Rows, foundRow{"version", version, x.Name + " " + version, x.Version(version).State.String(), local("products", x.ID), p.Query})
		}
		return nil
	}
	if strings.ContainsAny(p.Query, " /") {
		return nil
	}
	var app registry.ClientApp
	if found, err := v.maybe(&app, api("client-apps", p.Query)); err != nil {
		return err
	} else if found {
		p.Rows = append(p.Rows, foundRow{"client app", app.ClientID, app.ClientID, app.Environment.String(), local("products", app.ProductID), app.ClientID})
	}
	var sub registry.Subscription
	if found, err := v.maybe(&sub, api("subscriptions", p.Query)); err != nil {
		return err
	} else if found {
		p.Rows = append(p.Rows, foundRow{"subscription", sub.SSID, "SSID " + sub.SSID, "", local("products", sub.ProductID), sub.SSID})
	}
	var cred registry.Credential
	if found, err := v.maybe(&cred, api("credentials", p.Query)); err != nil {
		return err
	} else if found {
		p.Rows = append(p.Rows, foundRow{"credential", cred.Thumbprint, cred.Name, "", local("entities", cred.ABN.String()), cred.Thumbprint})
	}
	var service registry.Service
	if found, err := v.maybe(&service, api("services", p.Query)); err != nil {
		return err
	} else if found {
		p.Rows = append(p.Rows, foundRow{"service", service.Key, service.Name, "", "", service.Key})
	}
	return nil
}

// findNamed looks for entities and products by words of their names or their IDs.
func (v *visit) findNamed(p *findPage) error {
	words := p.Query
	if abn, err := registry.ParseABN(p.Query); err == nil {
		words = abn.String() // written with spaces it is one word all the same
	}
	var entities []entity
	m, err := v.get(&entities, "/v1/entities", "name", words, "limit", "10")
	if err != nil && !isNoWord(err) {
		return err
	}
	p.Entities = m.TotalItems
	for _, e := range entities {
		p.Rows = append(p.Rows, foundRow{"entity", e.ABN.String(), e.Name, e.State.String(), local("entities", e.ABN.String()), e.ABN.String()})
	}
	var products []product
	if m, err = v.get(&products, "/v1/products", "q", words, "limit", "10"); err != nil && !isNoWord(err) {
		return err
	}
	p.Products = m.TotalItems
	if len(products) == 0 && len(entities) == 1 { // its owner was named
		if m, err = v.get(&products, "/v1/products", "entity", entities[0].ABN.String(), "limit", "10"); err != nil {
			return err
		}
	}
	for _, x := range products {
		p.Rows = append(p.Rows, foundRow{"product", x.ID, x.Name, x.Certification.State.String(), local("products", x.ID), x.ID})
	}
	return nil
}

// maybe reads a record that need not be there.
func (v *visit) maybe(out any, path string) (found bool, err error) {
	if _, err = v.get(out, path); isMissing(err) {
		return false, nil
	}
	return err == nil, err
}

// isNoWord: what was looked for holds no letter and no digit.
func isNoWord(err error) bool {
	var e *apiError
	return asAPI(err, &e) && (e.Status == http.StatusBadRequest || e.Status == http.StatusUnprocessableEntity)
}

// MoreProducts leads to those that are not shown; "" when all are.
func (p findPage) MoreProducts() string {
	if p.Products <= foundMax {
		return ""
	}
	return "/console/products?" + url.Values{"q": {p.Query}}.Encode()
}

// MoreEntities leads to those that are not shown; "" when all are.
func (p findPage) MoreEntities() string {
	if p.Entities <= foundMax {
		return ""
	}
	return "/console/entities?" + url.Values{"name": {p.Query}}.Encode()
}

// SuspendLink leads to what suspending it would stop.
func (r foundRow) SuspendLink() string {
	return "/console/suspend?" + url.Values{"kind": {strings.ReplaceAll(r.Kind, " ", "-")}, "id": {r.Suspend}}.Encode()
}
