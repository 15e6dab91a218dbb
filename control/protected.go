package control

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/registry"
)

// Protected hands the list of protected clients to the sidecars.
type Protected interface {
	SetProtected(ctx context.Context, version int64, hashes []anomaly.Hash) error
}

// protectedBytesMax bounds the file.
const protectedBytesMax = 16 << 20

func (s *server) protectedRoutes() []route {
	const officers = registry.PermIncidentOfficer | registry.PermOperator
	return []route{
		get("/v1/protected-clients", "get-protected-clients", "How many clients are protected, since when, and what is done. The list itself is not shown.", s.getProtected).givesPlain(policy.ProtectedList{}).by(officers | registry.PermAuditor).missing(),
		put("/v1/protected-clients", "set-protected-clients", "Replace the list of protected clients: the body is a file of keyed hashes as decision records show them, 32 hexadecimal digits a line; an empty one protects nobody.", handler{call: s.setProtected}).givesPlain(policy.ProtectedList{}).by(officers).filters("why").takes().missing().unmatched(),
	}
}

func (s *server) getProtected(c *call) (answer, error) {
	_, book, err := s.policies()
	if err != nil {
		return answer{}, err
	}
	x, err := registry.CaseOf[policy.ProtectedList](book, policy.ProtectedID)
	if err != nil {
		return answer{data: policy.ProtectedList{}}, nil //nolint:nilerr // there is none yet
	}
	return answer{data: x.Body}, nil
}

// setProtected enters who changed the list, and then hands it on: the list
// itself never lies in the log.
func (s *server) setProtected(c *call) (answer, error) {
	d, _, err := s.policies()
	if err != nil {
		return answer{}, err
	}
	if s.protected == nil {
		return answer{}, unavailable(fmt.Errorf("nobody watches callers here"))
	}
	why, _ := c.filter("why")
	_ = http.NewResponseController(c.w.ResponseWriter).SetReadDeadline(time.Now().Add(uploadTimeout))
	hashes, err := anomaly.ParseHashes(upload{http.MaxBytesReader(c.w, c.r.Body, protectedBytesMax)})
	if errors.Is(err, anomaly.ErrHashes) {
		return answer{}, registry.Field("", "%v; send keyed hashes only, never a number itself", err)
	}
	if err != nil {
		return answer{}, err
	}
	out, err := d.SetProtected(c.r.Context(), c.actor, hashes, registry.Meta{Reason: why})
	if err != nil {
		return answer{}, pathField(err, "/reason", "why")
	}
	if err := s.protected.SetProtected(c.r.Context(), int64(out.Revision), hashes); err != nil {
		return answer{}, unavailable(fmt.Errorf("the list was entered and did not reach the sidecars, send it again: %w", err))
	}
	x, err := registry.CaseOf[policy.ProtectedList](out.Cases, policy.ProtectedID)
	if err != nil {
		return answer{}, err
	}
	return answer{data: x.Body}, nil
}
