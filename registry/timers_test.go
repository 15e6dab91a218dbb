package registry_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// chore is casework with due-dates.
type chore struct {
	Dues []registry.Due `json:"dues"`
	Done []string       `json:"done"`
}

func (chore) CaseKind() registry.CaseKind { return "chore" }
func (c chore) CaseDues() []registry.Due  { return c.Dues }

// fire does a chore: it notes when, and takes the due-date out.
func fireChore(t *registry.Tx, id string, d registry.Due) error {
	c, err := registry.TxCase[chore](t, id)
	if err != nil {
		return err
	}
	c.Body.Dues = slices.DeleteFunc(c.Body.Dues, func(x registry.Due) bool { return x == d })
	c.Body.Done = append(c.Body.Done, fmt.Sprintf("%s of %s at %s", d.What, d.At, t.Now()))
	return registry.PutCase(t, id, c.Body)
}

// choreRegister runs a control plane with timers; stop ends it as a kill does for
// whoever looks from outside: nothing more happens.
func choreRegister(t *testing.T, store registrytest.Store, holder string, fire registry.FireFunc) (r *registry.Register, stop func()) {
	t.Helper()
	m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: holder, Observer: true, Clock: monotonic()})
	r = registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{
		Holder: holder, ClaimTTL: 2 * time.Second, Cases: []registry.CaseType{registry.CaseTypeOf[chore]()},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = m.Run(ctx) })
	wg.Go(func() { _ = r.Run(ctx) })
	if fire != nil {
		wg.Go(func() { r.RunTimers(ctx, map[registry.CaseKind]registry.FireFunc{"chore": fire}) })
	}
	return r, func() { cancel(); wg.Wait() }
}

// monotonic counts on package time's clock, which is the bubble's.
func monotonic() func() time.Duration {
	began := time.Now()
	return func() time.Duration { return time.Since(began) }
}

func putChore(t *testing.T, r *registry.Register, id string, dues ...registry.Due) {
	t.Helper()
	_, err := r.Do(context.Background(), registrar, "chore.put", "", func(tx *registry.Tx) error {
		return registry.PutCase(tx, id, chore{Dues: dues})
	})
	if err != nil {
		t.Fatal(err)
	}
}

func done(t *testing.T, r *registry.Register, id string) []string {
	t.Helper()
	book, err := r.Casebook()
	if err != nil {
		t.Fatal(err)
	}
	c, err := registry.CaseOf[chore](book, id)
	if err != nil {
		t.Fatal(err)
	}
	return c.Body.Done
}

func TestTimersFireAtTheirInstantOnceAndCatchUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		r, stop := choreRegister(t, store, "one", fireChore)
		time.Sleep(10 * time.Second)
		in := func(d time.Duration) registry.Time { return registry.At(time.Now().Add(d)) }
		first, second, third := in(time.Hour), in(30*24*time.Hour), in(31*24*time.Hour)
		putChore(t, r, "a", registry.Due{What: "remind", At: first}, registry.Due{What: "lapse", At: second})
		putChore(t, r, "b", registry.Due{What: "remind", At: third})
		time.Sleep(time.Hour - time.Second)
		if got := done(t, r, "a"); got != nil {
			t.Errorf("before its instant: %v", got)
		}
		time.Sleep(1100 * time.Millisecond)
		if got, want := done(t, r, "a"), []string{fmt.Sprintf("remind of %s at %s", first, first)}; !slices.Equal(got, want) {
			t.Errorf("at its instant: %v, want %v", got, want)
		}
		stop()

		// Two months without a control plane: what came due meanwhile happens as soon as there is one.
		time.Sleep(60 * 24 * time.Hour)
		r, stop = choreRegister(t, store, "two", fireChore)
		defer stop()
		time.Sleep(10 * time.Second)
		for id, want := range map[string]int{"a": 2, "b": 1} {
			if got := done(t, r, id); len(got) != want {
				t.Errorf("%s after the downtime: %v", id, got)
			}
		}
		time.Sleep(48 * time.Hour)
		if got := done(t, r, "a"); len(got) != 2 || !strings.HasPrefix(got[1], "lapse of "+second.String()) {
			t.Errorf("two days later: %v", got)
		}
	})
}

func TestOfTwoControlPlanesOnlyTheWriterFiresAndNothingTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		a, stopA := choreRegister(t, store, "one", fireChore)
		time.Sleep(5 * time.Second)
		b, stopB := choreRegister(t, store, "two", fireChore)
		defer stopB()
		time.Sleep(5 * time.Second)
		const n = 200
		at := registry.At(time.Now().Add(time.Minute))
		for i := range n {
			putChore(t, a, fmt.Sprint(i), registry.Due{What: "x", At: at})
		}
		time.Sleep(time.Minute)
		stopA() // in the middle of it, for all that is known
		time.Sleep(time.Minute)
		for i := range n {
			if got := done(t, b, fmt.Sprint(i)); len(got) != 1 {
				t.Errorf("chore %d was done %d times: %v", i, len(got), got)
			}
		}
	})
}

func TestADueDateThatFailsHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		var mu sync.Mutex
		tries := 0
		r, stop := choreRegister(t, store, "one", func(tx *registry.Tx, id string, d registry.Due) error {
			switch id {
			case "fails":
				mu.Lock()
				defer mu.Unlock()
				if tries++; tries < 4 {
					return errors.New("not now")
				}
			case "forgets": // a fault in the code: it leaves the due-date where it was
				return registry.PutCase(tx, id, chore{Dues: []registry.Due{d}, Done: []string{"again"}})
			}
			return fireChore(tx, id, d)
		})
		defer stop()
		time.Sleep(5 * time.Second)
		at := registry.At(time.Now().Add(time.Second))
		for _, id := range []string{"fails", "forgets", "works"} {
			putChore(t, r, id, registry.Due{What: "x", At: at})
		}
		time.Sleep(1100 * time.Millisecond)
		if got := done(t, r, "works"); len(got) != 1 {
			t.Errorf("what works waited: %v", got)
		}
		time.Sleep(10 * time.Minute)
		if got := done(t, r, "fails"); len(got) != 1 {
			t.Errorf("what failed at first: %v", got)
		}
		if got := done(t, r, "forgets"); got != nil {
			t.Errorf("a firing that settles nothing was committed: %v", got)
		}
	})
}
