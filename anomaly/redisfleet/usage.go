package redisfleet

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dspgate/dspgate/anomaly"
)

// Used is what a product did over some weeks: what its risk is judged by.
type Used struct {
	Requests    uint64 `json:"r,omitempty"`
	Invalid     uint64 `json:"i,omitempty"` // answered by the upstream with 4xx
	Failed      uint64 `json:"f,omitempty"` // with 5xx, or not at all
	Reads       uint64 `json:"d,omitempty"`
	Lodges      uint64 `json:"l,omitempty"`
	OffHours    uint64 `json:"o,omitempty"`
	OddVersions uint64 `json:"v,omitempty"` // refused: a version unknown, blocked or unsupported
	Signals     uint64 `json:"s,omitempty"` // told by the watcher
	// Fields are its allowed calls and what they lacked, by service.
	Fields map[string]Lacked `json:"m,omitempty"`
}

// Lacked are some calls, and how many of them lacked each field.
type Lacked struct {
	Calls   uint64                  `json:"c"`
	Missing [anomaly.NFields]uint64 `json:"n"`
}

// servicesMax bounds the services of a product that are told apart in a week.
const servicesMax = 256

func (u *Used) add(o *Used) {
	u.Requests += o.Requests
	u.Invalid += o.Invalid
	u.Failed += o.Failed
	u.Reads += o.Reads
	u.Lodges += o.Lodges
	u.OffHours += o.OffHours
	u.OddVersions += o.OddVersions
	u.Signals += o.Signals
	for service, l := range o.Fields {
		if u.Fields == nil {
			u.Fields = map[string]Lacked{}
		}
		x, ok := u.Fields[service]
		if !ok && len(u.Fields) >= servicesMax {
			continue
		}
		x.Calls += l.Calls
		for i, n := range l.Missing {
			x.Missing[i] += n
		}
		u.Fields[service] = x
	}
}

// Usage adds up what products do, from the sidecars' reports, week by week. The
// control plane that leads adds up; the others read what it kept. What is added
// up and how far the reports were read are kept in one step, so that after a
// kill nothing counts twice, and nothing is lost that is not older than reports
// become (but the last seconds of a week). Safe for concurrent use.
type Usage struct {
	fleet *Fleet
	lead  func() bool
	now   func() time.Time
	log   *slog.Logger

	mu    sync.Mutex
	weeks map[int64]map[string]*Used // by week since 1970, by product
	dirty map[string]bool            // of this week, not kept yet
	at    string                     // the last report that was added
	ready bool                       // it was read at least once
}

// Bounds of usage.
const (
	usageWeeks       = 4    // that are kept, the open one included
	usageProductsMax = 8192 // told apart in a week
	usageKeepEvery   = 10 * time.Second
	usageReadEvery   = 30 * time.Second // by control planes that do not lead
	usageAt          = "@at"
)

// NewUsage makes a Usage; lead tells whether this process adds up.
func NewUsage(f *Fleet, lead func() bool, log *slog.Logger) *Usage {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Usage{fleet: f, lead: lead, now: time.Now, log: log, weeks: map[int64]map[string]*Used{}, dirty: map[string]bool{}}
}

func (f *Fleet) usage(week int64) string {
	return f.o.Key + ":usage:" + strconv.FormatInt(week, 10)
}

func weekOf(t time.Time) int64 { return t.Unix() / (7 * 24 * 3600) }

// Of is what a product did over the last four weeks; ok is false when nobody
// knows: the sums could not be read yet.
func (u *Usage) Of(product string) (sum Used, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, week := range u.weeks {
		if x := week[product]; x != nil {
			sum.add(x)
		}
	}
	return sum, u.ready
}

// Signal counts one signal of a product.
func (u *Usage) Signal(product string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.change(product, &Used{Signals: 1})
}

// change adds to a product's open week. u.mu is held.
func (u *Usage) change(product string, add *Used) {
	week := weekOf(u.now())
	all := u.weeks[week]
	if all == nil {
		all = map[string]*Used{}
		u.weeks[week], u.dirty = all, map[string]bool{}
		for old := range u.weeks {
			if old <= week-usageWeeks {
				delete(u.weeks, old)
			}
		}
	}
	x := all[product]
	if x == nil {
		if len(all) >= usageProductsMax {
			return
		}
		x = new(Used)
		all[product] = x
	}
	x.add(add)
	u.dirty[product] = true
}

// Run adds up while this process leads, and reads what was added up otherwise,
// until ctx ends.
func (u *Usage) Run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := u.read(ctx); err != nil {
			u.log.WarnContext(ctx, "sums of what products do not read", "err", err)
			sleep(ctx, time.Second)
			continue
		}
		if !u.lead() {
			for end := time.Now().Add(usageReadEvery); ctx.Err() == nil && !u.lead() && time.Now().Before(end); {
				sleep(ctx, time.Second)
			}
			continue
		}
		if err := u.follow(ctx); err != nil && ctx.Err() == nil {
			u.log.WarnContext(ctx, "sums of what products do not kept; they are read again", "err", err)
			sleep(ctx, time.Second)
		}
	}
}

// read reads the kept weeks in the place of those in memory.
func (u *Usage) read(ctx context.Context) error {
	now := weekOf(u.now())
	weeks, at := map[int64]map[string]*Used{}, ""
	for week := now - usageWeeks + 1; week <= now; week++ {
		fields, err := u.fleet.rdb.HGetAll(ctx, u.fleet.usage(week)).Result()
		if err != nil {
			return fmt.Errorf("read week %d: %w", week, err)
		}
		all := map[string]*Used{}
		for name, text := range fields {
			if name == usageAt {
				at = text
				continue
			}
			x := new(Used)
			if json.Unmarshal([]byte(text), x) == nil && len(all) < usageProductsMax {
				all[name] = x
			}
		}
		weeks[week] = all
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.weeks, u.at, u.dirty, u.ready = weeks, at, map[string]bool{}, true
	return nil
}

// follow adds up until this process leads no more, or an error.
func (u *Usage) follow(ctx context.Context) error {
	if u.at == "" {
		u.at = "0-0" // what reports there still are
	}
	kept := time.Now()
	for ctx.Err() == nil && u.lead() {
		reports, next, _, err := u.fleet.Follow(ctx, u.at, time.Second)
		if err != nil {
			return err
		}
		u.mu.Lock()
		u.at = next
		for i := range reports {
			u.merge(&reports[i])
		}
		u.mu.Unlock()
		if time.Since(kept) >= usageKeepEvery {
			kept = time.Now()
			if err := u.keep(ctx); err != nil {
				return err
			}
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	return u.keep(last)
}

func (u *Usage) merge(r *anomaly.Report) {
	for i := range r.Subjects {
		s := &r.Subjects[i]
		if s.Subject.Kind != anomaly.Product || s.Subject.ID == "" || s.Subject.ID == usageAt {
			continue
		}
		c := &s.Tally.Count
		u.change(s.Subject.ID, &Used{
			Requests: c[anomaly.Requests], Invalid: c[anomaly.Invalid], Failed: c[anomaly.Failed], Reads: c[anomaly.Reads], Lodges: c[anomaly.Lodges],
			OffHours: c[anomaly.OffHours], OddVersions: c[anomaly.OddVersions],
		})
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		if f.Product != "" && f.Product != usageAt {
			u.change(f.Product, &Used{Fields: map[string]Lacked{f.Service: {Calls: f.Calls, Missing: f.Missing}}})
		}
	}
}

// Fields are the allowed calls of the last four weeks and what they lacked, by
// product and service; ok is false when nobody knows. Only those of a product are
// returned, or of all of them for "".
func (u *Usage) Fields(product string) (all []anomaly.FieldTally, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	sums := map[string]*Used{}
	for _, week := range u.weeks {
		for id, x := range week {
			if product != "" && id != product || len(x.Fields) == 0 {
				continue
			}
			if sums[id] == nil {
				sums[id] = new(Used)
			}
			sums[id].add(x)
		}
	}
	for id, x := range sums {
		for service, l := range x.Fields {
			all = append(all, anomaly.FieldTally{Product: id, Service: service, Calls: l.Calls, Missing: l.Missing})
		}
	}
	slices.SortFunc(all, func(a, b anomaly.FieldTally) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Service, b.Service))
	})
	return all, u.ready
}

// keep writes what changed and how far it goes, in one step.
func (u *Usage) keep(ctx context.Context) error {
	u.mu.Lock()
	week := weekOf(u.now())
	values := []any{usageAt, u.at}
	var errs []error
	for product := range u.dirty {
		b, err := json.Marshal(u.weeks[week][product])
		errs = append(errs, err)
		values = append(values, product, b)
	}
	u.dirty = map[string]bool{}
	u.mu.Unlock()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	key := u.fleet.usage(week)
	_, err := u.fleet.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, key, values...)
		p.Expire(ctx, key, (usageWeeks+1)*7*24*time.Hour)
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep sums: %w", err)
	}
	return nil
}
