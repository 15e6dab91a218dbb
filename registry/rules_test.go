package registry_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/sample"
)

func TestWhoMaySuspendForHowLong(t *testing.T) {
	ctx := t.Context()
	field := func(pointer string) func(error) bool {
		return func(err error) bool {
			var f *registry.FieldError
			return errors.As(err, &f) && f.Field == pointer && errors.Is(err, registry.ErrInvalid)
		}
	}
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	ok := is(nil)
	in := func(w *world, d time.Duration) registry.Time { return registry.At(w.now().Add(d)) }
	// notice issues one of FP-1001, by another than operator, that takes effect after d.
	noticeBy := func(t *testing.T, w *world, a registry.Actor, d time.Duration) string {
		return must[registry.Notice](t)(w.IssueNotice(ctx, a, registry.Notice{
			Subject: product("FP-1001"), Reason: "finding", EffectiveAt: in(w, d),
		}, none)).Entry.ID
	}
	notice := func(t *testing.T, w *world, d time.Duration) string { return noticeBy(t, w, operator2, d) }
	suspend := func(t *testing.T, w *world) string {
		return must[registry.Suspension](t)(w.Suspend(ctx, operator, suspendFP("FP-1001"))).Entry.ID
	}
	for _, c := range []struct {
		name string
		run  func(t *testing.T, w *world) error
		want func(error) bool
	}{
		{"without a reason", func(_ *testing.T, w *world) error {
			_, err := w.Suspend(ctx, operator, registry.SuspendCommand{Subject: product("FP-1001"), Reason: "  "})
			return err
		}, field("/reason")},
		{"a reason with a tax file number", func(_ *testing.T, w *world) error {
			_, err := w.Suspend(ctx, operator, registry.SuspendCommand{Subject: product("FP-1001"), Reason: "saw 220 115 957 in the log"})
			return err
		}, field("/reason")},
		{"an unknown subject", func(_ *testing.T, w *world) error {
			_, err := w.Suspend(ctx, operator, suspendFP("FP-9999"))
			return err
		}, is(registry.ErrNotFound)},
		{"an unknown version", func(_ *testing.T, w *world) error {
			_, err := w.Suspend(ctx, operator, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindVersion, ID: "FP-1009@9"}, Reason: "x"})
			return err
		}, is(registry.ErrNotFound)},
		{"a version without its product", func(_ *testing.T, w *world) error {
			_, err := w.Suspend(ctx, operator, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindVersion, ID: "4.2"}, Reason: "x"})
			return err
		}, field("/subject/id")},
		{"an ABN with a wrong digit", func(_ *testing.T, w *world) error {
			_, err := w.Suspend(ctx, operator, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindEntity, ID: "65000000102"}, Reason: "x"})
			return err
		}, field("/subject/id")},
		{"a subject that cannot be suspended", func(_ *testing.T, w *world) error {
			_, err := w.Suspend(ctx, operator, registry.SuspendCommand{Subject: registry.SubjectRef{Kind: registry.KindNotice, ID: sample.NoticeID}, Reason: "x"})
			return err
		}, field("/subject/kind")},
		{"ended already", func(_ *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.Expires = in(w, -time.Second)
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, field("/expires_at")},
		{"alone for 4 h", func(_ *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.Expires = in(w, 4*time.Hour-time.Second)
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, ok},
		{"alone for longer", func(_ *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.Expires = in(w, 4*time.Hour+time.Minute)
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, field("/expires_at")},
		{"an emergency for more than 72 h", func(t *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.NoticeID, c.Emergency = notice(t, w, time.Hour), true
			w.pass(2 * time.Hour)
			c.Expires = in(w, 73*time.Hour)
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, field("/expires_at")},
		{"a notice that has not taken effect", func(t *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.NoticeID, c.Expires = notice(t, w, time.Hour), in(w, 100*time.Hour)
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, field("/expires_at")},
		{"a notice that has taken effect", func(t *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.NoticeID = notice(t, w, time.Hour)
			w.pass(time.Hour + time.Second)
			r, err := w.Suspend(ctx, operator, c)
			if err == nil && r.Entry.Value.Expires != 0 {
				return fmt.Errorf("expires %s", r.Entry.Value.Expires)
			}
			return err
		}, ok},
		{"the own notice, for longer than one person may", func(t *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.NoticeID = noticeBy(t, w, operator, time.Hour)
			w.pass(2 * time.Hour)
			c.Expires = in(w, 5*time.Hour)
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, field("/notice_id")},
		{"the own notice, for as long as anybody may", func(t *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.NoticeID = noticeBy(t, w, operator, time.Hour)
			w.pass(2 * time.Hour)
			r, err := w.Suspend(ctx, operator, c)
			if err != nil {
				return err
			}
			if left := in(w, 4*time.Hour) - r.Entry.Value.Expires; left < 0 || left > 60_000 {
				return fmt.Errorf("expires %s, want in 4 h", r.Entry.Value.Expires)
			}
			return err
		}, ok},
		{"a notice about another", func(t *testing.T, w *world) error {
			c := suspendFP("FP-1002")
			c.NoticeID = notice(t, w, time.Hour)
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, field("/notice_id")},
		{"an unknown notice", func(_ *testing.T, w *world) error {
			c := suspendFP("FP-1002")
			c.NoticeID = "NT-1"
			_, err := w.Suspend(ctx, operator, c)
			return err
		}, field("/notice_id")},
		{"confirmed by the same person", func(t *testing.T, w *world) error {
			_, err := w.ConfirmSuspension(ctx, operator, suspend(t, w), 0, none)
			return err
		}, is(registry.ErrForbidden)},
		{"confirmed by a second for 72 h", func(t *testing.T, w *world) error {
			r, err := w.ConfirmSuspension(ctx, operator2, suspend(t, w), 0, none)
			if s := r.Entry; err == nil && (s.Value.Expires != s.Value.ImposedAt+registry.Time(72*time.Hour/time.Millisecond) || s.Value.ConfirmedBy != operator2.Name) {
				return fmt.Errorf("%+v", s.Value)
			}
			return err
		}, ok},
		{"confirmed for longer", func(t *testing.T, w *world) error {
			_, err := w.ConfirmSuspension(ctx, operator2, suspend(t, w), in(w, 73*time.Hour), none)
			return err
		}, field("/expires_at")},
		{"confirmed for less", func(t *testing.T, w *world) error {
			_, err := w.ConfirmSuspension(ctx, operator2, suspend(t, w), in(w, time.Hour), none)
			return err
		}, field("/expires_at")},
		{"confirmed after its end", func(t *testing.T, w *world) error {
			id := suspend(t, w)
			w.pass(5 * time.Hour)
			_, err := w.ConfirmSuspension(ctx, operator2, id, 0, none)
			return err
		}, is(registry.ErrState)},
		{"an unknown one confirmed", func(_ *testing.T, w *world) error {
			_, err := w.ConfirmSuspension(ctx, operator2, "SU-0", 0, none)
			return err
		}, is(registry.ErrNotFound)},
		{"lifted by the same person", func(t *testing.T, w *world) error {
			_, err := w.LiftSuspension(ctx, operator, suspend(t, w), none)
			return err
		}, is(registry.ErrForbidden)},
		{"lifted twice", func(t *testing.T, w *world) error {
			id := suspend(t, w)
			first := must[registry.Suspension](t)(w.LiftSuspension(ctx, operator2, id, registry.Meta{Reason: "remediated"}))
			if first.Existing || first.Entry.Value.LiftReason != "remediated" {
				t.Errorf("%+v", first)
			}
			second, err := w.LiftSuspension(ctx, operator2, id, none)
			if err == nil && (!second.Existing || second.Revision != first.Revision) {
				return fmt.Errorf("%+v", second)
			}
			return err
		}, ok},
		{"lifted after its end", func(t *testing.T, w *world) error {
			id := suspend(t, w)
			w.pass(5 * time.Hour)
			_, err := w.LiftSuspension(ctx, operator2, id, none)
			return err
		}, is(registry.ErrState)},
		{"suspended alike", func(t *testing.T, w *world) error {
			id := suspend(t, w)
			w.pass(time.Minute)
			r, err := w.Suspend(ctx, operator2, suspendFP("FP-1001"))
			if err == nil && (!r.Existing || r.Entry.ID != id) {
				return fmt.Errorf("%+v", r)
			}
			return err
		}, ok},
		{"suspended for less than is asked now", func(t *testing.T, w *world) error {
			c := suspendFP("FP-1001")
			c.Expires = in(w, 10*time.Minute)
			first := must[registry.Suspension](t)(w.Suspend(ctx, operator, c))
			r, err := w.Suspend(ctx, operator, suspendFP("FP-1001"))
			if err == nil && (r.Existing || r.Entry.ID == first.Entry.ID) {
				return fmt.Errorf("%+v", r)
			}
			return err
		}, ok},
		{"an emergency on top", func(t *testing.T, w *world) error {
			suspend(t, w)
			c := suspendFP("FP-1001")
			c.Emergency = true
			r, err := w.Suspend(ctx, operator, c)
			if err == nil && r.Existing {
				return errors.New("the emergency was taken for what was in force")
			}
			return err
		}, ok},
		{"a notice of the past", func(_ *testing.T, w *world) error {
			_, err := w.IssueNotice(ctx, operator, registry.Notice{Subject: product("FP-1001"), Reason: "x", EffectiveAt: in(w, -time.Hour)}, none)
			return err
		}, field("/effective_at")},
		{"a denial lifted by the same person", func(t *testing.T, w *world) error {
			d := must[registry.Denial](t)(w.DenyToken(ctx, operator, registry.Denial{What: "kid", Issuer: "i", Value: "k", Reason: "leak"}, none))
			_, err := w.LiftDenial(ctx, operator, d.Entry.ID, none)
			return err
		}, is(registry.ErrForbidden)},
		{"a denial denied again after its lift", func(t *testing.T, w *world) error {
			d := registry.Denial{What: "kid", Issuer: "i", Value: "k", Reason: "leak"}
			r := must[registry.Denial](t)(w.DenyToken(ctx, operator, d, none))
			must[registry.Denial](t)(w.LiftDenial(ctx, operator2, r.Entry.ID, none))
			_, err := w.DenyToken(ctx, operator, d, none)
			if err == nil && !view(t, w).Denied("kid", "i", "k", in(w, time.Second)) {
				return errors.New("not denied")
			}
			return err
		}, ok},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.run(t, newWorld(t)); !c.want(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestEveryFieldIsCheckedAndNamed(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	now := registry.At(w.now())
	long := strings.Repeat("x", 300)
	entity := func(f func(*registry.Entity)) func() error {
		return func() error {
			e := registry.Entity{ABN: sample.Possum, Name: "Possum Bakery"}
			f(&e)
			_, err := w.CreateEntity(ctx, registrar, e, none)
			return err
		}
	}
	prod := func(f func(*registry.Product)) func() error {
		return func() error {
			p := registry.Product{ID: "FP-2000", Name: "New", Owner: sample.Galah}
			f(&p)
			_, err := w.CreateProduct(ctx, registrar, p, none)
			return err
		}
	}
	ent := func(f func(*registry.Entitlement)) func() error {
		return func() error {
			e := registry.Entitlement{Service: "abr.lookup", Environment: registry.PROD, Stage: registry.StagePROD}
			f(&e)
			_, err := w.SetEntitlement(ctx, assessor, "FP-1009", e, none)
			return err
		}
	}
	svc := func(f func(*registry.Service)) func() error {
		return func() error {
			s := registry.Service{Key: "new", Method: "GET", Template: "/new/{id}", Risk: 1}
			f(&s)
			_, err := w.CreateService(ctx, registrar, s, none)
			return err
		}
	}
	ver := func(v registry.Version) func() error {
		return func() error { _, err := w.AddVersion(ctx, registrar, "FP-1009", v, none); return err }
	}
	sub := func(s registry.Subscription) func() error {
		return func() error { _, err := w.CreateSubscription(ctx, registrar, s, none); return err }
	}
	app := func(a registry.ClientApp) func() error {
		return func() error { _, err := w.CreateClientApp(ctx, registrar, a, none); return err }
	}
	cred := func(c registry.Credential) func() error {
		return func() error { _, err := w.CreateCredential(ctx, registrar, c, none); return err }
	}
	for _, c := range []struct {
		field string
		run   func() error
	}{
		{"/abn", entity(func(e *registry.Entity) { e.ABN = 0 })},
		{"/abn", entity(func(e *registry.Entity) { e.ABN = 65000000102 })},
		{"/name", entity(func(e *registry.Entity) { e.Name = "" })},
		{"/name", entity(func(e *registry.Entity) { e.Name = long })},
		{"/name", entity(func(e *registry.Entity) { e.Name = "a\x00b" })},
		{"/name", entity(func(e *registry.Entity) { e.Name = "a\xffb" })},
		{"/name", entity(func(e *registry.Entity) { e.Name = "a\u202eb" })},
		{"/state", entity(func(e *registry.Entity) { e.State = 99 })},
		{"/roles/1", entity(func(e *registry.Entity) { e.Roles = []registry.Role{"D", "X"} })},
		{"/roles/1", entity(func(e *registry.Entity) { e.Roles = []registry.Role{"D", "D"} })},
		{"/contact", entity(func(e *registry.Entity) { e.Contact = "nobody" })},
		{"/checks/0/outcome", entity(func(e *registry.Entity) { e.Checks = []registry.Check{{Name: "REG-1", Outcome: "maybe"}} })},
		{"/checks/0/expires_at", entity(func(e *registry.Entity) {
			e.Checks = []registry.Check{{Name: "REG-1", Outcome: "pass", At: now, Expires: now - 1}}
		})},

		{"/id", prod(func(p *registry.Product) { p.ID = "" })},
		{"/id", prod(func(p *registry.Product) { p.ID = "a/b" })},
		{"/id", prod(func(p *registry.Product) { p.ID = "=cmd" })},
		{"/id", prod(func(p *registry.Product) { p.ID = strings.Repeat("a", 65) })},
		{"/owner", prod(func(p *registry.Product) { p.Owner = sample.Possum })},
		{"/chain/0", prod(func(p *registry.Product) { p.Chain = []registry.ABN{sample.Possum} })},
		{"/chain/1", prod(func(p *registry.Product) { p.Chain = []registry.ABN{sample.Bluegum, sample.Bluegum} })},
		{"/scenario", prod(func(p *registry.Product) { p.Scenario = 7 })},
		{"/category", prod(func(p *registry.Product) { p.Category = "F" })},
		{"/certification", prod(func(p *registry.Product) { p.Certification.State = registry.CertWhitelisted })},
		{"/entitlements", prod(func(p *registry.Product) { p.Entitlements = make([]registry.Entitlement, 1) })},
		{"/versions/1/version", prod(func(p *registry.Product) { p.Versions = []registry.Version{{Version: "1"}, {Version: "1"}} })},

		{"/version", ver(registry.Version{})},
		{"/version", ver(registry.Version{Version: "1 0"})},
		{"/version", ver(registry.Version{Version: "1@0"})},
		{"/support_until", ver(registry.Version{Version: "9", Released: now, SupportUntil: now - 1})},
		{"/released_at", ver(registry.Version{Version: "9", Released: 1})},

		{"/service", ent(func(e *registry.Entitlement) { e.Service = "nothing" })},
		{"/environment", ent(func(e *registry.Entitlement) { e.Environment = 0 })},
		{"/stage", ent(func(e *registry.Entitlement) { e.Stage = 0 })},
		{"/stage", ent(func(e *registry.Entitlement) { e.Environment = registry.EVTE })},
		{"/named_clients", ent(func(e *registry.Entitlement) { e.NamedClients = []registry.ABN{sample.Possum} })},
		{"/named_clients", ent(func(e *registry.Entitlement) { e.Stage = registry.StagePVT })},
		{"/named_clients", ent(func(e *registry.Entitlement) {
			e.Stage = registry.StagePVT
			e.NamedClients = []registry.ABN{sample.Possum, sample.Galah, sample.Mallee, sample.Banksia, sample.Bluegum, sample.Ironbark}
		})},
		{"/named_clients/0", ent(func(e *registry.Entitlement) { e.Stage, e.NamedClients = registry.StagePVT, []registry.ABN{1} })},
		{"/until", ent(func(e *registry.Entitlement) { e.From, e.Until = now, now })},

		{"/key", svc(func(s *registry.Service) { s.Key = "a b" })},
		{"/method", svc(func(s *registry.Service) { s.Method = "TRACE" })},
		{"/template", svc(func(s *registry.Service) { s.Template = "/a/../b" })},
		{"/template", svc(func(s *registry.Service) { s.Template = "/registry/v1/abns/{number}" })},
		{"/risk", svc(func(s *registry.Service) { s.Risk = 0 })},
		{"/risk", svc(func(s *registry.Service) { s.Risk = 5 })},
		{"/scope", svc(func(s *registry.Service) { s.Scope = "two words" })},
		{"/streaming", svc(func(s *registry.Service) { s.Streaming = "carrier-pigeon" })},
		{"/subject/name", svc(func(s *registry.Service) { s.Subject = registry.Subject{In: "path", Name: "tfn"} })},
		{"/subject/name", svc(func(s *registry.Service) { s.Subject = registry.Subject{In: "body", Name: "tfn"} })},
		{"/subject/in", svc(func(s *registry.Service) { s.Subject = registry.Subject{In: "cookie", Name: "tfn"} })},

		{"/client_id", app(registry.ClientApp{ClientID: "a\nb", ProductID: "FP-1009", Environment: registry.EVTE})},
		{"/product_id", app(registry.ClientApp{ClientID: "a", ProductID: "FP-9999", Environment: registry.EVTE})},
		{"/environment", app(registry.ClientApp{ClientID: "a", ProductID: "FP-1009"})},
		{"/ssid", sub(registry.Subscription{SSID: "123", ProductID: "FP-1009", ClientABN: sample.Possum})},
		{"/ssid", sub(registry.Subscription{SSID: "12345678x0", ProductID: "FP-1009", ClientABN: sample.Possum})},
		{"/client_abn", sub(registry.Subscription{SSID: "1234567890", ProductID: "FP-1009", ClientABN: 12})},
		{"/client_abn", sub(registry.Subscription{SSID: "1234567890", ProductID: "FP-1006", ClientABN: sample.Possum})},
		{"/thumbprint", cred(registry.Credential{Thumbprint: "x", ABN: sample.Galah})},
		{"/thumbprint", cred(registry.Credential{Thumbprint: strings.Repeat("A", 42) + "B", ABN: sample.Galah})},
		{"/abn", cred(registry.Credential{Thumbprint: thumbprint, ABN: sample.Possum})},

		{"/reason", func() error {
			_, err := w.AddVersion(ctx, registrar, "FP-1009", registry.Version{Version: "9"}, registry.Meta{Reason: "a\tb"})
			return err
		}},
		{"/valid_until", func() error {
			_, err := w.SetCertification(ctx, assessor, "FP-1009", registry.Certification{State: registry.CertReviewDue, ValidFrom: now, ValidUntil: now - 5}, none)
			return err
		}},
		{"/valid_until", func() error {
			_, err := w.SetCertification(ctx, assessor, "FP-1009", registry.Certification{State: registry.CertReviewDue, ValidFrom: now, ValidUntil: registry.At(w.now().AddDate(2, 0, 0))}, none)
			return err
		}},
		{"/max_risk", func() error {
			_, err := w.SetCertification(ctx, assessor, "FP-1009", registry.Certification{State: registry.CertInterim, MaxRisk: 2}, none)
			return err
		}},
		{"/what", func() error {
			_, err := w.DenyToken(ctx, operator, registry.Denial{What: "sub", Issuer: "i", Value: "v", Reason: "r"}, none)
			return err
		}},
		{"/issuer", func() error {
			_, err := w.DenyToken(ctx, operator, registry.Denial{What: "kid", Issuer: long, Value: "v", Reason: "r"}, none)
			return err
		}},
	} {
		err := c.run()
		var f *registry.FieldError
		if !errors.As(err, &f) || f.Field != c.field || !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("got %v, want a FieldError of %s", err, c.field)
		}
	}
	if _, err := w.CreateClientApp(ctx, registrar, registry.ClientApp{ClientID: "fp-1007-prod", ProductID: "FP-1007", Environment: registry.EVTE}, none); !errors.Is(err, registry.ErrState) {
		t.Errorf("an app of a rejected entity: %v, want ErrState", err)
	}
}

func TestATaxFileNumberIsKnownAndNothingElseIsTakenForOne(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		reason string
		refuse bool
	}{
		{"220115957", true},
		{"TFN 220 115 957.", true},
		{"tfn:220-115-957,", true},
		{"a 220.115.957 b", true},
		{"x220115957y", true},
		{"12 220 115 957", true},
		{"220115958", false},
		{"ABN 65 000 000 101 and 56000001313", false},
		{"phone 0412 345 678", false},
		{"on 2026-11-22 at 09:00", false},
		{"case 1234", false},
		{"0000123400", false},
	} {
		_, err := w.NominateSubscription(t.Context(), registrar, "0000123400", true, registry.Meta{Reason: c.reason})
		if refused := errors.Is(err, registry.ErrInvalid); refused != c.refuse {
			t.Errorf("%q: %v, want refused %t", c.reason, err, c.refuse)
		}
	}
}

func TestCertificationMovesOnlyAlongTheModel(t *testing.T) {
	states := []registry.CertState{
		registry.CertDraft, registry.CertSelfCertified, registry.CertInVerification, registry.CertPVT, registry.CertWhitelisted,
		registry.CertInterim, registry.CertRestricted, registry.CertReviewDue, registry.CertDelisted,
	}
	// rows from, columns to, in the order of states; x legal
	legal := []string{
		"xx......x", // Draft
		".xxx....x", // SelfCertified
		"..xx....x", // InVerification
		"...xxxxxx", // PVT
		"....x.xxx", // Whitelisted
		"....xxxxx", // Interim
		"....x.xxx", // Restricted
		"....x.xxx", // ReviewDue
		".........", // Delisted
	}
	w := newWorld(t)
	for i, from := range states {
		for j, to := range states {
			id := fmt.Sprintf("P-%d-%d", i, j)
			p := registry.Product{ID: id, Name: "p", Owner: sample.Galah, Certification: registry.Certification{State: from}}
			if _, err := w.Import(t.Context(), sample.Actor(), []any{p}, none); err != nil {
				t.Fatal(err)
			}
			r, err := w.SetCertification(t.Context(), assessor, id, registry.Certification{State: to}, none)
			if legal[i][j] == 'x' {
				if err != nil || r.Entry.Value.Certification.State != to {
					t.Errorf("%s → %s: %v", from, to, err)
				} else if c := r.Entry.Value.Certification; j >= 3 && j <= 7 && (c.ValidFrom == 0 || c.ValidUntil <= c.ValidFrom) {
					t.Errorf("%s → %s without an end: %+v", from, to, c)
				}
			} else if !errors.Is(err, registry.ErrState) || !strings.Contains(err.Error(), from.String()) {
				t.Errorf("%s → %s: %v, want ErrState naming %s", from, to, err, from)
			}
		}
	}
	_, err := w.SetCertification(t.Context(), assessor, "FP-1005", registry.Certification{State: registry.CertWhitelisted}, none)
	if err == nil || !strings.Contains(err.Error(), "next may be InVerification, PVT, Delisted") {
		t.Errorf("got %v, want what is allowed next", err)
	}
}
