package anomaly

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"
)

// Link is how sidecars and the fleet's watcher reach each other.
type Link interface {
	// Send hands over a report. An error means that it may not have arrived.
	Send(ctx context.Context, r *Report) error
	// Marks are those the watcher posted last.
	Marks(ctx context.Context) ([]Mark, error)
}

// Reporter sends what a Collector counts, and posts what the watcher answers on
// a Board. Nothing waits for it: with the link cut, counts gather, marks run
// out, and decisions go on.
type Reporter struct {
	Collector *Collector
	Board     *Board
	Link      Link
	// Sidecar names this sidecar to the watcher.
	Sidecar string
	// Every is how often a report is sent. Default 10s.
	Every time.Duration
	// Look is how often marks are fetched. Default 2s.
	Look time.Duration
	Log  *slog.Logger

	failures atomic.Uint64
}

// Failures is how many exchanges failed.
func (r *Reporter) Failures() uint64 { return r.failures.Load() }

// reportSubjects is how many subjects go into one report.
const reportSubjects = 1024

// Run reports until ctx ends, and then once more.
func (r *Reporter) Run(ctx context.Context) {
	if r.Log == nil {
		r.Log = slog.New(slog.DiscardHandler)
	}
	send := time.NewTicker(cmp.Or(r.Every, 10*time.Second))
	defer send.Stop()
	look := time.NewTicker(cmp.Or(r.Look, 2*time.Second))
	defer look.Stop()
	from := time.Now()
	failing := false
	tell := func(what string, err error) {
		if err != nil {
			r.failures.Add(1)
		}
		if now := err != nil; now != failing {
			if failing = now; failing {
				r.Log.WarnContext(ctx, "the fleet's watcher is out of reach; decisions go on without it", "doing", what, "err", err)
			} else {
				r.Log.InfoContext(ctx, "the fleet's watcher is in reach again")
			}
		}
	}
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = r.report(last, from) // what is lost here is some seconds' counts
			return
		case <-send.C:
			err := r.report(ctx, from)
			tell("report", err)
			if err == nil {
				from = time.Now()
			}
		case <-look.C:
			marks, err := r.Link.Marks(ctx)
			tell("fetch marks", err)
			if err == nil {
				r.Board.Post(marks)
			}
		}
	}
}

// report sends what was counted, in pieces; what cannot be sent is put back.
func (r *Reporter) report(ctx context.Context, from time.Time) error {
	taken, fields := r.Collector.Take(), r.Collector.TakeFields()
	pieces := slices.Collect(slices.Chunk(taken, reportSubjects))
	if len(pieces) == 0 {
		pieces = [][]SubjectTally{nil} // that there was nothing is worth saying
	}
	for i, piece := range pieces {
		err := r.Link.Send(ctx, &Report{
			Sidecar: r.Sidecar, From: from.Unix(), Seconds: uint32(min(time.Since(from)/time.Second, 86400)), Subjects: piece, Fields: fields,
		})
		if err != nil {
			r.Collector.PutBackFields(fields)
			for _, left := range pieces[i:] {
				r.Collector.PutBack(left)
			}
			return err
		}
		fields = nil // they go with the first piece
	}
	return nil
}
