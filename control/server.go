package control

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/incident"
	"github.com/dspgate/dspgate/registry/intake"
	"github.com/dspgate/dspgate/registry/translog"
)

// Config is what the API is made of.
type Config struct {
	Register  *registry.Register
	Decisions Decisions // the zero value: explain answers 404
	Changes   Changes   // nil: the listing of changes answers 503
	Uses      LimitUses // nil: limits are shown without what was used of them
	// Audit takes a leaf for every reading of personal data and shows the log. Nil: there is none.
	Audit *translog.Log
	// Assurance answers for requirements, evidence, verifications, findings and
	// add-ons. Nil: their addresses answer 404.
	Assurance *assurance.Desk
	// Incidents works on incidents. Nil: their addresses answer 404.
	Incidents *incident.Desk
	// Policies say what is done about callers that stray. Nil: their addresses
	// answer 404. Signals are what the watcher told of them.
	Policies *policy.Desk
	Signals  Signals
	// Casework works on registrations and certifications. Nil: their addresses answer 404.
	Casework *casework.Desk
	// Prober makes the automated checks. Nil: none are made.
	Prober Prober
	// Live is what the stream of events tells. Nil: its addresses answer 404.
	Live *live.Hub
	Auth Authenticator
	// Ready tells why this control plane is not ready; nil when it is. Optional.
	Ready func(context.Context) error
	Log   *slog.Logger
	// Metrics takes the API's metrics. Optional.
	Metrics prometheus.Registerer
	Version string // of the build
	// Drain is the register's (registry.RegisterConfig): without one, nothing is
	// promised of calls under way, whatever an upstream verifies.
	Drain time.Duration
	// Now is the clock for standings; default time.Now.
	Now func() time.Time
}

// Bounds on what is served at once, and for how long.
const (
	inFlightMax       = 256
	requestTimeout    = 20 * time.Second
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	idleTimeout       = time.Minute
	headerBytesMax    = 16 << 10
	pathValueMax      = 512 // bytes; no ID is as long
)

type server struct {
	reg       *registry.Register
	decisions Decisions
	changes   Changes
	audit     *translog.Log
	uses      LimitUses
	assurance *assurance.Desk
	// incidentDesk may be nil: ask incidents().
	incidentDesk *incident.Desk
	policyDesk   *policy.Desk // may be nil: ask policies()
	signals      Signals
	casework     *casework.Desk
	prober       Prober
	intake       *intake.Importer
	importing    chan struct{} // held by the one import there may be
	auth         Authenticator
	ready        func(context.Context) error
	log          *slog.Logger
	version      string
	drain        time.Duration
	now          func() time.Time
	doc          *document
	metrics      *metrics
	slots        chan struct{}
	live         *live.Hub // may be nil
	lists        listings
	public       publicRegister
}

// New makes the API's handler.
func New(cfg Config) (http.Handler, error) {
	if cfg.Register == nil || cfg.Auth == nil || cfg.Log == nil {
		return nil, fmt.Errorf("control: Register, Auth and Log are needed")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &server{
		reg: cfg.Register, decisions: cfg.Decisions, changes: cfg.Changes, uses: cfg.Uses, audit: cfg.Audit, assurance: cfg.Assurance, casework: cfg.Casework, incidentDesk: cfg.Incidents, policyDesk: cfg.Policies, signals: cfg.Signals, prober: cfg.Prober, importing: make(chan struct{}, 1), auth: cfg.Auth, ready: cfg.Ready, log: cfg.Log,
		version: cfg.Version, drain: cfg.Drain, now: cfg.Now, doc: newDocument(cfg.Version), slots: make(chan struct{}, inFlightMax), live: cfg.Live,
	}
	if cfg.Casework != nil {
		s.intake = intake.New(cfg.Register, cfg.Casework)
	}
	var err error
	if s.metrics, err = newMetrics(cfg.Metrics); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	byPath := map[string]map[string]*route{}
	for _, rt := range slices.Concat(s.routes(), s.assuranceRoutes(), s.caseworkRoutes(), s.editionRoutes(), s.incidentRoutes(), s.policyRoutes(), s.fieldRoutes(), s.protectedRoutes(), s.eventRoutes(), s.problemRoutes()) {
		s.doc.add(&rt)
		if byPath[rt.path] == nil {
			byPath[rt.path] = map[string]*route{}
		}
		byPath[rt.path][rt.method] = &rt
	}
	if err := s.doc.finish(); err != nil {
		return nil, err
	}
	for pattern, methods := range byPath {
		mux.HandleFunc(pattern, s.enter(methods))
	}
	for pattern, methods := range s.documents() {
		mux.HandleFunc(pattern, s.enter(methods))
	}
	nowhere := s.enter(nil)
	mux.HandleFunc("/", nowhere)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// ServeMux would redirect a path that is not clean; here there is just nothing.
		if p := r.URL.EscapedPath(); p == "" || path.Clean(p) != p {
			nowhere(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}), nil
}

// routes is the whole API.
func (s *server) routes() []route {
	const (
		registrar = registry.PermRegistrar
		developer = registry.PermDeveloper
		assessor  = registry.PermAssessor
		auditor   = registry.PermAuditor
		stoppers  = registry.PermOperator | registry.PermIncidentOfficer
		limiters  = registry.PermOperator | assessor
		staff     = stoppers | registrar | assessor | auditor
	)
	return []route{
		get("/v1/entities", "list-entities", "Entities by ABN.", s.listEntities).lists(registry.Entity{}).filters("state", "name").tells("contacts"),
		post("/v1/entities", "create-entity", "Enter an entity.", with(s, s.createEntity)).gives(registry.Entity{}).by(registrar).creating(),
		get("/v1/entities/{abn}", "get-entity", "One entity.", s.getEntity).gives(registry.Entity{}).about(registry.KindEntity, "abn").tells("contact"),
		put("/v1/entities/{abn}", "update-entity", "Change an entity's name, roles or contact.", with(s, s.updateEntity)).gives(registry.Entity{}).about(registry.KindEntity, "abn").by(registrar),
		get("/v1/entities/{abn}/checks", "list-checks", "Outcomes of the eligibility checks.", s.listChecks).by(s.eligibility()|registry.PermDeveloper).listsPlain(registry.Check{}).about(registry.KindEntity, "abn").tells("checks"),

		get("/v1/products", "list-products", "Products by Product ID.", s.listProducts).lists(registry.Product{}).filters("owner", "entity", "state", "q"),
		post("/v1/products", "create-product", "Enter a product.", with(s, s.createProduct)).gives(registry.Product{}).by(registrar).creating(),
		get("/v1/products/{id}", "get-product", "One product.", s.getProduct).gives(registry.Product{}).about(registry.KindProduct, "id"),
		put("/v1/products/{id}", "update-product", "Change a product's name, delivery chain, scenario or category.", with(s, s.updateProduct)).gives(registry.Product{}).about(registry.KindProduct, "id").by(registrar),
		get("/v1/products/{id}/versions", "list-versions", "A product's versions.", s.listVersions).listsPlain(registry.Version{}).about(registry.KindProduct, "id"),
		post("/v1/products/{id}/versions", "create-version", "Register a version.", with(s, s.createVersion)).gives(registry.Product{}).about(registry.KindProduct, "id").by(registrar | developer).creating(),
		put("/v1/products/{id}/versions/{version}", "update-version", "Block a version, or set when its support ends.", with(s, s.updateVersion)).gives(registry.Product{}).about(registry.KindProduct, "id").by(registrar),
		get("/v1/products/{id}/entitlements", "list-entitlements", "The services a product may call.", s.listEntitlements).listsPlain(registry.Entitlement{}).about(registry.KindProduct, "id").filters("environment"),
		put("/v1/products/{id}/entitlements/{environment}/{service}", "set-entitlement", "Entitle a product to a service in an environment.", with(s, s.setEntitlement)).gives(registry.Product{}).about(registry.KindProduct, "id").by(assessor),
		del("/v1/products/{id}/entitlements/{environment}/{service}", "remove-entitlement", "Take an entitlement away.", s.removeEntitlement).gives(registry.Product{}).about(registry.KindProduct, "id").by(assessor),
		get("/v1/products/{id}/certification", "get-certification", "A product's certification.", s.getCertification).givesPlain(registry.Certification{}).about(registry.KindProduct, "id"),

		get("/v1/client-apps", "list-client-apps", "Client apps by client_id.", s.listClientApps).lists(registry.ClientApp{}).filters("product_id", "environment", "owner"),
		post("/v1/client-apps", "create-client-app", "Bind a client_id to a product and an environment.", with(s, s.createClientApp)).gives(registry.ClientApp{}).by(registrar).creating(),
		get("/v1/client-apps/{id}", "get-client-app", "One client app.", s.getClientApp).gives(registry.ClientApp{}).about(registry.KindClientApp, "id"),
		put("/v1/client-apps/{id}", "update-client-app", "Disable or enable a client app.", with(s, s.updateClientApp)).gives(registry.ClientApp{}).about(registry.KindClientApp, "id").by(registrar),

		get("/v1/credentials", "list-credentials", "Machine credentials by thumbprint.", s.listCredentials).lists(registry.Credential{}).filters("abn"),
		post("/v1/credentials", "create-credential", "Enter a machine credential.", with(s, s.createCredential)).gives(registry.Credential{}).by(registrar).creating(),
		get("/v1/credentials/{id}", "get-credential", "One machine credential.", s.getCredential).gives(registry.Credential{}).about(registry.KindCredential, "id"),
		put("/v1/credentials/{id}", "update-credential", "Change a machine credential's name or expiry.", with(s, s.updateCredential)).gives(registry.Credential{}).about(registry.KindCredential, "id").by(registrar),

		get("/v1/subscriptions", "list-subscriptions", "Subscriptions by SSID.", s.listSubscriptions).lists(registry.Subscription{}).filters("product_id", "client_abn").tells("clients"),
		post("/v1/subscriptions", "create-subscription", "Enter one client's subscription to a product.", with(s, s.createSubscription)).gives(registry.Subscription{}).by(registrar).creating(),
		get("/v1/subscriptions/{id}", "get-subscription", "One subscription.", s.getSubscription).gives(registry.Subscription{}).about(registry.KindSubscription, "id").tells("client"),
		post("/v1/subscriptions/{id}/nominate", "nominate-subscription", "The client told the agency of this SSID, or took that back.", with(s, s.nominate)).gives(registry.Subscription{}).about(registry.KindSubscription, "id").by(registrar | developer),

		get("/v1/services", "list-services", "Services by key.", s.listServices).lists(registry.Service{}).filters("risk"),
		post("/v1/services", "create-service", "Enter a service.", with(s, s.createService)).gives(registry.Service{}).by(registrar).creating(),
		get("/v1/services/{id}", "get-service", "One service.", s.getService).gives(registry.Service{}).about(registry.KindService, "id"),
		put("/v1/services/{id}", "update-service", "Change a service.", with(s, s.updateService)).gives(registry.Service{}).about(registry.KindService, "id").by(registrar),

		get("/v1/limits", "list-limits", "Limits by ID.", s.listLimits).lists(registry.Limit{}).filters("kind", "subject", "product_id", "removed"),
		post("/v1/limits", "create-limit", "Set a limit of a subject, or of each product of a tier.", with(s, s.createLimit)).gives(limitAnswer{}).by(limiters).creating(),
		post("/v1/limits/preview", "preview-limit", "Replay recorded decisions against a proposed limit: who would have been refused.", with(s, s.previewLimit)).givesPlain(previewView{}).by(limiters),
		get("/v1/limits/{id}", "get-limit", "One limit, by KIND:ID:NAME.", s.getLimit).gives(registry.Limit{}).about(registry.KindLimit, "id"),
		put("/v1/limits/{id}", "set-limit", "Set a limit, by KIND:ID:NAME; it takes the place of the tier's of that name.", with(s, s.setLimit)).gives(limitAnswer{}).by(limiters),
		del("/v1/limits/{id}", "remove-limit", "Take a limit away; where it stood for a tier's, that one holds again.", s.removeLimit).gives(registry.Limit{}).about(registry.KindLimit, "id").by(limiters),
		get("/v1/tiers", "list-tiers", "The tiers, with their limits.", s.listTiers).listsPlain(tierView{}),
		get("/v1/products/{id}/limits", "list-product-limits", "Every limit of a product, and what it is at over all sidecars.", s.listProductLimits).listsPlain(limitUseView{}).about(registry.KindProduct, "id"),
		put("/v1/products/{id}/tier", "set-tier", "Put a product into a tier of limits.", with(s, s.setTier)).gives(registry.Product{}).about(registry.KindProduct, "id").by(limiters),

		get("/v1/suspensions", "list-suspensions", "Suspensions, the latest first.", s.listSuspensions).lists(suspensionView{}).filters("kind", "subject", "active", "product_id"),
		post("/v1/suspensions", "suspend", "Suspend a subject, at once.", with(s, s.suspend)).gives(suspensionView{}).by(stoppers).filters("wait", "timeout").creating(),
		post("/v1/suspensions/preview", "preview-suspension", "What a suspension would stop, as the register stands.", with(s, s.previewSuspension)).givesPlain(stopsView{}).by(stoppers),
		get("/v1/suspensions/{id}", "get-suspension", "One suspension.", s.getSuspension).givesPlain(suspensionView{}).about(registry.KindSuspension, "id").filters("wait", "timeout"),
		post("/v1/suspensions/{id}/confirm", "confirm-suspension", "A second person confirms, and may extend to 72 h.", with(s, s.confirm)).gives(suspensionView{}).about(registry.KindSuspension, "id").by(stoppers).filters("wait", "timeout").lenient(),
		post("/v1/suspensions/{id}/lift", "lift-suspension", "Lift a suspension; not the one who imposed it.", with(s, s.lift)).gives(suspensionView{}).about(registry.KindSuspension, "id").by(stoppers).filters("wait", "timeout").lenient(),

		get("/v1/notices", "list-notices", "Notices, the latest first.", s.listNotices).lists(registry.Notice{}).filters("kind", "subject"),
		post("/v1/notices", "issue-notice", "Announce something before it takes effect.", with(s, s.issueNotice)).gives(registry.Notice{}).by(stoppers).creating(),
		get("/v1/notices/{id}", "get-notice", "One notice.", s.getNotice).gives(registry.Notice{}).about(registry.KindNotice, "id"),

		get("/v1/token-denials", "list-token-denials", "Denied signing keys and tokens.", s.listDenials).lists(registry.Denial{}).by(staff).filters("issuer", "active"),
		post("/v1/token-denials", "deny-token", "Deny a signing key (kid) or one token (jti) of an issuer.", with(s, s.denyToken)).gives(registry.Denial{}).by(stoppers).filters("wait", "timeout").creating(),
		get("/v1/token-denials/{id}", "get-token-denial", "One denial.", s.getDenial).gives(registry.Denial{}).about(registry.KindDenial, "id").by(staff),
		post("/v1/token-denials/{id}/lift", "lift-token-denial", "Lift a denial.", with(s, s.liftDenial)).gives(registry.Denial{}).about(registry.KindDenial, "id").by(stoppers).lenient(),

		get("/v1/sidecars", "list-sidecars", "The sidecars on the roll, and what each holds.", s.listSidecars).listsPlain(sidecarView{}).by(staff),
		get("/v1/decisions", "list-decisions", "The latest refusals of a product.", s.listDecisions).listsPlain(decisionView{}).filters("product_id").tells("decisions"),
		get("/v1/decisions/{id}", "explain-decision", "Why one call was decided as it was.", s.explain).givesPlain(explanation{}).tells("decision"),
		get("/v1/changes", "list-changes", "The log of every change.", s.listChanges).listsPlain(changeView{}).by(auditor).filters("after").trimmed(),

		get("/v1/audit/checkpoint", "get-audit-checkpoint", "The audit log's newest signed checkpoint.", s.auditCheckpoint).givesPlain(checkpointView{}).open().missing(),
		get("/v1/audit/entries", "list-audit-entries", "Entries of the audit log, the oldest first.", s.auditEntries).listsPlain(auditEntryView{}).by(auditor).filters("after").missing(),
		get("/v1/audit/proofs", "get-audit-proof", "Proof that the log holds an entry, or that it extends what it was.", s.auditProofs).givesPlain(proofView{}).by(auditor).filters("entry", "size").missing(),

		get("/v1/tokens", "list-tokens", "Your tokens for programs.", s.listTokens).listsPlain(tokenView{}),
		post("/v1/tokens", "make-token", "Make a token for a program, which then acts as you.", with(s, s.makeToken)).givesPlain(tokenView{}).creating().byPeople(),
		del("/v1/tokens/{id}", "revoke-token", "Revoke a token at once.", s.revokeToken).givesPlain(tokenView{}).unmatched(),
		get("/v1/people", "list-people", "Who acts for an entity.", s.listPeople).listsPlain(memberView{}).filters("entity").tells("people").missing(),
		del("/v1/people/{id}", "remove-person", "Somebody no longer acts for an entity.", s.removePerson).givesPlain(memberView{}).unmatched(),
		get("/v1/invitations", "list-invitations", "Open invitations to act for an entity.", s.listInvitations).listsPlain(invitationView{}).filters("entity").tells("invitations").missing(),
		post("/v1/invitations", "invite", "Invite a person to act for an entity.", with(s, s.invite)).givesPlain(invitationView{}).by(registrar | developer).creating(),
		post("/v1/invitations/accept", "accept-invitation", "Act for the entity that invited you.", with(s, s.accept)).givesPlain(memberView{}).creating(),
		del("/v1/invitations/{id}", "withdraw-invitation", "Take an invitation back.", s.withdraw).givesPlain(invitationView{}).unmatched(),

		get("/v1/overview", "get-overview", "What is wrong now, what runs out next, and what waits for you.", s.showOverview).givesPlain(overviewView{}).by(staff),
		get("/v1/me", "get-me", "Who you are and, for a developer, your own entity and how it stands.", s.me).givesPlain(meView{}).tells("own page"),
		get("/v1/register", "list-register", "The public register: whitelisted products.", s.listRegister).listsPlain(registerView{}).open().filters("product_id", "owner", "q"),
	}
}

// enter is the way into every handler: request ID, limits, panics, log, metrics.
func (s *server) enter(methods map[string]*route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		rec := &recorder{ResponseWriter: w}
		c := &call{id: newRequestID(), w: rec, r: r}
		h := w.Header()
		h.Set("X-Request-Id", c.id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("Cache-Control", "no-store")
		defer func() {
			if p := recover(); p != nil {
				s.log.ErrorContext(r.Context(), "panic in a handler", "request_id", c.id, "route", c.routeName(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				if rec.status == 0 {
					s.fail(c, fmt.Errorf("panic: %v", p))
				}
			}
			took := time.Since(start)
			if !c.began.IsZero() {
				took = c.began.Sub(start) // a stream takes as long as somebody listens
			}
			s.metrics.observe(c, rec.status, took)
			s.logRequest(c, rec.status, rec.bytes, float64(took.Microseconds())/1000)
		}()
		select {
		case s.slots <- struct{}{}:
			c.release = sync.OnceFunc(func() { <-s.slots })
			defer c.release()
		default:
			s.fail(c, errBusy)
			return
		}
		if err := s.serve(c, methods); err != nil {
			s.fail(c, err)
		}
	}
}

func (s *server) serve(c *call, methods map[string]*route) error {
	if methods == nil {
		return fmt.Errorf("%w: there is nothing at this address; /openapi.json lists what there is", registry.ErrNotFound)
	}
	for _, rt := range methods {
		c.route = &route{path: rt.path} // for the log, until the method is known
	}
	method := c.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	rt := methods[method]
	if rt == nil {
		c.w.Header().Set("Allow", allow(methods))
		if method == http.MethodOptions {
			c.allowed(allow(methods))
			return nil
		}
		return errMethod
	}
	c.route = rt
	if rt.data == nil { // a document, written by its handler
		_, err := rt.handle(c)
		return err
	}
	timeout := requestTimeout
	switch {
	case rt.stream:
		timeout = live.For
	case rt.upload && rt.media != "":
		timeout = importTimeout
	case rt.upload:
		timeout = uploadTimeout
	}
	ctx, cancel := context.WithTimeout(c.r.Context(), timeout)
	defer cancel()
	c.r = c.r.WithContext(ctx)
	if err := s.admit(c); err != nil {
		return err
	}
	if rt.command() && !plainBody(c.r) {
		return errEncoded
	}
	switch {
	case rt.media != "":
		_, err := rt.handle(c)
		return err
	case rt.upload:
		a, err := rt.handle(c)
		if err != nil {
			return err
		}
		st, err := render(a)
		if err != nil {
			return err
		}
		c.send(st)
		return nil
	case rt.command():
		return s.command(c)
	}
	a, err := rt.handle(c)
	if err == nil {
		err = s.noteReading(c, a)
	}
	if err != nil {
		return err
	}
	st, err := render(a)
	if err != nil {
		return err
	}
	c.send(st)
	return nil
}

// admit finds out who calls and whether they may: first whether the record is
// one they may know of (404), then whether they may do this (403).
func (s *server) admit(c *call) (err error) {
	rt := c.route
	if !rt.public {
		if c.actor, err = s.authenticate(c); err != nil {
			return err
		}
	}
	if rt.newcomers && c.person && c.actor.Permissions == 0 {
		c.actor.Permissions = registry.PermDeveloper // of no entity: what the person applied for itself, and nothing else
	}
	if c.view, err = s.reg.View(); err != nil {
		return err
	}
	c.at = registry.At(s.now())
	for seg := range strings.SplitSeq(rt.path, "/") {
		if name, ok := strings.CutPrefix(seg, "{"); ok && len(c.path(strings.TrimSuffix(name, "}"))) > pathValueMax {
			return fmt.Errorf("%w: no ID is longer than %d bytes", registry.ErrNotFound, pathValueMax)
		}
	}
	if rt.kind != registry.NoKind && !c.actor.Staff() {
		if !mayKnow(c, rt.kind, c.path(rt.value)) {
			return notFound(rt.kind, c.path(rt.value))
		}
	}
	if rt.allow != 0 && !c.actor.Has(rt.allow) {
		if rt.path == "/v1/suspensions" { // by the subject in the body: see suspend
			return s.refuseSuspend(c)
		}
		return forbidden(rt)
	}
	if rt.peopleOnly && !c.person {
		return forbidden(rt)
	}
	return c.checkQuery()
}

func forbidden(rt *route) error {
	return fmt.Errorf("%w: your permissions do not cover this. %s", registry.ErrForbidden, rt.permissionText())
}

// command runs a handler that changes something, once for each Idempotency-Key.
func (s *server) command(c *call) (err error) {
	if c.body, err = readBody(c.w, c.r); err != nil {
		return err
	}
	switch {
	case c.route.optional && len(c.body) == 0:
		c.body = []byte("{}")
	case c.route.body != nil:
		if err := checkMediaType(c.r.Header.Get("Content-Type")); err != nil {
			return err
		}
	case len(c.body) > 0:
		return fmt.Errorf("%w: this takes no body", errMalformed)
	}
	key, fingerprint, keyed, err := c.idempotency()
	if err != nil {
		return err
	}
	do := func() (stored, error) {
		a, err := c.route.handle(c)
		if err != nil {
			return stored{}, err
		}
		return render(a)
	}
	var st stored
	if keyed {
		st, err = s.once(c, key, fingerprint, do)
	} else {
		st, err = do()
	}
	if err != nil {
		if c.r.Method == http.MethodPost && (c.route.path == "/v1/suspensions" || c.route.path == "/v1/token-denials") {
			err = s.reg.Exposed(c.r.Context(), err) // also where the store failed before the command
		}
		return err
	}
	c.send(st)
	return nil
}

func allow(methods map[string]*route) string {
	names := []string{http.MethodOptions}
	for m := range methods {
		names = append(names, m)
		if m == http.MethodGet {
			names = append(names, http.MethodHead)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
