package client

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync/atomic"
	"testing"
)

// TestFollowGoesOn: a stream that breaks off, and a control plane that is away
// for a moment, are gone on from, and a gap is told.
func TestFollowGoesOn(t *testing.T) {
	var calls atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		event := func(id, text string) {
			fmt.Fprintf(w, "id: %s\nevent: incident\ndata: {\"id\":%q,\"topic\":\"incident\",\"text\":%q}\n\n", id, id, text)
		}
		switch n := calls.Add(1); n {
		case 1:
			fmt.Fprint(w, "retry: 2000\n\n: still here\n\n")
			event("a", "first")
			fmt.Fprint(w, "id: b\nevent: incident\ndata: {\"text\":\"half") // broken off in the middle
		case 2:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			if last := r.Header.Get("Last-Event-ID"); last != "a" {
				t.Errorf("goes on after %q", last)
			}
			fmt.Fprint(w, "event: gap\ndata: {\"missed\":3,\"reason\":\"slow\"}\n\n")
			event("b", "second")
		}
	}))
	defer srv.Close()
	c, err := New(srv.URL, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var got []string
	err = c.Follow(ctx, nil, func(e Event) error {
		if got = append(got, e.Topic+" "+e.Text); e.Text == "second" {
			stop()
		}
		return nil
	})
	if want := []string{"incident first", "gap events are missing here (slow)", "incident second"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%v: %q", err, got)
	}
}
