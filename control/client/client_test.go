package client_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/control/client"
)

func TestATokenIsSentOnlyWhereItIsSafe(t *testing.T) {
	for address, ok := range map[string]bool{
		"https://control.example": true, "https://control.example/base/": true, "http://127.0.0.1:8080": true, "http://[::1]:8080": true, "http://localhost": true, "http://evte.localhost": true,
		"http://control.example": false, "http://127.0.0.1.example": false, "http://localhost.example": false, "http://10.0.0.1": false, "http://0.0.0.0": false,
		"ftp://control.example": false, "control.example": false, "": false, "https://user:pass@control.example": false, "https://control.example?x": false, "https://control.example#x": false,
	} {
		if _, err := client.New(address, "t"); (err == nil) != ok || err != nil && !errors.Is(err, client.ErrAddress) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestARedirectDoesNotTakeTheTokenElsewhere(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed the redirect") }))
	defer elsewhere.Close()
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer srv.Close()
	c, err := client.New(srv.URL, "t")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Me(t.Context()); err == nil || !strings.Contains(err.Error(), "is this its address?") {
		t.Errorf("%v", err)
	}
}

func TestACancelledCallEndsAtOnce(t *testing.T) {
	c, err := client.New("http://127.0.0.1:1", "t")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Me(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestPathsAreEscaped(t *testing.T) {
	if got := client.Path("token-denials", "kid:https://x/:a b/../c?d#e", "lift"); got != "/v1/token-denials/kid:https:%2F%2Fx%2F:a%20b%2F..%2Fc%3Fd%23e/lift" {
		t.Error(got)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(200, `{"data":{"name":"x"}}`)
	f.Add(503, `{"errors":[{"id":"r","code":"not-durable","detail":"d","meta":{"data":{}}}]}`)
	f.Add(404, `{"errors":[]}`)
	f.Add(200, `<html>`)
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 || status == http.StatusServiceUnavailable {
			return // 503 is sent again after a pause
		}
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		defer srv.Close()
		c, err := client.New(srv.URL, "t")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Me(t.Context()); err == nil && status > 299 {
			t.Errorf("status %d taken for success", status)
		}
	})
}
