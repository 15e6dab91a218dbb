package console

import (
	"net/http"
	"slices"

	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// The questionnaire: one form for each requirement, each answer marked.

type questionsPage struct {
	partPage
	Groups   []group
	Marking  *marking
	NotAsked string
	Editable bool
	Counts   []gapCount
}

// group is a requirement with what is asked about it.
type group struct {
	R         markedRequirement
	B         binding
	Questions []question
	Editable  bool
}

// Anchor is the requirement's place on its page.
func (g group) Anchor() string { return "r-" + g.R.Requirement }

type question struct {
	asked
	Pieces []assurance.Evidence // that could be attached
	Wrong  bool
}

func (v *visit) questions() error { return v.showQuestions(http.StatusOK, nil) }

func (v *visit) showQuestions(status int, wrong *problem) error {
	p := questionsPage{}
	var err error
	if p.partPage, err = v.part("Questions"); err != nil {
		return err
	}
	p.Problem, p.Editable = wrong, p.C.Editable()
	if p.Marking, p.NotAsked, err = v.marked(p.C.ProductID); err != nil {
		return err
	}
	if p.Marking != nil {
		var b bound
		if _, err := v.get(&b, api("products", p.C.ProductID, "requirements")); err != nil {
			return err
		}
		pieces, err := v.pieces(p.C.ProductID)
		if err != nil {
			return err
		}
		p.Groups = p.groups(b.Requirements, pieces)
		for _, mark := range []string{"pass", "warn", "fail", "open"} {
			p.Counts = append(p.Counts, gapCount{mark, p.Marking.count(mark)})
		}
	}
	return v.show(status, "questions", p)
}

// pieces lists a product's evidence, the latest first.
func (v *visit) pieces(product string) (all []assurance.Evidence, err error) {
	if _, err := v.get(&all, "/v1/evidence", "product_id", product, "limit", "100"); err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b assurance.Evidence) int { return int(b.At/1000) - int(a.At/1000) })
	return all, nil
}

func (p *questionsPage) groups(bindings []binding, pieces []assurance.Evidence) (out []group) {
	for _, r := range p.Marking.Requirements {
		g := group{R: r}
		if i := slices.IndexFunc(bindings, func(b binding) bool { return b.ID == r.Requirement }); i >= 0 {
			g.B = bindings[i]
		}
		reopened := len(p.C.Case.Reopened) == 0 || slices.Contains(p.C.Case.Reopened, r.Requirement)
		g.Editable = p.Editable && reopened
		for _, q := range p.Marking.Questions {
			if q.Requirement != r.Requirement {
				continue
			}
			x := question{asked: q, Wrong: p.Bad("q-" + q.ID)}
			for _, e := range pieces {
				if q.NeedsEvidence && (slices.Contains(g.B.Level.Evidence, e.Type) || q.Attached(e.Address)) {
					x.Pieces = append(x.Pieces, e)
				}
			}
			g.Questions = append(g.Questions, x)
		}
		if len(g.Questions) > 0 || r.Mark != "pass" {
			out = append(out, g)
		}
	}
	return out
}

type answerTo struct {
	Values   []string `json:"values"`
	Evidence []string `json:"evidence,omitempty"`
	Note     string   `json:"note,omitempty"`
}

// answer saves the answers of one requirement's form: what was emptied is taken back.
func (v *visit) answer() error {
	id := v.r.PathValue("id")
	m, why, err := v.marked(id)
	if err != nil {
		return err
	}
	if m == nil {
		return v.showQuestions(http.StatusConflict, &problem{Text: why})
	}
	answers := map[string]answerTo{}
	requirement := v.form("requirement")
	for _, q := range m.Questions {
		if q.Requirement != requirement || !slices.Contains(v.forms("q"), q.ID) {
			continue
		}
		a := answerTo{Values: v.forms("a-" + q.ID), Evidence: v.forms("e-" + q.ID), Note: q.Note}
		for i := range a.Values {
			a.Values[i] = lines(a.Values[i])
		}
		none := v.form("none-"+q.ID) != ""
		if len(a.Values) == 0 && !q.Answered && !(none && q.Kind == string(certification.Choose)) {
			continue
		}
		if len(a.Values) == 0 && q.Kind != string(certification.Choose) {
			a = answerTo{Values: []string{}}
		}
		answers[q.ID] = a
	}
	to := local("certifications", id, "questions") + "#r-" + requirement
	if len(answers) == 0 {
		return v.redirect(to)
	}
	at := map[string]place{}
	for _, q := range m.Questions {
		at["/answers/"+q.ID] = place{"q-" + q.ID, q.ID}
	}
	return v.command(api("certifications", id, "answers"), map[string]any{"answers": answers}, places(at), to, func(status int, wrong *problem) error {
		return v.showQuestions(status, wrong)
	})
}

// attach puts a piece of evidence to a question's answer, and answers where the
// file is the answer.
func (v *visit) attach(product, questionID, address, note string, typ certification.EvidenceType) error {
	m, _, err := v.marked(product)
	if err != nil || m == nil {
		return err
	}
	i := slices.IndexFunc(m.Questions, func(q asked) bool { return q.ID == questionID })
	if i < 0 {
		return nil
	}
	q := m.Questions[i]
	a := answerTo{Values: q.Values, Evidence: q.Evidence, Note: q.Note}
	switch {
	case q.Attached(address):
		return nil
	case !q.Answered && q.Kind == string(certification.Free):
		if a.Values = []string{note}; note == "" {
			a.Values = []string{"See the file: " + evidenceTitle(typ) + "."}
		}
	case !q.Answered:
		return nil // it is to be answered first; the file is offered there
	}
	a.Evidence = append(slices.Clip(a.Evidence), address)
	return v.send(http.MethodPost, api("certifications", product, "answers"), map[string]any{"answers": map[string]answerTo{questionID: a}}, nil)
}

// answerFields are the fields of one question, as both questionnaires have them.
type answerFields struct {
	asked
	Editable bool
	Wrong    bool
}

// Fields makes them.
func (q question) Fields(editable bool) answerFields { return answerFields{q.asked, editable, q.Wrong} }
