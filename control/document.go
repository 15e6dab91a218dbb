package control

import (
	"encoding/json"
	"log/slog"
	"net/http"

	"github.com/swaggest/swgui/v5emb"
)

// docsPage is Swagger UI without inline script, so that the content security
// policy can forbid it; everything comes from this server.
const docsPage = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>dspgate control plane API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css"><link rel="icon" href="/docs/assets/favicon-32x32.png">
</head><body><div id="swagger-ui"></div>
<noscript>This page needs JavaScript. The description itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="/docs/assets/swagger-ui-bundle.js"></script><script src="/docs/start.js"></script>
</body></html>
`

const docsStart = `SwaggerUIBundle({url: "/openapi.json", dom_id: "#swagger-ui", deepLinking: true, validatorUrl: null, persistAuthorization: false});
`

const docsPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// documents are what is served besides the API, for everybody.
func (s *server) documents() map[string]map[string]*route {
	assets := v5emb.New("dspgate", "/openapi.json", "/docs/assets")
	one := func(path string, serve func(*call)) map[string]*route {
		return map[string]*route{http.MethodGet: {method: http.MethodGet, path: path, public: true, handle: func(c *call) (answer, error) {
			serve(c)
			return answer{}, nil
		}}}
	}
	docs := map[string]map[string]*route{}
	add := func(path string, serve func(*call)) { docs[path] = one(path, serve) }
	add("/openapi.json", func(c *call) { c.raw("application/json", s.doc.json) })
	add("/docs", func(c *call) {
		c.w.Header().Set("Content-Security-Policy", docsPolicy)
		c.raw("text/html; charset=utf-8", []byte(docsPage))
	})
	add("/docs/start.js", func(c *call) { c.raw("text/javascript; charset=utf-8", []byte(docsStart)) })
	add("/docs/assets/{file}", func(c *call) {
		c.w.Header().Set("Cache-Control", "public, max-age=86400")
		assets.ServeHTTP(c.w, c.r)
	})
	add("/healthz", func(c *call) { c.health(true, []byte(`{"status":"ok"}`)) })
	add("/readyz", func(c *call) {
		err := s.readiness(c)
		if err == nil {
			c.health(true, []byte(`{"status":"ready"}`))
			return
		}
		b, mErr := json.Marshal(map[string]string{"status": "not ready", "detail": err.Error()})
		if mErr != nil { // cannot be: two strings
			b = []byte(`{"status":"not ready"}`)
		}
		c.health(false, b)
	})
	return docs
}

func (s *server) readiness(c *call) error {
	if _, err := s.reg.View(); err != nil {
		return err
	}
	if s.ready != nil {
		return s.ready(c.r.Context())
	}
	return nil
}

// NewHTTPServer makes the server for the API's handler, with every time and
// size bounded. The caller sets Addr, or calls Serve, and shuts it down.
func NewHTTPServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      requestTimeout + readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    headerBytesMax,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}
