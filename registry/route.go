package registry

import (
	"slices"
	"strings"
)

// Bounds on a path. What exceeds them does not normalise.
const (
	PathBytesMax = 2048
	paramsMax    = 4
)

// Routes is the allow-list of method and path template, compiled from the
// services: a trie of path segments where a literal beats a parameter.
// Matching walks at most as many segments as the deepest template has.
type Routes struct{ root *routeNode }

type routeNode struct {
	literals map[string]*routeNode
	param    *routeNode
	methods  []routeMethod
}

type routeMethod struct {
	method  string
	service *Service
}

// Match is one route found, with the values of its path parameters in the
// order of the template. The values are pieces of the path that was matched.
type Match struct {
	Service *Service
	params  [paramsMax]string
	n       int
}

// Param returns the value of a named path parameter of the matched template.
func (m *Match) Param(name string) (string, bool) {
	if m.Service == nil {
		return "", false
	}
	i, rest := 0, m.Service.Template
	for {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			return "", false
		}
		rest = rest[open+1:]
		end := strings.IndexByte(rest, '}')
		if rest[:end] == name {
			return m.params[i], i < m.n
		}
		rest = rest[end+1:]
		i++
	}
}

// CleanPath tells whether a path (without its query) is already in the one
// normal form: absolute, no empty, "." or ".." segment, no percent-encoding,
// and only RFC 3986 pchar bytes less ";". Anything else could be read in two
// ways by two programs, and is refused rather than repaired.
func CleanPath(path string) bool {
	if len(path) == 0 || len(path) > PathBytesMax || path[0] != '/' {
		return false
	}
	start := 1
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			if !pathByte[path[i]] {
				return false
			}
			continue
		}
		switch seg := path[start:i]; seg {
		case ".", "..":
			return false
		case "":
			if i < len(path) { // a trailing slash is clean, and no template has one
				return false
			}
		}
		start = i + 1
	}
	return true
}

// cleanSegment tells whether one path segment is clean.
func cleanSegment(seg string) bool {
	for i := range len(seg) {
		if !pathByte[seg[i]] {
			return false
		}
	}
	return seg != "" && seg != "." && seg != ".."
}

// pathByte is pchar of RFC 3986 §3.3 without "%" and ";".
var pathByte = func() (t [256]bool) {
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for _, c := range "-._~!$&'()*+,=:@" {
		t[c] = true
	}
	return t
}()

// SplitPath cuts the query off a request target, at the first "?", once.
func SplitPath(target string) (path, query string) {
	path, query, _ = strings.Cut(target, "?")
	return path, query
}

// Match finds the service of a method and a path; m.Service is nil when there
// is none. A path that is not clean has none, whether the caller asked
// CleanPath or not. It does not allocate.
func (r *Routes) Match(method, path string, m *Match) {
	m.Service, m.n = nil, 0
	if r == nil || len(path) < 2 || len(path) > PathBytesMax || path[0] != '/' {
		return
	}
	r.root.match(method, path[1:], m)
}

func (n *routeNode) match(method, rest string, m *Match) bool {
	seg, tail, more := strings.Cut(rest, "/")
	if seg == "" {
		return false
	}
	if c := n.literals[seg]; c != nil && c.finish(method, tail, more, m) {
		return true
	}
	// Literals are clean by ValidTemplate; here is what a caller chose.
	if n.param == nil || m.n == paramsMax || !cleanSegment(seg) {
		return false
	}
	m.params[m.n] = seg
	m.n++
	if n.param.finish(method, tail, more, m) {
		return true
	}
	m.n--
	return false
}

func (n *routeNode) finish(method, tail string, more bool, m *Match) bool {
	if more {
		return n.match(method, tail, m)
	}
	for i := range n.methods {
		if n.methods[i].method == method {
			m.Service = n.methods[i].service
			return true
		}
	}
	return false
}

// routeMethods are the methods a service may have.
var routeMethods = []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}

// ValidTemplate checks a service's method and path template.
func ValidTemplate(method, template string) error {
	if !slices.Contains(routeMethods, method) {
		return Field("/method", "%q is no method a service may have; use one of %s", truncate(method, 16), strings.Join(routeMethods, ", "))
	}
	if len(template) > 256 || !strings.HasPrefix(template, "/") || template == "/" {
		return Field("/template", "a path template starts with / and has 1 to 256 bytes, such as /lodgments/v1/receipts/{id}")
	}
	seen := map[string]bool{}
	for seg := range strings.SplitSeq(template[1:], "/") {
		name, isParam := strings.CutPrefix(seg, "{")
		if !isParam {
			if !cleanSegment(seg) {
				return Field("/template", "%q is no clean path segment", truncate(seg, 40))
			}
			continue
		}
		name, closed := strings.CutSuffix(name, "}")
		if !closed || name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
			return Field("/template", "%q is no parameter; write {name} in lower-case letters, digits and _", truncate(seg, 40))
		}
		if seen[name] {
			return Field("/template", "the parameter {%s} stands twice", name)
		}
		seen[name] = true
	}
	if len(seen) > paramsMax {
		return Field("/template", "at most %d parameters", paramsMax)
	}
	return nil
}

// CompileRoutes builds the allow-list. Two services of the same method and
// shape are an error: which one is called would depend on the order of loading.
func CompileRoutes(services []*Service) (*Routes, error) {
	root := &routeNode{}
	for _, s := range services {
		if err := ValidTemplate(s.Method, s.Template); err != nil {
			return nil, err
		}
		n := root
		for seg := range strings.SplitSeq(s.Template[1:], "/") {
			n = n.child(seg)
		}
		for _, m := range n.methods {
			if m.method == s.Method {
				return nil, Field("/template", "%s %s is the route of %s already", s.Method, s.Template, m.service.Key)
			}
		}
		n.methods = append(n.methods, routeMethod{s.Method, s})
	}
	return &Routes{root}, nil
}

func (n *routeNode) child(seg string) *routeNode {
	if seg[0] == '{' {
		if n.param == nil {
			n.param = &routeNode{}
		}
		return n.param
	}
	if n.literals == nil {
		n.literals = map[string]*routeNode{}
	}
	c := n.literals[seg]
	if c == nil {
		c = &routeNode{}
		n.literals[seg] = c
	}
	return c
}
