package control_test

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"
)

// L05: whatever a caller writes, a line of the log stays one line, one JSON
// object, without a control character, and of bounded length; so do the entries
// of the audit log.
func TestL05NothingBreaksOutOfTheLogs(t *testing.T) {
	w := newWorld(t)
	nasty := map[string]string{
		"CRLF": "x\r\n{\"level\":\"ERROR\",\"msg\":\"forged\"}", "ANSI": "\x1b[2J\x1b[31mred", "JSON": `x","msg":"forged","y":"`,
		"NUL": "a\x00b", "not UTF-8": "\xff\xfe", "separators": "a\u2028b\u2029c\u0085d", "long": strings.Repeat("A", 1<<20),
	}
	for name, text := range nasty {
		short := text[:min(len(text), 4000)]
		w.call(operator, "GET", "/v1/products/"+url.PathEscape(short), nil)
		w.call(operator, "GET", "/v1/products?owner="+url.QueryEscape(short)+"&"+url.QueryEscape(short)+"=1", nil)
		w.call(operator, "POST", "/v1/suspensions", map[string]any{"subject": map[string]any{"kind": "product", "id": text}, "reason": text})
		w.call(operator, "POST", "/v1/suspensions", map[string]any{"subject": map[string]any{"kind": "product", "id": "FP-1002"}, "reason": text})
		w.call(operator, "PUT", "/v1/policies/x", map[string]any{"purpose": text, "when": map[string]any{"signals": []string{text}}, "then": map[string]any{"do": text}})
		if name != "CRLF" && name != "NUL" && name != "ANSI" { // net/http sends no such header
			w.call(operator, "GET", "/v1/products", nil, header("User-Agent", short), header("X-Request-Id", short), header("Idempotency-Key", short))
		}
		w.call(wattlebird, "POST", "/v1/incidents", map[string]any{"title": text, "type": text, "description": text})
	}
	lines := strings.Split(strings.TrimSuffix(w.log.String(), "\n"), "\n")
	if len(lines) < 30 {
		t.Fatalf("only %d lines", len(lines))
	}
	for _, line := range lines {
		var entry map[string]any
		dec := json.NewDecoder(strings.NewReader(line))
		if err := dec.Decode(&entry); err != nil || dec.More() {
			t.Fatalf("no JSON object: %.300q", line)
		}
		if entry["msg"] == "forged" || len(line) > 16<<10 || strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 }) {
			t.Errorf("%d bytes: %.300q", len(line), line)
		}
	}
	var entries []map[string]any
	r := w.call(auditor, "GET", "/v1/audit/entries?limit=100", nil)
	r.data(t, 200, &entries)
	if len(entries) == 0 || strings.ContainsAny(r.body, "\x00\x1b\r") || strings.Contains(r.body, "\u2028") {
		t.Errorf("%d entries of the audit log: %.300q", len(entries), r.body)
	}
}
