package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestEveryMetricInARuleExists: a rule over a metric that was renamed never
// fires, and nobody hears of it.
func TestEveryMetricInARuleExists(t *testing.T) {
	b, err := os.ReadFile("../deploy/prometheus/rules.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Expr        string            `yaml:"expr"`
				For         string            `yaml:"for"`
				Labels      map[string]string `yaml:"labels"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.UnmarshalWithOptions(b, &file, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	s := sharedStack(t)
	var help strings.Builder
	for _, debug := range append([]string{s.info.ControlDebug}, s.info.SidecarDebug...) {
		_, text := series(t, debug)
		help.WriteString(text)
	}
	// Metrics are the only words with an underscore.
	metric := regexp.MustCompile(`\b[a-z]+(_[a-z0-9]+)+\b`)
	rules := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules++
			names := metric.FindAllString(regexp.MustCompile(`"[^"]*"`).ReplaceAllString(r.Expr, ""), -1)
			if len(names) == 0 || r.Annotations["summary"] == "" || r.Annotations["runbook"] == "" || r.Labels["severity"] == "" {
				t.Errorf("%s: %q names no metric, or nobody is told what to do", r.Alert, r.Expr)
			}
			for _, name := range names {
				if !strings.Contains(help.String(), "# TYPE "+name+" ") {
					t.Errorf("%s: no process has the metric %s", r.Alert, name)
				}
			}
		}
	}
	if rules < 10 {
		t.Errorf("%d rules were read", rules)
	}
}
