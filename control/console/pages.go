package console

import (
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/control/signin"
	"github.com/dspgate/dspgate/registry"
)

// Every page is one struct, with what stands around it in a frame.

// frame is what every page has.
type frame struct {
	Title  string
	Person *signin.Person
	Nav    []section
	Path   string
}

type refusalPage struct {
	frame
	Detail, ID string
}

type signInPage struct {
	frame
	Link  string
	Lost  bool    // what was sent was not done
	Again string  // where to send it once more
	Typed []typed // what it was
}

// typed is one field of a form as it was sent.
type typed struct{ Name, Value string }

type signedOutPage struct{ frame }

type entitiesPage struct {
	frame
	Name, State string
	Items       []entity
	Pager       pager
}

type entityPage struct {
	frame
	Entity      entity
	Checks      []registry.Check
	Products    []product
	Suspensions []suspension
	CanSuspend  bool
}

type productsPage struct {
	frame
	Query        string
	Owner, State string
	States       []string
	Items        []product
	Pager        pager
}

type productPage struct {
	frame
	Product     product
	Apps        []registry.ClientApp
	Subs        []registry.Subscription
	Suspensions []suspension
	CanSuspend  bool
}

type suspensionsPage struct {
	frame
	Active bool
	Items  []suspension
	Pager  pager
}

type suspensionPage struct {
	frame
	Suspension suspension
	MayAct     bool
	Imposer    bool // the one who imposed it may not lift or confirm it
	Problem    *problem
	Events     string
}

type sidecarsPage struct {
	frame
	Items []sidecar
}

type decisionsPage struct {
	frame
	Product string
	Items   []decision
	Problem *problem
}

type decisionPage struct {
	frame
	Explained explanation
}

type ownPage struct {
	frame
	Me        me
	Refused   []refusals // the last, by their codes
	MayAdd    bool       // another product
	Form      productForm
	Scenarios []scenario
	Problem   *problem
}

type peoplePage struct {
	frame
	Entity      registry.ABN
	EntityName  string
	Members     []member
	Invitations []invitation
	Made        *invitation
	JoinURL     string
	Email       string
	Problem     *problem
}

type joinPage struct {
	frame
	Code    string
	Problem *problem
}

type tokensPage struct {
	frame
	Items       []token
	Made        *token
	Permissions []string
	Chosen      map[string]bool
	Name, Days  string
	Problem     *problem
}

type auditPage struct {
	frame
	Checkpoint checkpoint
	Items      []auditRow
	Older      string
	Newer      string
}

type auditEntryPage struct {
	frame
	Proof  proof
	Leaf   auditRow
	Index  int64
	Pretty string
}

type changesPage struct {
	frame
	Items []change
	Older string
	Newer string
}

type registerPage struct {
	frame
	Query string
	Items []registered
	Pager pager
}

// problem is what is wrong with a form.
type problem struct {
	Text  string
	Field string // the field's name; "" for the whole
}

// problemOf turns the API's refusal into what stands over a form; fields maps
// JSON pointers to the names of the form's fields. nil when it is no matter of
// the form.
func problemOf(err error, fields map[string]string) *problem {
	var e *apiError
	if !asAPI(err, &e) {
		return nil
	}
	switch e.Status {
	case http.StatusUnprocessableEntity, http.StatusBadRequest, http.StatusConflict, http.StatusPreconditionFailed:
		return &problem{sentence(e.Detail), fields[e.Source.Pointer]}
	case http.StatusNotFound:
		return &problem{Text: sentence(e.Detail), Field: fields["404"]}
	case http.StatusForbidden:
		return &problem{Text: sentence(e.Detail)}
	}
	return nil
}

// frame makes what stands around the page.
func (v *visit) frame(title string) frame {
	f := frame{Title: title, Person: v.person, Path: v.r.URL.Path}
	var a *registry.Actor
	if v.person != nil {
		a = &v.person.Actor
	}
	f.Nav = navigation(a, f.Path)
	return f
}

// pager leads to the pages beside this one.
type pager struct {
	Page, Pages, Items int
	Prev, Next         string
}

func (v *visit) pager(m pageMeta) pager {
	p := pager{Page: m.Page, Pages: max(m.TotalPages, 1), Items: m.TotalItems}
	link := func(n int) string {
		q := v.r.URL.Query()
		q.Set("page", strconv.Itoa(n))
		return v.r.URL.Path + "?" + q.Encode()
	}
	if m.Page > 1 {
		p.Prev = link(min(m.Page-1, p.Pages))
	}
	if m.Page < m.TotalPages {
		p.Next = link(m.Page + 1)
	}
	return p
}

// functions are what templates call.
func functions() template.FuncMap {
	return template.FuncMap{
		"when": func(t registry.Time) string {
			if !t.Set() {
				return "–"
			}
			return t.Std().Format("2 Jan 2006, 15:04 UTC")
		},
		"iso": func(t registry.Time) string { return t.String() },
		"abn": func(a registry.ABN) string {
			s := a.String()
			if len(s) != 11 {
				return s
			}
			return s[:2] + " " + s[2:5] + " " + s[5:8] + " " + s[8:]
		},
		"words": func(s string) string { return strings.ReplaceAll(s, "-", " ") },
		"capital": func(s string) string {
			if s == "" {
				return s
			}
			return strings.ToUpper(s[:1]) + s[1:]
		},
		"path": url.PathEscape,
		"seconds": func(ms int64) string {
			return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
		},
		"days": func(t time.Time) string { return t.UTC().Format("15:04 UTC") },
		"good": func(s string) string {
			switch s {
			case "ok", "Whitelisted", "Registered", "acknowledged", "active", "pass", "allowed", "passed", "closed", "covered", "stronger", "low":
				return "good"
			case "Draft", "SelfCertified", "InVerification", "PVT", "Interim", "ReviewDue", "pending", "lapsed", "warn", "Restricted", "Submitted", "Checking", "open", "asked", "to-ask", "answered", "expired", "medium", "weaker", "unknown":
				return "warn"
			}
			return "bad"
		},
		"levels":     func() []string { return []string{"low", "medium", "high"} },
		"treatments": func() []string { return []string{"reduce", "avoid", "share", "accept"} },
		"cell":       cellWords,
		"state":      stateWords,
		"day":        func(t registry.Time) string { return t.Std().UTC().Format("2 Jan 2006") },
		"add":        func(a, b int) int { return a + b },
		"size":       bytesText,
		"evidence":   evidenceTitle,
		"media":      mediaTitle,
		"sentence":   sentence,
		"mib":        func(n int64) int64 { return n >> 20 },
		"figure":     func(v *float64) string { return strconv.FormatFloat(math.Round(*v*100)/100, 'f', -1, 64) },
		"list":       func(s []string) string { return strings.Join(s, ", ") },
		"text":       fmt.Sprint,
	}
}
