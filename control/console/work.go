package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/casework"
	"github.com/dspgate/dspgate/registry/certification"
)

// What the pages of registration and certification have in common.

// routes adds pages for those who signed in.
type routes func(pattern string, h func(*visit) error)

// bodyBytesMax is how much may be sent to a page: much only where files go.
func bodyBytesMax(r *http.Request) int64 {
	if r.Method == http.MethodPost && strings.HasPrefix(r.URL.Path, "/console/certifications/") && strings.HasSuffix(r.URL.Path, "/evidence") {
		return uploadBytesMax
	}
	return formBytesMax
}

// getTagged reads one thing with the ETag that a command on it must name.
func (v *visit) getTagged(out any, path string) (tag string, err error) {
	h, _, err := v.ask(v.r.Context(), request{method: http.MethodGet, path: path}, out)
	tag = h.Get("ETag")
	if rev, perr := strconv.ParseUint(strings.Trim(tag, `"`), 10, 64); perr != nil || rev == 0 {
		tag = "" // of the answer, not of a case: there is none yet, so nothing that could have changed
	}
	return tag, err
}

// place is a field of a form: its id, and what people call it.
type place struct{ id, label string }

// problemIn is problemOf with the field's label in front of what is wrong with it.
func problemIn(err error, at func(pointer string) place) *problem {
	var e *apiError
	p := problemOf(err, nil)
	if p == nil || !asAPI(err, &e) {
		return p
	}
	if e.Status == http.StatusPreconditionFailed {
		p.Text = "This has changed since you opened the page. Look at it again, then decide."
	}
	pointer := e.Source.Pointer
	if pointer == "" && e.Source.Parameter != "" {
		pointer = "/" + e.Source.Parameter
	}
	if pointer == "" {
		return p
	}
	if at := at(pointer); at.id != "" {
		p.Field = at.id
		if at.label != "" {
			p.Text = at.label + ": " + lower(sentence(human(e.Detail)))
		}
	}
	return p
}

// human says in a person's words what a schema says in its own.
func human(detail string) string {
	switch {
	case strings.HasPrefix(detail, "expected length >= "), strings.HasPrefix(detail, "expected array length >= "):
		return "must be given"
	case strings.HasPrefix(detail, "expected length <= "):
		return "is too long; at most " + strings.TrimPrefix(detail, "expected length <= ") + " characters"
	case strings.HasPrefix(detail, "expected value to be one of "):
		return "choose one"
	}
	for _, m := range []certification.Media{certification.DOCX, certification.XLSX, certification.PDF, certification.PNG, certification.JPEG, certification.Text, certification.JSON} {
		detail = strings.ReplaceAll(detail, string(m), mediaTitle(m))
	}
	return detail
}

// lower makes a sentence go on after a colon; a word in capitals stays one.
func lower(s string) string {
	if len(s) < 2 || s[1] >= 'A' && s[1] <= 'Z' {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}

// places finds a field by the last parts of a pointer.
func places(all map[string]place) func(string) place {
	return func(pointer string) place {
		for pointer != "" {
			if p, ok := all[pointer]; ok {
				return p
			}
			pointer = pointer[:max(strings.LastIndexByte(pointer, '/'), 0)] // a list's item: the list
		}
		return place{}
	}
}

// command gives one command from a form and leads on to a page; what the form is
// wrong about is shown by again.
func (v *visit) command(path string, body any, at func(string) place, to string, again func(status int, p *problem) error) error {
	return v.commanded(v.post(path, body), at, to, again)
}

// post is a command with the ETag that the form carries.
func (v *visit) post(path string, body any) request {
	return request{method: http.MethodPost, path: path, body: jsonBody(body), media: "application/json", match: v.form("etag")}
}

// notDurable: committed, though not on every replica yet.
func notDurable(err error) bool {
	var e *apiError
	return asAPI(err, &e) && e.Code == "not-durable" && len(e.Meta.Data) > 0
}

// forms reads every value of a field that may stand several times.
func (v *visit) forms(name string) []string {
	_ = v.r.PostFormValue(name) // parses; what is wrong with it, form tells
	out := []string{}
	for _, s := range v.r.PostForm[name] {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

// list reads what is separated by spaces, commas or lines.
func (v *visit) list(name string) []string {
	return strings.FieldsFunc(v.form(name), func(c rune) bool { return c == ',' || c == ';' || c == ' ' || c == '\n' || c == '\r' || c == '\t' })
}

// date reads a day, the end of which is meant; a field error when it is none.
func (v *visit) date(name, label string) (registry.Time, *problem) {
	s := v.form(name)
	if s == "" {
		return 0, nil
	}
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, &problem{label + ": write a date as 2026-11-30.", name}
	}
	return registry.At(t.Add(24*time.Hour - time.Second)), nil
}

// deadline is a clock as people read it.
type deadline struct {
	Name, On string
	Started  registry.Time
	Due      registry.Time
	Left     string // "12 days left", "2 days late"
	Late     bool
	Soon     bool
	Percent  int // of the time gone, at most 100
}

// clockWords say what each clock is about.
var clockWords = map[string]string{
	"acknowledge": "Look at the application", "decide": "Decide on the application", "reply": "Answer our question", "satisfy": "Satisfy the eligibility checks",
	"review": "Answer the review", "verify": "Verify the self-certification", "show-again": "Show what was reopened", "remedy": "Mend what was found",
}

// deadlines are the clocks that run.
func deadlines(all []casework.Clock, now time.Time) (out []deadline) {
	for _, c := range all {
		if c.Ended.Set() {
			continue
		}
		d := due(c.Due, now)
		d.Name, d.On, d.Started = c.Name, c.On, c.Started
		if w := clockWords[c.Name]; w != "" {
			d.Name = w
		}
		if whole := c.Due - c.Started; whole > 0 {
			d.Percent = int(min(max(100*(registry.At(now)-c.Started)/whole, 0), 100))
		}
		out = append(out, d)
	}
	slices.SortStableFunc(out, func(a, b deadline) int { return int(a.Due/1000) - int(b.Due/1000) })
	return out
}

// due tells how far off an instant is.
func due(at registry.Time, now time.Time) deadline {
	d := deadline{Due: at}
	if !at.Set() {
		return d
	}
	left := at.Std().Sub(now)
	d.Late, d.Soon = left <= 0, left < 72*time.Hour
	if d.Late {
		d.Left = span(-left) + " late"
	} else {
		d.Left = span(left) + " left"
	}
	return d
}

func span(d time.Duration) string {
	many := func(n int, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return strconv.Itoa(n) + " " + word + "s"
	}
	switch {
	case d >= 36*time.Hour:
		return many(int(d.Round(24*time.Hour)/(24*time.Hour)), "day")
	case d >= time.Hour:
		return many(int(d/time.Hour), "hour")
	}
	return many(max(int(d/time.Minute), 0), "minute")
}

// stage is one of the steps on the way, for the line of them on top of a page.
type stage struct {
	Text string
	Done bool
	Here bool
}

func stages(at int, all ...string) (out []stage) {
	for i, s := range all {
		out = append(out, stage{s, i < at, i == at})
	}
	return out
}

// happened is a step of a case as people read it.
type happened struct {
	casework.Step
	What  string
	Moved bool
}

// history is a case's steps, the latest first.
func history(steps []casework.Step) (out []happened) {
	for _, s := range slices.Backward(steps) {
		_, what, _ := strings.Cut(string(s.Command), ".")
		out = append(out, happened{s, strings.ReplaceAll(what, "-", " "), s.From != s.To})
	}
	return out
}

// serviceOption is a service to choose.
type serviceOption struct {
	Key, Name string
	Risk      registry.Risk
	Chosen    bool
}

// services lists all there are, for a form.
func (v *visit) services(chosen []string) (out []serviceOption, err error) {
	var all []struct {
		ID   string        `json:"id"`
		Key  string        `json:"key"`
		Name string        `json:"name"`
		Risk registry.Risk `json:"risk"`
	}
	for page := 1; page <= 10; page++ {
		m, err := v.get(&all, "/v1/services", "limit", "100", "page", strconv.Itoa(page))
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			key := s.Key
			if key == "" {
				key = s.ID
			}
			out = append(out, serviceOption{key, s.Name, s.Risk, slices.Contains(chosen, key)})
		}
		if page >= m.TotalPages {
			break
		}
	}
	return out, nil
}

// passed streams a file of the API to the browser, and keeps a refusal to be shown.
type passed struct {
	reply
	w http.ResponseWriter
}

func (p *passed) Header() http.Header { return p.w.Header() }
func (p *passed) WriteHeader(s int) {
	first := p.status == 0
	p.reply.WriteHeader(s)
	if first && p.status < 300 {
		p.w.WriteHeader(s)
	}
}
func (p *passed) Write(b []byte) (int, error) {
	p.WriteHeader(http.StatusOK)
	if p.status < 300 {
		return p.w.Write(b)
	}
	return p.body.Write(b)
}

// file sends what the API sends.
func (v *visit) file(ctx context.Context, path string) error {
	req, err := v.to(ctx, request{method: http.MethodGet, path: path})
	if err != nil {
		return err
	}
	p := &passed{w: v.w}
	v.c.cfg.API.ServeHTTP(p, req)
	if p.status < 300 {
		v.shown = true
		return nil
	}
	for _, name := range []string{"Content-Type", "Content-Length", "Content-Disposition", "ETag"} {
		v.w.Header().Del(name)
	}
	_, err = p.read(http.MethodGet, nil)
	return err
}

// head keeps the beginning of a file.
type head struct {
	reply
	most int
	more bool
}

func (h *head) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	if room := h.most - h.body.Len(); len(b) > room {
		h.more = true
		h.body.Write(b[:max(room, 0)])
		return len(b), nil
	}
	return h.body.Write(b)
}

// evidenceTitles names the types of evidence.
func evidenceTitle(t certification.EvidenceType) string {
	for _, r := range certification.EvidenceRules() {
		if r.Type == t {
			return r.Title
		}
	}
	return string(t)
}

// stateWords are states as people write them.
func stateWords(s string) string {
	switch s {
	case "SelfCertified":
		return "Self-certified"
	case "InVerification":
		return "In verification"
	case "ReviewDue":
		return "Review due"
	case "PVT":
		return "Pilot (PVT)"
	}
	return s
}

func bytesText(n uint64) string {
	switch {
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.0f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d bytes", n)
}

// mediaTitle names what bytes are.
func mediaTitle(m certification.Media) string {
	switch m {
	case certification.PDF:
		return "PDF"
	case certification.PNG:
		return "PNG image"
	case certification.JPEG:
		return "JPEG image"
	case certification.Text:
		return "plain text"
	case certification.JSON:
		return "JSON"
	case certification.DOCX:
		return "Word document"
	case certification.XLSX:
		return "Excel workbook"
	}
	return string(m)
}
