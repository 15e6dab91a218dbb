package console

import (
	"encoding/csv"
	"encoding/xml"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// The public register: whitelisted products, for everybody, without reasons.

const (
	exportMax = 200_000
	feedMax   = 200
)

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

// eachRegistered goes through the public register, as anybody sees it.
func (v *visit) eachRegistered(most int, each func(registered) error) error {
	anybody := &visit{c: v.c, w: v.w, r: v.r}
	for page, seen := 1, 0; seen < most; page++ {
		var items []registered
		m, err := anybody.get(&items, "/v1/register", "limit", "100", "page", strconv.Itoa(page))
		if err != nil {
			return err
		}
		for _, x := range items {
			if err := each(x); err != nil {
				return err
			}
		}
		seen += len(items)
		if len(items) == 0 || page >= m.TotalPages {
			return nil
		}
	}
	return nil
}

func (v *visit) registerCSV() error {
	select {
	case v.c.exports <- struct{}{}: // anybody may ask, and it is much work
		defer func() { <-v.c.exports }()
	default:
		return &apiError{Status: http.StatusServiceUnavailable, Detail: "Somebody else is getting the export: try again in a few seconds"}
	}
	v.w.Header().Set("Content-Disposition", `attachment; filename="register.csv"`)
	v.w.Header().Set("Content-Type", "text/csv; charset=utf-8")
	out := csv.NewWriter(v.w)
	out.UseCRLF = true
	if err := out.Write([]string{"product_id", "name", "owner_abn", "owner_name", "services", "versions"}); err != nil {
		return nil // the browser hung up
	}
	err := v.eachRegistered(exportMax, func(x registered) error {
		return out.Write(cells(x.ProductID, x.Name, x.Owner.String(), x.OwnerName, strings.Join(x.Services, " "), strings.Join(x.Versions, " ")))
	})
	out.Flush()
	if err != nil {
		v.c.cfg.Log.WarnContext(v.r.Context(), "export cut off", "err", err)
		panic(http.ErrAbortHandler) // a whole-looking half would be worse
	}
	return nil
}

// cells makes texts that no spreadsheet takes for formulas (OWASP, CSV injection).
func cells(texts ...string) []string {
	for i, s := range texts {
		if s != "" && strings.ContainsRune("=+-@\t\r\n|%", rune(s[0])) {
			texts[i] = "'" + s
		}
	}
	return texts
}

type atomFeed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	Title   string      `xml:"title"`
	ID      string      `xml:"id"`
	Updated string      `xml:"updated"`
	Author  string      `xml:"author>name"`
	Link    atomLink    `xml:"link"`
	Entries []atomEntry `xml:"entry"`
}

type atomLink struct {
	Rel  string `xml:"rel,attr,omitempty"`
	Href string `xml:"href,attr"`
}

type atomEntry struct {
	Title   string   `xml:"title"`
	ID      string   `xml:"id"`
	Updated string   `xml:"updated"`
	Summary string   `xml:"summary"`
	Link    atomLink `xml:"link"`
}

// registerFeed is the public register as an Atom feed (RFC 4287).
func (v *visit) registerFeed() error {
	base := v.c.cfg.PublicURL
	now := registry.At(v.now()).Std().Format(time.RFC3339)
	f := atomFeed{Title: "Whitelisted products", ID: base + "/register", Updated: now, Author: "dspgate", Link: atomLink{"self", base + "/register.atom"}}
	if err := v.eachRegistered(feedMax, func(x registered) error {
		f.Entries = append(f.Entries, atomEntry{
			Title: x.Name, ID: base + "/register?q=" + x.ProductID, Updated: now,
			Summary: x.ProductID + " by " + x.OwnerName, Link: atomLink{Href: base + "/register?q=" + x.ProductID},
		})
		return nil
	}); err != nil {
		return err
	}
	b, err := xml.MarshalIndent(f, "", " ")
	if err != nil {
		return err
	}
	v.w.Header().Set("Content-Type", "application/atom+xml; charset=utf-8")
	_, _ = v.w.Write(append([]byte(xml.Header), b...)) // the browser hung up: nobody is left to tell
	return nil
}
