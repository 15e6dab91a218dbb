package console_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/control/controltest"
)

var (
	navs    = regexp.MustCompile(`(?s)<nav class="(?:main|sub)".*?</nav>`)
	navLink = regexp.MustCompile(`<a href="([^"]+)"( aria-current)?`)
)

// navLinks are the links of a page's navigation, and those marked as here.
func navLinks(body string) (links, here []string) {
	for _, m := range navLink.FindAllStringSubmatch(strings.Join(navs.FindAllString(body, -1), ""), -1) {
		links = append(links, m[1])
		if m[2] != "" {
			here = append(here, m[1])
		}
	}
	return links, here
}

// TestNavigationLeadsSomewhere: whoever follows the navigation gets to a page that
// is for them, and is told where they are.
func TestNavigationLeadsSomewhere(t *testing.T) {
	w := controltest.New(t)
	for _, who := range []string{"", operator, operator2, auditor, assessor, registrar, wattlebird, newcomer} {
		b := w.Browser(who)
		_, front := b.Read("/register")
		todo, _ := navLinks(front)
		seen := map[string]bool{}
		for len(todo) > 0 {
			path := todo[0]
			todo = todo[1:]
			if seen[path] {
				continue
			}
			seen[path] = true
			status, body := b.Read(path)
			if status != 200 {
				t.Errorf("as %q: the navigation leads to %s, which answers %d", who, path, status)
			}
			links, here := navLinks(body)
			if len(here) == 0 || here[len(here)-1] != path {
				t.Errorf("as %q at %s: marked as here: %v", who, path, here)
			}
			todo = append(todo, links...)
		}
	}
}
