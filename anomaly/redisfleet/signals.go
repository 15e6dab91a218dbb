package redisfleet

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
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

const (
	fieldSignal = "s"
	// signalBytesMax bounds one signal in Redis; a longer one is not kept.
	signalBytesMax = 4096
	signalsPage    = 500
)

// KeepSignals keeps what was told, for those who ask later: at most
// Options.SignalsMax, for Options.SignalsKeep. What holds no number is left out.
func (f *Fleet) KeepSignals(ctx context.Context, signals []anomaly.Signal) error {
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
	}
	pipe.XTrimMinIDApprox(ctx, f.signals(), strconv.FormatInt(time.Now().Add(-f.o.SignalsKeep).UnixMilli(), 10), 0)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("keep signals: %w", err)
	}
	return nil
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
