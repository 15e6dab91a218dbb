package console

import (
	"errors"
	"fmt"
	"slices"

	"github.com/dspgate/dspgate/registry"
)

// What the console reads of the API's answers.

type entity struct {
	registry.Entity
	Revision   registry.Revision `json:"revision"`
	Suspension *suspension       `json:"suspension"`
}

type product struct {
	registry.Product
	Revision registry.Revision `json:"revision"`
}

type suspension struct {
	registry.Suspension
	Active      bool         `json:"active"`
	Enforcement *enforcement `json:"enforcement"`
}

type enforcement struct {
	registry.Enforcement
	P1OnlyServices []string `json:"p1_only_services"`
}

// Acknowledged counts the sidecars that hold it.
func (e *enforcement) Acknowledged() (n int) {
	for _, s := range e.Sidecars {
		if s.State == registry.Acknowledged {
			n++
		}
	}
	return n
}

type sidecar struct {
	ID          string            `json:"id"`
	Incarnation string            `json:"incarnation"`
	Revision    registry.Revision `json:"revision"`
	Lag         registry.Revision `json:"lag"`
	DigestOK    *bool             `json:"digest_ok"`
	PolledAt    registry.Time     `json:"polled_at"`
	Lapsed      bool              `json:"lapsed"`
	ShortLeftMS int64             `json:"short_lease_left_ms"`
	LongLeftMS  int64             `json:"long_lease_left_ms"`
}

// State is one word for it.
func (s sidecar) State() string {
	switch {
	case s.Lapsed:
		return "lapsed"
	case s.DigestOK != nil && !*s.DigestOK:
		return "wrong digest"
	case s.Lag > 0:
		return "pending"
	}
	return "acknowledged"
}

type decision struct {
	ID          string               `json:"id"`
	At          registry.Time        `json:"at"`
	Allowed     bool                 `json:"allowed"`
	Code        string               `json:"code"`
	Status      int                  `json:"status"`
	Revision    registry.Revision    `json:"revision"`
	Environment registry.Environment `json:"environment"`
	Service     string               `json:"service"`
	Route       string               `json:"route"`
	ProductID   string               `json:"product_id"`
	Version     string               `json:"version"`
	ClientID    string               `json:"client_id"`
	Holder      registry.ABN         `json:"holder_abn"`
	Suspension  string               `json:"suspension_id"`
	Sidecar     string               `json:"sidecar_id"`
}

type explanation struct {
	Decision   decision    `json:"decision"`
	Title      string      `json:"title"`
	Detail     string      `json:"detail"`
	Remedy     string      `json:"remedy"`
	Suspension *suspension `json:"suspension"`
	Register   []struct {
		Kind     registry.Kind     `json:"kind"`
		ID       string            `json:"id"`
		Says     string            `json:"says"`
		Revision registry.Revision `json:"revision"`
		Changed  bool              `json:"changed_since"`
	} `json:"register"`
	Now struct {
		Known  bool   `json:"known"`
		Alike  bool   `json:"alike"`
		Detail string `json:"detail"`
	} `json:"now"`
}

type me struct {
	Name        string        `json:"name"`
	Permissions []string      `json:"permissions"`
	Entity      *entity       `json:"entity"`
	Products    []meProduct   `json:"products"`
	Signals     []watchSignal `json:"last_signals"`
	Denials     []decision    `json:"last_denials"`
	Note        string        `json:"last_denials_note"`
}

type meProduct struct {
	ID            string                  `json:"id"`
	Name          string                  `json:"name"`
	Owner         registry.ABN            `json:"owner"`
	Standing      string                  `json:"standing"`
	Detail        string                  `json:"detail"`
	Certification registry.Certification  `json:"certification"`
	Suspension    *suspension             `json:"suspension"`
	Versions      []meVersion             `json:"versions"`
	Entitlements  []registry.Entitlement  `json:"entitlements"`
	Subscriptions []registry.Subscription `json:"subscriptions"`
	Limits        []limit                 `json:"limits"`
	LimitsNote    string                  `json:"limits_note"`
}

// Untested: nothing may be tried with it in the test environment yet.
func (p meProduct) Untested() bool {
	return p.Certification.State != registry.CertDelisted && !slices.ContainsFunc(p.Entitlements, func(e registry.Entitlement) bool { return e.Environment == registry.EVTE })
}

type meVersion struct {
	registry.Version
	Standing string `json:"standing"`
}

// limit is one limit of a product with what is left of it.
type limit struct {
	Name        string        `json:"name"`
	Account     string        `json:"account"`
	Kind        string        `json:"kind"`
	Amount      int64         `json:"amount"`
	Burst       int64         `json:"burst"`
	Period      string        `json:"period"`
	Zone        string        `json:"zone"`
	Service     string        `json:"service"`
	Environment string        `json:"environment"`
	Shadow      bool          `json:"shadow"`
	Used        *int64        `json:"used"`
	Remaining   *int64        `json:"remaining"`
	Resets      registry.Time `json:"resets_at"`
	Refused     uint64        `json:"refused_today"`
	Observed    uint64        `json:"shadow_refused_today"`
}

// Says is the limit in words.
func (l limit) Says() string {
	said := map[string]string{"rate": "calls a second", "concurrency": "calls at once", "clients": "clients a day", "quota": "calls a " + l.Period}[l.Kind]
	if said == "" {
		said = l.Kind
	}
	said = fmt.Sprintf("%d %s", l.Amount, said)
	if l.Service != "" {
		said += " of " + l.Service
	}
	if l.Environment != "" {
		said += " in " + l.Environment
	}
	return said
}

// Percent is how much of it was used, at most 100.
func (l limit) Percent() int64 {
	if l.Used == nil || l.Remaining == nil {
		return 0
	}
	whole := *l.Used + *l.Remaining
	if whole <= 0 {
		return 100
	}
	return min(max(*l.Used*100/whole, 0), 100)
}

// Low: little or nothing is left.
func (l limit) Low() bool { return l.Remaining != nil && l.Percent() >= 80 }

type member struct {
	ID        string        `json:"id"`
	Email     string        `json:"email"`
	Entity    registry.ABN  `json:"entity"`
	Since     registry.Time `json:"since"`
	InvitedBy string        `json:"invited_by"`
}

type invitation struct {
	ID      string        `json:"id"`
	Email   string        `json:"email"`
	By      string        `json:"by"`
	Expires registry.Time `json:"expires_at"`
	Code    string        `json:"code"`
}

type token struct {
	ID          string        `json:"id"`
	Name        string        `json:"name"`
	Permissions []string      `json:"permissions"`
	Made        registry.Time `json:"made_at"`
	Expires     registry.Time `json:"expires_at"`
	Token       string        `json:"token"`
}

type checkpoint struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Root       string `json:"root"`
	Checkpoint string `json:"checkpoint"`
	Cosigned   string `json:"cosigned"`
}

type auditEntry struct {
	Index int64  `json:"index"`
	Hash  string `json:"hash"`
	Leaf  string `json:"leaf"`
}

type proof struct {
	Size       int64      `json:"size"`
	Root       string     `json:"root"`
	Checkpoint string     `json:"checkpoint"`
	Entry      auditEntry `json:"entry"`
	Hashes     []string   `json:"hashes"`
}

type change struct {
	Revision registry.Revision `json:"revision"`
	At       registry.Time     `json:"at"`
	Actor    string            `json:"actor"`
	Command  string            `json:"command"`
	Reason   string            `json:"reason"`
	Records  []string          `json:"records"`
}

type registered struct {
	ProductID string       `json:"product_id"`
	Name      string       `json:"name"`
	Owner     registry.ABN `json:"owner"`
	OwnerName string       `json:"owner_name"`
	Services  []string     `json:"services"`
	Versions  []string     `json:"versions"`
}

func asAPI(err error, e **apiError) bool { return errors.As(err, e) }
