package accesslog

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dspgate/dspgate/authz"
	"github.com/dspgate/dspgate/registry"
)

// wholeLine is one as Envoy wrote it.
const wholeLine = `{"abn":"31000000202","bytes_in":0,"bytes_out":377,"decision_id":"01M817TGW90000SR9EMQAXSFAE","duration_ms":9,"environment":"PROD","flags":"-",` +
	`"method":"GET","product_id":"FP-1003","product_version":null,"protocol":"HTTP/1.1","reason":"ok","refused_product":null,"request_id":"2198a95e-f135-4f09-953b-2deb7f7a46e3",` +
	`"revision":"1","service":"piitr.get","sidecar":null,"software_id":"0000300001","start_time":"2026-11-22T09:01:33.442Z","status":200,"subject_hash":"6e599fb8725fd7f2ebaec26c31f5dfb0"}`

func TestALineReads(t *testing.T) {
	c, err := ParseLine([]byte(wholeLine))
	if err != nil {
		t.Fatal(err)
	}
	if c.Product != "FP-1003" || c.SSID != "0000300001" || c.Service != "piitr.get" || c.Method != "GET" || c.Status != 200 || c.BytesOut != 377 ||
		c.Reason != authz.OK || c.Holder != 31000000202 || c.Environment != registry.PROD || c.Duration != 9*time.Millisecond ||
		c.Decision.String() != "01M817TGW90000SR9EMQAXSFAE" || c.Subject[0] != 0x6e || !c.At.Equal(time.Date(2026, 11, 22, 9, 1, 33, 442e6, time.UTC)) {
		t.Errorf("%+v", c)
	}
	refused := strings.NewReplacer(`"ok"`, `"certification-expired"`, `"FP-1003"`, `null`, `"31000000202"`, `null`, `"environment":"PROD"`, `"environment":null`, `"software_id":"0000300001"`, `"software_id":null`, `"refused_product":null`, `"refused_abn":"65000000101","refused_environment":"EVTE","refused_product":"FP-1011","refused_software_id":"0000123400","refused_version":"1.0"`, `200`, `"403"`).Replace(wholeLine)
	if c, err = ParseLine([]byte(refused)); err != nil || c.Product != "FP-1011" || c.Reason != authz.CertificationExpired || c.Status != 403 ||
		c.Holder != 65000000101 || c.Environment != registry.EVTE || c.SSID != "0000123400" || c.Version != "1.0" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestABadLineNamesWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct{ from, to, says string }{
		"cut short":        {wholeLine, wholeLine[:100], "ends too early"},
		"no JSON":          {wholeLine, "GET / HTTP/1.1", "not JSON"},
		"two values":       {wholeLine, wholeLine + "{}", "more than one"},
		"a list":           {wholeLine, "[]", "belongs there"},
		"no time":          {`"2026-11-22T09:01:33.442Z"`, "null", "start_time"},
		"no status":        {`"status":200`, `"state":200`, "status"},
		"another reason":   {`"ok"`, `"fine"`, "reason"},
		"a short decision": {"01M817TGW90000SR9EMQAXSFAE", "01M8", "decision_id"},
		"a long decision":  {"01M817TGW90000SR9EMQAXSFAE", "01M817TGW90000SR9EMQAXSFAEE", "decision_id"},
		"no ABN":           {"31000000202", "31000000203", "abn"},
		"no environment":   {"PROD", "HERE", "environment"},
		"a text's number":  {`"service":"piitr.get"`, `"service":7`, "service"},
		"too long":         {`"FP-1003"`, `"` + strings.Repeat("x", LineMax) + `"`, "at most"},
	} {
		_, err := ParseLine([]byte(strings.Replace(wholeLine, c.from, c.to, 1)))
		if !errors.Is(err, ErrLine) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want one that says %q", name, err, c.says)
		}
	}
	// What stands in a line is never repeated: it may be a tax file number.
	if _, err := ParseLine([]byte(`{"start_time":"220115957"}`)); err == nil || strings.Contains(err.Error(), "220115957") {
		t.Errorf("error %v", err)
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add([]byte(wholeLine))
	f.Add([]byte(`{}`))
	f.Add([]byte(`{"status":"7","start_time":"2026-11-22T09:01:33Z","bytes_out":99999999999999999999}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseLine(b)
		if err != nil && (!errors.Is(err, ErrLine) || c != nil) {
			t.Errorf("%+v, %v", c, err)
		}
	})
}
