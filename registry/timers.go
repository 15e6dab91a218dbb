package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Due is an instant at which something is to happen to a case.
type Due struct {
	What string `json:"what"` // e.g. annual-review; unique within the case
	At   Time   `json:"at"`
}

// Dated is a CaseBody with due-dates. They are data of the case: whoever changes
// the case changes them, in the same commit, and no other record of them exists.
type Dated interface {
	CaseDues() []Due
}

// FireFunc plans what happens to a case when one of its due-dates has come. It
// must write the case such that this due-date stands in it no more: that is
// what makes it happen once.
type FireFunc func(t *Tx, id string, d Due) error

// TimersActor is who commands what happens by itself.
func TimersActor() Actor { return Actor{Name: "timer"} }

// Bounds of the timers.
const (
	timersIdle     = time.Second // longest sleep: a wall clock may be set, and another case may be due sooner
	timersBatch    = 64          // cases fired at once
	timersRetryMin = time.Second
	timersRetryMax = 5 * time.Minute
)

// dueIndex is the index by which due-dates are found; no type of casework has one
// of that name.
const dueIndex = "@due"

// dueValue sorts as the instants do.
func dueValue(d Due) string { return fmt.Sprintf("%016x %s", uint64(d.At), d.What) }

func parseDue(value string) (Due, bool) {
	at, what, ok := strings.Cut(value, " ")
	n, err := strconv.ParseUint(at, 16, 63)
	return Due{What: what, At: Time(n)}, ok && err == nil
}

// RunTimers fires the due-dates of casework while this control plane is the
// writer, until ctx ends: each in one commit, the oldest first. What came due
// while nobody ran is fired then. A due-date whose FireFunc fails is tried
// again later; the others do not wait for it.
//
// Nothing fires twice: the commit that fires is planned on the case as it
// stands, takes the due-date out of it, and is refused when another revision
// came between. A writer killed before that commit has fired nothing, and one
// killed after it leaves a case in which nothing is due.
func (r *Register) RunTimers(ctx context.Context, fire map[CaseKind]FireFunc) {
	later := map[string]timerRetry{} // by kind, ID and value
	for ctx.Err() == nil {
		changed := r.CasebookChanged()
		due, next := r.dues(fire, later)
		if len(due) > 0 {
			r.fireAll(ctx, fire, due, later)
			continue
		}
		sleep := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-sleep.C:
		}
		sleep.Stop()
	}
}

// FireDue fires once what is due now, and tells how many due-dates that were.
// RunTimers does so by itself; this is for whoever cannot wait for it.
func (r *Register) FireDue(ctx context.Context, fire map[CaseKind]FireFunc) (int, error) {
	due, _ := r.dues(fire, nil)
	later := map[string]timerRetry{}
	r.fireAll(ctx, fire, due, later)
	if len(later) > 0 {
		return len(due) - len(later), fmt.Errorf("%w: %d due-dates were not fired", ErrUnavailable, len(later))
	}
	return len(due), nil
}

type timerRetry struct {
	at    time.Time
	pause time.Duration
}

// dueCase is one due-date of one case.
type dueCase struct {
	kind CaseKind
	id   string
	due  Due
}

func (d *dueCase) key() string { return string(d.kind) + "/" + d.id + " " + dueValue(d.due) }

// dues finds what is due now, at most one for each case and timersBatch in all,
// and how long nothing else will be.
func (r *Register) dues(fire map[CaseKind]FireFunc, later map[string]timerRetry) (due []dueCase, next time.Duration) {
	next = timersIdle
	book, err := r.Casebook()
	if err != nil || !r.Writing() {
		return nil, next
	}
	now := r.cfg.Now()
	kinds := make([]CaseKind, 0, len(fire))
	for kind := range fire {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	for _, kind := range kinds {
		taken := map[string]bool{}
		prefix := book.codes.of(string(kind), dueIndex)
		for c := book.keys.from(prefix); c.next(); {
			rest, ok := strings.CutPrefix(string(c.key), prefix)
			value, id, _ := strings.Cut(rest, "\x00")
			d, parsed := parseDue(value)
			if !ok || !parsed || len(due) == timersBatch {
				break
			}
			if until := d.At.Std().Sub(now); until > 0 {
				next = min(next, until)
				break
			}
			x := dueCase{kind: kind, id: id, due: d}
			if retry, failed := later[x.key()]; failed && now.Before(retry.at) {
				next = min(next, retry.at.Sub(now))
				continue
			}
			if !taken[id] {
				taken[id] = true
				due = append(due, x)
			}
		}
	}
	return due, max(next, time.Millisecond)
}

// fireAll fires due-dates of different cases, side by side: the writer commits
// them together.
func (r *Register) fireAll(ctx context.Context, fire map[CaseKind]FireFunc, due []dueCase, later map[string]timerRetry) {
	errs := make([]error, len(due))
	var wg sync.WaitGroup
	for i := range due {
		wg.Go(func() { errs[i] = r.fireOne(ctx, fire[due[i].kind], &due[i]) })
	}
	wg.Wait()
	for i, err := range errs {
		key := due[i].key()
		switch {
		case err == nil, errors.Is(err, ErrNotDurable): // committed
			delete(later, key)
		case ctx.Err() != nil:
		default:
			pause := min(max(2*later[key].pause, timersRetryMin), timersRetryMax)
			later[key] = timerRetry{r.cfg.Now().Add(pause), pause}
			r.cfg.Log.WarnContext(ctx, "due-date not fired, tried again later", "case", string(due[i].kind)+"/"+due[i].id, "due", due[i].due.What, "err", err)
		}
	}
}

func (r *Register) fireOne(ctx context.Context, fire FireFunc, x *dueCase) error {
	_, err := r.Do(ctx, TimersActor(), "timer."+x.due.What, "", func(t *Tx) error {
		book, err := t.Casebook()
		if err != nil {
			return err
		}
		stands := book.indexKey(string(x.kind), dueIndex, dueValue(x.due), x.id)
		if !book.keys.has(stands) {
			e := book.entry(x.kind, x.id)
			t.Keep(x.id, e.Revision) // somebody was sooner
			return nil
		}
		if err := fire(t, x.id, x.due); err != nil {
			return err
		}
		return x.settled(t, book)
	})
	return err
}

// settled refuses a firing that leaves the due-date where it was: it would fire
// for ever.
func (x *dueCase) settled(t *Tx, book *Casebook) error {
	for i := range t.cases {
		c := &t.cases[i]
		if c.Kind != x.kind || c.ID != x.id {
			continue
		}
		left := false
		err := book.types[c.Kind].keys(c.Data, func(index, value string) {
			left = left || index == dueIndex && value == dueValue(x.due)
		})
		if err != nil || !left {
			return err
		}
	}
	return fmt.Errorf("the due-date %s of %s %s was fired and still stands", x.due.What, x.kind, x.id)
}
