package xds_test

import (
	"io"
	"net/http"
	"testing"
)

func TestEnvoyAcceptsTheSnapshot(t *testing.T) {
	g := startGate(t, nil)
	waitFor(t, "an acknowledgement of everything", g.server.Synced)
	if n := g.counts.rejected.Load(); n != 0 {
		t.Errorf("envoy rejected %d resources: %s", n, g.log)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+g.envoy.Ingress+"/registry/v1/abns/53004085616", nil)
	req.Header.Set("authorization", "Bearer good")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	t.Log(resp.Status, resp.Header, string(b), g.up.drain(), g.authz.drain())
}
