package redissession_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/control/signin/redissession"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/redisstore/redistest"
)

func TestSessionsAreKeptTakenOnceAndEndByThemselves(t *testing.T) {
	server := redistest.Start(t)
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr, MaxRetries: -1, DialTimeout: time.Second})
	t.Cleanup(func() { rdb.Close() })
	s := redissession.New(rdb, "test:session:")
	ctx := t.Context()
	get := func(key string) string {
		t.Helper()
		b, err := s.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	if get("a") != "" {
		t.Error("a session nobody put")
	}
	if ok, err := s.Renew(ctx, "a", []byte("0"), time.Hour); ok || err != nil || get("a") != "" {
		t.Errorf("renewed what is not there: %v, %v", ok, err)
	}
	if err := s.Put(ctx, "a", []byte("1"), time.Hour); err != nil || get("a") != "1" {
		t.Fatal(err)
	}
	if key, err := rdb.Exists(ctx, "test:session:a").Result(); err != nil || key != 1 {
		t.Errorf("kept elsewhere: %d, %v", key, err)
	}
	if ok, err := s.Renew(ctx, "a", []byte("2"), 30*time.Minute); !ok || err != nil || get("a") != "2" {
		t.Errorf("renewed: %v, %v", ok, err)
	}
	if ttl := rdb.TTL(ctx, "test:session:a").Val(); ttl <= 0 || ttl > 30*time.Minute {
		t.Errorf("ends in %v", ttl)
	}

	// Of those who take it at once, one gets it.
	var wg sync.WaitGroup
	got := make([]string, 8)
	for i := range got {
		wg.Go(func() {
			b, err := s.Take(ctx, "a")
			if err != nil {
				t.Error(err)
			}
			got[i] = string(b)
		})
	}
	wg.Wait()
	n := 0
	for _, g := range got {
		if g == "2" {
			n++
		}
	}
	if n != 1 || get("a") != "" {
		t.Errorf("%d took it", n)
	}

	if err := s.Put(ctx, "b", []byte("x"), time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(ctx, "b"); err != nil || get("b") != "" {
		t.Errorf("deleted: %v", err)
	}
	if err := s.Put(ctx, "c", []byte("x"), 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); get("c") != ""; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it never ends")
		}
	}

	// A store that is away is no session that ended.
	server.Kill()
	if _, err := s.Get(ctx, "c"); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("away: %v", err)
	}
	if _, err := s.Renew(ctx, "c", nil, time.Hour); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("renew while away: %v", err)
	}
	if err := s.Put(ctx, "c", nil, time.Hour); !errors.Is(err, registry.ErrUnavailable) {
		t.Errorf("put while away: %v", err)
	}
}
