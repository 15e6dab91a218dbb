package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheCommandsOfAssuranceSendWhatTheySay(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	threats := file("threats.json", `[{"title":"a","scenario":"b","likelihood":"low","impact":"high","treatment":"accept"}]`)
	p := newPlane(t, map[string][]string{
		"POST /v1/threat-analyses":                       {`201 {"data":{"id":"TA-1"}}`},
		"GET /v1/entities/65000000101/signals":           {`200 {"data":[{"kind":"contact-shared","say":"Another entity gave the same contact.","others":["86000000303"]}],"_meta":{"page":1,"limit":100,"total_items":1,"total_pages":1}}`},
		"POST /v1/products/FP-1001/reports":              {`201 {"data":{"id":"RP-1"}}`},
		"GET /v1/reports":                                {`200 {"data":[{"id":"RP-1","product_id":"FP-1001","results":[{"outcome":"pass"},{"outcome":"fail"},{"outcome":"pass"}],"findings":["FN-1"]}],"_meta":{"page":1,"limit":100,"total_items":1,"total_pages":1}}`},
		"GET /v1/products/FP-1001/risk":                  {`200 {"data":{"model":"m","score":12,"level":"low","unknown":1,"contributions":[{"input":"open_findings","title":"x","value":3,"points":8,"because":"Several findings are open."}]}}`},
		"PUT /v1/products/FP-1001/ecosystem/answers/E.1": {`200 {"data":{"mark":"pass"}}`},
		"POST /v1/editions":                              {`201 {"data":{"id":"catalogue-2027.1"}}`},
		"GET /v1/editions/catalogue-2027.1/affected":     {`200 {"data":[{"product_id":"FP-1001","abn":"65000000101","state":"Whitelisted","name":"Pay","reopens":[{"requirement":"OSF-AUD"},{"requirement":"OSF-SRC"}]}],"_meta":{"page":1,"limit":100,"total_items":1,"total_pages":1}}`},
		"POST /v1/editions/catalogue-2027.1/publish":     {`200 {"data":{"id":"catalogue-2027.1","state":"published"}}`},
	})
	env := map[string]string{"DSPGATE_URL": p.URL, "DSPGATE_TOKEN": "t0"}
	for _, c := range []struct{ line, want string }{
		{"threat-analysis submit FP-1001 --title x --scope y --threats " + threats + " -o json", `"TA-1"`},
		{"entity signals 65000000101", "contact-shared\t\t86000000303\tAnother entity gave the same contact."},
		{"report run FP-1001 --endpoint https://api.product.example/ -o json", `"RP-1"`},
		{"report list", "RP-1\tFP-1001\t\t\t2 pass, 1 fail\tFN-1"},
		{"product risk FP-1001", "8\topen_findings\t3\tSeveral findings are open."},
		{"product risk FP-1001 -o json", `"score": 12`},
		{"ecosystem answer FP-1001 E.1 --value yes -o json", `"mark": "pass"`},
		{"edition draft " + filepath.Join(dir, "c.yaml") + " " + filepath.Join(dir, "q.yaml"), ""},
		{"edition propose-catalogue --catalogue " + filepath.Join(dir, "c.yaml") + " --questionnaire " + filepath.Join(dir, "q.yaml") + " -o json", `"catalogue-2027.1"`},
		{"edition affected catalogue-2027.1", "FP-1001\t65000000101\tPay\tWhitelisted\t\tOSF-AUD,OSF-SRC"},
		{"edition publish catalogue-2027.1 -o json", `"published"`},
	} {
		code, stdout, stderr := p.dspgate(t, env, strings.Fields(c.line)...)
		if code != 0 || !strings.Contains(stdout, c.want) {
			t.Errorf("%s: exit %d, %q %s", c.line, code, stdout, stderr)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := map[string]string{}
	for _, s := range p.got {
		sent[s.Line] = s.Body
	}
	if got := sent["POST /v1/threat-analyses"]; !strings.Contains(got, `"threats":[{`) || !strings.Contains(got, `"product_id":"FP-1001"`) {
		t.Errorf("threats sent: %s", got)
	}
	if got := sent["POST /v1/editions"]; !strings.Contains(got, `"of":"catalogue"`) || !strings.Contains(got, "OSF-AUD") || !strings.Contains(got, "self-certification") {
		t.Errorf("edition sent: %.200s", got)
	}
}
