package registry

import (
	"encoding/json"
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

const (
	ownerABN  ABN = 65000000101
	memberABN ABN = 73000000606
	clientABN ABN = 56000001313
)

// world is a register in which everything is in order, to put one thing wrong in.
type world struct {
	owner, member *Entity
	product       *Product
	suspensions   []Suspension
	q             StandingQuery
	at            Time
}

func newWorld() *world {
	return &world{
		owner:  &Entity{ABN: ownerABN, State: EntityRegistered},
		member: &Entity{ABN: memberABN, State: EntityRegistered},
		product: &Product{
			ID: "FP-1", Owner: ownerABN, Chain: []ABN{memberABN},
			Certification: Certification{State: CertWhitelisted, ValidFrom: 10, ValidUntil: 1000},
			Versions:      []Version{{Version: "5.0"}, {Version: "4.8", SupportUntil: 90}},
		},
		q: StandingQuery{
			App: &ClientApp{ClientID: "app", ProductID: "FP-1", Environment: PROD}, Environment: PROD,
			Version: "5.0", Holder: ownerABN, Thumbprint: "thumb", SSID: "ssid", Service: &Service{Key: "svc", Risk: 2},
		},
		at: 100,
	}
}

func (w *world) suspend(kind Kind, id string, change func(*Suspension)) {
	s := Suspension{ID: fmt.Sprint("SU-", len(w.suspensions)), Subject: SubjectRef{kind, id}, Starts: 50}
	if change != nil {
		change(&s)
	}
	w.suspensions = append(w.suspensions, s)
}

func (w *world) view(t failer) *View {
	t.Helper()
	s, err := NewSealer(make([]byte, 32))
	if err != nil {
		t.Fatalf("%v", err)
	}
	b := NewBuilder(nil, 0)
	put := func(kind Kind, id string, value any) {
		data, err := json.Marshal(value)
		if err != nil {
			t.Fatalf("%v", err)
		}
		r := Record{Kind: kind, ID: id, Data: data}
		s.Seal(&r, 1)
		if err := b.Put(&r); err != nil {
			t.Fatalf("%v", err)
		}
	}
	for _, e := range []*Entity{w.owner, w.member} {
		if e != nil {
			put(KindEntity, e.ABN.String(), e)
		}
	}
	if w.product != nil {
		put(KindProduct, w.product.ID, w.product)
	}
	for i := range w.suspensions {
		put(KindSuspension, w.suspensions[i].ID, &w.suspensions[i])
	}
	v, err := b.View(1, 1)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return v
}

func (w *world) standing(t failer) Standing {
	t.Helper()
	return w.view(t).Standing(&w.q, w.at)
}

func TestStanding(t *testing.T) {
	emergency := func(s *Suspension) { s.Emergency = true }
	receipts := func(w *world) { w.q.Service.WhileSuspended = true }
	for _, c := range []struct {
		name   string
		change func(*world)
		want   StandingCode
	}{
		{"all in order", func(*world) {}, Good},
		{"no version said", func(w *world) { w.q.Version = "" }, Good},
		{"a member of the chain holds the credential", func(w *world) { w.q.Holder = memberABN }, Good},

		{"owner unknown", func(w *world) { w.owner = nil }, EntityNotRegistered},
		{"owner not registered yet", func(w *world) { w.owner.State = EntityChecking }, EntityNotRegistered},
		{"owner lapsed", func(w *world) { w.owner.State = EntityLapsed }, EntityNotRegistered},
		{"owner rejected, in EVTE too", func(w *world) { w.owner.State = EntityRejected; w.q.Environment = EVTE }, EntityNotRegistered},
		{"owner cancelled", func(w *world) { w.owner.State = EntityCancelled }, EntityCancelledStanding},
		{"owner suspended", func(w *world) { w.suspend(KindEntity, "65000000101", nil) }, EntitySuspended},
		{"holder unknown", func(w *world) { w.member = nil; w.q.Holder = memberABN }, EntityNotRegistered},
		{"holder cancelled", func(w *world) { w.member.State = EntityCancelled; w.q.Holder = memberABN }, EntityCancelledStanding},
		{"holder suspended", func(w *world) { w.suspend(KindEntity, "73000000606", nil); w.q.Holder = memberABN }, EntitySuspended},
		{"another member of the chain suspended", func(w *world) { w.suspend(KindEntity, "73000000606", nil) }, Good},

		{"product unknown", func(w *world) { w.product = nil }, ProductUnknown},
		{"product delisted", func(w *world) { w.product.Certification.State = CertDelisted }, ProductDelisted},
		{"product delisted, in EVTE too", func(w *world) { w.product.Certification.State = CertDelisted; w.q.Environment = EVTE }, ProductDelisted},
		{"product suspended", func(w *world) { w.suspend(KindProduct, "FP-1", nil) }, ProductSuspended},
		{"product suspended, in EVTE too", func(w *world) { w.suspend(KindProduct, "FP-1", nil); w.q.Environment = EVTE }, ProductSuspended},
		{"another product suspended", func(w *world) { w.suspend(KindProduct, "FP-2", nil) }, Good},
		{"another kind under the same ID suspended", func(w *world) { w.suspend(KindService, "FP-1", nil) }, Good},
		{"in draft", func(w *world) { w.product.Certification.State = CertDraft }, ProductNotWhitelisted},
		{"self-certified", func(w *world) { w.product.Certification.State = CertSelfCertified }, ProductNotWhitelisted},
		{"in verification", func(w *world) { w.product.Certification.State = CertInVerification }, ProductNotWhitelisted},
		{"self-certified, in EVTE", func(w *world) { w.product.Certification.State = CertSelfCertified; w.q.Environment = EVTE }, Good},
		{"PVT", func(w *world) { w.product.Certification.State = CertPVT }, Good},
		{"interim", func(w *world) { w.product.Certification.State = CertInterim }, Good},
		{"restricted", func(w *world) { w.product.Certification.State = CertRestricted }, Good},
		{"review due", func(w *world) { w.product.Certification.State = CertReviewDue }, Good},
		{"certified from later on", func(w *world) { w.product.Certification.ValidFrom = 101 }, ProductNotWhitelisted},
		{"certified from now on", func(w *world) { w.product.Certification.ValidFrom = 100 }, Good},
		{"certification ends now", func(w *world) { w.product.Certification.ValidUntil = 100 }, CertificationExpired},
		{"certification ends in a moment", func(w *world) { w.product.Certification.ValidUntil = 101 }, Good},
		{"certification without end", func(w *world) { w.product.Certification.ValidUntil = 0 }, Good},
		{"certification ended, in EVTE", func(w *world) { w.product.Certification.ValidUntil = 100; w.q.Environment = EVTE }, Good},

		{"version unknown", func(w *world) { w.q.Version = "5" }, VersionNotRegistered},
		{"a build, which has to be registered", func(w *world) { w.q.Version = "5.0.17" }, VersionNotRegistered},
		{"a build, which may pass", func(w *world) { w.product.WarnBuilds = true; w.q.Version = "5.0.17" }, Good},
		{"a build with a sign", func(w *world) { w.product.WarnBuilds = true; w.q.Version = "5.0-rc1" }, Good},
		{"a longer number is no build", func(w *world) { w.product.WarnBuilds = true; w.q.Version = "5.01" }, VersionNotRegistered},
		{"nothing after the point", func(w *world) { w.product.WarnBuilds = true; w.q.Version = "5" }, VersionNotRegistered},
		{"a build of what matters for security", func(w *world) {
			w.product.WarnBuilds, w.product.Versions[0].SecurityRelevant, w.q.Version = true, true, "5.0.17"
		}, VersionNotRegistered},
		{"a build of what is no longer supported", func(w *world) { w.product.WarnBuilds = true; w.q.Version = "4.8.1" }, VersionUnsupported},
		{"a build of what is blocked", func(w *world) {
			w.product.WarnBuilds, w.product.Versions[0].State, w.q.Version = true, VersionBlocked, "5.0.1"
		}, VersionBlockedStanding},
		{"a build of what is suspended", func(w *world) {
			w.suspend(KindVersion, "FP-1@5.0", nil)
			w.product.WarnBuilds, w.q.Version = true, "5.0.1"
		}, VersionBlockedStanding},
		{"version no longer supported", func(w *world) { w.q.Version = "4.8" }, VersionUnsupported},
		{"version blocked", func(w *world) { w.product.Versions[0].State = VersionBlocked }, VersionBlockedStanding},
		{"version suspended", func(w *world) { w.suspend(KindVersion, "FP-1@5.0", nil) }, VersionBlockedStanding},
		{"another version blocked", func(w *world) { w.product.Versions[1].State = VersionBlocked }, Good},
		{"another version blocked, and none said", func(w *world) { w.product.Versions[1].State = VersionBlocked; w.q.Version = "" }, VersionBlockedStanding},
		{"another version suspended, and none said", func(w *world) { w.suspend(KindVersion, "FP-1@4.8", nil); w.q.Version = "" }, VersionBlockedStanding},

		{"client app suspended", func(w *world) { w.suspend(KindClientApp, "app", nil) }, ClientAppBlocked},
		{"credential suspended", func(w *world) { w.suspend(KindCredential, "thumb", nil) }, CredentialBlocked},
		{"a credential suspended, and none shown", func(w *world) { w.suspend(KindCredential, "thumb", nil); w.q.Thumbprint = "" }, Good},
		{"subscription suspended", func(w *world) { w.suspend(KindSubscription, "ssid", nil) }, SubscriptionBlocked},
		{"service suspended", func(w *world) { w.suspend(KindService, "svc", nil) }, ServiceSuspended},
		{"service suspended, and none found", func(w *world) { w.suspend(KindService, "svc", nil); w.q.Service = nil }, Good},

		{"receipts of a suspended owner", func(w *world) { receipts(w); w.suspend(KindEntity, "65000000101", nil) }, Good},
		{"receipts of a suspended product", func(w *world) { receipts(w); w.suspend(KindProduct, "FP-1", nil) }, Good},
		{"receipts of a suspended version", func(w *world) { receipts(w); w.suspend(KindVersion, "FP-1@5.0", nil) }, Good},
		{"receipts of a suspended subscription", func(w *world) { receipts(w); w.suspend(KindSubscription, "ssid", nil) }, Good},
		{"receipts under an emergency of the owner", func(w *world) { receipts(w); w.suspend(KindEntity, "65000000101", emergency) }, EntitySuspended},
		{"receipts under an emergency of the product", func(w *world) { receipts(w); w.suspend(KindProduct, "FP-1", emergency) }, ProductSuspended},
		{"receipts under an emergency of the version", func(w *world) { receipts(w); w.suspend(KindVersion, "FP-1@5.0", emergency) }, VersionBlockedStanding},
		{"receipts under an emergency of the subscription", func(w *world) { receipts(w); w.suspend(KindSubscription, "ssid", emergency) }, SubscriptionBlocked},
		{"receipts through a suspended client app", func(w *world) { receipts(w); w.suspend(KindClientApp, "app", nil) }, ClientAppBlocked},
		{"receipts with a suspended credential", func(w *world) { receipts(w); w.suspend(KindCredential, "thumb", nil) }, CredentialBlocked},
		{"receipts, themselves suspended", func(w *world) { receipts(w); w.suspend(KindService, "svc", nil) }, ServiceSuspended},
		{"receipts of a delisted product", func(w *world) { receipts(w); w.product.Certification.State = CertDelisted }, ProductDelisted},
		{"receipts, an emergency beside a plain one", func(w *world) {
			receipts(w)
			w.suspend(KindProduct, "FP-1", nil)
			w.suspend(KindProduct, "FP-1", func(s *Suspension) { s.Emergency, s.Expires = true, 500 })
		}, ProductSuspended},

		{"suspended from later on", func(w *world) { w.suspend(KindProduct, "FP-1", func(s *Suspension) { s.Starts = 101 }) }, Good},
		{"suspended from now on", func(w *world) { w.suspend(KindProduct, "FP-1", func(s *Suspension) { s.Starts = 100 }) }, ProductSuspended},
		{"suspension expires now", func(w *world) { w.suspend(KindProduct, "FP-1", func(s *Suspension) { s.Expires = 100 }) }, Good},
		{"suspension expires in a moment", func(w *world) { w.suspend(KindProduct, "FP-1", func(s *Suspension) { s.Expires = 101 }) }, ProductSuspended},
		{"suspension lifted", func(w *world) { w.suspend(KindProduct, "FP-1", func(s *Suspension) { s.LiftedAt = 60 }) }, Good},

		// The cascade: what stands higher is the answer.
		{"owner before product", func(w *world) {
			w.suspend(KindEntity, "65000000101", nil)
			w.suspend(KindProduct, "FP-1", nil)
		}, EntitySuspended},
		{"product before version", func(w *world) {
			w.suspend(KindProduct, "FP-1", nil)
			w.suspend(KindVersion, "FP-1@5.0", nil)
		}, ProductSuspended},
		{"expired before unsupported", func(w *world) {
			w.product.Certification.ValidUntil = 100
			w.q.Version = "4.8"
		}, CertificationExpired},
		{"version before subscription", func(w *world) {
			w.suspend(KindVersion, "FP-1@5.0", nil)
			w.suspend(KindSubscription, "ssid", nil)
		}, VersionBlockedStanding},
		{"subscription before service", func(w *world) {
			w.suspend(KindSubscription, "ssid", nil)
			w.suspend(KindService, "svc", nil)
		}, SubscriptionBlocked},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld()
			c.change(w)
			got := w.standing(t)
			if got.Code != c.want {
				t.Fatalf("code %d, want %d", got.Code, c.want)
			}
			if got.Suspension != nil && (got.Code == Good || !got.Suspension.Active(w.at)) {
				t.Errorf("answers with %+v", got.Suspension)
			}
			if got.Code == Good && len(w.suspensions) == 1 && w.q.Service != nil && w.q.Service.WhileSuspended && got.Bypassed == nil {
				t.Error("does not say what it bypassed")
			}
		})
	}
}

// genWorld puts any number of suspensions on any subjects.
func genWorld(t *rapid.T) *world {
	w := newWorld()
	w.q.Service.WhileSuspended = rapid.Bool().Draw(t, "receipts")
	if rapid.Bool().Draw(t, "no version") {
		w.q.Version = ""
	}
	subjects := []SubjectRef{
		{KindEntity, "65000000101"}, {KindProduct, "FP-1"}, {KindVersion, "FP-1@5.0"}, {KindClientApp, "app"},
		{KindCredential, "thumb"}, {KindSubscription, "ssid"}, {KindService, "svc"},
	}
	for range rapid.IntRange(0, 5).Draw(t, "suspensions") {
		s := rapid.SampledFrom(subjects).Draw(t, "subject")
		w.suspend(s.Kind, s.ID, func(s *Suspension) {
			s.Starts = Time(rapid.IntRange(50, 150).Draw(t, "starts"))
			s.Expires = Time(rapid.SampledFrom([]int{0, 80, 100, 120, 200}).Draw(t, "expires"))
			s.Emergency = rapid.Bool().Draw(t, "emergency")
		})
	}
	return w
}

// TestStandingProperties: at every instant an active suspension denies unless
// it is bypassed; an emergency bypasses nothing; expiry needs no job, since the
// same View answers for every instant; and lifting returns what was before.
func TestStandingProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := genWorld(t)
		clean := *w
		clean.suspensions = nil
		v, cleanView := w.view(t), clean.view(t)
		for at := Time(40); at < 220; at += 10 {
			var active, emergency, strict bool
			for i := range w.suspensions {
				if s := &w.suspensions[i]; s.Active(at) {
					active, emergency = true, emergency || s.Emergency
					strict = strict || s.Subject.Kind == KindClientApp || s.Subject.Kind == KindCredential || s.Subject.Kind == KindService
				}
			}
			got, was := v.Standing(&w.q, at), cleanView.Standing(&w.q, at)
			exempt := w.q.Service.WhileSuspended && !emergency && !strict
			switch {
			case !active && got.Code != was.Code:
				t.Fatalf("at %d nothing is suspended: code %d, was %d", at, got.Code, was.Code)
			case active && !exempt && got.Code == Good:
				t.Fatalf("at %d suspended and served", at)
			case active && exempt && got.Code != was.Code:
				t.Fatalf("at %d exempt: code %d, was %d", at, got.Code, was.Code)
			}
		}
		for i := range w.suspensions {
			w.suspensions[i].LiftedAt = 45
		}
		lifted := w.view(t)
		for at := Time(40); at < 220; at += 10 {
			if got, was := lifted.Standing(&w.q, at), cleanView.Standing(&w.q, at); got.Code != was.Code || got.Version != nil != (was.Version != nil) {
				t.Fatalf("at %d lifted: code %d, was %d", at, got.Code, was.Code)
			}
		}
	})
}
