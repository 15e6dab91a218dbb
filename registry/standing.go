package registry

// StandingCode is the one answer to "may this product, in this version,
// through this app, be served at all": a closed set.
type StandingCode uint8

// The answers, in the order of the cascade entity → product → version → app.
const (
	Good StandingCode = iota
	EntityNotRegistered
	EntityCancelledStanding
	EntitySuspended
	ProductUnknown
	ProductDelisted
	ProductSuspended
	ProductNotWhitelisted
	CertificationExpired
	VersionNotRegistered
	VersionBlockedStanding
	VersionUnsupported
	ClientAppBlocked
	CredentialBlocked
	SubscriptionBlocked
	ServiceSuspended
	Curtailed // restricted for a time to services of lower ratings
)

// StandingQuery is about one call. Only App is always needed; the rest is left
// empty where the call does not say.
type StandingQuery struct {
	App         *ClientApp
	Environment Environment // of the request, which may differ from the app's
	Version     string      // "" when the caller did not say
	Holder      ABN         // of the credential
	Thumbprint  string      // of the client certificate, "" when none
	SSID        string
	Service     *Service // nil when none was found
}

// Standing is the answer with what it was derived from.
type Standing struct {
	Code       StandingCode
	Product    *Product
	Version    *Version    // nil when the caller did not say or it is unknown
	Build      bool        // what the caller said is an unregistered build of Version
	Suspension *Suspension // the one that decides, when Code is one of the suspended
	// Bypassed is a suspension that would have denied, had the service not been
	// available while suspended.
	Bypassed *Suspension
	// Throttles are the suspensions that let a good call pass at a rate only, of
	// its product, client app and subscription; nil where there is none.
	Throttles Throttles
}

// Throttles are of a product, a client app and a subscription.
type Throttles [3]*Suspension

// Any tells whether there is one.
func (t *Throttles) Any() bool { return t[0] != nil || t[1] != nil || t[2] != nil }

// Standing derives the standing of a call at an instant. Everything that ends
// by itself (a certificate, support for a version, a suspension) is compared
// with that instant, so no job has to run for it to end.
func (v *View) Standing(q *StandingQuery, at Time) Standing {
	s := Standing{}
	// The subjects no exemption covers come first: a blocked credential or
	// client app is stopped even where its product still gets receipts.
	if x := v.Suspended(KindClientApp, q.App.ClientID, at); x != nil {
		return s.deny(ClientAppBlocked, x)
	}
	if x := v.Suspended(KindCredential, q.Thumbprint, at); x != nil {
		return s.deny(CredentialBlocked, x)
	}
	s.Product = v.Product(q.App.ProductID)
	if s.Product == nil {
		return s.deny(ProductUnknown, nil)
	}
	if s = v.entityStanding(s, q, at); s.Code != Good {
		return s
	}
	if s = v.productStanding(s, q, at); s.Code != Good {
		return s
	}
	if s = v.versionStanding(s, q, at); s.Code != Good {
		return s
	}
	if x := v.Suspended(KindSubscription, q.SSID, at); x != nil && !s.bypass(x, q) {
		return s.deny(SubscriptionBlocked, x)
	}
	if q.Service != nil {
		if x := v.Suspended(KindService, q.Service.Key, at); x != nil {
			return s.deny(ServiceSuspended, x)
		}
	}
	if v.curbs > 0 {
		return v.curbed(s, q, at)
	}
	return s
}

// curbed looks for what does not stop the call's subjects and yet binds them.
func (v *View) curbed(s Standing, q *StandingQuery, at Time) Standing {
	var b [11]byte
	owner, _ := s.Product.Owner.AppendText(b[:0])
	for i, of := range [...]struct {
		kind Kind
		id   string
	}{{KindProduct, s.Product.ID}, {KindClientApp, q.App.ClientID}, {KindSubscription, q.SSID}, {KindEntity, unsafeString(owner)}, {KindCredential, q.Thumbprint}} {
		throttle, restrict := v.Curbed(of.kind, of.id, at)
		if i < len(s.Throttles) {
			s.Throttles[i] = throttle
		}
		if restrict != nil && q.Service != nil && (q.Service.Risk > restrict.MaxRisk || q.Service.Risk == 0) && !s.bypass(restrict, q) {
			return s.deny(Curtailed, restrict)
		}
	}
	return s
}

// entityStanding looks at the owner and at whoever holds the credential: a
// suspended member of the chain cannot go on by the owner's good standing.
func (v *View) entityStanding(s Standing, q *StandingQuery, at Time) Standing {
	for i, abn := range [2]ABN{s.Product.Owner, q.Holder} {
		if abn == 0 || i == 1 && abn == s.Product.Owner {
			continue
		}
		var b [11]byte
		id, _ := abn.AppendText(b[:0])
		e := v.Entity(abn)
		switch {
		case e == nil:
			return s.deny(EntityNotRegistered, nil)
		case e.State == EntityCancelled:
			return s.deny(EntityCancelledStanding, nil)
		case e.State != EntityRegistered:
			return s.deny(EntityNotRegistered, nil)
		}
		if x := v.Suspended(KindEntity, unsafeString(id), at); x != nil && !s.bypass(x, q) {
			return s.deny(EntitySuspended, x)
		}
	}
	return s
}

func (v *View) productStanding(s Standing, q *StandingQuery, at Time) Standing {
	p := s.Product
	if p.Certification.State == CertDelisted {
		return s.deny(ProductDelisted, nil)
	}
	if x := v.Suspended(KindProduct, p.ID, at); x != nil && !s.bypass(x, q) {
		return s.deny(ProductSuspended, x)
	}
	if q.Environment != PROD {
		return s // test environments are open to whoever is registered
	}
	switch p.Certification.State {
	case CertPVT, CertWhitelisted, CertInterim, CertRestricted, CertReviewDue:
	default:
		return s.deny(ProductNotWhitelisted, nil)
	}
	c := &p.Certification
	if c.ValidFrom > at {
		return s.deny(ProductNotWhitelisted, nil)
	}
	if c.ValidUntil != 0 && at >= c.ValidUntil {
		return s.deny(CertificationExpired, nil)
	}
	return s
}

// versionStanding: a caller that does not say its version is served unless a
// version of the product is blocked or suspended; then it has to say.
func (v *View) versionStanding(s Standing, q *StandingQuery, at Time) Standing {
	if q.Version == "" {
		for i := range s.Product.Versions {
			st := v.oneVersion(s, q, &s.Product.Versions[i], at)
			if st.Code == VersionBlockedStanding {
				return st
			}
			if st.Bypassed != nil {
				s.Bypassed = st.Bypassed
			}
		}
		return s
	}
	ver := s.Product.Version(q.Version)
	if ver == nil {
		if ver = s.Product.BuildOf(q.Version); ver == nil {
			return s.deny(VersionNotRegistered, nil)
		}
		s.Build = true
	}
	return v.oneVersion(s, q, ver, at)
}

func (v *View) oneVersion(s Standing, q *StandingQuery, ver *Version, at Time) Standing {
	if q.Version != "" {
		s.Version = ver
	}
	if v.suspended[KindVersion].n > 0 {
		var buf [128]byte
		id := append(append(append(buf[:0], s.Product.ID...), '@'), ver.Version...)
		if x := v.Suspended(KindVersion, unsafeString(id), at); x != nil && !s.bypass(x, q) {
			return s.deny(VersionBlockedStanding, x)
		}
	}
	if ver.State == VersionBlocked {
		return s.deny(VersionBlockedStanding, nil)
	}
	if ver.SupportUntil != 0 && at >= ver.SupportUntil {
		return s.deny(VersionUnsupported, nil)
	}
	return s
}

// bypass tells whether a suspension leaves this call through: the service is
// available while suspended (receipts of lodgments already accepted) and the
// suspension is no emergency.
func (s *Standing) bypass(x *Suspension, q *StandingQuery) bool {
	if q.Service == nil || !q.Service.WhileSuspended || x.Emergency {
		return false
	}
	s.Bypassed = x
	return true
}

func (s Standing) deny(code StandingCode, x *Suspension) Standing {
	s.Code, s.Suspension = code, x
	return s
}
