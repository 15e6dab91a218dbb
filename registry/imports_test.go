package registry_test

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDomainImportsNoWires: nouns and rules stand at the centre, wires at the
// edge. Adapters are sub-packages, and are not looked at here, but for the
// domain's own sub-packages.
func TestDomainImportsNoWires(t *testing.T) {
	wires := []string{
		"net/http", "net/rpc", "google.golang.org/grpc", "google.golang.org/protobuf", "github.com/envoyproxy/", "github.com/cncf/xds",
		"github.com/prometheus/", "github.com/redis/", "github.com/danielgtaylor/huma",
		"github.com/dspgate/dspgate/envoy", "github.com/dspgate/dspgate/control", "github.com/dspgate/dspgate/cmd",
	}
	seen := 0
	for _, dir := range []string{"registry", "registry/registrytest", "registry/sample", "registry/casework", "registry/translog", "registry/people", "registry/certification", "authz", "authz/token", "authz/admission", "ratelimit", "anomaly", "anomaly/policy", "registry/assurance", "registry/intake"} {
		files, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, src, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			seen++
			for _, imp := range f.Imports {
				path, err := strconv.Unquote(imp.Path.Value)
				if err != nil {
					t.Fatal(err)
				}
				for _, wire := range wires {
					if path == strings.TrimSuffix(wire, "/") || strings.HasPrefix(path, strings.TrimSuffix(wire, "/")+"/") {
						t.Errorf("%s imports %s", file, path)
					}
				}
			}
		}
	}
	if seen < 10 {
		t.Errorf("found %d files of the domain: looked in the wrong place", seen)
	}
}
