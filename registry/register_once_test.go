package registry_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/dspgate/dspgate/registry"
)

func TestAnIdempotencyKeyDoesItOnce(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	var done atomic.Int64
	do := func(context.Context) ([]byte, error) { done.Add(1); return []byte("answer"), nil }
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			answer, _, err := w.Once(ctx, "key", []byte("request"), do)
			if err != nil || string(answer) != "answer" {
				t.Errorf("%q, %v", answer, err)
			}
		})
	}
	wg.Wait()
	answer, replayed, err := w.Once(ctx, "key", []byte("request"), do)
	if err != nil || !replayed || string(answer) != "answer" || done.Load() != 1 {
		t.Errorf("%q, replayed %t, %v; done %d times", answer, replayed, err, done.Load())
	}
	if _, _, err := w.Once(ctx, "key", []byte("another"), do); !errors.Is(err, registry.ErrKeyReused) || !errors.Is(err, registry.ErrConflict) {
		t.Errorf("another request: %v, want ErrKeyReused", err)
	}
	boom := errors.New("boom")
	if _, _, err := w.Once(ctx, "failing", nil, func(context.Context) ([]byte, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Errorf("got %v, want the error of do", err)
	}
	if _, replayed, err := w.Once(ctx, "failing", nil, do); err != nil || replayed {
		t.Errorf("after a failure: replayed %t, %v; want it done", replayed, err)
	}
}
