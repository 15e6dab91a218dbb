package redisfleet

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/anomaly"
)

// keptSignal is a signal as it lies in Redis.
type keptSignal struct {
	Kind     uint8    `json:"k"`
	ID       string   `json:"id"`
	Name     string   `json:"n"`
	At       int64    `json:"t"` // seconds since 1970
	P        float64  `json:"p"`
	Value    float64  `json:"v"`
	Newcomer bool     `json:"w,omitempty"`
	Reasons  []string `json:"r,omitempty"`
}

func (f *Fleet) signals() string { return f.o.Key + ":signals" }

// signalsOf is the index of one product's.
func (f *Fleet) signalsOf(product string) string { return f.o.Key + ":signals:of:" + product }

const (
	fieldSignal = "s"
	// signalBytesMax bounds one signal in Redis; a longer one is not kept.
	signalBytesMax = 4096
	signalsPage    = 500
	// productSignals is how many are kept of each product beside all: the memory of
	// its index is bounded by it, 30 KB.
	productSignals = 100
	// productsAtOnce is how many products' are asked for in one trip.
	productsAtOnce = 200
)

// KeepSignals keeps what was told, for those who ask later: at most
// Options.SignalsMax, for Options.SignalsKeep; and of each product, which of finds
// for a subject ("" for none), the latest hundred once more, for ProductSignals.
// What holds no number is left out.
func (f *Fleet) KeepSignals(ctx context.Context, signals []anomaly.Signal, of func(anomaly.Subject) string) error {
	pipe := f.rdb.Pipeline()
	for i := range signals {
		s := &signals[i]
		if math.IsNaN(s.P) || math.IsInf(s.P, 0) || math.IsNaN(s.Value) || math.IsInf(s.Value, 0) {
			continue
		}
		b, err := json.Marshal(keptSignal{uint8(s.Subject.Kind), s.Subject.ID, s.Name.String(), s.At.Unix(), s.P, s.Value, s.Newcomer, s.Reasons})
		if err != nil || len(b) > signalBytesMax {
			continue
		}
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: f.signals(), MaxLen: f.o.SignalsMax, Approx: true, Values: []any{fieldSignal, b}})
		if product := of(s.Subject); product != "" {
			pipe.XAdd(ctx, &redis.XAddArgs{Stream: f.signalsOf(product), MaxLen: productSignals, Values: []any{fieldSignal, b}})
			pipe.Expire(ctx, f.signalsOf(product), f.o.SignalsKeep)
		}
	}
	pipe.XTrimMinIDApprox(ctx, f.signals(), f.oldest(), 0)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("keep signals: %w", err)
	}
	return nil
}

// oldest is the stream's ID before which a signal is too old.
func (f *Fleet) oldest() string {
	return strconv.FormatInt(time.Now().Add(-f.o.SignalsKeep).UnixMilli(), 10)
}

// ProductSignals are the n told last of some products together, the latest first,
// out of the latest hundred of each.
func (f *Fleet) ProductSignals(ctx context.Context, products []string, n int) ([]anomaly.Signal, error) {
	var all []anomaly.Signal
	for some := range slices.Chunk(products, productsAtOnce) {
		pipe := f.rdb.Pipeline()
		pages := make([]*redis.XMessageSliceCmd, len(some))
		for i, product := range some {
			pages[i] = pipe.XRevRangeN(ctx, f.signalsOf(product), "+", f.oldest(), int64(n))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return nil, fmt.Errorf("read signals: %w", err)
		}
		for _, page := range pages {
			for _, m := range page.Val() {
				if s, ok := parseSignal(m.Values); ok {
					all = append(all, s)
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b anomaly.Signal) int { return b.At.Compare(a.At) })
	return all[:min(len(all), n)], nil
}

// LatestSignals are the n told last, the latest first.
func (f *Fleet) LatestSignals(ctx context.Context, n int) ([]anomaly.Signal, error) {
	page, err := f.rdb.XRevRangeN(ctx, f.signals(), "+", "-", int64(n)).Result()
	if err != nil {
		return nil, fmt.Errorf("read signals: %w", err)
	}
	out := make([]anomaly.Signal, 0, len(page))
	for _, m := range page {
		if s, ok := parseSignal(m.Values); ok {
			out = append(out, s)
		}
	}
	return out, nil
}

// EachSignal visits those told between two instants, in order, until visit
// returns false.
func (f *Fleet) EachSignal(ctx context.Context, from, to time.Time, visit func(anomaly.Signal) bool) error {
	start, end := strconv.FormatInt(max(from.UnixMilli(), 0), 10), strconv.FormatInt(max(to.UnixMilli(), 0), 10)
	for {
		page, err := f.rdb.XRangeN(ctx, f.signals(), start, end, signalsPage).Result()
		if err != nil {
			return fmt.Errorf("read signals: %w", err)
		}
		for _, m := range page {
			if s, ok := parseSignal(m.Values); ok && !visit(s) {
				return nil
			}
		}
		if len(page) < signalsPage {
			return nil
		}
		start = "(" + page[len(page)-1].ID
	}
}

// parseSignal reads one; false for what is none.
func parseSignal(values map[string]any) (s anomaly.Signal, ok bool) {
	text, _ := values[fieldSignal].(string)
	var in keptSignal
	if len(text) > signalBytesMax || json.Unmarshal([]byte(text), &in) != nil {
		return s, false
	}
	name, ok := anomaly.ParseSignalName(in.Name)
	s = anomaly.Signal{
		Subject: anomaly.Subject{Kind: anomaly.Kind(in.Kind), ID: in.ID}, Name: name, At: time.Unix(in.At, 0).UTC(),
		P: in.P, Value: in.Value, Newcomer: in.Newcomer, Reasons: in.Reasons,
	}
	return s, ok && s.Subject.Kind.String() != "unknown"
}
