package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
)

// ProtectedList is what is kept of the list of protected clients: who changed
// it and how long it is. The list itself goes to the sidecars with the register
// (registry.Protected); from here it can only be told whether it is still the same.
type ProtectedList struct {
	Clients int           `json:"clients"`
	Digest  string        `json:"digest,omitempty"` // SHA-256 of the hashes in order, in hexadecimal
	By      string        `json:"by,omitempty"`
	At      registry.Time `json:"at,omitempty"`
	Reason  string        `json:"reason,omitempty"`
}

// ProtectedID is the one list there is.
const ProtectedID = "list"

// CaseKind is protected-clients.
func (ProtectedList) CaseKind() registry.CaseKind { return "protected-clients" }

// SetProtected enters that the list was replaced. The hashes come in order.
func (d *Desk) SetProtected(ctx context.Context, a registry.Actor, hashes []anomaly.Hash, m registry.Meta) (registry.Outcome, error) {
	return d.Register.Do(ctx, a, "protected-clients.set", m.Reason, func(t *registry.Tx) error {
		if err := needWriter(a); err != nil {
			return err
		}
		if strings.TrimSpace(m.Reason) == "" {
			return registry.Field("/reason", "say why the list changes")
		}
		if _, err := registry.ChangingCase[ProtectedList](t, ProtectedID, m); err != nil && !errors.Is(err, registry.ErrNotFound) {
			return err
		}
		if err := t.SetProtected(hashesOf(hashes)); err != nil {
			return err
		}
		sum := sha256.New()
		for i := range hashes {
			sum.Write(hashes[i][:])
		}
		return registry.PutCase(t, ProtectedID, ProtectedList{
			Clients: len(hashes), Digest: hex.EncodeToString(sum.Sum(nil)), By: a.Name, At: t.Now(), Reason: m.Reason,
		})
	})
}

func hashesOf(all []anomaly.Hash) []registry.ClientHash {
	out := make([]registry.ClientHash, len(all))
	for i := range all {
		out[i] = registry.ClientHash(all[i])
	}
	return out
}
