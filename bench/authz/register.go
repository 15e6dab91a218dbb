package main

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/dspgate/dspgate/bench/seed"
	"github.com/dspgate/dspgate/registry"
)

// The register measured with: products of 2 versions, 1 client app and 3
// entitlements each, ten products to an entity, and for the products that call
// a subscription each.

const productsPerEntity = 10

// benchLimits are limits of every kind on each call, none of which is ever used
// up: three of each product by its tier and one over all callers; with quotas one
// more of each product, and one of each entity that calls.
func benchLimits(quotas bool) []registry.Limit {
	limit := func(s registry.SubjectRef, name string, kind registry.LimitKind, amount int64) registry.Limit {
		l := registry.Limit{ID: registry.LimitID(s, name), Subject: s, Name: name, Kind: kind, Amount: amount}
		switch kind {
		case registry.LimitRate:
			l.Burst = amount
		case registry.LimitQuota, registry.LimitClients:
			l.Period, l.Zone = registry.PeriodDay, registry.ZoneDefault
		}
		return l
	}
	tier := registry.SubjectRef{Kind: registry.KindTier, ID: registry.TierStandard}
	all := []registry.Limit{
		limit(tier, "rate", registry.LimitRate, 500_000),
		limit(tier, "clients", registry.LimitClients, 1_000_000),
		limit(tier, "at-once", registry.LimitConcurrency, 100_000),
		limit(registry.SubjectRef{Kind: registry.KindService, ID: "abr.lookup"}, "global", registry.LimitRate, 1_000_000),
	}
	if !quotas {
		return all
	}
	all = append(all, limit(tier, "day", registry.LimitQuota, 1_000_000_000))
	month := limit(tier, "month", registry.LimitQuota, 1_000_000_000)
	month.Period, month.Per = registry.PeriodMonth, registry.KindEntity
	return append(all, month)
}

// floodLimit refuses all but one call a second of a product, beside the limits
// that everybody has.
func floodLimit(product string) registry.Limit {
	s := registry.SubjectRef{Kind: registry.KindProduct, ID: product}
	const name = "flood"
	return registry.Limit{ID: registry.LimitID(s, name), Subject: s, Name: name, Kind: registry.LimitRate, Amount: 1, Burst: 2}
}

// caller is one product that calls.
type caller struct {
	clientID, productID, ssid string
	owner, client             registry.ABN
}

var benchServices = []registry.Service{
	{Key: "abr.lookup", Method: "GET", Template: "/registry/v1/abns/{abn}", Risk: 1, Subject: registry.Subject{In: "claim", Name: "client_abn"}},
	{Key: "receipts.get", Method: "GET", Template: "/lodgments/v1/receipts/{id}", Risk: 1, WhileSuspended: true},
	{Key: "payevnt.0004.submit", Method: "POST", Template: "/lodgments/v1/payroll-events", Risk: 2},
	{Key: "as.0004.submit", Method: "POST", Template: "/lodgments/v1/activity-statements", Risk: 2},
	{Key: "as.0004.get", Method: "GET", Template: "/lodgments/v1/activity-statements/{id}", Risk: 3},
}

// records makes the register, and says who calls; the last of them may not, but
// once a second.
func records(products, callers int, quotas bool) (all []registry.Record, who []caller, err error) {
	put := func(kind registry.Kind, id string, v any) {
		data, merr := json.Marshal(v)
		if merr != nil {
			err = merr
		}
		all = append(all, registry.Record{Kind: kind, ID: id, Data: data})
	}
	for _, s := range benchServices {
		put(registry.KindService, s.Key, s)
	}
	for _, l := range benchLimits(quotas) {
		put(registry.KindLimit, l.ID, l)
	}
	now := time.Now()
	from, until := registry.At(now.AddDate(-1, 0, 0)), registry.At(now.AddDate(1, 0, 0))
	for i := range products {
		owner := seed.ABN(1 + i/productsPerEntity)
		if i%productsPerEntity == 0 {
			put(registry.KindEntity, owner.String(), registry.Entity{
				ABN: owner, Name: fmt.Sprintf("Entity %d", i/productsPerEntity), Roles: []registry.Role{registry.RoleDeveloper},
				State: registry.EntityRegistered, Contact: fmt.Sprintf("dev@entity-%d.example", i/productsPerEntity), Updated: from,
			})
		}
		id := fmt.Sprintf("FP-%06d", i)
		app := fmt.Sprintf("fp-%06d-prod", i)
		p := registry.Product{
			ID: id, Name: fmt.Sprintf("Product %d", i), Owner: owner, Scenario: 6, Category: "A", Updated: from,
			Certification: registry.Certification{State: registry.CertWhitelisted, ValidFrom: from, ValidUntil: until},
			Versions:      []registry.Version{{Version: "5.0", Released: from}, {Version: "4.8", Released: from, SupportUntil: registry.At(now)}},
		}
		for _, s := range []string{"abr.lookup", "payevnt.0004.submit", "as.0004.submit"} {
			p.Entitlements = append(p.Entitlements, registry.Entitlement{Service: s, Environment: registry.PROD, Stage: registry.StagePROD, From: from})
		}
		put(registry.KindProduct, id, p)
		put(registry.KindClientApp, app, registry.ClientApp{ClientID: app, ProductID: id, Environment: registry.PROD, Updated: from})
		if len(who) < callers {
			c := caller{clientID: app, productID: id, owner: owner, ssid: fmt.Sprintf("%010d", 1234000+i), client: seed.ABN(500_000 + i)}
			put(registry.KindSubscription, c.ssid, registry.Subscription{SSID: c.ssid, ProductID: id, ClientABN: c.client, Nominated: true, Updated: from})
			who = append(who, c)
		}
	}
	flood := floodLimit(who[callers-1].productID)
	put(registry.KindLimit, flood.ID, flood)
	return all, who, err
}
