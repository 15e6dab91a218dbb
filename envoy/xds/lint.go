package xds

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// ErrLint is wrapped by every error of Lint.
var ErrLint = errors.New("envoy configuration breaks a rule")

// Broken is one rule broken in one place.
type Broken struct {
	Rule  string // its name, such as "failure-mode"
	Where string // the resource, such as "listener ingress"
	Why   string // what is wrong there
}

// LintError lists every rule a snapshot breaks.
type LintError struct{ Broken []Broken }

func (e *LintError) Error() string {
	var b strings.Builder
	b.WriteString(ErrLint.Error())
	for _, x := range e.Broken {
		fmt.Fprintf(&b, "; %s: %s: %s", x.Rule, x.Where, x.Why)
	}
	return b.String()
}

// Unwrap makes errors.Is(err, ErrLint) hold.
func (e *LintError) Unwrap() error { return ErrLint }

// Lint refuses a snapshot that would let a request past the authorizer, let it
// be read in two ways, or let one caller starve the others. It knows nothing of
// how the snapshot was made: whatever is not on its lists is refused, so that a
// field Envoy gains tomorrow is refused until somebody thought about it. The
// error is a *LintError.
func Lint(snap *cachev3.Snapshot) error {
	l := &linter{}
	m := l.unpack(snap)
	for _, r := range rules() {
		l.rule = r.name
		r.check(l, m)
	}
	if len(l.broken) > 0 {
		return &LintError{l.broken}
	}
	return nil
}

// Rules lists the names of the rules.
func Rules() []string {
	names := []string{ruleUnpack}
	for _, r := range rules() {
		names = append(names, r.name)
	}
	return names
}

type rule struct {
	name  string
	check func(*linter, *parts)
}

func rules() []rule {
	return slices.Concat(listenerRules(), connectionRules(), authzRules(), routeRules(), clusterRules())
}

// parts is a snapshot taken apart.
type parts struct {
	listeners []*listenerv3.Listener
	managers  []manager
	tls       map[string]*tlsv3.DownstreamTlsContext // by listener; absent when plain
	routes    []*routev3.RouteConfiguration
	clusters  []*clusterv3.Cluster
}

// manager is an HTTP connection manager and the listener it stands in.
type manager struct {
	where string
	*hcmv3.HttpConnectionManager
}

type linter struct {
	rule   string
	broken []Broken
}

func (l *linter) fail(where, format string, args ...any) {
	l.broken = append(l.broken, Broken{l.rule, where, fmt.Sprintf(format, args...)})
}

// must fails unless ok.
func (l *linter) must(ok bool, where, why string) {
	if !ok {
		l.fail(where, "%s", why)
	}
}

// only fails for every field that is set and not on the list.
func (l *linter) only(where string, m proto.Message, allowed ...string) {
	m.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		if !slices.Contains(allowed, string(f.Name())) {
			l.fail(where, "%s is set", f.Name())
		}
		return true
	})
	if len(m.ProtoReflect().GetUnknown()) > 0 {
		l.fail(where, "unknown fields")
	}
}

const ruleUnpack = "unpack"

// unpack takes a snapshot apart; what it cannot read it cannot vouch for.
func (l *linter) unpack(snap *cachev3.Snapshot) *parts {
	l.rule = ruleUnpack
	m := &parts{tls: map[string]*tlsv3.DownstreamTlsContext{}}
	for _, r := range sortedResources(snap, resourcev3.ListenerType) {
		ln, ok := r.(*listenerv3.Listener)
		if !ok {
			l.fail("listeners", "%T is no listener", r)
			continue
		}
		m.listeners = append(m.listeners, ln)
		where := "listener " + ln.GetName()
		for _, c := range ln.GetFilterChains() {
			if ts := c.GetTransportSocket(); ts != nil {
				ctx := &tlsv3.DownstreamTlsContext{}
				if l.open(where, ts.GetTypedConfig(), ctx) {
					m.tls[ln.GetName()] = ctx
				}
			}
			for _, f := range c.GetFilters() {
				h := &hcmv3.HttpConnectionManager{}
				if l.open(where, f.GetTypedConfig(), h) {
					m.managers = append(m.managers, manager{where, h})
				}
			}
		}
	}
	for _, r := range sortedResources(snap, resourcev3.RouteType) {
		if rc, ok := r.(*routev3.RouteConfiguration); ok {
			m.routes = append(m.routes, rc)
		} else {
			l.fail("routes", "%T is no route configuration", r)
		}
	}
	for _, r := range sortedResources(snap, resourcev3.ClusterType) {
		if c, ok := r.(*clusterv3.Cluster); ok {
			m.clusters = append(m.clusters, c)
		} else {
			l.fail("clusters", "%T is no cluster", r)
		}
	}
	for _, t := range []resourcev3.Type{
		resourcev3.ExtensionConfigType, resourcev3.ScopedRouteType, resourcev3.VirtualHostType, resourcev3.RuntimeType, resourcev3.EndpointType,
	} {
		if n := len(snap.GetResources(t)); n > 0 {
			l.fail("snapshot", "%d resources of %s, which no rule looks at", n, t)
		}
	}
	l.must(len(m.listeners) > 0, "snapshot", "no listener")
	l.must(len(m.managers) == len(m.listeners), "snapshot", "a listener without exactly one HTTP connection manager")
	l.must(len(m.routes) > 0, "snapshot", "no routes")
	return m
}

func (l *linter) open(where string, a *anypb.Any, into proto.Message) bool {
	if a == nil || a.UnmarshalTo(into) != nil {
		l.fail(where, "%q is not a %s", a.GetTypeUrl(), into.ProtoReflect().Descriptor().FullName())
		return false
	}
	return true
}

func sortedResources(snap *cachev3.Snapshot, t resourcev3.Type) []proto.Message {
	all := snap.GetResources(t)
	names := make([]string, 0, len(all))
	for n := range all {
		names = append(names, n)
	}
	slices.Sort(names)
	out := make([]proto.Message, 0, len(names))
	for _, n := range names {
		out = append(out, all[n])
	}
	return out
}

// sameAs fails unless a packed message is exactly the one wanted.
func (l *linter) sameAs(where string, got *anypb.Any, want proto.Message) {
	m := want.ProtoReflect().New().Interface()
	if l.open(where, got, m) && !proto.Equal(m, want) {
		l.fail(where, "%s is not as it must be", want.ProtoReflect().Descriptor().Name())
	}
}

// forManager makes a rule of a property that every connection manager must have.
func forManager(name, why string, ok func(manager) bool) rule {
	return rule{name, func(l *linter, m *parts) {
		for _, h := range m.managers {
			l.must(ok(h), h.where, why)
		}
	}}
}
