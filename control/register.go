package control

import (
	"bufio"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"net/http"
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

// registerCSV writes the whole register; it is written as it goes, since it may
// be large.
func (s *server) registerCSV(c *call) (answer, error) {
	l := s.public.get(c.view, s.now)
	c.w.Header().Set("Cache-Control", "public, max-age=60")
	if c.unchanged(l.tag) {
		return answer{}, nil
	}
	c.w.Header().Set("Content-Disposition", `attachment; filename="register.csv"`)
	c.begin("text/csv; charset=utf-8")
	if c.r.Method == http.MethodHead {
		return answer{}, nil
	}
	out := bufio.NewWriterSize(c.w, 32<<10)
	_, _ = out.WriteString("# " + disclaimer + "\r\n") // Flush tells of what went wrong
	w := csv.NewWriter(out)
	w.UseCRLF = true
	row := []string{"product_id", "name", "owner_abn", "owner_name", "services", "versions"}
	err := w.Write(row)
	for i := 0; i < len(l.all) && err == nil; i++ {
		v := &l.all[i]
		row = append(row[:0], v.ProductID, v.Name, v.Owner.String(), v.OwnerName, strings.Join(v.Services, " "), strings.Join(v.Versions, " "))
		for k := range row {
			row[k] = intake.Guard(row[k])
		}
		err = w.Write(row)
	}
	w.Flush()
	if err = errors.Join(err, w.Error(), out.Flush()); err != nil {
		s.log.WarnContext(c.r.Context(), "register.csv broke off", "request_id", c.id, "err", err)
	}
	return answer{}, nil
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
	l := s.public.get(c.view, s.now)
	b, err := l.feed()
	if err != nil {
		return answer{}, err
	}
	c.w.Header().Set("Cache-Control", "public, max-age=60")
	if !c.unchanged(l.tag) {
		c.raw("application/atom+xml; charset=utf-8", b)
	}
	return answer{}, nil
}

func feedOf(v *registry.View, all []registerView) ([]byte, error) {
	latest := make([]feedEntry, 0, feedMax)
	var newest registry.Time
	for _, one := range newestFirst(v, all) {
		p := v.Product(one.ProductID)
		at := max(p.Updated, p.Certification.ValidFrom)
		newest = max(newest, at)
		latest = append(latest, feedEntry{
			ID: "urn:dspgate:product:" + one.ProductID, Title: one.Name, Updated: stamp(at), Author: feedAuthor{one.OwnerName},
			Summary: one.ProductID + " of " + one.OwnerName + ", for " + strings.Join(one.Services, ", "),
			Link:    feedLink{"alternate", "/v1/register?product_id=" + one.ProductID},
		})
	}
	b, err := xml.MarshalIndent(feed{
		ID: "urn:dspgate:register", Title: "Whitelisted products", Rights: disclaimer, Updated: stamp(newest), Author: feedAuthor{"The agency"},
		Links: []feedLink{{"self", "/v1/register.atom"}, {"alternate", "/v1/register"}}, Entries: latest,
	}, "", " ")
	if err != nil {
		return nil, err
	}
	return append([]byte(xml.Header), b...), nil
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
