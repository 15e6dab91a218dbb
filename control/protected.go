package control

import (
	"errors"
	"net/http"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/anomaly/policy"
	"github.com/dspgate/dspgate/registry"
)

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

// setProtected enters the list and who changed it; the sidecars follow as they
// follow every change of the register.
func (s *server) setProtected(c *call) (answer, error) {
	d, _, err := s.policies()
	if err != nil {
		return answer{}, err
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
	x, err := registry.CaseOf[policy.ProtectedList](out.Cases, policy.ProtectedID)
	if err != nil {
		return answer{}, err
	}
	return answer{data: x.Body}, nil
}
