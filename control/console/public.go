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
