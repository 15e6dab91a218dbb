package console

import "strings"

// The public register: whitelisted products, for everybody, without reasons.

func (v *visit) register() error {
	p := registerPage{frame: v.frame("Public register"), Query: v.query("q")}
	if len(p.Query) > 100 {
		p.Query = strings.ToValidUTF8(p.Query[:100], "")
	}
	anybody := &visit{c: v.c, w: v.w, r: v.r}
	m, err := anybody.get(&p.Items, "/v1/register", "q", p.Query, "page", v.query("page"), "limit", "25")
	if err != nil {
		return err
	}
	p.Pager = v.pager(m)
	return v.show(200, "register", p)
}

// pathProblems is where the types of problems lead: a page for each code.
const pathProblems = "/problems"

// refusalCode is what the code of a refused call means.
type refusalCode struct {
	Code   string `json:"code"`
	Status int    `json:"status"`
	Title  string `json:"title"`
	Detail string `json:"detail"`
	Remedy string `json:"remedy"`
	Who    string `json:"who"`
	Again  bool   `json:"again"`
}

type problemsPage struct {
	frame
	Items []refusalCode
}

type problemPage struct {
	frame
	P refusalCode
}

func (v *visit) problems() error {
	p := problemsPage{frame: v.frame("Why calls are refused")}
	anybody := &visit{c: v.c, w: v.w, r: v.r}
	if _, err := anybody.get(&p.Items, "/v1/problems", "limit", "100"); err != nil {
		return err
	}
	return v.show(200, "problems", p)
}

func (v *visit) problem() error {
	var p problemPage
	anybody := &visit{c: v.c, w: v.w, r: v.r}
	if _, err := anybody.get(&p.P, api("problems", v.r.PathValue("code"))); err != nil {
		return err
	}
	p.frame = v.frame(p.P.Title)
	return v.show(200, "problem", p)
}
