package xds

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/dspgate/dspgate/registry"
)

// anyNode is the one key under which the snapshot is cached: every Envoy of
// this sidecar gets the same.
const anyNode = "envoy"

// rejectedPause is how long an Envoy that rejects its first configuration waits
// to be sent it again.
const rejectedPause = time.Second

// Stats counts what the server does. Its methods may be called concurrently.
type Stats interface {
	// Pushed counts a snapshot made current.
	Pushed()
	// Refused counts a snapshot that could not be made or broke a rule; the last
	// good one stays.
	Refused()
	// Rejected counts a NACK: Envoy would not take what it was sent.
	Rejected()
}

// Server is the aggregated discovery service. Safe for concurrent use.
type Server struct {
	cfg   Config
	log   *slog.Logger
	stats Stats
	cache cachev3.SnapshotCache
	ads   serverv3.Server

	seed maphash.Seed

	mu       sync.Mutex // guards the three below; held by Update and by a rollback
	services uint64     // fingerprint of the services last made into a snapshot
	have     bool
	good     *cachev3.Snapshot // the last one that an Envoy took whole; nil before

	state   atomic.Pointer[cachev3.Snapshot] // current; nil before the first
	streams streams
}

// NewServer checks the Config and makes a Server that serves nothing until the
// first Update. ctx ends the streams. stats and log may be nil.
func NewServer(ctx context.Context, cfg Config, log *slog.Logger, stats Stats) (*Server, error) {
	if _, err := cfg.withDefaults(); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{cfg: cfg, log: log, stats: stats, seed: maphash.MakeSeed()}
	s.streams.acked = map[int64]map[string]string{}
	s.cache = cachev3.NewSnapshotCache(true, oneNode{}, nil)
	s.ads = serverv3.NewServer(ctx, s.cache, &callbacks{s})
	return s, nil
}

type oneNode struct{}

func (oneNode) ID(*corev3.Node) string { return anyNode }

// Register adds the service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, s.ads)
}

// Update makes the View's services Envoy's. Call it with each new View: when no
// service changed, as after a suspension, it returns at once and Envoy hears
// nothing. A snapshot that breaks a rule is not served; the last good one stays,
// and the error says why.
func (s *Server) Update(ctx context.Context, v *registry.View) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	print := s.fingerprint(v)
	if s.have && print == s.services {
		return nil
	}
	s.services, s.have = print, true
	if now := s.state.Load(); now != nil && s.streams.synced(now) {
		s.good = now
	}
	snap, err := Snapshot(v, s.cfg, strconv.FormatUint(uint64(v.Revision), 10))
	if err == nil {
		err = Lint(snap)
	}
	if err == nil {
		stamp(snap)
		err = s.cache.SetSnapshot(ctx, anyNode, snap)
	}
	if err != nil {
		s.count(Stats.Refused)
		s.log.ErrorContext(ctx, "envoy configuration refused, the last good one stays", "revision", v.Revision, "err", err)
		return fmt.Errorf("snapshot of revision %d: %w", v.Revision, err)
	}
	s.state.Store(snap)
	s.count(Stats.Pushed)
	s.log.InfoContext(ctx, "envoy configuration changed", "revision", v.Revision, "version", snap.GetVersion(resourcev3.RouteType))
	return nil
}

func (s *Server) count(what func(Stats)) {
	if s.stats != nil {
		what(s.stats)
	}
}

// Synced tells whether some connected Envoy has acknowledged the whole current
// snapshot. It is false before the first Update, after a NACK of something in
// it, and while no Envoy is connected.
func (s *Server) Synced() bool {
	snap := s.state.Load()
	return snap != nil && s.streams.synced(snap)
}

// fingerprint changes when anything that Snapshot reads of the View does.
func (s *Server) fingerprint(v *registry.View) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	for _, e := range v.Services() {
		svc := &e.Value
		for _, f := range []string{svc.Key, svc.Method, svc.Template, svc.Streaming, svc.Subject.In} {
			h.WriteString(f)
			h.WriteByte(0)
		}
	}
	return h.Sum64()
}

// rejected hears that an Envoy would not take a resource of the current
// snapshot. The last one that was taken whole becomes current again: an Envoy
// that restarts must not be left with a configuration it cannot use, and one
// that holds the good one is not sent the bad one in a tight loop.
func (s *Server) rejected(typeURL string) (rolledBack bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.good == nil || s.state.Load() == s.good {
		return false
	}
	// Background: the stream that brought the news must not end the repair.
	if err := s.cache.SetSnapshot(context.Background(), anyNode, s.good); err != nil {
		s.log.Error("envoy configuration not rolled back", "type", typeURL, "err", err)
		return false
	}
	s.state.Store(s.good)
	return true
}

// stamp gives each type of resource a version made of its content. What did not
// change keeps its version, so that Envoy drains no listener for a route; and
// two sidecars that say the same say it under the same version, so that an
// Envoy may turn from one to the other.
func stamp(snap *cachev3.Snapshot) {
	for i := range snap.Resources {
		r := &snap.Resources[i]
		if len(r.Items) == 0 {
			r.Version = "none"
			continue
		}
		h := sha256.New()
		for _, name := range slices.Sorted(maps.Keys(r.Items)) {
			b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.Items[name].Resource)
			if err != nil {
				panic("xds: a resource that was just made does not marshal: " + err.Error())
			}
			fmt.Fprintf(h, "%d %s %d ", len(name), name, len(b))
			h.Write(b)
		}
		r.Version = hex.EncodeToString(h.Sum(nil)[:8])
	}
}

// streams knows which version of which type each connected Envoy acknowledged.
type streams struct {
	mu    sync.Mutex
	acked map[int64]map[string]string
}

// ackTypes are what an Envoy must have acknowledged to be of use; secrets are
// asked for only by a TLS listener.
func ackTypes() []string {
	return []string{resourcev3.ClusterType, resourcev3.ListenerType, resourcev3.RouteType}
}

func (s *streams) synced(snap *cachev3.Snapshot) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	types := ackTypes()
	if len(snap.GetResources(resourcev3.SecretType)) > 0 {
		types = append(types, resourcev3.SecretType)
	}
	for _, acked := range s.acked {
		if !slices.ContainsFunc(types, func(t string) bool { return acked[t] != snap.GetVersion(t) }) {
			return true
		}
	}
	return false
}

// callbacks hears what Envoys answer. The server calls it synchronously.
type callbacks struct{ s *Server }

var _ serverv3.Callbacks = (*callbacks)(nil)

// OnStreamOpen accepts aggregated streams only, the one service registered.
func (c *callbacks) OnStreamOpen(_ context.Context, id int64, _ string) error {
	c.s.streams.mu.Lock()
	defer c.s.streams.mu.Unlock()
	c.s.streams.acked[id] = map[string]string{}
	return nil
}

// OnStreamClosed forgets the Envoy.
func (c *callbacks) OnStreamClosed(id int64, _ *corev3.Node) {
	c.s.streams.mu.Lock()
	defer c.s.streams.mu.Unlock()
	delete(c.s.streams.acked, id)
}

// OnStreamRequest hears an ACK or a NACK, or a first request, which is neither.
func (c *callbacks) OnStreamRequest(id int64, r *discoveryv3.DiscoveryRequest) error {
	if e := r.GetErrorDetail(); e != nil {
		c.s.count(Stats.Rejected)
		back := c.s.rejected(r.GetTypeUrl())
		c.s.log.Error("envoy rejected its configuration and keeps the last good one", "type", r.GetTypeUrl(), "rolled_back", back, "err", e.GetMessage())
		if !back {
			// Nothing good to go back to: the same would be sent again at once. The
			// wait holds up this Envoy's stream only.
			time.Sleep(rejectedPause)
		}
		return nil
	}
	if r.GetResponseNonce() == "" {
		return nil
	}
	c.s.streams.mu.Lock()
	defer c.s.streams.mu.Unlock()
	if acked := c.s.streams.acked[id]; acked != nil {
		acked[r.GetTypeUrl()] = r.GetVersionInfo()
	}
	return nil
}

// OnStreamResponse has nothing to add.
func (c *callbacks) OnStreamResponse(context.Context, int64, *discoveryv3.DiscoveryRequest, *discoveryv3.DiscoveryResponse) {
}

// errNotServed: the bootstrap asks for the state-of-the-world protocol.
var errNotServed = errors.New("only the state-of-the-world protocol is served")

// OnDeltaStreamOpen refuses: nobody would hear the NACKs.
func (c *callbacks) OnDeltaStreamOpen(context.Context, int64, string) error { return errNotServed }

// OnDeltaStreamClosed has nothing to forget.
func (c *callbacks) OnDeltaStreamClosed(int64, *corev3.Node) {}

// OnStreamDeltaRequest refuses.
func (c *callbacks) OnStreamDeltaRequest(int64, *discoveryv3.DeltaDiscoveryRequest) error {
	return errNotServed
}

// OnStreamDeltaResponse has nothing to add.
func (c *callbacks) OnStreamDeltaResponse(int64, *discoveryv3.DeltaDiscoveryRequest, *discoveryv3.DeltaDiscoveryResponse) {
}

// OnFetchRequest refuses: REST is not served.
func (c *callbacks) OnFetchRequest(context.Context, *discoveryv3.DiscoveryRequest) error {
	return errNotServed
}

// OnFetchResponse has nothing to add.
func (c *callbacks) OnFetchResponse(*discoveryv3.DiscoveryRequest, *discoveryv3.DiscoveryResponse) {}
