// Package upstream is the middleware by which a service behind dspgate refuses
// every call that was not admitted, or not admitted just now.
//
//	v, err := upstream.New(upstream.Config{KeyFile: "/etc/dspgate/admission.keys"})
//	…
//	http.ListenAndServe(addr, v.Middleware(mux))
//
// It belongs before everything else: before routers that rewrite the path,
// before bodies are read. A stream is verified once, when it opens.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dspgate/dspgate/authz/admission"
)

// Config says what to verify with.
type Config struct {
	// KeyFile holds the keys (docs/admission-stamp.md). It is looked at again every
	// KeyReload; one that cannot be read leaves the keys as they were. Needed,
	// unless Keys is set.
	KeyFile string
	// KeyReload is how often KeyFile is looked at. Default 1s.
	KeyReload time.Duration
	// Keys are used instead of a file.
	Keys admission.KeySource
	// Skew is by how much this machine's clock and the sidecars' may differ.
	// Default admission.DefaultSkew; NoSkew is none. The control plane's drain must
	// cover it.
	Skew time.Duration
	// AllowReplay lets one stamp admit several calls while it is good, for a
	// service behind a proxy of its own that tries again. Default: one.
	AllowReplay bool
	// ProblemBase starts the type of the problem. Default
	// https://dspgate.example/problems/.
	ProblemBase string
	// Refused hears of every refusal, before it is answered; the error wraps one of
	// package admission's. Nil hears nothing.
	Refused func(r *http.Request, err error)
	// Log hears of a key file that cannot be read. Nil discards.
	Log *slog.Logger
	// Now is the wall clock. Default time.Now.
	Now func() time.Time
}

// NoSkew is for clocks that are one.
const NoSkew = time.Duration(-1)

// Verifier refuses what was not admitted. Safe for concurrent use.
type Verifier struct {
	verify  *admission.Verifier
	file    *admission.KeyFile // nil when the keys are not from a file
	reload  time.Duration
	next    atomic.Int64 // when to look at the file again, in Unix ns
	refused func(*http.Request, error)
	log     *slog.Logger
	now     func() time.Time
	problem string // its type
}

// New makes a Verifier; it fails when there are no keys, or on a skew that is
// too large.
func New(cfg Config) (*Verifier, error) {
	v := &Verifier{reload: cfg.KeyReload, refused: cfg.Refused, log: cfg.Log, now: cfg.Now}
	if v.reload <= 0 {
		v.reload = time.Second
	}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if v.now == nil {
		v.now = time.Now
	}
	if v.problem = cfg.ProblemBase; v.problem == "" {
		v.problem = "https://dspgate.example/problems/"
	}
	v.problem += code
	keys := cfg.Keys
	if keys == nil {
		f, err := admission.OpenKeys(cfg.KeyFile)
		if err != nil {
			return nil, err
		}
		v.file, keys = f, f
	}
	skew := cfg.Skew
	switch skew {
	case 0:
		skew = admission.DefaultSkew
	case NoSkew:
		skew = 0
	}
	var err error
	v.verify, err = admission.NewVerifier(admission.VerifierConfig{Keys: keys, Skew: skew, Replay: cfg.AllowReplay})
	return v, err
}

// Admission is what the stamp of an admitted call said.
type Admission struct {
	admission.Stamp
	At time.Time // when it was verified
}

type contextKey struct{}

// FromContext finds the admission of the call that a context belongs to; ok is
// false when it did not come through a Middleware.
func FromContext(ctx context.Context) (a Admission, ok bool) {
	a, ok = ctx.Value(contextKey{}).(Admission)
	return a, ok
}

// Middleware lets admitted calls through to next, with their Admission in the
// context, and answers the others as the gateway would: 503 admission-expired,
// for gRPC callers with grpc-status 14.
func (v *Verifier) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now := v.now()
		v.refresh(now)
		s, err := v.Verify(r.Header, r.Method, r.RequestURI, now)
		if err != nil {
			if v.refused != nil {
				v.refused(r, err)
			}
			v.refuse(w, r)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), contextKey{}, Admission{s, now})))
	})
}

// Verify tells whether a call was admitted; the error wraps one of package
// admission's. path is the request target as received, with its query. It is
// for servers that are not net/http's; a call must be verified once only.
func (v *Verifier) Verify(h http.Header, method, path string, now time.Time) (admission.Stamp, error) {
	c := admission.Call{Method: method, Path: path}
	var value string
	for _, f := range []struct {
		name string
		to   *string
	}{
		{keyAdmission, &value}, {keyDecisionID, &c.DecisionID}, {keyEnvironment, &c.Environment}, {keyService, &c.Service},
		{keyProductID, &c.ProductID}, {keyProductVersion, &c.ProductVersion}, {keyABN, &c.ABN}, {keySoftwareID, &c.SoftwareID}, {keyClientABN, &c.ClientABN},
	} {
		switch all := h[f.name]; len(all) {
		case 0:
		case 1:
			*f.to = all[0]
		default:
			// One of them would be verified, and another believed.
			return admission.Stamp{}, fmt.Errorf("%w: %s came %d times", admission.ErrMalformed, f.name, len(all))
		}
	}
	s, err := v.verify.Verify(value, &c, now)
	if err != nil {
		return s, err
	}
	// The one header the upstream may believe that is not in the call.
	if all := h[keyRevision]; len(all) > 1 || len(all) == 1 && all[0] != strconv.FormatUint(s.Revision, 10) {
		return admission.Stamp{}, fmt.Errorf("%w: its revision", admission.ErrForged)
	}
	return s, nil
}

// The headers (envoy/headers), as net/http spells them.
const (
	keyAdmission      = "X-Dsp-Admission"
	keyDecisionID     = "X-Dsp-Decision-Id"
	keyEnvironment    = "X-Dsp-Environment"
	keyService        = "X-Dsp-Service"
	keyProductID      = "X-Dsp-Product-Id"
	keyProductVersion = "X-Dsp-Product-Version"
	keyABN            = "X-Dsp-Abn"
	keySoftwareID     = "X-Dsp-Software-Id"
	keyClientABN      = "X-Dsp-Client-Abn"
	keyRevision       = "X-Dsp-Revision"
)

// refresh looks at the key file when it is time, in whichever call comes first.
func (v *Verifier) refresh(now time.Time) {
	if v.file == nil {
		return
	}
	next := v.next.Load()
	if ns := now.UnixNano(); ns < next && next-ns <= int64(v.reload) || !v.next.CompareAndSwap(next, ns+int64(v.reload)) {
		return
	}
	if changed, err := v.file.Reload(); err != nil {
		v.log.Error("admission keys not read, those from before stay", "err", err)
	} else if changed {
		v.log.Info("admission keys changed", "ids", v.file.Keys().IDs())
	}
}

// The refusal, in the gateway's words (authz.AdmissionExpired).
const (
	code   = "admission-expired"
	title  = "Admission has expired"
	detail = "The call was held up after it was admitted; try again."
)

func (v *Verifier) refuse(w http.ResponseWriter, r *http.Request) {
	// What comes from outside stands in the body only if it can be a decision ID.
	id := strings.Join(r.Header[keyDecisionID], "")
	if len(id) != 26 || strings.Trim(id, "0123456789ABCDEFGHJKMNPQRSTVWXYZ") != "" {
		id = "unknown"
	}
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("Retry-After", "1")
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", "14")
		h.Set("Grpc-Message", code+": "+detail+" (/decisions/"+id+")")
		w.WriteHeader(http.StatusOK)
		return
	}
	h.Set("Content-Type", "application/problem+json")
	w.WriteHeader(http.StatusServiceUnavailable)
	// A caller that is gone needs no answer.
	_, _ = fmt.Fprintf(w, `{"type":%q,"title":%q,"status":503,"detail":%q,"instance":"/decisions/%s","errors":[{"id":"%s","code":%q,"detail":%q}]}`,
		v.problem, title, detail, id, id, code, detail)
}

// Reason names what was wrong in one word, for logs and metrics: missing,
// malformed, unknown-key, forged, expired, ahead, replayed or busy; "" for nil.
func Reason(err error) string {
	for _, x := range []struct {
		err  error
		word string
	}{
		{admission.ErrMissing, "missing"}, {admission.ErrMalformed, "malformed"}, {admission.ErrUnknownKey, "unknown-key"}, {admission.ErrForged, "forged"},
		{admission.ErrExpired, "expired"}, {admission.ErrAhead, "ahead"}, {admission.ErrReplayed, "replayed"}, {admission.ErrBusy, "busy"},
	} {
		if errors.Is(err, x.err) {
			return x.word
		}
	}
	return ""
}
