// Package outbox sends what the workflows have to tell people and programs:
// mail and webhooks, queued in the same commit as what they tell of.
//
// A message that was queued is never lost: it is casework, and stays queued
// until a Courier took it or its time is over. It is sent at least once; its ID
// is the same every time, so that who gets it twice can tell. Only the control
// plane that writes sends.
package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"net/url"
	"strings"
	"time"

	"github.com/dspgate/dspgate/internal/identifier"
	"github.com/dspgate/dspgate/registry"
)

// Means is how a message travels.
type Means string

// The means.
const (
	Mail    Means = "mail"    // To is an address (RFC 5322), Body plain text
	Webhook Means = "webhook" // To is an https URL, Body a JSON document
)

// State is where a message is.
type State string

// The states.
const (
	Queued State = "queued"
	Sent   State = "sent"
	Failed State = "failed" // refused for good, or for three days
)

// Message is one message to one recipient.
type Message struct {
	ID      string `json:"id"`
	Means   Means  `json:"means"`
	To      string `json:"to"`
	Subject string `json:"subject"` // of a webhook: the event's type, such as incident.raised
	Body    string `json:"body"`
	// About is the case it tells of: "incident/INC-12".
	About    string        `json:"about"`
	Drill    bool          `json:"drill,omitempty"` // kept and shown, sent to nobody outside
	State    State         `json:"state"`
	QueuedAt registry.Time `json:"queued_at"`
	NextAt   registry.Time `json:"next_at,omitempty"`
	SentAt   registry.Time `json:"sent_at,omitempty"`
	Attempts int           `json:"attempts,omitempty"`
	Error    string        `json:"error,omitempty"` // of the last attempt
}

// CaseKind is message.
func (Message) CaseKind() registry.CaseKind { return "message" }

// CaseKeys: messages are found by state, by what they are about, and while
// queued by when they are due.
func (m Message) CaseKeys(add func(index, value string)) {
	add("state", string(m.State))
	add("about", m.About)
	if m.State == Queued {
		add("next", dueKey(m.NextAt))
	}
}

// dueKey sorts as the instants do.
func dueKey(t registry.Time) string { return fmt.Sprintf("%019d", int64(t)) }

const (
	bodyBytesMax    = 64 << 10
	subjectBytesMax = 300
	errorBytesMax   = 300
	giveUpAfter     = 72 * time.Hour
	retryFirst      = 30 * time.Second
	retryMax        = 6 * time.Hour
	batchMax        = 64
	deliverTimeout  = 30 * time.Second
)

// Put queues a message as part of a change. n tells the messages of one change
// apart.
func Put(t *registry.Tx, n int, m Message) error {
	if err := check(&m); err != nil {
		return err
	}
	m.ID = fmt.Sprintf("M-%d-%d", t.Revision(), n)
	m.State, m.QueuedAt, m.NextAt = Queued, t.Now(), t.Now()
	if m.Drill {
		m.State, m.NextAt = Sent, 0
		m.Error = "a drill: sent to nobody"
	}
	return registry.CreateCase(t, m.ID, m)
}

func check(m *Message) error {
	switch m.Means {
	case Mail:
		if a, err := mail.ParseAddress(m.To); err != nil || a.Address != m.To {
			return registry.Field("/to", "%q is no mail address such as dev@wattlebird.example", cut(m.To, 80))
		}
	case Webhook:
		u, err := url.Parse(m.To)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return registry.Field("/to", "%q is no https URL without a user name", cut(m.To, 80))
		}
	default:
		return registry.Field("/means", "use mail or webhook")
	}
	if m.Subject == "" || len(m.Subject) > subjectBytesMax || strings.ContainsAny(m.Subject, "\r\n\x00") {
		return registry.Field("/subject", "needs one line of at most %d bytes", subjectBytesMax)
	}
	if len(m.Body) > bodyBytesMax {
		return registry.Field("/body", "at most %d bytes", bodyBytesMax)
	}
	if identifier.HoldsTFN(m.Subject) || m.Means == Mail && identifier.HoldsTFN(m.Body) {
		return registry.Field("/body", "holds what looks like a tax file number; nobody is sent one")
	}
	return nil
}

// ErrPermanent: sending it again will not help.
var ErrPermanent = errors.New("refused for good")

// Courier delivers messages of one means. The context bounds one delivery. An
// error that wraps ErrPermanent ends the message.
type Courier interface {
	Deliver(ctx context.Context, m *Message) error
}

// Worker sends what is queued.
type Worker struct {
	Register *registry.Register
	Couriers map[Means]Courier
	Log      *slog.Logger
	// Every is how often it looks. Default 1 s.
	Every time.Duration
	// Now is the clock; default time.Now.
	Now func() time.Time
}

// actor commits what became of the messages.
var actor = registry.Actor{Name: "outbox", Permissions: registry.PermOperator}

// Run sends until ctx ends.
func (w *Worker) Run(ctx context.Context) error {
	now := w.Now
	if now == nil {
		now = time.Now
	}
	tick := time.NewTicker(cmp.Or(w.Every, time.Second))
	defer tick.Stop()
	for {
		if w.Register.Writing() {
			if err := w.Once(ctx, registry.At(now())); err != nil && ctx.Err() == nil {
				w.Log.WarnContext(ctx, "messages not sent", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Once sends what is due at an instant.
func (w *Worker) Once(ctx context.Context, now registry.Time) error {
	book, err := w.Register.Casebook()
	if err != nil {
		return err
	}
	ids, _ := book.Find(registry.Query{Kind: "message", Where: []registry.Where{{Index: "next"}}, To: dueKey(now + 1), Limit: batchMax})
	for _, id := range ids {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c, err := registry.CaseOf[Message](book, id)
		if err != nil {
			return err
		}
		if err := w.send(ctx, &c.Body, now); err != nil {
			return fmt.Errorf("message %s: %w", id, err)
		}
	}
	return nil
}

// send delivers one message and commits what became of it.
func (w *Worker) send(ctx context.Context, m *Message, now registry.Time) error {
	courier := w.Couriers[m.Means]
	failed := errors.New("no courier for " + string(m.Means) + " is configured")
	if courier != nil {
		dctx, cancel := context.WithTimeout(ctx, deliverTimeout)
		failed = courier.Deliver(dctx, m)
		cancel()
		if ctx.Err() != nil && failed != nil {
			return ctx.Err() // we are stopping: it was not the recipient
		}
	}
	// What happened outlives a stop.
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err := w.Register.Do(cctx, actor, "message.send", "", func(t *registry.Tx) error {
		c, err := registry.TxCase[Message](t, m.ID)
		if err != nil {
			return err
		}
		x := c.Body
		if x.State != Queued {
			t.Keep(m.ID, c.Revision)
			return nil
		}
		x.settle(failed, now)
		return registry.PutCase(t, m.ID, x)
	})
	return err
}

// settle says what became of an attempt.
func (m *Message) settle(failed error, now registry.Time) {
	m.Attempts++
	m.NextAt, m.Error = 0, ""
	switch {
	case failed == nil:
		m.State, m.SentAt = Sent, now
		return
	case errors.Is(failed, ErrPermanent), now-m.QueuedAt >= ms(giveUpAfter):
		m.State = Failed
	default:
		m.NextAt = now + ms(min(retryFirst<<min(m.Attempts-1, 20), retryMax))
	}
	// A server's words may hold anything.
	m.Error = strings.ToValidUTF8(strings.Map(printable, cut(failed.Error(), errorBytesMax)), "")
	if identifier.HoldsTFN(m.Error) {
		m.Error = "refused, with a text that cannot be kept"
	}
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return ' '
	}
	return r
}

func ms(d time.Duration) registry.Time { return registry.Time(d / time.Millisecond) }

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}
