package redisstore_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// trimmable lets the suite trim, which a register in use never does by revision.
type trimmable struct {
	*redisstore.Store
	rdb redis.UniversalClient
	log string
}

func (s trimmable) Trim(ctx context.Context, upTo registry.Revision) error {
	return s.rdb.XTrimMinID(ctx, s.log, fmt.Sprintf("%d-0", upTo+1)).Err()
}

func open(t *testing.T, cfg redisstore.Config) *redisstore.Store {
	t.Helper()
	s, err := redisstore.Open(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func suite(t *testing.T, cfg redisstore.Config) {
	var n atomic.Int64
	registrytest.RunSuite(t, func(t *testing.T) registrytest.Store {
		cfg := cfg
		cfg.Prefix = fmt.Sprintf("suite-%d", n.Add(1))
		rdb, err := redisstore.Dial(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = rdb.Close() })
		return trimmable{open(t, cfg), rdb, "{" + cfg.Prefix + "}:log"}
	})
}

func TestRedisPassesTheSuite(t *testing.T) {
	suite(t, redisstore.Config{Addrs: []string{redistest.Start(t).Addr}})
}

func TestRedisOverAUnixSocketPassesTheSuite(t *testing.T) {
	suite(t, redisstore.Config{Addrs: []string{redistest.Start(t).Socket()}})
}

func TestRedisWithAReplicaPassesTheSuite(t *testing.T) {
	primary := redistest.Start(t)
	replica := redistest.Start(t)
	replica.Must("REPLICAOF", "127.0.0.1", fmt.Sprint(primary.Port))
	untilReplicating(t, primary, 1)
	suite(t, redisstore.Config{Addrs: []string{primary.Addr}, Replicas: 1, ReplicaTimeout: 20 * time.Second})
}
