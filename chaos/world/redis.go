package world

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
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
// answer. Settings are as on the command line: "--replicaof", "127.0.0.1 6379".
func StartRedis(ctx context.Context, dir, name string, settings ...string) (*Server, error) {
	data := filepath.Join(dir, name)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	return startServer(ctx, dir, name, func(port string) ([]string, error) {
		return append([]string{
			"--port", port, "--bind", "127.0.0.1", "--dir", data, "--save", "", "--appendonly", "yes", "--appendfsync", "always",
			"--maxmemory-policy", "noeviction", "--repl-diskless-sync-delay", "0", "--daemonize", "no", "--set-proc-title", "no",
		}, settings...), nil
	})
}

// startServer starts a server on a free port and waits until it answers; a
// port that is gone by the time it is used is not the end.
func startServer(ctx context.Context, dir, name string, args func(port string) ([]string, error)) (*Server, error) {
	bin, err := FindRedis()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for range 5 {
		var addr, port string
		if addr, err = freeport.Pick(); err != nil {
			return nil, err
		}
		if _, port, err = net.SplitHostPort(addr); err != nil {
			return nil, err
		}
		var line []string
		if line, err = args(port); err != nil {
			return nil, err
		}
		var p *Process
		if p, err = Start(dir, name, bin, line...); err != nil {
			return nil, err
		}
		s := &Server{Process: p, Addr: addr, rdb: redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, Protocol: 2, DisableIdentity: true})}
		if s.Port, err = strconv.Atoi(port); err != nil {
			return nil, err
		}
		if err = p.Await(ctx, func(ctx context.Context) error { return s.rdb.Ping(ctx).Err() }); err == nil {
			return s, nil
		}
		s.Close()
	}
	return nil, fmt.Errorf("%s does not start: %w", name, err)
}

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

// Sentinels' pace: long enough that a busy machine is not taken for a dead
// primary, short enough for several failovers in a trial.
const (
	masterName      = "register"
	sentinelDown    = 700 * time.Millisecond
	sentinelTimeout = 2500 * time.Millisecond
)

// startSentinel starts one of three that watch the primary; two must agree.
func startSentinel(ctx context.Context, dir, name string, primary *Server) (*Server, error) {
	data := filepath.Join(dir, name)
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, err
	}
	return startServer(ctx, dir, name, func(port string) ([]string, error) {
		conf := filepath.Join(data, "sentinel.conf")
		text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor %s 127.0.0.1 %d 2\nsentinel down-after-milliseconds %s %d\n"+
			"sentinel failover-timeout %s %d\nsentinel parallel-syncs %s 2\n",
			port, data, masterName, primary.Port, masterName, sentinelDown.Milliseconds(), masterName, sentinelTimeout.Milliseconds(), masterName)
		return []string{conf, "--sentinel"}, os.WriteFile(conf, []byte(text), 0o600)
	})
}
