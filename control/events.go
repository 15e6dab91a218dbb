package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/registry"
)

// The stream of events, as server-sent events (WHATWG HTML, 9.2).

func (s *server) eventRoutes() []route {
	return []route{
		get("/v1/events", "follow-events", "What happens, as it happens: server-sent events named by their topic; a developer's are its own entity's. "+
			"A stream ends after ten minutes: go on with Last-Event-ID. An event named gap says how many were missed, and why.", s.followEvents).streams().filters("topics").missing().tells("events"),
		get("/v1/events/latest", "list-events", "The latest events that you may see, the newest first.", s.latestEvents).listsPlain(live.Shown{}).filters("topics").missing().tells("events"),
	}
}

// Bounds on a stream.
const (
	heartbeatEvery  = 15 * time.Second
	eventWriteMax   = 10 * time.Second // who takes nothing for as long has gone
	eventsShown     = 200
	lastEventIDName = "Last-Event-ID"
)

var (
	errNoEvents    = fmt.Errorf("%w: this control plane tells no events", registry.ErrNotFound)
	errManyFollow  = fmt.Errorf("%w: %w", errBusy, live.ErrFull)
	eventHeartbeat = []byte(": still here\n\n")
)

// topics reads which topics are wanted; none: all.
func (c *call) topics() (out []live.Topic, err error) {
	text, ok := c.filter("topics")
	if !ok {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		t := live.Topic(word)
		if !slices.Contains(live.Topics(), t) {
			return nil, wrongParam("topics", "use some of %s, separated by commas", strings.Trim(fmt.Sprint(live.Topics()), "[]"))
		}
		out = append(out, t)
	}
	return out, nil
}

func (s *server) latestEvents(c *call) (answer, error) {
	topics, err := c.topics()
	if err != nil {
		return answer{}, err
	}
	if s.live == nil {
		return answer{}, errNoEvents
	}
	return paged(c, s.live.Latest(c.actor, topics, eventsShown), nil, func(e live.Shown) any { return e })
}

// followEvents writes events until the caller goes, the time is over or the
// control plane ends.
func (s *server) followEvents(c *call) (answer, error) {
	topics, err := c.topics()
	if err != nil {
		return answer{}, err
	}
	if s.live == nil {
		return answer{}, errNoEvents
	}
	l, err := s.live.Listen(c.actor, topics, c.r.Header.Get(lastEventIDName))
	if errors.Is(err, live.ErrFull) {
		return answer{}, errManyFollow
	}
	if err != nil {
		return answer{}, err
	}
	defer l.Stop()
	if err := s.noteReadingOf(c, "events"); err != nil {
		return answer{}, err
	}
	c.release() // the hub bounds how many listen
	c.began = time.Now()
	h := c.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // a proxy in between must not wait for more
	c.w.WriteHeader(http.StatusOK)
	if c.r.Method == http.MethodHead {
		return answer{}, nil
	}
	s.stream(c, l)
	return answer{}, nil
}

func (s *server) stream(c *call, l *live.Listener) {
	w := &eventWriter{w: c.w, rc: http.NewResponseController(c.w)}
	defer func() { _ = w.rc.SetWriteDeadline(time.Time{}) }() // the connection may be used again
	w.text("retry: 2000\n\n")
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	for w.err == nil {
		w.flush()
		select {
		case <-c.r.Context().Done():
			return
		case <-l.Over():
			return
		case <-beat.C:
			w.text(string(eventHeartbeat))
		case <-l.Wake():
			before, events, after := l.Take()
			w.gap(before)
			for i := range events {
				w.event(&events[i])
			}
			w.gap(after)
		}
	}
}

// eventWriter writes server-sent events until one write fails.
type eventWriter struct {
	w   http.ResponseWriter
	rc  *http.ResponseController
	err error
}

func (w *eventWriter) text(s string) {
	if w.err != nil {
		return
	}
	// Not every writer has a deadline; those that serve people have.
	if err := w.rc.SetWriteDeadline(time.Now().Add(eventWriteMax)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		w.err = err
		return
	}
	_, w.err = w.w.Write([]byte(s))
}

func (w *eventWriter) flush() {
	if w.err == nil {
		w.err = w.rc.Flush()
	}
}

// one writes one event. JSON has no line breaks, so that nothing in it can end
// the event or begin another.
func (w *eventWriter) one(id, name string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		w.err = err
		return
	}
	if id != "" {
		w.text("id: " + id + "\n")
	}
	w.text("event: " + name + "\ndata: " + string(b) + "\n\n")
}

func (w *eventWriter) event(e *live.Shown) { w.one(e.ID, string(e.Topic), e) }

func (w *eventWriter) gap(g *live.Gap) {
	if g != nil {
		w.one("", "gap", g)
	}
}
