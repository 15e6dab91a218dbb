package world

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Links are proxies in this process that may be made slow, cut or half open
// (toxiproxy).
type Links struct {
	server *toxiproxy.ApiServer // never listens: it only holds what proxies share
	mu     sync.Mutex
	all    []*Link
}

// Link is one way from a process to a server.
type Link struct {
	Name  string
	proxy *toxiproxy.Proxy
}

// NewLinks makes an empty set.
func NewLinks() (*Links, error) {
	return &Links{server: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())}, nil
}

// Add makes a link to a server's address.
func (l *Links) Add(name, upstream string) (*Link, error) {
	p := toxiproxy.NewProxy(l.server, name, "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	link := &Link{name, p}
	l.mu.Lock()
	l.all = append(l.all, link)
	l.mu.Unlock()
	return link, nil
}

// Close ends all links.
func (l *Links) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, link := range l.all {
		link.proxy.Stop()
	}
	l.all = nil
}

// Addr is where to connect to.
func (l *Link) Addr() string { return l.proxy.Listen }

// What may be wrong with a link.
const (
	Slow     = "slow"      // each chunk comes later, there and back
	Cut      = "cut"       // connections are closed, new ones refused
	Silent   = "silent"    // nothing gets through in either direction, nothing is closed
	HalfUp   = "half-up"   // what the client says is lost
	HalfDown = "half-down" // what the server answers is lost
	Reset    = "reset"     // connections are made and soon after reset
	Lossy    = "lossy"     // nothing gets through on nine connections of ten
)

// Break makes something wrong with the link until Heal. delay is for Slow.
func (l *Link) Break(how string, delay time.Duration) error {
	switch how {
	case Cut:
		l.proxy.Stop()
		return nil
	case Slow:
		for _, stream := range []string{"upstream", "downstream"} {
			if err := l.toxic("latency", stream, 1, map[string]any{"latency": (delay / 2).Milliseconds(), "jitter": (delay / 8).Milliseconds()}); err != nil {
				return err
			}
		}
		return nil
	case Reset:
		return l.toxic("reset_peer", "downstream", 1, map[string]any{"timeout": 10})
	case Lossy:
		return l.toxic("timeout", "upstream", 0.9, map[string]any{"timeout": 0})
	}
	for _, stream := range []string{"upstream", "downstream"} {
		if how == HalfUp && stream == "downstream" || how == HalfDown && stream == "upstream" {
			continue
		}
		if err := l.toxic("timeout", stream, 1, map[string]any{"timeout": 0}); err != nil {
			return err
		}
	}
	return nil
}

// toxic puts something wrong on a part of the connections, those to come too.
func (l *Link) toxic(kind, stream string, part float32, attributes map[string]any) error {
	b, err := json.Marshal(map[string]any{"type": kind, "stream": stream, "toxicity": part, "attributes": attributes})
	if err != nil {
		return err
	}
	if _, err := l.proxy.Toxics.AddToxicJson(bytes.NewReader(b)); err != nil {
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	return nil
}

// Heal makes the link whole again. Connections on which bytes were lost are
// closed.
func (l *Link) Heal(ctx context.Context) error {
	// A toxic that is taken off waits for data to move on a dead connection.
	ctx, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	l.proxy.Toxics.ResetToxics(ctx)
	if err := l.proxy.Start(); err != nil && err != toxiproxy.ErrProxyAlreadyStarted { //nolint:errorlint // it is returned bare
		return fmt.Errorf("link %s: %w", l.Name, err)
	}
	return nil
}
