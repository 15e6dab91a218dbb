package xds

import (
	"fmt"
	"strings"
	"time"

	cachetypes "github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/dspgate/dspgate/registry"
)

// The names in a snapshot.
const (
	ListenerPlain  = "ingress"
	ListenerTLS    = "ingress_tls"
	routesName     = "services"
	clusterAuthz   = "sidecar_authz"
	clusterStreams = "sidecar_streams"
	clusterALS     = "sidecar_access_log" // one per sidecar, numbered
	clusterADS     = "sidecar_ads"        // in the bootstrap

	secretServer   = "server"
	secretClientCA = "client_ca"
)

// Snapshot makes Envoy's whole configuration from the register's services and
// a Config. It is pure: the same arguments give the same resources, and no file
// is read. It fails only on a Config that is wrong.
func Snapshot(v *registry.View, cfg Config, version string) (*cachev3.Snapshot, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	services := servicesOf(v)
	b := &builder{cfg: cfg}
	resources := map[resourcev3.Type][]cachetypes.Resource{
		resourcev3.RouteType:    {b.routes(services)},
		resourcev3.ListenerType: b.listeners(),
		resourcev3.SecretType:   b.secrets(),
	}
	resources[resourcev3.ClusterType] = b.clusters(services)
	if b.err != nil {
		return nil, b.err
	}
	snap, err := cachev3.NewSnapshot(version, resources)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return snap, nil
}

// servicesOf lists the register's services with the more specific template
// before the less specific one, so that Envoy, which takes the first route that
// matches, finds the one that the register's allow-list finds.
func servicesOf(v *registry.View) []*registry.Service {
	if v == nil {
		return nil
	}
	entries := v.Services()
	out := make([]*registry.Service, 0, len(entries))
	for _, e := range entries {
		out = append(out, &e.Value)
	}
	sortServices(out)
	return out
}

// builder gathers the first error of making a snapshot, so that the shapes
// below read as the configuration they make.
type builder struct {
	cfg Config
	err error
}

// any packs a message. Deterministic, so that equal configurations are equal
// bytes and Envoy is not told of a change that is none.
func (b *builder) any(m proto.Message) *anypb.Any {
	a := &anypb.Any{}
	if err := anypb.MarshalFrom(a, m, proto.MarshalOptions{Deterministic: true}); err != nil && b.err == nil {
		b.err = fmt.Errorf("pack %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return a
}

func yes() *wrapperspb.BoolValue { return wrapperspb.Bool(true) }

func no() *wrapperspb.BoolValue { return wrapperspb.Bool(false) }

func u32(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(n) }

func dur(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// quoteRegex escapes every byte that RE2 could read as an operator.
func quoteRegex(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(`\.+*?()|[]{}^$`, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String()
}

// notAnyRegex matches every string but the words. RE2 has no lookahead, so the
// complement is spelt out: a string leaves the words at its first byte that
// none of them has there, or ends inside one, or goes on beyond one.
func notAnyRegex(words []string) string {
	if len(words) == 0 {
		return ".*"
	}
	heads, rests, whole := []byte{}, map[byte][]string{}, false
	for _, w := range words {
		if w == "" {
			whole = true
			continue
		}
		if _, ok := rests[w[0]]; !ok {
			heads = append(heads, w[0])
		}
		rests[w[0]] = append(rests[w[0]], w[1:])
	}
	if len(heads) == 0 {
		return ".+"
	}
	var alts []string
	if !whole {
		alts = append(alts, "")
	}
	class := ""
	for _, h := range heads {
		class += fmt.Sprintf(`\x%02x`, h)
		alts = append(alts, fmt.Sprintf(`\x%02x`, h)+"(?:"+notAnyRegex(rests[h])+")")
	}
	alts = append(alts, "[^"+class+"].*")
	return strings.Join(alts, "|")
}
