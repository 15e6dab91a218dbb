package registry

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
)

// CreateClientApp binds a client_id to a product in an environment. Registrar.
// The product's owner must be Registered: until then no app exists.
func (r *Register) CreateClientApp(ctx context.Context, a Actor, app ClientApp, m Meta) (Result[ClientApp], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[ClientApp]{}, err
	}
	return do[ClientApp](ctx, r, a, "client-app.create", m.Reason, func(t *tx) error {
		if err := checkClientApp(t.view, &app); err != nil {
			return err
		}
		if err := creating[ClientApp](t, app.ClientID); err != nil {
			return err
		}
		p := t.view.Product(app.ProductID)
		if owner := t.view.Entity(p.Owner); owner == nil || owner.State != EntityRegistered {
			return fmt.Errorf("%w: the owner of %s is not Registered", ErrState, p.ID)
		}
		app.Updated = t.now
		return t.put(KindClientApp, app.ClientID, &app)
	})
}

// UpdateClientApp replaces a client app. Registrar. Its product and
// environment are for life: a token issued for one must not come to mean another.
func (r *Register) UpdateClientApp(ctx context.Context, a Actor, app ClientApp, m Meta) (Result[ClientApp], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[ClientApp]{}, err
	}
	return do[ClientApp](ctx, r, a, "client-app.update", m.Reason, func(t *tx) error {
		if err := checkClientApp(t.view, &app); err != nil {
			return err
		}
		old, err := changing[ClientApp](t, app.ClientID, m)
		if err != nil {
			return err
		}
		if app.ProductID != old.ProductID {
			return Field("/product_id", "cannot change; register another client app")
		}
		if app.Environment != old.Environment {
			return Field("/environment", "cannot change; register another client app")
		}
		app.Updated = t.now
		return t.put(KindClientApp, app.ClientID, &app)
	})
}

func checkClientApp(v *View, app *ClientApp) error {
	if err := checkID("/client_id", app.ClientID); err != nil {
		return err
	}
	if err := checkID("/product_id", app.ProductID); err != nil {
		return err
	}
	if v.Product(app.ProductID) == nil {
		return Field("/product_id", "no product %s is registered", app.ProductID)
	}
	if app.Environment == NoEnvironment || app.Environment.String() == "" {
		return Field("/environment", "must be SANDBOX, EVTE or PROD")
	}
	return nil
}

// CreateCredential registers a machine credential. Registrar.
func (r *Register) CreateCredential(ctx context.Context, a Actor, c Credential, m Meta) (Result[Credential], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Credential]{}, err
	}
	return do[Credential](ctx, r, a, "credential.create", m.Reason, func(t *tx) error {
		if err := checkCredential(t.view, &c); err != nil {
			return err
		}
		if err := creating[Credential](t, c.Thumbprint); err != nil {
			return err
		}
		c.Updated = t.now
		return t.put(KindCredential, c.Thumbprint, &c)
	})
}

// UpdateCredential replaces a machine credential. Registrar. Its holder is for life.
func (r *Register) UpdateCredential(ctx context.Context, a Actor, c Credential, m Meta) (Result[Credential], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Credential]{}, err
	}
	return do[Credential](ctx, r, a, "credential.update", m.Reason, func(t *tx) error {
		if err := checkCredential(t.view, &c); err != nil {
			return err
		}
		old, err := changing[Credential](t, c.Thumbprint, m)
		if err != nil {
			return err
		}
		if c.ABN != old.ABN {
			return Field("/abn", "cannot change; register another credential")
		}
		c.Updated = t.now
		return t.put(KindCredential, c.Thumbprint, &c)
	})
}

func checkCredential(v *View, c *Credential) error {
	if b, err := base64.RawURLEncoding.Strict().DecodeString(c.Thumbprint); err != nil || len(b) != 32 {
		return Field("/thumbprint", "is not the base64url, without padding, of a SHA-256")
	}
	if err := checkABN("/abn", c.ABN); err != nil {
		return err
	}
	if v.Entity(c.ABN) == nil {
		return Field("/abn", "no entity %s is registered", c.ABN)
	}
	if err := checkTime("/not_after", c.NotAfter); err != nil {
		return err
	}
	return checkText("/name", c.Name, nameBytesMax, false)
}

// CreateSubscription registers one client's instance of a product. Registrar.
func (r *Register) CreateSubscription(ctx context.Context, a Actor, s Subscription, m Meta) (Result[Subscription], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Subscription]{}, err
	}
	return do[Subscription](ctx, r, a, "subscription.create", m.Reason, func(t *tx) error {
		if err := checkSubscription(t.view, &s); err != nil {
			return err
		}
		if err := creating[Subscription](t, s.SSID); err != nil {
			return err
		}
		s.Updated = t.now
		return t.put(KindSubscription, s.SSID, &s)
	})
}

// UpdateSubscription replaces a subscription. Registrar. Its product and
// client are for life.
func (r *Register) UpdateSubscription(ctx context.Context, a Actor, s Subscription, m Meta) (Result[Subscription], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Subscription]{}, err
	}
	return do[Subscription](ctx, r, a, "subscription.update", m.Reason, func(t *tx) error {
		if err := checkSubscription(t.view, &s); err != nil {
			return err
		}
		old, err := changing[Subscription](t, s.SSID, m)
		if err != nil {
			return err
		}
		if s.ProductID != old.ProductID {
			return Field("/product_id", "cannot change; register another subscription")
		}
		if s.ClientABN != old.ClientABN {
			return Field("/client_abn", "cannot change; register another subscription")
		}
		s.Updated = t.now
		return t.put(KindSubscription, s.SSID, &s)
	})
}

// NominateSubscription records that the client told the agency of a
// subscription, or took it back. Registrar, or the developer who owns the product.
func (r *Register) NominateSubscription(ctx context.Context, a Actor, ssid string, nominated bool, m Meta) (Result[Subscription], error) {
	if err := need(a, PermRegistrar|PermDeveloper); err != nil {
		return Result[Subscription]{}, err
	}
	return do[Subscription](ctx, r, a, "subscription.nominate", m.Reason, func(t *tx) error {
		if s := t.view.Subscription(ssid); s != nil {
			if p := t.view.Product(s.ProductID); p == nil && !a.Staff() || p != nil && !a.MaySee(p.Owner) {
				return fmt.Errorf("%w: %s", ErrNotFound, truncate(ssid, 80))
			}
		}
		s, err := changing[Subscription](t, ssid, m)
		if err != nil {
			return err
		}
		if s.Nominated == nominated {
			return keep(t, entryOf[Subscription](t.view, ssid))
		}
		s.Nominated, s.Updated = nominated, t.now
		return t.put(KindSubscription, ssid, &s)
	})
}

func checkSubscription(v *View, s *Subscription) error {
	if err := checkSSID("/ssid", s.SSID); err != nil {
		return err
	}
	if err := checkID("/product_id", s.ProductID); err != nil {
		return err
	}
	p := v.Product(s.ProductID)
	if p == nil {
		return Field("/product_id", "no product %s is registered", s.ProductID)
	}
	if err := checkABN("/client_abn", s.ClientABN); err != nil {
		return err
	}
	if p.OwnABNOnly && s.ClientABN != p.Owner {
		return Field("/client_abn", "%s acts for its owner %s only", p.ID, p.Owner)
	}
	return nil
}

// CreateService registers a service. Registrar.
func (r *Register) CreateService(ctx context.Context, a Actor, s Service, m Meta) (Result[Service], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Service]{}, err
	}
	return do[Service](ctx, r, a, "service.create", m.Reason, func(t *tx) error {
		if err := checkService(t.view, &s); err != nil {
			return err
		}
		if err := creating[Service](t, s.Key); err != nil {
			return err
		}
		s.Updated = t.now
		return t.put(KindService, s.Key, &s)
	})
}

// UpdateService replaces a service. Registrar.
func (r *Register) UpdateService(ctx context.Context, a Actor, s Service, m Meta) (Result[Service], error) {
	if err := need(a, PermRegistrar); err != nil {
		return Result[Service]{}, err
	}
	return do[Service](ctx, r, a, "service.update", m.Reason, func(t *tx) error {
		if err := checkService(t.view, &s); err != nil {
			return err
		}
		if _, err := changing[Service](t, s.Key, m); err != nil {
			return err
		}
		s.Updated = t.now
		return t.put(KindService, s.Key, &s)
	})
}

// checkService also checks that the route stays one among the others.
func checkService(v *View, s *Service) error {
	if err := checkID("/key", s.Key); err != nil {
		return err
	}
	if err := checkText("/name", s.Name, nameBytesMax, false); err != nil {
		return err
	}
	if s.Risk < 1 || s.Risk > 4 {
		return Field("/risk", "risk ratings are 1 to 4")
	}
	if len(s.Scope) > idBytesMax || strings.ContainsFunc(s.Scope, func(c rune) bool { return c <= ' ' || c > '~' || c == '"' || c == '\\' }) {
		return Field("/scope", "is no OAuth scope of at most %d bytes", idBytesMax)
	}
	if err := checkWord("/streaming", s.Streaming, "", "sse", "websocket", "upload", "grpc"); err != nil {
		return err
	}
	if err := ValidTemplate(s.Method, s.Template); err != nil {
		return err
	}
	if err := checkSubjectPlace(s); err != nil {
		return err
	}
	all := []*Service{}
	for _, e := range v.Services() {
		if e.ID != s.Key {
			all = append(all, &e.Value)
		}
	}
	_, err := CompileRoutes(append(all, s))
	return err
}

func checkSubjectPlace(s *Service) error {
	if err := checkText("/subject/name", s.Subject.Name, idBytesMax, s.Subject.In != ""); err != nil {
		return err
	}
	switch s.Subject.In {
	case "":
		if s.Subject.Name != "" {
			return Field("/subject/in", "must be given: path, claim or body")
		}
	case "path":
		if !strings.Contains(s.Template, "{"+s.Subject.Name+"}") {
			return Field("/subject/name", "the template has no parameter {%s}", s.Subject.Name)
		}
	case "claim":
		return checkID("/subject/name", s.Subject.Name)
	case "body":
		if !strings.HasPrefix(s.Subject.Name, "/") {
			return Field("/subject/name", "is no JSON pointer, such as /tfn")
		}
	default:
		return Field("/subject/in", "%q is unknown here; use path, claim or body", truncate(s.Subject.In, 40))
	}
	return nil
}
