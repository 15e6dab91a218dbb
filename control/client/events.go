package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
)

// Event is something that happened, or a gap where something is missing.
type Event struct {
	ID    string          `json:"id,omitempty"`
	Topic string          `json:"topic"` // or gap
	At    registry.Time   `json:"at"`
	Text  string          `json:"text"`
	Data  json.RawMessage `json:"data,omitempty"`
}

// silenceMax is for how long a stream may say nothing, heartbeats included.
const silenceMax = 45 * time.Second

// Follow calls f with every event from now on, until ctx ends or f fails. A
// stream that ends or breaks off is gone on with where it was.
func (c *Client) Follow(ctx context.Context, topics []string, f func(Event) error) error {
	last, pause := "", pauseFirst
	for {
		heard := last
		err := c.followOnce(ctx, topics, &last, f)
		var refused *Error
		var own *stopError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &own):
			return own.error
		case errors.As(err, &refused) && refused.Status != 0 && refused.Status < http.StatusInternalServerError:
			return err
		}
		if last != heard {
			pause = pauseFirst
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, pauseMax)
	}
}

// stopError is an error of the caller's own.
type stopError struct{ error }

func (c *Client) followOnce(ctx context.Context, topics []string, last *string, f func(Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := Request{Path: "/v1/events", After: *last}
	if len(topics) > 0 {
		r.Query = url.Values{"topics": {strings.Join(topics, ",")}}
	}
	res, err := c.open(ctx, r, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	quiet := time.AfterFunc(silenceMax, cancel)
	defer quiet.Stop()
	lines := bufio.NewScanner(res.Body)
	lines.Buffer(make([]byte, 0, 64<<10), lineBytesMax)
	var id, name string
	var data []byte
	for lines.Scan() {
		quiet.Reset(silenceMax)
		field, value, _ := bytes.Cut(lines.Bytes(), []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			id = string(value)
		case "event":
			name = string(value)
		case "data":
			data = append(data[:0], value...)
		case "":
			if len(lines.Bytes()) > 0 || name == "" {
				continue // a comment
			}
			e, err := eventOf(name, data)
			if err != nil {
				return err
			}
			if err := f(e); err != nil {
				return &stopError{err}
			}
			if id != "" {
				*last = id
			}
			id, name, data = "", "", data[:0]
		}
	}
	return lines.Err()
}

func eventOf(name string, data []byte) (e Event, err error) {
	if name != "gap" {
		return e, json.Unmarshal(data, &e)
	}
	e = Event{Topic: name, At: registry.At(time.Now()), Data: append(json.RawMessage{}, data...)}
	var gap struct {
		Missed *uint64
		Reason string
	}
	if err := json.Unmarshal(data, &gap); err != nil {
		return e, err
	}
	e.Text = "events are missing here (" + gap.Reason + ")"
	return e, nil
}
