package authz

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dspgate/dspgate/authz/token"
	"github.com/dspgate/dspgate/registry"
)

// Grant is what an ALLOW of a streaming service stands on, so that the question
// whether it may go on can be asked for as long as the stream is open. It holds
// names, never records: each View answers for itself. It travels with the
// request as text, because the sidecar that watches a stream need not be the
// one that admitted it.
type Grant struct {
	ID        DecisionID
	ClientID  string
	Product   string
	Service   string
	Version   string // "" when the caller did not say
	SSID      string
	Holder    registry.ABN
	ClientABN registry.ABN
	// Thumbprint is of the client certificate the call came with, "" when none.
	Thumbprint  string
	Environment registry.Environment
	// Issuer, KID and JTI name the token, for denials.
	Issuer, KID, JTI string
	Expires          registry.Time // of the token
}

// StreamRoom tells whether a product may open one more stream; it is asked
// about streaming services only.
type StreamRoom interface{ Room(product string) bool }

// grantBytesMax bounds the text of a Grant. Each of its parts is bounded where
// it enters; a jti of 256 bytes is the longest.
const grantBytesMax = 4096

// ErrGrant is wrapped by every error of ParseGrant.
var ErrGrant = errors.New("no grant")

// grantText is a Grant in JSON; one letter a member, since it goes with every
// stream.
type grantText struct {
	ID          string               `json:"d"`
	ClientID    string               `json:"c"`
	Product     string               `json:"p"`
	Service     string               `json:"s"`
	Version     string               `json:"v,omitempty"`
	SSID        string               `json:"u,omitempty"`
	Holder      registry.ABN         `json:"h,omitempty"`
	ClientABN   registry.ABN         `json:"a,omitempty"`
	Thumbprint  string               `json:"t,omitempty"`
	Environment registry.Environment `json:"e"`
	Issuer      string               `json:"i"`
	KID         string               `json:"k,omitempty"`
	JTI         string               `json:"j,omitempty"`
	Expires     registry.Time        `json:"x"`
}

// String is the Grant as text, for ParseGrant.
func (g *Grant) String() string {
	b, err := json.Marshal(grantText{
		g.ID.String(), g.ClientID, g.Product, g.Service, g.Version, g.SSID, g.Holder, g.ClientABN,
		g.Thumbprint, g.Environment, g.Issuer, g.KID, g.JTI, g.Expires,
	})
	if err != nil {
		panic("authz: a grant does not marshal: " + err.Error())
	}
	return string(b)
}

// ParseGrant reads the text of a Grant. What is not one, or lacks a name that
// every Grant has, is refused with ErrGrant.
func ParseGrant(text string) (*Grant, error) {
	if len(text) > grantBytesMax {
		return nil, fmt.Errorf("%w: %d bytes", ErrGrant, len(text))
	}
	var t grantText
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&t); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGrant, err)
	}
	if dec.InputOffset() != int64(len(text)) {
		return nil, fmt.Errorf("%w: more than one value", ErrGrant)
	}
	g := &Grant{
		ClientID: t.ClientID, Product: t.Product, Service: t.Service, Version: t.Version, SSID: t.SSID, Holder: t.Holder, ClientABN: t.ClientABN,
		Thumbprint: t.Thumbprint, Environment: t.Environment, Issuer: t.Issuer, KID: t.KID, JTI: t.JTI, Expires: t.Expires,
	}
	if copy(g.ID[:], t.ID) != len(t.ID) || len(t.ID) != len(g.ID) || t.ClientID == "" || t.Product == "" || t.Service == "" || t.Issuer == "" {
		return nil, fmt.Errorf("%w: a name is missing", ErrGrant)
	}
	return g, nil
}

// newGrant notes what the admission of a stream stands on.
func newGrant(claims *token.Claims, thumbprint string, d *Decision) *Grant {
	return &Grant{
		ID: d.ID, ClientID: d.App.ClientID, Product: d.Product.ID, Service: d.Service.Key, Version: d.Version, SSID: d.SSID,
		Holder: claims.ABN, ClientABN: claims.ClientABN, Thumbprint: thumbprint, Environment: d.Environment,
		Issuer: claims.Issuer, KID: claims.KID, JTI: claims.JTI, Expires: claims.Expires,
	}
}

// Still tells whether what was granted would be granted now: OK, or the reason
// why not, with the suspension that decided when it was one. It asks all that
// Decide asks of the register. What was said once is not asked again: the
// token's signature and expiry, and its scope.
func (x *Decider) Still(g *Grant, now time.Time) (Reason, *registry.Suspension) {
	served := x.Register.Served()
	if served == nil {
		return RegisterNotLoaded, nil
	}
	view, at := served.View, registry.At(now)
	service := view.Service(g.Service)
	if service == nil || service.Streaming == "" {
		return ServiceUnknown, nil
	}
	if !served.Fresh(service.Risk, x.Elapsed()) {
		return RegisterStale, nil
	}
	if view.Denied("kid", g.Issuer, g.KID, at) || view.Denied("jti", g.Issuer, g.JTI, at) {
		return TokenRevoked, nil
	}
	d := Decision{
		App: view.ClientApp(g.ClientID), Service: service, Environment: g.Environment,
		Holder: g.Holder, ClientABN: g.ClientABN, SSID: g.SSID,
	}
	if d.App == nil || d.App.Disabled {
		return ClientUnknown, nil
	}
	if d.Product = view.Product(d.App.ProductID); d.Product == nil {
		return ClientUnknown, nil
	}
	if d.Product.ID != g.Product || !d.Product.Delivers(g.Holder) {
		return ProductMismatch, nil // another product's app, or holder, by now
	}
	var sub *registry.Subscription
	if g.SSID != "" {
		switch sub = view.Subscription(g.SSID); {
		case sub == nil:
			return SubscriptionNotNominated, nil
		case sub.ProductID != g.Product:
			return ProductMismatch, nil
		case d.ClientABN == 0:
			d.ClientABN = sub.ClientABN
		}
	}
	standing := view.Standing(&registry.StandingQuery{
		App: d.App, Environment: g.Environment, Version: g.Version,
		Holder: g.Holder, Thumbprint: g.Thumbprint, SSID: g.SSID, Service: service,
	}, at)
	if standing.Code != registry.Good {
		return StandingReason(&standing), standing.Suspension
	}
	if d.App.Environment != g.Environment {
		return EnvironmentMismatch, nil
	}
	if reason := entitled(&d, at); reason != OK {
		return reason, nil
	}
	return onBehalf(view, sub, &d), nil
}
