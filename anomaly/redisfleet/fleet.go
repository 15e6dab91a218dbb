// Package redisfleet carries reports, marks and baselines between sidecars and
// the fleet's watcher through Redis.
//
// Reports lie in one stream, which is trimmed by number and by age: what nobody
// watched in time is of no use. Marks are one key that runs out by itself when
// nobody renews it. Baselines are one hash, a field for each subject, of a
// bounded number; what is known of all subjects together is one key.
package redisfleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/anomaly"
)

// Options tunes a Fleet. The zero value of each field takes the default.
type Options struct {
	// Key begins every key. Default dspgate:anomaly.
	Key string
	// Keep is how old a report may become. Default 10m.
	Keep time.Duration
	// ReportsMax bounds the stream, whatever the rate. A report takes 20 bytes to
	// 4 KiB for each subject that called. Default 4096.
	ReportsMax int64
	// MarksFor is how long marks stand when nobody renews them. Default 2m.
	MarksFor time.Duration
	// BaselinesMax bounds the baselines, 1 to 60 KiB each. Default 16384.
	BaselinesMax int64
	// SignalsMax bounds the signals kept, some 300 bytes each; SignalsKeep is for
	// how long. Default 100000 and 30 days.
	SignalsMax  int64
	SignalsKeep time.Duration
}

// Fleet is anomaly.Link, and the watcher's end of it. Safe for concurrent use.
type Fleet struct {
	rdb redis.UniversalClient
	o   Options
}

// New makes a Fleet; it does not connect.
func New(rdb redis.UniversalClient, o Options) *Fleet {
	o.Key = cmp.Or(o.Key, "dspgate:anomaly")
	o.Keep = cmp.Or(o.Keep, 10*time.Minute)
	o.ReportsMax = cmp.Or(o.ReportsMax, 4096)
	o.MarksFor = cmp.Or(o.MarksFor, 2*time.Minute)
	o.BaselinesMax = cmp.Or(o.BaselinesMax, 16384)
	o.SignalsMax = cmp.Or(o.SignalsMax, 100_000)
	o.SignalsKeep = cmp.Or(o.SignalsKeep, 30*24*time.Hour)
	return &Fleet{rdb, o}
}

func (f *Fleet) reports() string   { return f.o.Key + ":reports" }
func (f *Fleet) marks() string     { return f.o.Key + ":marks" }
func (f *Fleet) baselines() string { return f.o.Key + ":baselines" }
func (f *Fleet) all() string       { return f.o.Key + ":all" }

const fieldReport = "r"

// Send implements anomaly.Link.
func (f *Fleet) Send(ctx context.Context, r *anomaly.Report) error {
	b := r.AppendBinary(nil)
	if len(b) > anomaly.ReportBytesMax {
		return fmt.Errorf("report of %d bytes: at most %d", len(b), anomaly.ReportBytesMax)
	}
	pipe := f.rdb.Pipeline()
	pipe.XAdd(ctx, &redis.XAddArgs{Stream: f.reports(), MaxLen: f.o.ReportsMax, Approx: true, Values: []any{fieldReport, b}})
	pipe.XTrimMinIDApprox(ctx, f.reports(), strconv.FormatInt(time.Now().Add(-f.o.Keep).UnixMilli(), 10), 0)
	if _, err := pipe.Exec(ctx); err != nil {
		return fmt.Errorf("send report: %w", err)
	}
	return nil
}

// Start is where Follow begins that wants only what comes from now on.
func (f *Fleet) Start(ctx context.Context) (string, error) {
	last, err := f.rdb.XRevRangeN(ctx, f.reports(), "+", "-", 1).Result()
	if err != nil {
		return "", fmt.Errorf("find the last report: %w", err)
	}
	if len(last) == 0 {
		return "0-0", nil
	}
	return last[0].ID, nil
}

// followMax is how many reports one call of Follow returns at most.
const followMax = 64

// Follow waits, for as long as wait, for reports after one, and returns them with
// where to go on and how many were none.
func (f *Fleet) Follow(ctx context.Context, after string, wait time.Duration) (reports []anomaly.Report, next string, malformed int, err error) {
	streams, err := f.rdb.XRead(ctx, &redis.XReadArgs{Streams: []string{f.reports(), after}, Count: followMax, Block: wait}).Result()
	if errors.Is(err, redis.Nil) {
		return nil, after, 0, nil
	}
	if err != nil {
		return nil, after, 0, fmt.Errorf("follow reports: %w", err)
	}
	next = after
	for _, s := range streams {
		for _, m := range s.Messages {
			next = m.ID
			text, ok := m.Values[fieldReport].(string)
			var r anomaly.Report
			if !ok || r.UnmarshalBinary([]byte(text)) != nil {
				malformed++
				continue
			}
			reports = append(reports, r)
		}
	}
	return reports, next, malformed, nil
}

// postedMark is a mark as it lies in Redis.
type postedMark struct {
	Kind     uint8   `json:"k"`
	ID       string  `json:"id"`
	Surprise float64 `json:"s"`
	Until    int64   `json:"u"` // seconds since 1970
}

// marksMax bounds what is read as marks.
const marksMax = 8 << 20

// Post replaces the marks. They stand for MarksFor, or until the next call.
func (f *Fleet) Post(ctx context.Context, marks []anomaly.Mark) error {
	out := make([]postedMark, len(marks))
	for i, m := range marks {
		out[i] = postedMark{uint8(m.Subject.Kind), m.Subject.ID, m.Surprise, m.Until.Unix()}
	}
	b, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("post marks: %w", err)
	}
	if err := f.rdb.Set(ctx, f.marks(), b, f.o.MarksFor).Err(); err != nil {
		return fmt.Errorf("post marks: %w", err)
	}
	return nil
}

// Marks implements anomaly.Link.
func (f *Fleet) Marks(ctx context.Context) ([]anomaly.Mark, error) {
	b, err := f.rdb.Get(ctx, f.marks()).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetch marks: %w", err)
	}
	if len(b) > marksMax {
		return nil, fmt.Errorf("fetch marks: %d bytes, at most %d", len(b), marksMax)
	}
	var in []postedMark
	if err := json.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("fetch marks: %w", err)
	}
	out := make([]anomaly.Mark, len(in))
	for i, m := range in {
		out[i] = anomaly.Mark{Subject: anomaly.Subject{Kind: anomaly.Kind(m.Kind), ID: m.ID}, Surprise: m.Surprise, Until: time.Unix(m.Until, 0).UTC()}
	}
	return out, nil
}

func field(s anomaly.Subject) string { return strconv.Itoa(int(s.Kind)) + ":" + s.ID }

func parseField(name string) (anomaly.Subject, bool) {
	kind, id, ok := strings.Cut(name, ":")
	k, err := strconv.ParseUint(kind, 10, 8)
	return anomaly.Subject{Kind: anomaly.Kind(k), ID: id}, ok && err == nil && id != ""
}

// Keep keeps a subject's baseline. When there are too many, some others go.
func (f *Fleet) Keep(ctx context.Context, s anomaly.Subject, baseline []byte) error {
	if err := f.rdb.HSet(ctx, f.baselines(), field(s), baseline).Err(); err != nil {
		return err
	}
	return nil
}

// KeepAll keeps what is known of all subjects together.
func (f *Fleet) KeepAll(ctx context.Context, b []byte) error {
	return f.rdb.Set(ctx, f.all(), b, 0).Err()
}

// All is what KeepAll kept last; nothing when it never did.
func (f *Fleet) All(ctx context.Context) ([]byte, error) {
	b, err := f.rdb.Get(ctx, f.all()).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is known of all: %w", err)
	}
	return b, nil
}

// Prune forgets baselines that are not wanted any more, once there are too many;
// of those wanted too, should they alone be too many.
func (f *Fleet) Prune(ctx context.Context, wanted func(anomaly.Subject) bool) error {
	n, err := f.rdb.HLen(ctx, f.baselines()).Result()
	if err != nil || n <= f.o.BaselinesMax {
		return err
	}
	var go1, go2 []string
	err = f.each(ctx, func(name string, _ string) error {
		if s, ok := parseField(name); !ok || !wanted(s) {
			go1 = append(go1, name)
		} else {
			go2 = append(go2, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	drop := append(go1, go2...)[:n-f.o.BaselinesMax]
	return f.rdb.HDel(ctx, f.baselines(), drop...).Err()
}

// Baselines visits all that are kept.
func (f *Fleet) Baselines(ctx context.Context, visit func(s anomaly.Subject, baseline []byte)) error {
	return f.each(ctx, func(name, value string) error {
		if s, ok := parseField(name); ok {
			visit(s, []byte(value))
		}
		return nil
	})
}

// each visits the fields of the baselines; one that changes meanwhile may come twice.
func (f *Fleet) each(ctx context.Context, visit func(name, value string) error) error {
	var cursor uint64
	for {
		page, next, err := f.rdb.HScan(ctx, f.baselines(), cursor, "", 64).Result()
		if err != nil {
			return fmt.Errorf("read baselines: %w", err)
		}
		for i := 0; i+1 < len(page); i += 2 {
			if err := visit(page[i], page[i+1]); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}
