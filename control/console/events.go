package console

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/registry"
)

// What happens now: the latest events, and the stream of those that follow.

type eventsPage struct {
	frame
	Items  []eventRow
	Topics []topicChoice
	Stream string // where it goes on
}

type eventRow struct {
	live.Shown
	Link string
}

type topicChoice struct {
	Value, Name string
	Chosen      bool
}

var topicNames = map[live.Topic]string{
	live.Incident: "Incidents", live.Signal: "Signals", live.Suspension: "Suspensions", live.Decision: "Calls", live.Decisions: "Counts of calls", live.Sidecar: "Sidecars",
}

func eventPages(mine func(string, func(*visit) error)) {
	mine("GET /console/live", (*visit).live)
	mine("GET /console/live/stream", (*visit).liveStream)
}

// topics are those chosen in the form, by their names; none: all but the counts
// and the roll, which say nothing to a developer.
func (v *visit) topics() (out []live.Topic) {
	for _, t := range live.Topics() {
		if slices.Contains(v.r.URL.Query()["topic"], string(t)) {
			out = append(out, t)
		}
	}
	return out
}

func (v *visit) live() error {
	chosen := v.topics()
	p := eventsPage{frame: v.frame("Live"), Stream: "/console/live/stream?" + v.r.URL.RawQuery}
	for _, t := range []live.Topic{live.Incident, live.Signal, live.Suspension, live.Decision, live.Decisions, live.Sidecar} {
		if !v.person.Actor.Staff() && (t == live.Decisions || t == live.Sidecar) {
			continue
		}
		p.Topics = append(p.Topics, topicChoice{string(t), topicNames[t], len(chosen) == 0 || slices.Contains(chosen, t)})
	}
	var items []live.Shown
	if _, err := v.get(&items, "/v1/events/latest", "topics", joined(chosen), "limit", "50"); err != nil {
		return err
	}
	for _, e := range items {
		p.Items = append(p.Items, eventRow{e, v.eventLink(&e)})
	}
	return v.show(http.StatusOK, "live", p)
}

func joined(topics []live.Topic) string {
	words := make([]string, len(topics))
	for i, t := range topics {
		words[i] = string(t)
	}
	return strings.Join(words, ",")
}

// eventLink is the page about what an event tells of.
func (v *visit) eventLink(e *live.Shown) string {
	var about struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(e.Data, &about); err != nil {
		return ""
	}
	switch e.Topic {
	case live.Incident:
		return local("incidents", about.ID)
	case live.Suspension:
		return local("suspensions", about.ID)
	case live.Decision:
		return local("decisions", about.ID)
	case live.Sidecar:
		return "/console/sidecars"
	case live.Signal:
		if mayWatch(v.person.Actor) {
			return "/console/signals"
		}
	}
	return ""
}

// liveStream is the API's stream, as the person. It ends when the API ends it,
// after which the browser asks again and the sign-in is looked at again.
func (v *visit) liveStream() error {
	req, err := v.to(v.r.Context(), request{method: http.MethodGet, path: "/v1/events"})
	if err != nil {
		return err
	}
	if topics := joined(v.topics()); topics != "" {
		req.URL.RawQuery = "topics=" + topics
	}
	if last := v.r.Header.Get("Last-Event-ID"); last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	v.shown = true
	v.c.cfg.API.ServeHTTP(v.w, req)
	return nil
}

// mayFollow: everybody with a permission has something to hear.
func mayFollow(a registry.Actor) bool { return a.Permissions != 0 }
