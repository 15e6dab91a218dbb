package controltest

import (
	"context"
	"sync"
	"time"
)

// Sessions is a signin.Store in memory.
type Sessions struct {
	Now func() time.Time // nil: time.Now

	mu   sync.Mutex
	kept map[string]kept
}

type kept struct {
	value []byte
	ends  time.Time
}

func (s *Sessions) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Put implements signin.Store.
func (s *Sessions) Put(_ context.Context, key string, v []byte, ttl time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil {
		s.kept = map[string]kept{}
	}
	s.kept[key] = kept{v, s.now().Add(ttl)}
	return nil
}

// Renew implements signin.Store.
func (s *Sessions) Renew(ctx context.Context, key string, v []byte, ttl time.Duration) (bool, error) {
	if b, _ := s.Get(ctx, key); b == nil {
		return false, nil
	}
	return true, s.Put(ctx, key, v, ttl)
}

// Get implements signin.Store.
func (s *Sessions) Get(_ context.Context, key string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[key]; k.ends.After(s.now()) {
		return k.value, nil
	}
	return nil, nil
}

// Take implements signin.Store.
func (s *Sessions) Take(ctx context.Context, key string) ([]byte, error) {
	b, err := s.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	return b, s.Delete(ctx, key)
}

// Delete implements signin.Store.
func (s *Sessions) Delete(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.kept, key)
	return nil
}

// Each changes every value, as who can write to the store could.
func (s *Sessions) Each(change func(key string, value []byte) []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.kept {
		v.value = change(k, v.value)
		s.kept[k] = v
	}
}
