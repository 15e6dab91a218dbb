// Package sample is the register of the demo: twelve products of eleven
// fictional entities in every standing there is (docs: the domain model, §11).
//
// ABNs have valid checksums; no company holds them. Records are a function of
// the instant given, so that what should have expired has.
package sample

import (
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// The entities.
const (
	Wattlebird registry.ABN = 65000000101
	Bluegum    registry.ABN = 73000000606
	Ironbark   registry.ABN = 86000000303
	Kookaburra registry.ABN = 31000000202
	Banksia    registry.ABN = 52000000404
	Lyrebird   registry.ABN = 60000000909
	Mallee     registry.ABN = 18000000505
	Fastlodge  registry.ABN = 39000000707
	Tinkerbird registry.ABN = 94000000808
	Galah      registry.ABN = 69000001010
	Currawong  registry.ABN = 35000001111
	Possum     registry.ABN = 56000001313 // a business, user of the products, not of the register
)

// The one suspension and its notice: Currawong did not meet its own obligations.
const (
	SuspensionID = "SU-currawong"
	NoticeID     = "NT-currawong"
)

// Actor may import the records.
func Actor() registry.Actor {
	return registry.Actor{
		Name:        "sample@dspgate.example",
		Permissions: registry.PermRegistrar | registry.PermAssessor | registry.PermOperator,
	}
}

const day = 24 * time.Hour

// Records is the sample register at an instant, in an order in which each
// record names only what stands before it.
func Records(now time.Time) []any {
	now = now.UTC().Truncate(time.Second)
	var all []any
	for _, s := range services() {
		all = append(all, s)
	}
	for _, e := range entities(now) {
		all = append(all, e)
	}
	products := products(now)
	for _, p := range products {
		all = append(all, p)
	}
	for _, p := range products {
		for _, a := range apps(p.ID) {
			all = append(all, a)
		}
	}
	for _, s := range subscriptions() {
		all = append(all, s)
	}
	return append(all,
		registry.Notice{
			ID: NoticeID, Subject: registry.SubjectRef{Kind: registry.KindEntity, ID: Currawong.String()},
			Reason: "Own obligations not met at the annual recheck; suspension follows in 28 days",
			Issued: registry.At(now.Add(-31 * day)), EffectiveAt: registry.At(now.Add(-3 * day)), By: "operator@agency.example",
		},
		registry.Suspension{
			ID: SuspensionID, Subject: registry.SubjectRef{Kind: registry.KindEntity, ID: Currawong.String()},
			Reason: "Obligation check not satisfied by the day the notice gave", NoticeID: NoticeID,
			ImposedBy: "incident@agency.example", ConfirmedBy: "operator@agency.example",
			ImposedAt: registry.At(now.Add(-2 * day)), Starts: registry.At(now.Add(-2 * day)),
		},
	)
}

func entities(now time.Time) []registry.Entity {
	entity := func(abn registry.ABN, name string, state registry.EntityState, roles ...registry.Role) registry.Entity {
		first, _, _ := strings.Cut(strings.ToLower(name), " ")
		e := registry.Entity{ABN: abn, Name: name, Roles: roles, State: state, Contact: "dev@" + first + ".example"}
		for _, check := range []string{"REG-1", "REG-2", "REG-3", "REG-4"} {
			e.Checks = append(e.Checks, registry.Check{
				Name: check, Outcome: "pass", Source: "application",
				At: registry.At(now.Add(-200 * day)), Expires: registry.At(now.Add(165 * day)),
			})
		}
		return e
	}
	const (
		d, sp, cp, ihd = registry.RoleDeveloper, registry.RoleServiceProvider, registry.RoleCloudProvider, registry.RoleInHouse
		registered     = registry.EntityRegistered
	)
	all := []registry.Entity{
		entity(Wattlebird, "Wattlebird Payroll", registered, d, sp),
		entity(Bluegum, "Bluegum Hosting", registered, cp),
		entity(Ironbark, "Ironbark Ledger", registered, d),
		entity(Kookaburra, "Kookaburra Tax", registered, d, sp, cp),
		entity(Banksia, "Banksia Clearing", registered, sp),
		entity(Lyrebird, "Lyrebird Super", registered, d),
		entity(Mallee, "Mallee Shire Council", registered, ihd),
		entity(Fastlodge, "Fastlodge Refunds", registry.EntityRejected, d, sp),
		entity(Tinkerbird, "Tinkerbird Apps", registered, d, sp),
		entity(Galah, "Galah Rapid", registered, d),
		entity(Currawong, "Currawong Systems", registered, d, sp),
	}
	for i := range all {
		switch e := &all[i]; e.ABN {
		case Fastlodge: // the applicant is not linked to the business
			e.Checks[0].Outcome, e.Checks[0].Source = "fail", "authority register"
		case Currawong: // the outcome only; nobody's tax affairs are kept
			e.Checks[2] = registry.Check{Name: "REG-3", Outcome: "fail", Source: "annual recheck", At: registry.At(now.Add(-31 * day))}
		}
	}
	return all
}

// streaming are the keys of the long-lived services.
func streaming() []string {
	var keys []string
	for _, s := range services() {
		if s.Streaming != "" {
			keys = append(keys, s.Key)
		}
	}
	return keys
}

func services() []registry.Service {
	all := []registry.Service{
		{Key: "abr.lookup", Name: "Business register lookup", Method: "GET", Template: "/registry/v1/abns/{abn}", Risk: 1},
		{Key: "receipts.get", Name: "Receipt of a lodgment", Method: "GET", Template: "/lodgments/v1/receipts/{id}", Risk: 1, WhileSuspended: true},
		{Key: "payevnt.0004.submit", Name: "Payroll event", Method: "POST", Template: "/lodgments/v1/payroll-events", Risk: 2,
			Subject: registry.Subject{In: "claim", Name: "client_abn"}},
		{Key: "as.0004.submit", Name: "Lodge an activity statement", Method: "POST", Template: "/lodgments/v1/activity-statements", Risk: 2,
			Subject: registry.Subject{In: "claim", Name: "client_abn"}},
		{Key: "as.0004.get", Name: "Prefilled activity statement", Method: "GET", Template: "/lodgments/v1/activity-statements/{id}", Risk: 3,
			Subject: registry.Subject{In: "claim", Name: "client_abn"}},
		{Key: "ldglst.0002.list", Name: "An agent's clients", Method: "GET", Template: "/agents/v1/clients", Risk: 3,
			Subject: registry.Subject{In: "claim", Name: "client_abn"}},
		{Key: "piitr.get", Name: "Individual return prefill", Method: "GET", Template: "/individuals/v1/{tfn}/prefill", Risk: 4,
			Subject: registry.Subject{In: "path", Name: "tfn"}},
		{Key: "stic.validate", Name: "Member verification", Method: "POST", Template: "/super/v1/member-verifications", Risk: 4,
			Subject: registry.Subject{In: "body", Name: "/tfn"}},
		{Key: "events.stream", Name: "Notices, as server-sent events", Method: "GET", Template: "/events/v1/notices", Risk: 2, Streaming: "sse"},
		{Key: "events.socket", Name: "Events over a WebSocket", Method: "GET", Template: "/events/v1/socket", Risk: 2, Streaming: "websocket"},
		{Key: "bulk.submit", Name: "Bulk lodgment", Method: "PUT", Template: "/lodgments/v1/bulk/{id}", Risk: 2, Streaming: "upload"},
		{Key: "sample.chat", Name: "A gRPC stream in both directions", Method: "POST", Template: "/dspgate.sample.v1.Sample/Chat", Risk: 2, Streaming: "grpc"},
	}
	for i := range all {
		all[i].StampVerified = true // by the sample upstream, on streams when they open
	}
	return all
}

func products(now time.Time) []registry.Product {
	at := func(d time.Duration) registry.Time { return registry.At(now.Add(d)) }
	yesterday := at(-day)
	certified := func(s registry.CertState) registry.Certification {
		return registry.Certification{State: s, ValidFrom: at(-day), ValidUntil: registry.At(now.Add(-day).AddDate(1, 0, 0))}
	}
	version := func(v string, age time.Duration) registry.Version {
		return registry.Version{Version: v, Released: at(-age), SupportUntil: at(2 * 365 * day)}
	}
	ended := func(v string, age time.Duration) registry.Version {
		return registry.Version{Version: v, Released: at(-age), SupportUntil: yesterday}
	}
	blocked := version("4.0", 500*day)
	blocked.State, blocked.SecurityRelevant = registry.VersionBlocked, true

	every := make([]string, 0, 12)
	for _, s := range services() {
		every = append(every, s.Key)
	}
	pilot := entitled("as.0004.submit")
	for i := range pilot {
		if pilot[i].Environment == registry.PROD {
			pilot[i].Stage, pilot[i].NamedClients = registry.StagePVT, []registry.ABN{Possum}
			pilot[i].From, pilot[i].Until = at(-day), at(27*day) // 28 days
		}
	}
	// FP-1011 was certified for a year that ended yesterday.
	lapsed := registry.Certification{State: registry.CertWhitelisted, ValidFrom: registry.At(now.Add(-day).AddDate(-1, 0, 0)), ValidUntil: yesterday}

	return []registry.Product{
		{ID: "FP-1001", Name: "Wattlebird Pay Cloud", Owner: Wattlebird, Chain: []registry.ABN{Bluegum}, Scenario: 6, Category: "A",
			Certification: certified(registry.CertWhitelisted), Versions: []registry.Version{version("5.0", 90*day), ended("4.8", 400*day)},
			Entitlements: entitled(append([]string{"payevnt.0004.submit", "as.0004.submit", "as.0004.get", "receipts.get", "abr.lookup"}, streaming()...)...)},
		{ID: "FP-1002", Name: "Ironbark Desktop", Owner: Ironbark, Scenario: 1, Category: "D",
			Certification: certified(registry.CertWhitelisted), Versions: []registry.Version{version("3.1", 120*day)},
			Entitlements: entitled("as.0004.submit", "receipts.get", "abr.lookup")},
		{ID: "FP-1003", Name: "Kooka Agent", Owner: Kookaburra, Scenario: 5, Category: "A",
			Certification: certified(registry.CertWhitelisted), Versions: []registry.Version{version("7.1", 60*day)},
			Entitlements: entitled(every...)},
		{ID: "FP-1004", Name: "Banksia Send", Owner: Banksia, Scenario: 3, Category: "A",
			Certification: certified(registry.CertWhitelisted), Versions: []registry.Version{version("2.0", 200*day)},
			Entitlements: entitled("payevnt.0004.submit", "stic.validate", "bulk.submit")},
		{ID: "FP-1005", Name: "Lyrebird Match engine", Owner: Lyrebird, Chain: []registry.ABN{Banksia}, Scenario: 3, Category: "B",
			Certification: registry.Certification{State: registry.CertSelfCertified}, Versions: []registry.Version{version("1.2", 30*day)},
			Entitlements: entitled()},
		{ID: "FP-1006", Name: "Mallee HR", Owner: Mallee, Scenario: 4, OwnABNOnly: true,
			Certification: certified(registry.CertWhitelisted), Versions: []registry.Version{version("1.0", 300*day)},
			Entitlements: entitled("payevnt.0004.submit")},
		{ID: "FP-1007", Name: "FastRefund", Owner: Fastlodge, Scenario: 2, Category: "B",
			Versions: []registry.Version{version("0.1", 10*day)}},
		{ID: "FP-1008", Name: "BASbuddy", Owner: Tinkerbird, Chain: []registry.ABN{Bluegum}, Scenario: 6, Category: "C",
			Certification: certified(registry.CertPVT), Versions: []registry.Version{version("0.9", 20*day)},
			Entitlements: pilot},
		{ID: "FP-1009", Name: "GalahBooks", Owner: Galah, Scenario: 1, Category: "D",
			Certification: certified(registry.CertWhitelisted),
			Versions:      []registry.Version{version("4.2", 15*day), ended("4.1", 200*day), blocked},
			Entitlements:  entitled("as.0004.submit", "receipts.get")},
		{ID: "FP-1010", Name: "Currawong STP", Owner: Currawong, Scenario: 2, Category: "C",
			Certification: certified(registry.CertWhitelisted), Versions: []registry.Version{version("2.3", 150*day)},
			Entitlements: entitled("payevnt.0004.submit", "receipts.get")},
		{ID: "FP-1011", Name: "Wattlebird Classic", Owner: Wattlebird, Scenario: 2, Category: "B",
			Certification: lapsed, Versions: []registry.Version{version("1.0", 700*day)},
			Entitlements: entitled("as.0004.submit")},
		{ID: "FP-1012", Name: "Galah Mobile", Owner: Galah, Scenario: 2, Category: "C",
			Certification: registry.Certification{State: registry.CertDelisted}, Versions: []registry.Version{version("1.0", 600*day)},
			Entitlements: entitled()},
	}
}

// entitled is the services in PROD, and every service in EVTE.
func entitled(prod ...string) []registry.Entitlement {
	var all []registry.Entitlement
	for _, s := range prod {
		all = append(all, registry.Entitlement{Service: s, Environment: registry.PROD, Stage: registry.StagePROD})
	}
	for _, s := range services() {
		all = append(all, registry.Entitlement{Service: s.Key, Environment: registry.EVTE})
	}
	return all
}

// apps are fp-NNNN-prod and fp-NNNN-evte; FP-1005 is in test only, and FP-1007
// has none: its entity was rejected.
func apps(productID string) []registry.ClientApp {
	name := strings.ToLower(productID)
	evte := registry.ClientApp{ClientID: name + "-evte", ProductID: productID, Environment: registry.EVTE}
	switch productID {
	case "FP-1005":
		return []registry.ClientApp{evte}
	case "FP-1007":
		return nil
	}
	return []registry.ClientApp{{ClientID: name + "-prod", ProductID: productID, Environment: registry.PROD}, evte}
}

func subscriptions() []registry.Subscription {
	return []registry.Subscription{
		{SSID: "0000123400", ProductID: "FP-1001", ClientABN: Possum, Nominated: true},
		{SSID: "0000300001", ProductID: "FP-1003", ClientABN: Possum, Nominated: true},
		{SSID: "0000400001", ProductID: "FP-1004", ClientABN: Possum, Nominated: true},
		{SSID: "0000600001", ProductID: "FP-1006", ClientABN: Mallee, Nominated: true},
		{SSID: "0000800001", ProductID: "FP-1008", ClientABN: Possum, Nominated: true},
	}
}

// Limits are the quotas of domain model §7, as the tier that every product is
// in: so many calls a second for each product, and so many people or clients a
// day. Test environments are not limited. They come after Records; what wants
// traffic and no limits goes without.
func Limits() []any {
	standard := registry.SubjectRef{Kind: registry.KindTier, ID: registry.TierStandard}
	limit := func(name, service string, kind registry.LimitKind, amount int64) registry.Limit {
		l := registry.Limit{
			ID: registry.LimitID(standard, name), Subject: standard, Name: name, Kind: kind, Amount: amount,
			Service: service, Environment: registry.PROD, Stage: registry.StagePROD,
		}
		switch {
		case kind == registry.LimitRate && amount >= 20:
			l.Burst = 60 * amount // lodgment software sends a minute of it at once
		case kind == registry.LimitRate:
			l.Burst = 2 * amount
		default:
			l.Period, l.Zone = registry.PeriodDay, registry.ZoneDefault
		}
		return l
	}
	people := limit("stic-people", "stic.validate", registry.LimitClients, 200)
	people.Per = registry.KindSubscription // each user of the software by itself
	return []any{
		limit("abr-rate", "abr.lookup", registry.LimitRate, 50),
		limit("payevnt-rate", "payevnt.0004.submit", registry.LimitRate, 50),
		limit("as-submit-rate", "as.0004.submit", registry.LimitRate, 20),
		limit("as-get-rate", "as.0004.get", registry.LimitRate, 5),
		limit("as-get-clients", "as.0004.get", registry.LimitClients, 2000),
		limit("ldglst-rate", "ldglst.0002.list", registry.LimitRate, 5),
		limit("piitr-rate", "piitr.get", registry.LimitRate, 2),
		limit("piitr-people", "piitr.get", registry.LimitClients, 500),
		people,
	}
}
