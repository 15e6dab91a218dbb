package control

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/ratelimit"
	"github.com/dspgate/dspgate/registry"
)

// LimitUse is what one limit is at, over all sidecars, at most about a second old.
type LimitUse struct {
	Used    int64  // calls, clients or, of a rate, what the bucket lacks
	Refused uint64 // today
	Shadow  uint64 // would have been refused today, were the limit enforced
}

// LimitUses reads what limits are at, in their order; it is the state that the
// sidecars spend from.
type LimitUses func(ctx context.Context, limits []*ratelimit.Limit) ([]LimitUse, error)

// limitUseView is one limit that applies to a product, and what it is at.
type limitUseView struct {
	Name        string               `json:"name" doc:"As the RateLimit headers show it."`
	Account     string               `json:"account" doc:"KIND:ID:NAME: whose calls are counted together."`
	Limit       string               `json:"limit_id" doc:"What says so: the subject's own limit, or its tier's."`
	Kind        registry.LimitKind   `json:"kind"`
	Service     string               `json:"service,omitempty" doc:"Only calls of this service; not set: all."`
	Environment registry.Environment `json:"environment,omitempty"`
	Stage       registry.Stage       `json:"stage,omitempty"`
	Amount      int64                `json:"amount"`
	Burst       int64                `json:"burst,omitempty"`
	Period      registry.Period      `json:"period,omitempty"`
	Zone        string               `json:"zone,omitempty"`
	Shadow      bool                 `json:"shadow,omitempty" doc:"Only observed: it refuses nothing."`
	// Use is left out while it cannot be read.
	Used      *int64        `json:"used,omitempty"`
	Remaining *int64        `json:"remaining,omitempty"`
	Resets    registry.Time `json:"resets_at,omitempty" doc:"When a calendar quota starts anew."`
	Refused   uint64        `json:"refused_today,omitempty" doc:"Days are UTC here."`
	Observed  uint64        `json:"shadow_refused_today,omitempty" doc:"What it would have refused."`
}

// usesUnknown says why figures are missing; the sidecars go on all the same.
const usesUnknown = "what was used cannot be read now: the store is away, and each sidecar goes on with the last share it was lent"

// usesNote says what figures of limits lack: what sidecars that were silent for
// longer than their short lease, which may still serve low ratings, let pass out
// of the last share they were lent. "" when nothing.
func (s *server) usesNote(c *call) string {
	all, err := s.reg.Sidecars(c.r.Context())
	if err != nil {
		return usesUnknown
	}
	silent, serving := 0, 0
	for _, x := range all {
		if x.Lapsed {
			continue // it can only refuse
		}
		serving++
		if x.ShortLeftMS < 0 {
			silent++
		}
	}
	if silent == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d sidecars cannot be heard of now and spend the last share they were lent: what they let pass is not in these figures yet", silent, serving)
}

// Bounds on the limits shown of one product.
const (
	usesMax             = 500
	usesSubscriptionMax = 100
)

// appliedTo lists every limit that may apply to calls of a product, once.
func (s *server) appliedTo(v *registry.View, p *registry.Product, subs []registry.Subscription) []registry.Applied {
	apps := map[registry.Environment][]*registry.ClientApp{}
	for _, a := range s.appsOf(v, p.ID) {
		apps[a.Environment] = append(apps[a.Environment], a)
	}
	ssids := []string{""}
	for _, sub := range subs[:min(len(subs), usesSubscriptionMax)] {
		ssids = append(ssids, sub.SSID)
	}
	seen := map[string]bool{}
	var out, room []registry.Applied
	for _, e := range p.Entitlements {
		service := v.Service(e.Service)
		if service == nil {
			continue
		}
		for _, app := range apps[e.Environment] {
			for _, ssid := range ssids {
				room = v.AppendLimits(room[:0], &registry.LimitQuery{App: app, Product: p, Service: service, SSID: ssid, Environment: e.Environment, Stage: e.Stage})
				for _, a := range room {
					if account := a.Account(); !seen[account] && len(out) < usesMax {
						seen[account] = true
						out = append(out, a)
					}
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b registry.Applied) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Of.ID, b.Of.ID))
	})
	return out
}

// viewUses shows limits with what they are at; known is false when that could
// not be read.
func (s *server) viewUses(c *call, product string, applied []registry.Applied) (views []limitUseView, known bool) {
	views = make([]limitUseView, 0, len(applied))
	limits := make([]*ratelimit.Limit, 0, len(applied))
	for _, a := range applied {
		var zone *time.Location
		if a.Zone != "" {
			zone, _ = time.LoadLocation(a.Zone) // it was checked when it was set
		}
		l, _ := authz.LimitOf(a, zone)
		l.Version = uint64(c.view.AppliedRevision(a, product))
		limits = append(limits, l)
		view := limitUseView{
			Name: a.Name, Account: a.Account(), Limit: a.Limit.ID, Kind: a.Kind, Service: a.Service, Environment: a.Environment, Stage: a.Stage,
			Amount: a.Amount, Burst: a.Burst, Period: a.Period, Zone: a.Zone, Shadow: a.Shadow,
		}
		if a.Of.Kind == registry.KindService {
			view.Service = a.Of.ID
		}
		if _, _, end := l.Period(c.at.Std()); !end.IsZero() {
			view.Resets = registry.At(end)
		}
		views = append(views, view)
	}
	if s.uses == nil || len(limits) == 0 {
		return views, s.uses != nil
	}
	uses, err := s.uses(c.r.Context(), limits)
	if err != nil || len(uses) != len(limits) {
		s.log.WarnContext(c.r.Context(), "use of limits not read", "request_id", c.id, "err", err)
		return views, false
	}
	for i, u := range uses {
		used, left := u.Used, max(limits[i].Capacity()-u.Used, 0)
		views[i].Remaining, views[i].Used = &left, &used
		views[i].Refused, views[i].Observed = u.Refused, u.Shadow
	}
	return views, true
}

// listProductLimits shows every limit of a product and what it is at.
func (s *server) listProductLimits(c *call) (answer, error) {
	p, err := c.product()
	if err != nil {
		return answer{}, err
	}
	subs := s.subscriptionsOf(c, p.ID, usesSubscriptionMax)
	views, _ := s.viewUses(c, p.ID, s.appliedTo(c.view, p, subs))
	return paged(c, views, nil, func(v limitUseView) any { return v })
}

// quotaWarning is what is said of a quota that is smaller than what was used of
// it already; "" when it is not, or when that cannot be read.
func (s *server) quotaWarning(c *call, l *registry.Limit, product string) string {
	if s.uses == nil || l.Kind == registry.LimitRate || l.Subject.Kind == registry.KindTier {
		return ""
	}
	views, _ := s.viewUses(c, product, []registry.Applied{{Limit: l, Of: l.Subject}})
	if views[0].Used == nil || *views[0].Used < l.Amount {
		return ""
	}
	return fmt.Sprintf("amount: %d are used already, which is not less: nothing more passes until the period ends, or calls under way end", *views[0].Used)
}
