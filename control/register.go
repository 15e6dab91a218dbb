package control

import (
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/intake"
)

// The public register: whitelisted products, what they may call, and nothing of
// why or why not.

// disclaimer goes with every form of the public register.
const disclaimer = "This register lists software products whitelisted to use the agency's services at the time of reading. " +
	"Listing is no endorsement, and no judgement of a product's fitness, security or price. A product that is not listed may be missing on many grounds, none of which is published."

// registerLists are the files of the public register, made again with it.
func (s *server) registerLines(c *call) []registerView {
	return s.public.get(c.view, s.lists.products.get(c.view, (*registry.View).Products), s.now())
}

func (s *server) registerCSV(c *call) (answer, error) {
	var b bytes.Buffer
	b.WriteString("# " + disclaimer + "\r\n")
	w := csv.NewWriter(&b)
	w.UseCRLF = true
	rows := [][]string{{"product_id", "name", "owner_abn", "owner_name", "services", "versions"}}
	for _, v := range s.registerLines(c) {
		rows = append(rows, []string{v.ProductID, v.Name, v.Owner.String(), v.OwnerName, strings.Join(v.Services, " "), strings.Join(v.Versions, " ")})
	}
	for _, row := range rows {
		for i := range row {
			row[i] = intake.Guard(row[i])
		}
		if err := w.Write(row); err != nil {
			return answer{}, err
		}
	}
	w.Flush()
	c.w.Header().Set("Content-Disposition", `attachment; filename="register.csv"`)
	c.w.Header().Set("Cache-Control", "public, max-age=60")
	c.raw("text/csv; charset=utf-8", b.Bytes())
	return answer{}, w.Error()
}

// feed is an Atom feed (RFC 4287).
type feed struct {
	XMLName xml.Name    `xml:"http://www.w3.org/2005/Atom feed"`
	ID      string      `xml:"id"`
	Title   string      `xml:"title"`
	Rights  string      `xml:"rights"`
	Updated string      `xml:"updated"`
	Author  feedAuthor  `xml:"author"`
	Links   []feedLink  `xml:"link"`
	Entries []feedEntry `xml:"entry"`
}

type feedAuthor struct {
	Name string `xml:"name"`
}

type feedLink struct {
	Rel  string `xml:"rel,attr"`
	Href string `xml:"href,attr"`
}

type feedEntry struct {
	ID      string     `xml:"id"`
	Title   string     `xml:"title"`
	Updated string     `xml:"updated"`
	Author  feedAuthor `xml:"author"`
	Summary string     `xml:"summary"`
	Link    feedLink   `xml:"link"`
}

// feedMax is how many products a feed holds, the latest first.
const feedMax = 100

func (s *server) registerFeed(c *call) (answer, error) {
	all := s.registerLines(c)
	latest := make([]feedEntry, 0, feedMax)
	var newest registry.Time
	for _, v := range newestFirst(c.view, all) {
		p := c.view.Product(v.ProductID)
		if p == nil {
			continue
		}
		at := max(p.Updated, p.Certification.ValidFrom)
		newest = max(newest, at)
		latest = append(latest, feedEntry{
			ID: "urn:dspgate:product:" + v.ProductID, Title: v.Name, Updated: stamp(at), Author: feedAuthor{v.OwnerName},
			Summary: v.ProductID + " of " + v.OwnerName + ", for " + strings.Join(v.Services, ", "),
			Link:    feedLink{"alternate", "/v1/register?product_id=" + v.ProductID},
		})
	}
	b, err := xml.MarshalIndent(feed{
		ID: "urn:dspgate:register", Title: "Whitelisted products", Rights: disclaimer, Updated: stamp(newest), Author: feedAuthor{"The agency"},
		Links: []feedLink{{"self", "/v1/register.atom"}, {"alternate", "/v1/register"}}, Entries: latest,
	}, "", " ")
	if err != nil {
		return answer{}, err
	}
	c.w.Header().Set("Cache-Control", "public, max-age=60")
	c.raw("application/atom+xml; charset=utf-8", append([]byte(xml.Header), b...))
	return answer{}, nil
}

// newestFirst are the products of the register that changed last, at most feedMax.
func newestFirst(v *registry.View, all []registerView) []registerView {
	type dated struct {
		at registry.Time
		i  int
	}
	top := make([]dated, 0, feedMax+1)
	for i := range all {
		p := v.Product(all[i].ProductID)
		if p == nil {
			continue
		}
		at := max(p.Updated, p.Certification.ValidFrom)
		k := len(top)
		for k > 0 && top[k-1].at < at {
			k--
		}
		if k == feedMax {
			continue
		}
		top = append(top[:k], append([]dated{{at, i}}, top[k:]...)...)
		top = top[:min(len(top), feedMax)]
	}
	out := make([]registerView, len(top))
	for i, d := range top {
		out[i] = all[d.i]
	}
	return out
}

func stamp(t registry.Time) string {
	if !t.Set() {
		return time.Unix(0, 0).UTC().Format(time.RFC3339)
	}
	return t.Std().Format(time.RFC3339)
}
