package main

import (
	"cmp"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/envoy/extproc"
	"github.com/dspgate/dspgate/envoy/xds"
)

type streamsConfig struct {
	// PerProduct caps the open streams of one product on this sidecar; one more is
	// refused with 429. Default 1000.
	PerProduct int `yaml:"per_product"`
	// Total caps those of all products. Every open stream is a call under way to
	// its upstream, so the total of all sidecars has to stay well below
	// envoy.max_upstream, or ordinary calls would be refused. Default half of
	// that, divided among the sidecars of the Envoy.
	Total int `yaml:"total"`
	// EndWithToken ends a stream when the token that opened it expires. Default:
	// it goes on, at most for envoy.max_stream_duration, because an upload of an
	// hour cannot change its token on the way.
	EndWithToken bool `yaml:"end_with_token"`
}

// withDefaults fills in what was left out, and refuses caps that would let
// streams shut out ordinary calls.
func (c streamsConfig) withDefaults(envoy xds.Config) (streamsConfig, error) {
	sidecars := max(1, len(envoy.Sidecars))
	calls := int(cmp.Or(envoy.MaxUpstream, xds.DefaultMaxUpstream))
	c.Total = cmp.Or(c.Total, max(1, calls/2/sidecars))
	c.PerProduct = cmp.Or(c.PerProduct, min(1000, c.Total))
	if c.PerProduct < 1 || c.Total < c.PerProduct || c.Total > calls*3/4/sidecars {
		return c, usageError("streams: per_product (%d) is at least 1 and at most total (%d), and that at most three quarters of envoy.max_upstream (%d) divided among %d sidecars",
			c.PerProduct, c.Total, calls, sidecars)
	}
	return c, nil
}

// watchStreams makes what keeps watch over open streams, by the same Decider that
// admits them.
func (s *sidecar) watchStreams(decider *authz.Decider) error {
	cfg, err := s.cfg.Streams.withDefaults(s.cfg.Envoy)
	if err != nil {
		return err
	}
	s.streams, err = extproc.NewStreams(extproc.Config{
		Still: decider.Still, Changed: s.mirror.Changed,
		PerProduct: cfg.PerProduct, Total: cfg.Total, EndWithToken: cfg.EndWithToken,
		Metrics: s.metrics, Log: s.log,
	})
	if err != nil {
		return err
	}
	decider.Streams = s.streams
	return nil
}
