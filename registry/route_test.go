package registry

import (
	"slices"
	"strings"
	"testing"
)

func route(method, template string) *Service {
	return &Service{Key: method + " " + template, Method: method, Template: template}
}

func testRoutes(t testing.TB) *Routes {
	t.Helper()
	r, err := CompileRoutes([]*Service{
		route("GET", "/a"), route("POST", "/a"), route("GET", "/a/{x}"), route("GET", "/a/b"), route("GET", "/a/{x}/c"),
		route("GET", "/a/b/d"), route("PUT", "/a/{x}/{y}"), route("GET", "/{p}/{q}/{r}/{s}"), route("GET", "/a/b/{z}/e"),
		route("POST", "/dspgate.sample.v1.Sample/Chat"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRouteMatch(t *testing.T) {
	r := testRoutes(t)
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/a", "GET /a"},
		{"POST", "/a", "POST /a"},
		{"DELETE", "/a", ""},
		{"get", "/a", ""},
		{"GET", "/A", ""},
		{"GET", "/a/", ""},
		{"GET", "a", ""},
		{"GET", "xa", ""},
		{"GET", "/", ""},
		{"GET", "", ""},
		{"GET", "/a/b", "GET /a/b"},                 // a literal beats a parameter
		{"GET", "/a/bb", "GET /a/{x}"},              //
		{"GET", "/a/b/c", "GET /a/{x}/c"},           // back from the literal, which leads nowhere
		{"PUT", "/a/b/d", "PUT /a/{x}/{y}"},         // back, for another method
		{"GET", "/a/b/d", "GET /a/b/d"},             //
		{"GET", "/a/b/x/e", "GET /a/b/{z}/e"},       //
		{"GET", "/a/b/x/f", "GET /{p}/{q}/{r}/{s}"}, // back all the way
		{"GET", "/a/b/c/d/e", ""},
		{"POST", "/dspgate.sample.v1.Sample/Chat", "POST /dspgate.sample.v1.Sample/Chat"},
		{"GET", "/a/..", ""},
		{"GET", "/a/.", ""},
		{"GET", "/a/%62", ""},
		{"GET", "/a/b;v=1", ""},
		{"GET", "/a/b\\c", ""},
		{"GET", "/a//c", ""},
		{"GET", "/a/b?x", ""},
		{"GET", "/a/b#x", ""},
		{"GET", "/a/\u00e9", ""},
		{"GET", "/a/" + strings.Repeat("x", PathBytesMax), ""},
	} {
		var m Match
		r.Match(c.method, c.path, &m)
		got := ""
		if m.Service != nil {
			got = m.Service.Key
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.method, c.path, got, c.want)
		}
	}
}

func TestRouteParamsAreThoseOfTheRouteTakenAtLast(t *testing.T) {
	r := testRoutes(t)
	var m Match
	r.Match("GET", "/a/b/x/f", &m)
	for name, want := range map[string]string{"p": "a", "q": "b", "r": "x", "s": "f"} {
		if got, ok := m.Param(name); !ok || got != want {
			t.Errorf("{%s} is %q, %t; want %q", name, got, ok, want)
		}
	}
	r.Match("GET", "/a/1/c", &m)
	if x, ok := m.Param("x"); !ok || x != "1" {
		t.Errorf("{x} is %q, %t", x, ok)
	}
	if y, ok := m.Param("y"); ok {
		t.Errorf("{y} is %q of a template without it", y)
	}
	r.Match("GET", "/nowhere", &m)
	if x, ok := m.Param("x"); ok {
		t.Errorf("{x} is %q without a match", x)
	}
}

func TestCompileRoutesRefusesTwoOfOneShape(t *testing.T) {
	if _, err := CompileRoutes([]*Service{route("GET", "/a/{x}/c"), route("GET", "/a/{y}/c")}); err == nil {
		t.Error("two services of one method and shape")
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	r := testRoutes(t)
	var m Match
	if n := testing.AllocsPerRun(100, func() { r.Match("GET", "/a/b/x/f", &m) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// rendered is the template with its parameters put in.
func rendered(m *Match) string {
	var b strings.Builder
	for seg := range strings.SplitSeq(m.Service.Template[1:], "/") {
		b.WriteByte('/')
		if name, ok := strings.CutPrefix(seg, "{"); ok {
			seg, _ = m.Param(strings.TrimSuffix(name, "}"))
		}
		b.WriteString(seg)
	}
	return b.String()
}

func FuzzRoute(f *testing.F) {
	for _, p := range []string{"/a", "/a/b", "/a/b/c", "/a/x/c", "/a/../a", "/a/%2e%2e/c", "/a/b;x/c", "//a", "/a\\b", "/a/./c", "/1/2/3/4"} {
		f.Add("GET", p)
	}
	r := testRoutes(f)
	f.Fuzz(func(t *testing.T, method, path string) {
		var m Match
		r.Match(method, path, &m)
		if m.Service == nil {
			return
		}
		if m.Service.Method != method {
			t.Errorf("%s matched %s", method, m.Service.Key)
		}
		if got := rendered(&m); got != path {
			t.Errorf("%s renders %q of %q", m.Service.Template, got, path)
		}
		if !CleanPath(path) || strings.ContainsAny(path, "%;\\?#") || strings.Contains(path, "//") {
			t.Errorf("%q matched", path)
		}
		if segs := strings.Split(path, "/"); slices.Contains(segs, ".") || slices.Contains(segs, "..") {
			t.Errorf("%q matched", path)
		}
	})
}

func FuzzTemplate(f *testing.F) {
	for _, p := range []string{"/a", "/{x}", "/a/{x}/{y}", "/a/{x", "/{x}{y}", "/a//b", "/{X}", "/a/", "/../{x}", "/%41"} {
		f.Add(p, "v")
	}
	f.Fuzz(func(t *testing.T, template, value string) {
		if ValidTemplate("GET", template) != nil {
			return
		}
		r, err := CompileRoutes([]*Service{route("GET", template)})
		if err != nil {
			t.Fatalf("valid, and does not compile: %v", err)
		}
		if !cleanSegment(value) {
			value = "v"
		}
		path := ""
		for seg := range strings.SplitSeq(template[1:], "/") {
			if seg[0] == '{' {
				seg = value
			}
			path += "/" + seg
		}
		var m Match
		r.Match("GET", path, &m)
		if len(path) <= PathBytesMax && (m.Service == nil || rendered(&m) != path) {
			t.Errorf("%s does not match %q", template, path)
		}
		if strings.Contains(template, "{") {
			for _, bad := range []string{"..", "a%2fb", "a;b", ""} {
				if r.Match("GET", strings.ReplaceAll(path, value, bad), &m); m.Service != nil && !CleanPath(rendered(&m)) {
					t.Errorf("%s matches with %q", template, bad)
				}
			}
		}
	})
}

func FuzzCleanPath(f *testing.F) {
	for _, p := range []string{"/", "/a/", "//", "/a/..", "/...", "/a%20", "/~'()*"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		want := strings.HasPrefix(path, "/") && len(path) <= PathBytesMax
		if want {
			segs := strings.Split(path[1:], "/")
			if segs[len(segs)-1] == "" {
				segs = segs[:len(segs)-1]
			}
			want = !slices.ContainsFunc(segs, func(s string) bool { return !cleanSegment(s) })
		}
		if CleanPath(path) != want {
			t.Errorf("CleanPath(%q) is not %t", path, want)
		}
	})
}
