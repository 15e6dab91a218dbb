package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dspgate/dspgate/control/live"
	"github.com/dspgate/dspgate/registry"
)

// paper is a response that is written while it is read.
type paper struct {
	*httptest.ResponseRecorder
	mu sync.Mutex
}

func (p *paper) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ResponseRecorder.Write(b)
}

func (p *paper) read() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.Body.String()
}

// TestHeartbeat: a stream in which nothing happens still shows that it is there,
// text cannot end an event, and the stream ends with its time.
func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{live: live.NewHub(), log: slog.New(slog.DiscardHandler)}
		l, err := s.live.Listen(registry.Actor{Name: "op", Permissions: registry.PermOperator}, nil, "gone")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), live.For)
		defer cancel()
		p := &paper{ResponseRecorder: httptest.NewRecorder()}
		c := &call{w: &recorder{ResponseWriter: p}, r: httptest.NewRequestWithContext(ctx, "GET", "/v1/events", nil)}
		ended := make(chan struct{})
		go func() { defer close(ended); s.stream(c, l) }()
		time.Sleep(heartbeatEvery + time.Second)
		s.live.Publish(live.Event{Topic: live.Incident, Text: "one\n\nevent: two\r\n", Data: json.RawMessage(`{}`)})
		synctest.Wait()
		got := p.read()
		for _, text := range []string{": still here\n\n", "event: gap\ndata: {\"reason\":\"restarted\"}\n\n", `one\n\nevent: two\r\n`} {
			if !strings.Contains(got, text) {
				t.Errorf("no %q in %q", text, got)
			}
		}
		if strings.Count(got, "\nevent: ") != 2 {
			t.Errorf("a text made an event: %q", got)
		}
		time.Sleep(live.For)
		<-ended
	})
}
