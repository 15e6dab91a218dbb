package world

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/internal/freeport"
)

// Server is one Redis: a primary, a replica, or a Sentinel.
type Server struct {
	*Process
	Addr string
	Port int
	rdb  *redis.Client
}

// StartRedis starts a Redis that writes an append-only file before every
// answer, and waits until it answers. Settings are as on the command line:
// "--replicaof", "127.0.0.1 6379".
func StartRedis(ctx context.Context, dir, name string, settings ...string) (*Server, error) {
	at, err := hold()
	if err != nil {
		return nil, err
	}
	return startRedis(ctx, dir, name, at, settings...)
}

func startRedis(ctx context.Context, dir, name string, at *place, settings ...string) (*Server, error) {
	data := filepath.Join(dir, name)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	// A file, which Sentinel has rewritten at each failover: on the command line
	// alone, a replica that was promoted would start again as a replica of the
	// primary there was at first, and throw away what it was promoted with.
	conf := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(conf, []byte(settingsFile(append([]string{
		"--port", at.port(), "--bind", "127.0.0.1", "--dir", data, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
		"--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0", "--daemonize", "no", "--set-proc-title", "no",
	}, settings...))), 0o600); err != nil {
		return nil, err
	}
	return startServer(ctx, dir, name, at, []string{conf})
}

// settingsFile is settings of the command line as lines of a file.
func settingsFile(settings []string) string {
	var b strings.Builder
	for _, s := range settings {
		switch key, is := strings.CutPrefix(s, "--"); {
		case is:
			b.WriteString("\n" + key)
		case s == "":
			b.WriteString(` ""`)
		default:
			b.WriteString(" " + s)
		}
	}
	return b.String() + "\n"
}

// startServer starts a server on the place held for it and waits until it answers.
func startServer(ctx context.Context, dir, name string, at *place, args []string) (*Server, error) {
	bin, err := FindRedis()
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(at.port())
	if err != nil {
		return nil, err
	}
	if err := at.free(); err != nil {
		return nil, err
	}
	p, err := Start(dir, name, bin, args...)
	if err != nil {
		return nil, err
	}
	s := &Server{Process: p, Addr: at.addr, Port: port, rdb: redis.NewClient(&redis.Options{Addr: at.addr, MaxRetries: -1, Protocol: 2, DisableIdentity: true})}
	if err := p.Await(ctx, func(ctx context.Context) error { return s.rdb.Ping(ctx).Err() }); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// place is an address held until its process is about to start, so that nobody
// else picks it meanwhile.
type place struct {
	addr string
	ln   net.Listener
}

func hold() (*place, error) {
	ln, err := freeport.Listen()
	if err != nil {
		return nil, err
	}
	return &place{ln.Addr().String(), ln}, nil
}

func (p *place) free() error { return p.ln.Close() }

func (p *place) port() string { return port(p.addr) }

// Do sends one command.
func (s *Server) Do(ctx context.Context, args ...any) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return s.rdb.Do(ctx, args...).Result()
}

// Client is a plain client of this one server.
func (s *Server) Client() *redis.Client { return s.rdb }

// Close ends the server.
func (s *Server) Close() {
	s.Kill()
	_ = s.rdb.Close() // nothing is lost with it
}
