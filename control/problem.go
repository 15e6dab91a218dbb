package control

import (
	"fmt"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// problemView is what a refusal's code means: what its type leads to (RFC 9457
// §3.1.1).
type problemView struct {
	Code   string `json:"code"`
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail" doc:"In one plain sentence: what was wrong and what to do about it."`
	Remedy string `json:"remedy" doc:"What usually lies behind it, and what to do."`
	Who    string `json:"who" enum:"developer,client,agency,gateway" doc:"Who can end it."`
	Again  bool   `json:"again" doc:"The same call may pass later although nobody changes anything; after Retry-After when there was one."`
}

func (s *server) problemRoutes() []route {
	return []route{
		get("/v1/problems", "list-problems", "What each code of a refused call means, and what to do about it.", s.listProblems).listsPlain(problemView{}).open(),
		get("/v1/problems/{code}", "get-problem", "What one code of a refused call means.", s.getProblem).givesPlain(problemView{}).open().missing(),
	}
}

func viewProblem(r authz.Reason) problemView {
	m := r.Remedy()
	return problemView{r.String(), r.Status(), r.Title(), r.Detail(), m.Do, m.Who.String(), m.Again}
}

func (s *server) listProblems(c *call) (answer, error) {
	all := make([]authz.Reason, 0, authz.NReasons)
	for r := authz.OK + 1; r < authz.NReasons; r++ {
		all = append(all, r)
	}
	return paged(c, all, nil, func(r authz.Reason) any { return viewProblem(r) })
}

func (s *server) getProblem(c *call) (answer, error) {
	r, ok := authz.ParseReason(c.path("code"))
	if !ok || r == authz.OK {
		return answer{}, fmt.Errorf("%w: no refusal has the code %q", registry.ErrNotFound, cut(c.path("code"), 40))
	}
	return answer{data: viewProblem(r)}, nil
}
