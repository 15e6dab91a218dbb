package console

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance"
	"github.com/dspgate/dspgate/registry/certification"
)

// Evidence: handing files in, and looking at them.

// Bounds on an upload: the file, what comes with it, and how long it may take.
const (
	uploadBytesMax   = certification.EvidenceBytesMax + 1<<20
	uploadFieldBytes = 4 << 10
	uploadFieldsMax  = 200
	uploadTime       = 2 * time.Minute
	previewBytes     = 64 << 10
)

// errNoFile: a form without a file.
var errNoFile = errors.New("no file")

type evidencePage struct {
	partPage
	Items        []evidenceRow
	Rules        []certification.EvidenceRule
	Requirements []binding
	Given        url.Values
	Question     string
	Lead         string // which question it is for
	May          bool
}

type evidenceRow struct {
	assurance.Evidence
	Until deadline
}

// Has tells whether a value was given, in the form or the address.
func (p evidencePage) Has(name, value string) bool { return slices.Contains(p.Given[name], value) }

// Of is the value given.
func (p evidencePage) Of(name string) string { return p.Given.Get(name) }

func (v *visit) evidence() error {
	given := url.Values{}
	for _, name := range []string{"type", "requirement", "question"} {
		if s := v.query(name); s != "" {
			given.Set(name, s)
		}
	}
	return v.showEvidence(http.StatusOK, given, nil)
}

func (v *visit) showEvidence(status int, given url.Values, wrong *problem) error {
	p := evidencePage{Given: given, Question: given.Get("question"), Rules: certification.EvidenceRules()}
	var err error
	if p.partPage, err = v.part("Evidence"); err != nil {
		return err
	}
	p.Problem = wrong
	p.May = p.Own || v.has(registry.PermAssessor|registry.PermRegistrar)
	pieces, err := v.pieces(p.C.ProductID)
	if err != nil {
		return err
	}
	for _, e := range pieces {
		p.Items = append(p.Items, evidenceRow{e, due(e.Expires, v.now())})
	}
	var b bound
	if _, err := v.get(&b, api("products", p.C.ProductID, "requirements")); err != nil {
		return err
	}
	for _, r := range b.Requirements {
		if r.Subject == "product" {
			p.Requirements = append(p.Requirements, r)
		}
	}
	if p.Question != "" {
		if m, _, err := v.marked(p.C.ProductID); err == nil && m != nil {
			if i := slices.IndexFunc(m.Questions, func(q asked) bool { return q.ID == p.Question }); i >= 0 {
				p.Lead = m.Questions[i].Text
			}
		}
	}
	return v.show(status, "evidence", p)
}

// upload takes a file as it arrives: it is in no memory whole.
func (v *visit) upload() error {
	id := v.r.PathValue("id")
	_ = http.NewResponseController(v.w).SetReadDeadline(time.Now().Add(uploadTime)) // where the server has one
	given, file, err := v.takeForm()
	refuse := func(status int, wrong *problem) error {
		// The browser goes on sending; it would not read an answer before it is done.
		if _, err := io.Copy(io.Discard, v.r.Body); err != nil {
			v.w.Header().Set("Connection", "close")
		}
		return v.showEvidence(status, given, wrong)
	}
	var size *http.MaxBytesError
	switch {
	case errors.Is(err, errNoFile):
		return refuse(http.StatusUnprocessableEntity, &problem{"Choose a file.", "file"})
	case errors.As(err, &size):
		return refuse(http.StatusRequestEntityTooLarge, tooLarge())
	case err != nil:
		return refuse(http.StatusBadRequest, &problem{"What was sent is no form with a file; send it again.", "file"})
	}
	q, wrong := evidenceQuery(given)
	if wrong != nil {
		return refuse(http.StatusUnprocessableEntity, wrong)
	}
	var made assurance.Evidence
	_, _, err = v.ask(v.r.Context(), request{method: http.MethodPost, path: api("products", id, "evidence") + "?" + q.Encode(), body: file}, &made)
	if err != nil && !notDurable(err) {
		var e *apiError
		if !asAPI(err, &e) || e.Status == http.StatusNotFound || e.Status >= 500 {
			return err
		}
		if e.Status == http.StatusRequestEntityTooLarge {
			wrong = &problem{"File: " + sentence(strings.TrimPrefix(e.Detail, "too large: ")), "file"}
		} else if wrong = problemIn(err, places(map[string]place{
			"/type": {"type", "What it is"}, "/requirements": {"requirements", "Requirements"}, "/issued_at": {"issued", "Issued"}, "/expires_at": {"expires", "Expires"}, "/note": {"note", "Note"}, "/content": {"file", "File"},
		})); wrong == nil {
			return err
		}
		return refuse(e.Status, wrong)
	}
	if question := given.Get("question"); question != "" && made.Address != "" {
		if err := v.attach(id, question, made.Address, given.Get("note"), made.Type); err != nil {
			return err
		}
		return v.redirect(local("certifications", id, "questions") + "#q-" + question)
	}
	return v.redirect(local("certifications", id, "evidence"))
}

func tooLarge() *problem {
	return &problem{fmt.Sprintf("File: it is too large; no file may have more than %d MiB.", certification.EvidenceBytesMax>>20), "file"}
}

// takeForm reads the fields that stand before the file, and gives the file.
func (v *visit) takeForm() (url.Values, io.Reader, error) {
	given := url.Values{}
	parts, err := v.r.MultipartReader()
	if err != nil {
		return given, nil, err
	}
	for n := 0; ; n++ {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) || n > uploadFieldsMax {
			return given, nil, errNoFile
		}
		if err != nil {
			return given, nil, err
		}
		if part.FormName() == "file" {
			if part.FileName() == "" {
				return given, nil, errNoFile
			}
			return given, part, nil
		}
		b, err := io.ReadAll(io.LimitReader(part, uploadFieldBytes))
		if err != nil {
			return given, nil, err
		}
		given.Add(part.FormName(), strings.TrimSpace(string(b)))
	}
}

// evidenceQuery is what comes with a file, as the API takes it.
func evidenceQuery(given url.Values) (url.Values, *problem) {
	q := url.Values{"type": {given.Get("type")}}
	if q.Get("type") == "" {
		return nil, &problem{"What it is: choose one.", "type"}
	}
	if r := strings.Join(given["requirement"], ","); r != "" {
		if len(r) > 256 {
			return nil, &problem{"Requirements: choose fewer.", "requirements"}
		}
		q.Set("requirements", r)
	}
	if note := given.Get("note"); note != "" {
		if len(note) > 256 {
			return nil, &problem{"Note: at most 256 bytes.", "note"}
		}
		q.Set("note", note)
	}
	for name, at := range map[string]string{"issued_at": "issued", "expires_at": "expires"} {
		s := given.Get(at)
		if s == "" {
			continue
		}
		t, err := time.Parse(time.DateOnly, s)
		if err != nil {
			return nil, &problem{strings.ToUpper(at[:1]) + at[1:] + ": write a date as 2026-11-30.", at}
		}
		if at == "expires" {
			t = t.Add(24*time.Hour - time.Second) // it holds on the day that it names
		}
		q.Set(name, registry.At(t).String())
	}
	return q, nil
}

type piecePage struct {
	frame
	E        assurance.Evidence
	ETag     string
	Until    deadline
	Text     string // its beginning, of a text
	More     bool
	Image    bool
	Signals  []signal
	Accept   bool
	Assessor bool
	Problem  *problem
}

func (v *visit) onePiece() error { return v.showPiece(http.StatusOK, nil) }

func (v *visit) showPiece(status int, wrong *problem) (err error) {
	p := piecePage{Problem: wrong, Assessor: v.has(registry.PermAssessor)}
	if p.ETag, err = v.getTagged(&p.E, api("evidence", v.r.PathValue("id"))); err != nil {
		return err
	}
	p.frame = v.frame("Evidence " + p.E.ID)
	p.Until = due(p.E.Expires, v.now())
	p.Accept = p.Assessor && !p.E.Approved.Set() && p.E.By != v.person.Actor.Name
	switch p.E.Media {
	case certification.PNG, certification.JPEG:
		p.Image = true
	case certification.Text, certification.JSON:
		h := &head{reply: reply{header: http.Header{}}, most: previewBytes}
		req, err := v.to(v.r.Context(), request{method: http.MethodGet, path: api("evidence", p.E.ID, "content")})
		if err != nil {
			return err
		}
		v.c.cfg.API.ServeHTTP(h, req)
		if h.status == http.StatusOK {
			b := h.body.Bytes()
			for i := 0; h.more && i < utf8.UTFMax && !utf8.Valid(b) && len(b) > 0; i++ {
				b = b[:len(b)-1] // a letter that was cut in two
			}
			p.Text, p.More = strings.ToValidUTF8(string(b), "\uFFFD"), h.more
		}
	}
	if v.has(registry.PermAssessor | registry.PermRegistrar) {
		var all []signal
		if _, err := v.get(&all, api("entities", p.E.Entity.String(), "signals"), "limit", "100"); err != nil {
			return err
		}
		p.Signals = slices.DeleteFunc(all, func(s signal) bool { return s.Evidence != p.E.ID })
	}
	return v.show(status, "piece", p)
}

func (v *visit) acceptEvidence() error {
	id := v.r.PathValue("id")
	return v.command(api("evidence", id, "approve"), map[string]any{}, places(nil), local("evidence", id), v.showPiece)
}
