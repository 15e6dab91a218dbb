package control

import (
	"github.com/dspgate/dspgate/registry"
)

// Client apps, credentials, subscriptions and services.

type clientAppBody struct {
	ClientID    string               `json:"client_id" minLength:"1" maxLength:"128"`
	ProductID   string               `json:"product_id" minLength:"1" maxLength:"64"`
	Environment registry.Environment `json:"environment"`
	Disabled    bool                 `json:"disabled,omitempty"`
	Reason      string               `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type clientAppUpdate struct {
	Disabled bool   `json:"disabled"`
	Reason   string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type credentialBody struct {
	Thumbprint string        `json:"thumbprint" minLength:"43" maxLength:"43" doc:"base64url(SHA-256(DER)) without padding, as in cnf.x5t#S256."`
	ABN        registry.ABN  `json:"abn"`
	NotAfter   registry.Time `json:"not_after,omitempty"`
	Name       string        `json:"name,omitempty" maxLength:"200"`
	Reason     string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type credentialUpdate struct {
	NotAfter registry.Time `json:"not_after,omitempty"`
	Name     string        `json:"name,omitempty" maxLength:"200"`
	Reason   string        `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type subscriptionBody struct {
	SSID      string       `json:"ssid" minLength:"1" maxLength:"64"`
	ProductID string       `json:"product_id" minLength:"1" maxLength:"64"`
	ClientABN registry.ABN `json:"client_abn"`
	Nominated bool         `json:"nominated,omitempty"`
	Reason    string       `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type nominateBody struct {
	Nominated bool   `json:"nominated"`
	Reason    string `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type serviceBody struct {
	Key            string            `json:"key" minLength:"1" maxLength:"128"`
	Name           string            `json:"name,omitempty" maxLength:"200"`
	Method         string            `json:"method" enum:"GET,HEAD,POST,PUT,PATCH,DELETE"`
	Template       string            `json:"template" minLength:"2" maxLength:"256" doc:"Such as /lodgments/v1/receipts/{id}."`
	Risk           registry.Risk     `json:"risk"`
	Scope          string            `json:"scope,omitempty" maxLength:"128"`
	WhileSuspended bool              `json:"available_while_suspended,omitempty"`
	Bound          bool              `json:"requires_binding,omitempty"`
	StampVerified  bool              `json:"stamp_verified,omitempty"`
	ClientRequired bool              `json:"client_required,omitempty"`
	Subject        *registry.Subject `json:"subject,omitempty"`
	Streaming      string            `json:"streaming,omitempty" enum:"sse,websocket,upload,grpc"`
	Reason         string            `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

type serviceUpdate struct {
	Name           string            `json:"name,omitempty" maxLength:"200"`
	Method         string            `json:"method" enum:"GET,HEAD,POST,PUT,PATCH,DELETE"`
	Template       string            `json:"template" minLength:"2" maxLength:"256" doc:"Such as /lodgments/v1/receipts/{id}."`
	Risk           registry.Risk     `json:"risk"`
	Scope          string            `json:"scope,omitempty" maxLength:"128"`
	WhileSuspended bool              `json:"available_while_suspended,omitempty"`
	Bound          bool              `json:"requires_binding,omitempty"`
	StampVerified  bool              `json:"stamp_verified,omitempty"`
	ClientRequired bool              `json:"client_required,omitempty"`
	Subject        *registry.Subject `json:"subject,omitempty"`
	Streaming      string            `json:"streaming,omitempty" enum:"sse,websocket,upload,grpc"`
	Reason         string            `json:"reason,omitempty" maxLength:"500" doc:"Why; kept in the log."`
}

func (s *server) listClientApps(c *call) (answer, error) {
	product, byProduct := c.filter("product_id")
	env, byEnv, err := filterText[registry.Environment](c, "environment")
	if err != nil {
		return answer{}, err
	}
	owner, byOwner, err := c.filterABN("owner")
	if err != nil {
		return answer{}, err
	}
	keep := func(a *registry.ClientApp) bool {
		if byProduct && a.ProductID != product || byEnv && a.Environment != env {
			return false
		}
		p := c.view.Product(a.ProductID)
		return (c.actor.Staff() || mayKnowProduct(c, p)) && (!byOwner || p != nil && p.Owner == owner)
	}
	if b := s.book(c); b != nil {
		var where []registry.Where
		if byProduct {
			where = append(where, registry.Where{Index: "product_id", Value: product})
		}
		if byEnv {
			where = append(where, registry.Where{Index: "environment", Value: env.String()})
		}
		switch {
		case c.actor.Staff() && !byOwner:
			return c.indexed(b, registry.KindClientApp, where)
		case !byOwner:
			owner = c.actor.Entity
		}
		if all, ok := ofProducts(b, c.view, registry.KindClientApp, deliveredBy(b, owner)); ok {
			return picked(c, all, keep)
		}
	}
	return paged(c, s.lists.apps.get(c.view, (*registry.View).ClientApps), func(e *registry.Entry[registry.ClientApp]) bool { return keep(&e.Value) }, show)
}

func (s *server) getClientApp(c *call) (answer, error) {
	return c.one(registry.KindClientApp, c.path("id"))
}

func (s *server) createClientApp(c *call, in *clientAppBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	a := registry.ClientApp{ClientID: in.ClientID, ProductID: in.ProductID, Environment: in.Environment, Disabled: in.Disabled}
	r, err := s.reg.CreateClientApp(c.r.Context(), c.actor, a, m)
	return changed(r, err, created)
}

func (s *server) updateClientApp(c *call, in *clientAppUpdate) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	old := c.view.ClientApp(c.path("id"))
	if old == nil {
		return answer{}, notFound(registry.KindClientApp, c.path("id"))
	}
	next := *old // product and environment are for life, so an old view does no harm
	next.Disabled = in.Disabled
	r, err := s.reg.UpdateClientApp(c.r.Context(), c.actor, next, m)
	return changed(r, err, found)
}

func (s *server) listCredentials(c *call) (answer, error) {
	abn, byABN, err := c.filterABN("abn")
	if err != nil {
		return answer{}, err
	}
	keep := func(e *registry.Entry[registry.Credential]) bool {
		return c.actor.MaySee(e.Value.ABN) && (!byABN || e.Value.ABN == abn)
	}
	if c.actor.Staff() && !byABN {
		keep = nil
	}
	return paged(c, s.lists.credentials.get(c.view, (*registry.View).Credentials), keep, show)
}

func (s *server) getCredential(c *call) (answer, error) {
	return c.one(registry.KindCredential, c.path("id"))
}

func (s *server) createCredential(c *call, in *credentialBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.CreateCredential(c.r.Context(), c.actor, registry.Credential{Thumbprint: in.Thumbprint, ABN: in.ABN, NotAfter: in.NotAfter, Name: in.Name}, m)
	return changed(r, err, created)
}

func (s *server) updateCredential(c *call, in *credentialUpdate) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	old := c.view.Credential(c.path("id"))
	if old == nil {
		return answer{}, notFound(registry.KindCredential, c.path("id"))
	}
	next := *old // its holder is for life
	next.NotAfter, next.Name = in.NotAfter, in.Name
	r, err := s.reg.UpdateCredential(c.r.Context(), c.actor, next, m)
	return changed(r, err, found)
}

func (s *server) listSubscriptions(c *call) (answer, error) {
	product, byProduct := c.filter("product_id")
	client, byClient, err := c.filterABN("client_abn")
	if err != nil {
		return answer{}, err
	}
	keep := func(x *registry.Subscription) bool {
		if byProduct && x.ProductID != product || byClient && x.ClientABN != client {
			return false
		}
		return c.actor.Staff() || mayKnowProduct(c, c.view.Product(x.ProductID))
	}
	if b := s.book(c); b != nil {
		if c.actor.Staff() {
			var where []registry.Where
			if byProduct {
				where = append(where, registry.Where{Index: "product_id", Value: product})
			}
			if byClient {
				where = append(where, registry.Where{Index: "client_abn", Value: client.String()})
			}
			return c.indexed(b, registry.KindSubscription, where)
		}
		if all, ok := ofProducts(b, c.view, registry.KindSubscription, deliveredBy(b, c.actor.Entity)); ok {
			return picked(c, all, keep)
		}
	}
	return paged(c, s.lists.subscriptions.get(c.view, (*registry.View).Subscriptions), func(e *registry.Entry[registry.Subscription]) bool { return keep(&e.Value) }, show)
}

func (s *server) getSubscription(c *call) (answer, error) {
	return c.one(registry.KindSubscription, c.path("id"))
}

func (s *server) createSubscription(c *call, in *subscriptionBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	x := registry.Subscription{SSID: in.SSID, ProductID: in.ProductID, ClientABN: in.ClientABN, Nominated: in.Nominated}
	r, err := s.reg.CreateSubscription(c.r.Context(), c.actor, x, m)
	return changed(r, err, created)
}

func (s *server) nominate(c *call, in *nominateBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.NominateSubscription(c.r.Context(), c.actor, c.path("id"), in.Nominated, m)
	return changed(r, err, found)
}

func (s *server) listServices(c *call) (answer, error) {
	risk, err := c.filterUint("risk", 0, 4, 5)
	if err != nil {
		return answer{}, err
	}
	var keep func(*registry.Entry[registry.Service]) bool
	if risk <= 4 {
		keep = func(e *registry.Entry[registry.Service]) bool { return e.Value.Risk == registry.Risk(risk) }
	}
	return paged(c, s.lists.services.get(c.view, (*registry.View).Services), keep, show)
}

func (s *server) getService(c *call) (answer, error) {
	return c.one(registry.KindService, c.path("id"))
}

func (s *server) createService(c *call, in *serviceBody) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	up := serviceUpdate{
		Name: in.Name, Method: in.Method, Template: in.Template, Risk: in.Risk, Scope: in.Scope, WhileSuspended: in.WhileSuspended,
		Bound: in.Bound, StampVerified: in.StampVerified, ClientRequired: in.ClientRequired, Subject: in.Subject, Streaming: in.Streaming,
	}
	r, err := s.reg.CreateService(c.r.Context(), c.actor, up.service(in.Key), m)
	return changed(r, err, created)
}

func (s *server) updateService(c *call, in *serviceUpdate) (answer, error) {
	m, err := c.meta(in.Reason)
	if err != nil {
		return answer{}, err
	}
	r, err := s.reg.UpdateService(c.r.Context(), c.actor, in.service(c.path("id")), m)
	return changed(r, err, found)
}

func (in *serviceUpdate) service(key string) registry.Service {
	x := registry.Service{
		Key: key, Name: in.Name, Method: in.Method, Template: in.Template, Risk: in.Risk, Scope: in.Scope,
		WhileSuspended: in.WhileSuspended, Bound: in.Bound, StampVerified: in.StampVerified, ClientRequired: in.ClientRequired, Streaming: in.Streaming,
	}
	if in.Subject != nil {
		x.Subject = *in.Subject
	}
	return x
}
