package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/outbox"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// post is a courier that is told what to answer, and remembers.
type post struct {
	answer func(n int, m *outbox.Message) error
	got    []string
}

func (p *post) Deliver(_ context.Context, m *outbox.Message) error {
	p.got = append(p.got, m.ID+" "+m.To)
	return p.answer(len(p.got), m)
}

// inBubble runs a control plane that keeps messages, in synthetic time.
func inBubble(t *testing.T, p *post, f func(t *testing.T, r *registry.Register, w *outbox.Worker, store *registrytest.Memory)) {
	synctest.Test(t, func(t *testing.T) {
		store := registrytest.NewMemory()
		began := time.Now()
		m := registry.NewMirror(store, registrytest.Sealer(t), registry.MirrorConfig{ID: "c", Observer: true, Clock: func() time.Duration { return time.Since(began) }})
		r := registry.NewRegister(store, m, registrytest.Sealer(t), registry.RegisterConfig{Holder: "c", Cases: []registry.CaseType{registry.CaseTypeOf[outbox.Message]()}})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = m.Run(ctx) })
		wg.Go(func() { _ = r.Run(ctx) })
		synctest.Wait()
		w := &outbox.Worker{Register: r, Couriers: map[outbox.Means]outbox.Courier{outbox.Mail: p}, Log: slog.New(slog.DiscardHandler), Every: 10 * time.Second}
		f(t, r, w, store)
		cancel()
		wg.Wait()
	})
}

var registrar = registry.Actor{Name: "registrar", Permissions: registry.PermRegistrar}

func queue(t *testing.T, r *registry.Register, all ...outbox.Message) registry.Outcome {
	t.Helper()
	out, err := r.Do(t.Context(), registrar, "test.tell", "", func(tx *registry.Tx) error {
		for i, m := range all {
			if err := outbox.Put(tx, i, m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func mailTo(to string) outbox.Message {
	return outbox.Message{Means: outbox.Mail, To: to, Subject: "hello", Body: "text", About: "incident/INC-1"}
}

func stored(t *testing.T, r *registry.Register, id string) outbox.Message {
	t.Helper()
	book, err := r.Casebook()
	if err != nil {
		t.Fatal(err)
	}
	c, err := registry.CaseOf[outbox.Message](book, id)
	if err != nil {
		t.Fatal(err)
	}
	return c.Body
}

// TestAMessageIsTriedUntilItIsTaken: through a server that is down for a day,
// and a restart of the worker.
func TestAMessageIsTriedUntilItIsTaken(t *testing.T) {
	var up time.Time
	p := &post{answer: func(int, *outbox.Message) error {
		if time.Now().Before(up) {
			return errors.New("451 try later\r\nX-Evil: 1")
		}
		return nil
	}}
	inBubble(t, p, func(t *testing.T, r *registry.Register, w *outbox.Worker, _ *registrytest.Memory) {
		up = time.Now().Add(24 * time.Hour)
		out := queue(t, r, mailTo("a@wattlebird.example"))
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), 9*time.Hour)
			_ = w.Run(ctx)
			cancel()
		}
		m := stored(t, r, out.ID)
		if m.State != outbox.Sent || m.Error != "" || m.SentAt < registry.At(up) || m.Attempts != len(p.got) {
			t.Errorf("%+v after %d attempts", m, len(p.got))
		}
		// 30 s, 1 min, 2 min … 6 h: a server that is down is not hammered.
		if n := len(p.got); n < 5 || n > 16 {
			t.Errorf("%d attempts in 27 hours", n)
		}
		for _, g := range p.got {
			if g != out.ID+" a@wattlebird.example" {
				t.Errorf("sent as %q", g)
			}
		}
	})
}

func TestAMessageRefusedForGoodOrForThreeDaysFails(t *testing.T) {
	p := &post{answer: func(_ int, m *outbox.Message) error {
		if m.To == "gone@galah.example" {
			return fmt.Errorf("550 no such user 220115957: %w", outbox.ErrPermanent)
		}
		return errors.New("timeout\x1b[2J")
	}}
	inBubble(t, p, func(t *testing.T, r *registry.Register, w *outbox.Worker, _ *registrytest.Memory) {
		gone := queue(t, r, mailTo("gone@galah.example"))
		down := queue(t, r, mailTo("down@galah.example"))
		ctx, cancel := context.WithTimeout(t.Context(), 80*time.Hour)
		defer cancel()
		_ = w.Run(ctx)
		if m := stored(t, r, gone.ID); m.State != outbox.Failed || m.Attempts != 1 || strings.Contains(m.Error, "220115957") || m.Error == "" {
			t.Errorf("refused for good: %+v", m)
		}
		if m := stored(t, r, down.ID); m.State != outbox.Failed || m.Attempts < 10 || m.Error != "timeout [2J" {
			t.Errorf("refused for three days: %+v", m)
		}
		n := len(p.got)
		if err := w.Once(t.Context(), registry.At(time.Now().Add(100*time.Hour))); err != nil || len(p.got) != n {
			t.Errorf("a failed message is sent again: %v", err)
		}
	})
}

func TestOneThatHangsHoldsUpNothingForLong(t *testing.T) {
	p := &post{answer: func(int, *outbox.Message) error { return nil }}
	inBubble(t, p, func(t *testing.T, r *registry.Register, w *outbox.Worker, _ *registrytest.Memory) {
		w.Couriers[outbox.Webhook] = hanging{}
		queue(t, r, outbox.Message{Means: outbox.Webhook, To: "https://hooks.example/x", Subject: "incident.raised", Body: "{}", About: "a"}, mailTo("a@b.example"))
		if err := w.Once(t.Context(), registry.At(time.Now())); err != nil || len(p.got) != 1 {
			t.Errorf("%v; sent %v", err, p.got)
		}
	})
}

type hanging struct{}

func (hanging) Deliver(ctx context.Context, _ *outbox.Message) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestADrillReachesNobody(t *testing.T) {
	p := &post{answer: func(int, *outbox.Message) error { return nil }}
	inBubble(t, p, func(t *testing.T, r *registry.Register, w *outbox.Worker, _ *registrytest.Memory) {
		drill := mailTo("a@b.example")
		drill.Drill = true
		out := queue(t, r, drill)
		if err := w.Once(t.Context(), registry.At(time.Now())); err != nil || len(p.got) != 0 {
			t.Errorf("%v; sent %v", err, p.got)
		}
		if m := stored(t, r, out.ID); m.State != outbox.Sent || m.Error == "" {
			t.Errorf("%+v", m)
		}
	})
}

func TestWhatCannotBeSentIsNotQueued(t *testing.T) {
	p := &post{}
	inBubble(t, p, func(t *testing.T, r *registry.Register, _ *outbox.Worker, store *registrytest.Memory) {
		head := store.Head().Revision
		for field, spoil := range map[string]func(*outbox.Message){
			"/to":      func(m *outbox.Message) { m.To = "a@b.example\r\nBcc: c@d.example" },
			"/to ":     func(m *outbox.Message) { m.Means, m.To = outbox.Webhook, "http://b.example" },
			"/to  ":    func(m *outbox.Message) { m.Means, m.To = outbox.Webhook, "https://user:pw@b.example" },
			"/means":   func(m *outbox.Message) { m.Means = "pigeon" },
			"/subject": func(m *outbox.Message) { m.Subject = "a\nBcc: c@d.example" },
			"/body":    func(m *outbox.Message) { m.Body = strings.Repeat("x", 65<<10) },
			"/body ":   func(m *outbox.Message) { m.Body = "your number is 220 115 957" },
		} {
			m := mailTo("a@b.example")
			spoil(&m)
			_, err := r.Do(t.Context(), registrar, "test.tell", "", func(tx *registry.Tx) error { return outbox.Put(tx, 0, m) })
			var f *registry.FieldError
			if !errors.As(err, &f) || f.Field != strings.TrimSpace(field) {
				t.Errorf("%s: %v", field, err)
			}
		}
		if store.Head().Revision != head {
			t.Error("something was committed")
		}
	})
}
