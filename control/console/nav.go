package console

import (
	"strings"

	"github.com/dspgate/dspgate/registry"
)

// The navigation: a line of sections, and under it the pages of the section that
// somebody is in. A new page is a line in one of the lists below.

// section is a part of the console.
type section struct {
	Text  string
	Pages []navItem
	Here  bool
}

// Href leads to the section's first page.
func (s section) Href() string { return s.Pages[0].Href }

// navItem is a page of a section.
type navItem struct {
	Href, Text string
	// Also are the beginnings of other paths that belong to the page.
	Also []string
	Here bool
}

// holds tells whether a path is the page's or one below it.
func (i navItem) holds(path string) bool {
	if path == i.Href {
		return true
	}
	for _, prefix := range append(i.Also, i.Href) {
		if path == prefix || !strings.HasSuffix(prefix, "/") && strings.HasPrefix(path, prefix+"/") {
			return true
		}
	}
	return false
}

// Sub lists the pages of the section that somebody is in; nothing where it has
// one only.
func (f frame) Sub() section {
	for _, s := range f.Nav {
		if s.Here && len(s.Pages) > 1 {
			return s
		}
	}
	return section{}
}

// navigation is what somebody may go to, at a path.
func navigation(a *registry.Actor, path string) (out []section) {
	add := func(text string, pages ...navItem) {
		s := section{Text: text}
		for _, p := range pages {
			if p.Href == "" {
				continue // not for this person
			}
			p.Here = p.holds(path)
			s.Here = s.Here || p.Here
			s.Pages = append(s.Pages, p)
		}
		if len(s.Pages) > 0 {
			out = append(out, s)
		}
	}
	switch {
	case a == nil:
		add("Public register", page("/register", "Public register"))
	case a.Staff():
		staffNav(*a, add)
	case a.Has(registry.PermDeveloper):
		developerNav(*a, add)
	default:
		add("Registration", page("/console/registrations", "Registration", "/console/apply"))
		add("Join an entity", page("/console/join", "Join an entity"))
		add("Public register", page("/register", "Public register"))
	}
	return out
}

func page(href, text string, also ...string) navItem {
	return navItem{Href: href, Text: text, Also: also}
}

// when leaves a page out that somebody may not see.
func when(may bool, p navItem) navItem {
	if !may {
		return navItem{}
	}
	return p
}

func staffNav(a registry.Actor, add func(string, ...navItem)) {
	assesses := a.Has(registry.PermAssessor | registry.PermRegistrar | registry.PermAuditor)
	add("Overview", page("/console/", "Overview"))
	add("Register",
		page("/console/products", "Products"),
		page("/console/entities", "Entities", "/console/people"),
		page("/register", "Public register"))
	add("Certification",
		when(a.Has(registry.PermRegistrar), page("/console/registrations", "Applications")),
		when(assesses, page("/console/assessments", "Assessments", "/console/certifications", "/console/verifications", "/console/evidence")),
		when(assesses, page("/console/findings", "Findings")),
		when(assesses, page("/console/draws", "Draws")),
		page("/console/gap-analysis", "Standards compared"),
		page("/console/role-matrix", "Who owes what"))
	add("Ecosystem",
		page("/console/add-ons", "Add-ons"),
		page("/console/ecosystem", "Questions"),
		page("/console/threat-analyses", "Threat analyses"))
	add("Enforcement",
		page("/console/suspensions", "Suspensions", "/console/suspend"),
		page("/console/sidecars", "Sidecars"),
		page("/console/decisions", "Refused calls"))
	add("Incidents",
		page("/console/incidents", "Incidents"),
		page("/console/lessons", "Lessons"))
	add("Watching",
		when(mayWatch(a), page("/console/signals", "Signals")),
		when(mayWatch(a), page("/console/policies", "Policies")),
		when(mayWatch(a), page("/console/missing-fields", "Missing fields")),
		when(mayFollow(a), page("/console/live", "Live")))
	add("Records",
		when(a.Has(registry.PermAuditor), page("/console/changes", "Changes")),
		when(a.Has(registry.PermAuditor), page("/console/audit", "Audit log")))
}

func developerNav(a registry.Actor, add func(string, ...navItem)) {
	add("Your products", page("/console/own", "Your products", "/console/products"))
	add("Certification",
		when(a.Entity != 0, page("/console/certifications", "Certification", "/console/evidence", "/console/verifications")),
		when(a.Entity != 0, page("/console/findings", "Findings")),
		when(a.Entity != 0, page("/console/gap-analysis", "Standards compared")),
		when(a.Entity != 0, page("/console/role-matrix", "Who owes what")))
	add("Ecosystem",
		when(a.Entity != 0, page("/console/add-ons", "Add-ons")),
		when(a.Entity != 0, page("/console/ecosystem", "Questions")),
		when(a.Entity != 0, page("/console/threat-analyses", "Threat analyses")))
	add("Calls",
		page("/console/decisions", "Refused calls"),
		when(a.Entity != 0, page("/console/missing-fields", "Missing fields")),
		when(mayFollow(a), page("/console/live", "Live")))
	add("Incidents",
		page("/console/incidents", "Incidents"),
		page("/console/lessons", "Lessons"))
	add("Your entity",
		page("/console/registrations", "Registration", "/console/apply", "/console/entities"),
		page("/console/people", "People"),
		page("/register", "Public register"))
}
