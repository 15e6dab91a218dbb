package console_test

import (
	"os"
	"path/filepath"
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

// TestNoTemplateStandsForAnother: two of one name would silently be the last one
// parsed, on every page.
func TestNoTemplateStandsForAnother(t *testing.T) {
	files, err := filepath.Glob("templates/_*.html")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`{{-? ?define "([^"]+)"`).FindAllStringSubmatch(string(b), -1) {
			if before := seen[m[1]]; before != "" {
				t.Errorf("template %q is defined in %s and in %s", m[1], before, file)
			}
			seen[m[1]] = file
		}
	}
}
