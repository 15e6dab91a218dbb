// Package redissession keeps the console's sessions in Redis, each a key that
// expires by itself: PREFIX + the key that signin gives it, a sum of a secret.
package redissession

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/registry"
)

const timeout = 2 * time.Second

// Store implements signin.Store.
type Store struct {
	rdb    redis.UniversalClient
	prefix string
}

// New makes a store over a client; prefix begins every key.
func New(rdb redis.UniversalClient, prefix string) *Store { return &Store{rdb, prefix} }

func failed(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("sessions: %w: %w", registry.ErrUnavailable, err)
}

// Put implements signin.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return failed(s.rdb.Set(ctx, s.prefix+key, value, ttl).Err())
}

// Renew implements signin.Store.
func (s *Store) Renew(ctx context.Context, key string, value []byte, ttl time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := s.rdb.SetArgs(ctx, s.prefix+key, value, redis.SetArgs{Mode: "XX", TTL: ttl}).Err()
	if errors.Is(err, redis.Nil) {
		return false, nil
	}
	return err == nil, failed(err)
}

// Get implements signin.Store.
func (s *Store) Get(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return value(s.rdb.Get(ctx, s.prefix+key))
}

// Take implements signin.Store.
func (s *Store) Take(ctx context.Context, key string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return value(s.rdb.GetDel(ctx, s.prefix+key))
}

func value(cmd *redis.StringCmd) ([]byte, error) {
	b, err := cmd.Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return b, failed(err)
}

// Delete implements signin.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return failed(s.rdb.Del(ctx, s.prefix+key).Err())
}
