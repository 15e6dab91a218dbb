package xds

import (
	"cmp"
	"fmt"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
)

// BootstrapConfig is what an Envoy must know before it can ask for the rest.
type BootstrapConfig struct {
	// NodeID names this Envoy in logs. Needed.
	NodeID string `yaml:"node_id"`
	// Admin is the address of Envoy's admin page: "unix:/path" or a loopback
	// "IP:port", where port 0 lets Envoy choose. It is not protected: whoever
	// reaches it can stop Envoy. Needed.
	Admin string `yaml:"admin"`
	// Sidecars are the addresses of the discovery services, "unix:/path" or
	// "host:port": Envoy follows one of them, and turns to the next when it is
	// gone. At least one.
	Sidecars []string `yaml:"sidecars"`
	// MaxConnections bounds the connections of all clients together; the next
	// one is closed at once. Default 10000.
	MaxConnections uint32 `yaml:"max_connections"`
}

// Bootstrap makes Envoy's bootstrap as JSON, for `envoy --config-path` or
// `--config-yaml`. It has no listener and no route: those come by ADS.
func Bootstrap(cfg BootstrapConfig) ([]byte, error) {
	if cfg.NodeID == "" {
		return nil, fmt.Errorf("%w: node_id is needed", ErrConfig)
	}
	admin, err := adminAddress(cfg.Admin)
	if err != nil {
		return nil, err
	}
	if len(cfg.Sidecars) == 0 {
		return nil, fmt.Errorf("%w: sidecars: at least one is needed", ErrConfig)
	}
	var ads []address
	for _, s := range cfg.Sidecars {
		a, err := parseAddress(s)
		if err != nil {
			return nil, fmt.Errorf("%w: sidecars: %w", ErrConfig, err)
		}
		ads = append(ads, a)
	}
	b := &builder{}
	b.cfg.MaxUpstream = 1024
	cluster := b.cluster(clusterADS, ads, time.Second)
	cluster.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpProtocolOptions: b.any(http2Upstream(&corev3.Http2ProtocolOptions{
		MaxOutboundControlFrames: u32(outboundControlFramesMax),
		// A sidecar that vanished without a word must not keep Envoy waiting for
		// news on a dead connection.
		ConnectionKeepalive: &corev3.KeepaliveSettings{Interval: dur(10 * time.Second), Timeout: dur(5 * time.Second)},
	}))}
	boot := &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: cfg.NodeID, Cluster: "dspgate"},
		Admin: &bootstrapv3.Admin{Address: admin},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: []*clusterv3.Cluster{cluster},
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: &corev3.ApiConfigSource{
				ApiType:                   corev3.ApiConfigSource_GRPC,
				TransportApiVersion:       corev3.ApiVersion_V3,
				GrpcServices:              []*corev3.GrpcService{{TargetSpecifier: envoyGRPC(clusterADS)}},
				SetNodeOnFirstMessageOnly: true,
			},
			CdsConfig: adsSource(),
			LdsConfig: adsSource(),
		},
		OverloadManager: &overloadv3.OverloadManager{
			ResourceMonitors: []*overloadv3.ResourceMonitor{{
				Name: "envoy.resource_monitors.global_downstream_max_connections",
				ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: b.any(&connectionsv3.DownstreamConnectionsConfig{
					MaxActiveDownstreamConnections: int64(cmp.Or(cfg.MaxConnections, 10000)),
				})},
			}},
		},
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "static",
			LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
				// A client that opens and resets streams without end is cut off
				// (CVE-2023-44487).
				"overload.premature_reset_total_stream_count": structpb.NewNumberValue(200),
				// "/a/..;x/b" is "/b" to some programs and a segment of its own to others.
				// Envoy would make it the first before anybody looks; left as it is, the
				// authorizer refuses it as every path with ";".
				"envoy.reloadable_features.strip_dotdot_segments_with_parameters": structpb.NewBoolValue(false),
				// Bounded, but the default of 100 is less than one path template needs.
				// Templates come from the register, at most 256 bytes and 4 parameters.
				"re2.max_program_size.error_level": structpb.NewNumberValue(10000),
				"re2.max_program_size.warn_level":  structpb.NewNumberValue(10000),
			}}},
		}}},
	}
	if b.err != nil {
		return nil, b.err
	}
	out, err := protojson.Marshal(boot)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	return out, nil
}

// adminAddress accepts a Unix socket or a loopback address and nothing else.
func adminAddress(s string) (*corev3.Address, error) {
	if a, err := parseAddress(s); err == nil && a.unix != "" {
		return a.proto(), nil
	}
	ip, port, err := ipPort(s)
	if err != nil {
		return nil, fmt.Errorf("%w: admin: %w", ErrConfig, err)
	}
	if !loopback(ip) {
		return nil, fmt.Errorf("%w: admin: %s is not a loopback address, and whoever reaches the admin page can stop Envoy", ErrConfig, s)
	}
	return socketAddress(ip, port), nil
}
