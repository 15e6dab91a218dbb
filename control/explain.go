package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// Decisions is where decision records are found. Either function may be nil:
// then there are none.
type Decisions struct {
	// Find finds one record; registry.ErrNotFound when there is none.
	Find func(ctx context.Context, id authz.DecisionID) (*authz.Record, error)
	// Denials lists the last refusals of some products (at most 200), newest
	// first; holder, when set, only of calls with that entity's credentials.
	Denials func(ctx context.Context, products []string, holder registry.ABN, limit int) ([]authz.Record, error)
	// Tail calls f with what was recorded after a place, and returns the next place;
	// skipped when it left some out. From "" it only finds the end.
	Tail func(ctx context.Context, after string, f func(*authz.Record)) (next string, skipped bool, err error)
	// Each reads every record of a time, about in order, until f returns false.
	Each func(ctx context.Context, from, to time.Time, f func(*authz.Record) bool) error
}

// decisionProductsMax is how many products are asked about at once.
const decisionProductsMax = 200

// decisionView is a decision record as the API shows it.
type decisionView struct {
	ID          string               `json:"id"`
	At          registry.Time        `json:"at"`
	Allowed     bool                 `json:"allowed"`
	Code        string               `json:"code" doc:"The contract's code; ok when allowed."`
	Status      int                  `json:"status" doc:"What the caller was answered; 200 when allowed."`
	Revision    registry.Revision    `json:"revision" doc:"Of the register it was decided on."`
	Environment registry.Environment `json:"environment,omitempty"`
	Service     string               `json:"service,omitempty"`
	Route       string               `json:"route,omitempty" doc:"Method and path template, never the path."`
	ProductID   string               `json:"product_id,omitempty"`
	Version     string               `json:"version,omitempty"`
	ClientID    string               `json:"client_id,omitempty"`
	Holder      registry.ABN         `json:"holder_abn,omitempty"`
	ClientHash  string               `json:"client_hash,omitempty"`
	SSIDHash    string               `json:"software_id_hash,omitempty"`
	Limit       string               `json:"limit,omitempty" doc:"The account of the limit that refused, KIND:ID:NAME."`
	Shadow      string               `json:"shadow_limit,omitempty" doc:"That of a limit which would have refused, were it not only observed."`
	Suspension  string               `json:"suspension_id,omitempty"`
	Sidecar     string               `json:"sidecar_id,omitempty"`
}

// explanation says why one call was decided as it was.
type explanation struct {
	Decision decisionView `json:"decision"`
	Title    string       `json:"title"`
	Detail   string       `json:"detail" doc:"In one plain sentence: what was wrong and what to do about it."`
	Remedy   string       `json:"remedy,omitempty" doc:"What usually lies behind it, and what to do."`
	// Suspension is the one that decided, or was passed by.
	Suspension *suspensionView `json:"suspension,omitempty"`
	// Register is what the register said, record by record.
	Register []registerFact `json:"register"`
	Now      nowView        `json:"now"`
}

// registerFact is one record the decision rested on.
type registerFact struct {
	Kind registry.Kind `json:"kind"`
	ID   string        `json:"id"`
	Says string        `json:"says"`
	// Revision is the one that last wrote the record.
	Revision registry.Revision `json:"revision"`
	// Changed: it was written again after the decision, so that it may have said
	// something else then.
	Changed bool `json:"changed_since"`
	// Change is that later change, for those who may read the log.
	Change *changeView `json:"change,omitempty"`
}

// nowView says whether the same call would be decided alike by now.
type nowView struct {
	Revision registry.Revision `json:"revision"`
	Known    bool              `json:"known" doc:"False when the decision hung on the token, a limit or the sidecar, not on the register."`
	Alike    bool              `json:"alike"`
	Code     string            `json:"code,omitempty" doc:"What the register alone would answer."`
	Detail   string            `json:"detail"`
}

func (s *server) viewDecision(c *call, r *authz.Record) decisionView {
	return decisionFor(r, c.actor.Staff())
}

func decisionFor(r *authz.Record, staff bool) decisionView {
	v := decisionView{
		ID: r.ID.String(), At: r.At, Allowed: r.Reason == authz.OK, Code: r.Reason.String(), Status: r.Reason.Status(), Revision: r.Revision,
		Environment: r.Environment, Service: r.Service, Route: r.Route, ProductID: r.ProductID, Version: r.Version,
		ClientID: r.ClientID, Holder: r.Holder, Suspension: r.Suspension, Sidecar: r.Sidecar, Limit: r.Limit, Shadow: r.Shadow,
	}
	if r.ClientHash != (authz.Hash{}) {
		v.ClientHash = fmt.Sprintf("%x", r.ClientHash[:])
	}
	if r.SSIDHash != (authz.Hash{}) {
		v.SSIDHash = fmt.Sprintf("%x", r.SSIDHash[:])
	}
	if !staff {
		v.Sidecar = "" // the agency's machines are not a developer's business
	}
	return v
}

func (s *server) explain(c *call) (answer, error) {
	id, err := authz.ParseDecisionID(c.path("id"))
	missing := fmt.Errorf("%w: there is no record of the decision %s; records are written within a second and kept for a while, and calls without a registered client app are shown to staff only", registry.ErrNotFound, cut(c.path("id"), 40))
	if err != nil || s.decisions.Find == nil {
		return answer{}, missing
	}
	r, err := s.decisions.Find(c.r.Context(), id)
	if errors.Is(err, registry.ErrNotFound) {
		return answer{}, missing
	}
	if err != nil {
		return answer{}, unavailable(err)
	}
	if !c.actor.Staff() && !mayKnowProduct(c, c.view.Product(r.ProductID)) {
		return answer{}, missing
	}
	e := explanation{Decision: s.viewDecision(c, r), Title: r.Reason.Title(), Detail: r.Reason.Detail(), Remedy: r.Reason.Remedy().Do}
	if x := c.view.Suspension(r.Suspension); x != nil {
		v := s.viewSuspension(c, x)
		e.Suspension = &v
	}
	e.Register = s.facts(c, r)
	e.Now = now(c.view, r, c.at)
	return answer{data: e}, nil
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", registry.ErrUnavailable, err) }

// facts lists the records a decision rested on, with what they say by now and
// whether they were written again since.
func (s *server) facts(c *call, r *authz.Record) []registerFact {
	facts := []registerFact{}
	add := func(kind registry.Kind, id string, says func(any) string) {
		if id == "" {
			return
		}
		value, rev, ok := c.view.Entry(kind, id)
		if !ok {
			return
		}
		f := registerFact{Kind: kind, ID: id, Says: says(value), Revision: rev, Changed: rev > r.Revision}
		if f.Changed && c.actor.Has(registry.PermAuditor) {
			f.Change = s.changeAt(c, rev)
		}
		facts = append(facts, f)
	}
	add(registry.KindClientApp, r.ClientID, func(v any) string {
		a := v.(*registry.ClientApp)
		if a.Disabled {
			return fmt.Sprintf("disabled; of %s in %s", a.ProductID, a.Environment)
		}
		return fmt.Sprintf("of %s in %s", a.ProductID, a.Environment)
	})
	add(registry.KindProduct, r.ProductID, func(v any) string { return productSays(v.(*registry.Product), r) })
	if p := c.view.Product(r.ProductID); p != nil {
		add(registry.KindEntity, p.Owner.String(), entitySays("the owner"))
		if r.Holder != p.Owner {
			add(registry.KindEntity, r.Holder.String(), entitySays("holder of the credential"))
		}
	}
	add(registry.KindService, r.Service, func(v any) string {
		x := v.(*registry.Service)
		says := fmt.Sprintf("%s %s, risk rating %d", x.Method, x.Template, x.Risk)
		if x.WhileSuspended {
			says += ", available while suspended"
		}
		return says
	})
	add(registry.KindLimit, limitRecord(c.view, r.Limit, r.ProductID), limitSays)
	add(registry.KindLimit, limitRecord(c.view, r.Shadow, r.ProductID), limitSays)
	add(registry.KindSuspension, r.Suspension, func(v any) string {
		x := v.(*registry.Suspension)
		switch {
		case x.LiftedAt != 0:
			return fmt.Sprintf("of %s, lifted at %s", x.Subject, x.LiftedAt)
		case x.Active(c.at):
			return fmt.Sprintf("of %s, in force", x.Subject)
		}
		return fmt.Sprintf("of %s, expired at %s", x.Subject, x.Expires)
	})
	return facts
}

// limitRecord is the record that an account's limit comes from by now: the
// subject's own, or its product's tier's; "" when there is none.
func limitRecord(v *registry.View, account, productID string) string {
	if account == "" {
		return ""
	}
	if l := v.Limit(account); l != nil && l.Removed == 0 {
		return account
	}
	name := account[strings.LastIndexByte(account, ':')+1:]
	p := v.Product(productID)
	if p == nil {
		return ""
	}
	for _, tier := range []string{p.TierOf(), registry.TierPVT} {
		id := registry.LimitID(registry.SubjectRef{Kind: registry.KindTier, ID: tier}, name)
		if l := v.Limit(id); l != nil && l.Removed == 0 {
			return id
		}
	}
	return ""
}

func limitSays(v any) string {
	l := v.(*registry.Limit)
	says := fmt.Sprintf("%s of %d", l.Kind, l.Amount)
	switch {
	case l.Kind == registry.LimitRate:
		says = fmt.Sprintf("%d a second, %d at once", l.Amount, l.Burst)
	case l.Period != registry.NoPeriod:
		says += " a " + l.Period.String() + " in " + l.Zone
	}
	if l.Shadow {
		says += ", only observed"
	}
	return says
}

func entitySays(as string) func(any) string {
	return func(v any) string {
		e := v.(*registry.Entity)
		return fmt.Sprintf("%s, %s, is %s", e.Name, as, e.State)
	}
}

func productSays(p *registry.Product, r *authz.Record) string {
	says := "certification " + p.Certification.State.String()
	if p.Certification.ValidUntil != 0 {
		says += " until " + p.Certification.ValidUntil.String()
	}
	if r.Version != "" {
		if v := p.Version(r.Version); v == nil {
			says += "; version " + r.Version + " is not registered"
		} else if v.State == registry.VersionBlocked {
			says += "; version " + r.Version + " is blocked"
		} else if v.SupportUntil != 0 {
			says += "; version " + r.Version + " is supported until " + v.SupportUntil.String()
		}
	}
	if r.Service != "" && r.Environment != registry.NoEnvironment {
		if e := p.Entitled(r.Service, r.Environment); e == nil {
			says += fmt.Sprintf("; not entitled to %s in %s", r.Service, r.Environment)
		} else {
			says += fmt.Sprintf("; entitled to %s in %s", r.Service, r.Environment)
			if e.Stage == registry.StagePVT {
				says += " for its named clients"
			}
		}
	}
	return says
}

// now asks the register what it would answer to the same call at an instant.
// The record keeps no token, no certificate and no client: what hangs on one
// of those cannot be asked again.
func now(v *registry.View, r *authz.Record, at registry.Time) nowView {
	n := nowView{Revision: v.Revision}
	if !fromRegister(r.Reason) || r.ClientID == "" {
		n.Detail = "The decision hung on the token, the client, a limit or the sidecar, not on the register; send the call again to find out."
		return n
	}
	reason := registerAnswer(v, r, at)
	n.Known, n.Code, n.Alike = true, reason.String(), reason == r.Reason
	switch {
	case n.Alike && reason == authz.OK:
		n.Detail = "The register would let the same call pass now."
	case n.Alike:
		n.Detail = "The same call would be refused for the same reason now."
	case reason == authz.OK:
		n.Detail = "What stood against the call does so no longer: the register would let it pass now."
	default:
		n.Detail = "The same call would be decided otherwise now. " + reason.Detail()
	}
	return n
}

// fromRegister tells whether a reason follows from the register and the facts
// the record keeps.
func fromRegister(r authz.Reason) bool {
	switch r {
	case authz.OK, authz.ClientUnknown, authz.EntityNotRegistered, authz.EntitySuspended, authz.EntityCancelled,
		authz.ProductNotWhitelisted, authz.ProductRestricted, authz.ProductSuspended, authz.ProductDelisted, authz.CertificationExpired,
		authz.VersionNotRegistered, authz.VersionUnsupported, authz.VersionBlocked, authz.ServiceNotEntitled, authz.EnvironmentMismatch,
		authz.CredentialBlocked, authz.AnomalySuspended, authz.ClientNotPermitted:
		return true
	}
	return false
}

func registerAnswer(v *registry.View, r *authz.Record, at registry.Time) authz.Reason {
	c := authz.Recorded{
		Reason: r.Reason, Environment: r.Environment, Service: r.Service, Product: r.ProductID, Version: r.Version, Holder: r.Holder,
		Subject: r.SubjectHash, Client: r.ClientHash,
	}
	reason, _ := c.Now(v, v.ClientApp(r.ClientID), at)
	return reason
}

// listDecisions lists the last refusals: of one product, or of all that a
// developer may see.
func (s *server) listDecisions(c *call) (answer, error) {
	product, given := c.filter("product_id")
	var products []string
	switch {
	case given:
		if p := c.view.Product(product); p != nil && mayKnowProduct(c, p) {
			products = []string{product}
		}
	case c.actor.Staff():
		return answer{}, wrongParam("product_id", "say which product's refusals you want")
	default:
		products = s.ownProducts(c)
	}
	denials, err := s.denials(c, products, decisionsMax)
	if err != nil {
		return answer{}, err
	}
	return paged(c, denials, nil, func(v decisionView) any { return v })
}

// decisionsMax bounds what is read of the refusals of one caller.
const decisionsMax = 1000

func (s *server) denials(c *call, products []string, limit int) ([]decisionView, error) {
	out := []decisionView{}
	if len(products) == 0 || s.decisions.Denials == nil {
		return out, nil
	}
	records, err := s.decisions.Denials(c.r.Context(), products[:min(len(products), decisionProductsMax)], 0, limit)
	if err != nil {
		return nil, unavailable(err)
	}
	for i := range records {
		out = append(out, s.viewDecision(c, &records[i]))
	}
	return out, nil
}
