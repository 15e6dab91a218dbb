package control_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/control"
	"github.com/dspgate/dspgate/control/client"
	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/registrytest"
)

// heard is one server-sent event.
type heard struct {
	id, name string
	data     live.Shown
}

// ear listens to the stream as somebody.
type ear struct {
	t      *testing.T
	events chan heard
	all    []heard
	stop   context.CancelFunc
}

func (w *world) listen(as, query, after string) *ear {
	w.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w.t.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/v1/events"+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+tokenOf(as))
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	res, err := (&http.Client{}).Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("%d %s", res.StatusCode, res.Header.Get("Content-Type"))
	}
	e := &ear{t: w.t.(*testing.T), events: make(chan heard, 1000), stop: stop}
	go func() {
		defer close(e.events)
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		var h heard
		for lines.Scan() {
			field, value, _ := strings.Cut(lines.Text(), ": ")
			switch field {
			case "id":
				h.id = value
			case "event":
				h.name = value
			case "data":
				if json.Unmarshal([]byte(value), &h.data) != nil {
					h.name = "unreadable"
				}
			case "":
				if h.name != "" {
					e.events <- h
				}
				h = heard{}
			}
		}
	}()
	return e
}

// hears waits for an event with a text; what came before is kept in all.
func (e *ear) hears(topic live.Topic, text string) heard {
	e.t.Helper()
	for end := time.After(60 * time.Second); ; {
		select {
		case h, ok := <-e.events:
			if !ok {
				e.t.Fatalf("the stream ended before %q", text)
			}
			e.all = append(e.all, h)
			if h.name == string(topic) && strings.Contains(h.data.Text+string(h.data.Data), text) {
				return h
			}
		case <-end:
			e.t.Fatalf("never heard %q, but %+v", text, e.all)
		}
	}
}

func (e *ear) never(texts ...string) {
	e.t.Helper()
	for _, h := range e.all {
		for _, s := range texts {
			if strings.Contains(h.data.Text+string(h.data.Data), s) {
				e.t.Errorf("heard %q: %s %s", s, h.name, h.data.Data)
			}
		}
	}
}

// TestEventsByWhoMaySeeThem: staff hear all, an entity of its own, in words that
// name nobody of the agency; and whoever comes back goes on where it was.
func TestEventsByWhoMaySeeThem(t *testing.T) {
	w := newWorld(t)
	op, watt, kooka := w.listen(operator, "", ""), w.listen(wattlebird, "", ""), w.listen(kookaburra, "", "")
	var x incidentRef
	w.call(wattlebird, "POST", "/v1/incidents", report(nil)).data(t, 201, &x)
	op.hears(live.Incident, x.ID)
	watt.hears(live.Incident, "Signing key on a paste site")
	// The feed looks from when it is first watched on.
	go func() {
		for t.Context().Err() == nil {
			now := time.Now()
			w.calls.Add(authz.Record{ID: authz.NewIDs().Next(now), At: registry.At(now), ProductID: "FP-1001", Reason: authz.VersionBlocked, Sidecar: "sidecar-1"})
			time.Sleep(20 * time.Millisecond)
		}
	}()
	op.hears(live.Decision, "version-blocked")
	op.hears(live.Decisions, `"version-blocked":`)
	watt.hears(live.Decision, "version-blocked")
	w.call(operator, "POST", "/v1/suspensions", `{"subject":{"kind":"product","id":"FP-1003"},"reason":"for a test"}`).data(t, 201, nil)
	op.hears(live.Suspension, operator)
	last := kooka.hears(live.Suspension, "for a test")
	kooka.never("FP-1001", operator, "sidecar", x.ID, "calls allowed")
	watt.never("FP-1003", operator, "sidecar-1", "calls allowed")

	kooka.stop()
	var s struct{ ID string }
	w.call(operator, "POST", "/v1/suspensions", `{"subject":{"kind":"client-app","id":"fp-1003-prod"},"reason":"while away"}`).data(t, 201, &s)
	back := w.listen(kookaburra, "?topics=suspension", last.id)
	back.hears(live.Suspension, "while away")
	back.never("for a test", "gap")

	var latest []live.Shown
	w.call(kookaburra, "GET", "/v1/events/latest?limit=100", nil).data(t, 200, &latest)
	if len(latest) != 2 || !strings.Contains(latest[0].Text, "while away") {
		t.Errorf("latest: %+v", latest)
	}
	w.call(operator, "GET", "/v1/events/latest?topics=nonsense", nil).refused(t, 422, "invalid")
	w.call(operator, "GET", "/v1/events?topics=nonsense", nil).refused(t, 422, "invalid")
	w.call(nobody, "GET", "/v1/events", nil).refused(t, 401, "unauthenticated")
	for range live.PerActor {
		w.listen(auditor, "", "")
	}
	w.call(auditor, "GET", "/v1/events", nil).refused(t, 503, "unavailable")
}

// TestSidecarEvents: one that lapses, and comes back.
func TestSidecarEvents(t *testing.T) {
	w := newWorld(t)
	op := w.listen(operator, "?topics=sidecar", "")
	go func() { // over and over, as nobody knows when the feed looks first
		for away := time.Second; t.Context().Err() == nil; away *= 2 { // longer on a busy machine
			w.sidecar.Set(registrytest.Fault{Refused: true})
			time.Sleep(away)
			w.sidecar.Set(registrytest.Fault{})
			time.Sleep(away / 2)
		}
	}()
	op.hears(live.Sidecar, "lapsed")
	op.hears(live.Sidecar, "serves again")
}

// TestSignalEvents: those told since somebody listens, once each, to staff and
// to the owner of the product.
func TestSignalEvents(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	told := []anomaly.Signal{{Subject: anomaly.Subject{Kind: anomaly.Product, ID: "FP-1001"}, Name: anomaly.SignalRequests, At: now.Add(-time.Hour), Value: 7, P: 0.001, Reasons: []string{"old"}}}
	looked := 0
	feed := control.Feed{Hub: w.hub, Register: w.reg, Every: 5 * time.Millisecond, Signals: func(context.Context, int) ([]anomaly.Signal, error) {
		looked++
		if looked == 10 {
			told = append([]anomaly.Signal{{Subject: anomaly.Subject{Kind: anomaly.ClientApp, ID: "fp-1003-prod"}, Name: anomaly.SignalPersons, At: now, Value: 900, P: 1e-6, Newcomer: true, Reasons: []string{"new"}}}, told...)
		}
		return told, nil
	}}
	op, kooka, watt := w.listen(operator, "?topics=signal", ""), w.listen(kookaburra, "", ""), w.listen(wattlebird, "", "")
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); feed.Run(ctx) }()
	op.hears(live.Signal, "different people a minute")
	kooka.hears(live.Signal, `"newcomer":true`)
	stop()
	<-done
	op.never("old")
	w.hub.Publish(live.Event{Topic: live.Suspension, Text: "end", Data: json.RawMessage("{}"), OwnText: "end", OwnData: json.RawMessage("{}"), Everybody: true})
	watt.hears(live.Suspension, "end")
	watt.never("fp-1003-prod")
}

// TestFollow: the client hears the stream, and is told of a refusal.
func TestFollow(t *testing.T) {
	w := newWorld(t)
	follow := func(token string, f func(client.Event) error) error {
		c, err := client.New(w.url, token)
		if err != nil {
			t.Fatal(err)
		}
		return c.Follow(t.Context(), []string{"sidecar"}, f)
	}
	heard := make(chan struct{})
	go func() {
		for { // until it listens
			select {
			case <-heard:
				return
			case <-time.After(5 * time.Millisecond):
				w.hub.Publish(live.Event{Topic: live.Sidecar, Text: "lapsed", Data: json.RawMessage("{}")})
			}
		}
	}()
	err := follow(tokenOf(operator), func(e client.Event) error {
		if e.Text == "lapsed" && e.Topic == "sidecar" {
			return io.EOF
		}
		return nil
	})
	close(heard)
	if err != io.EOF {
		t.Errorf("ended by %v", err)
	}
	if err := follow("no such token", func(client.Event) error { return nil }); err == nil {
		t.Error("a refusal is not told")
	}
}
