package controltest

import (
	"net/url"
	"time"
)

// Asked is a question of a questionnaire as the API asks it.
type Asked struct {
	ID, Kind, Mark string
	Answered       bool
	Choices        []struct{ Value string }
}

// Done tells whether the question stands in nothing's way.
func (q *Asked) Done() bool { return q.Mark == "pass" || q.Mark == "warn" && q.Answered }

// Tries are answers of the kind of question, likely ones first.
func (q *Asked) Tries() (all [][]string) {
	switch q.Kind {
	case "yes-no":
		return [][]string{{"yes"}, {"no"}}
	case "number":
		return [][]string{{"12"}, {"24"}, {"0"}, {"1"}, {"100"}}
	case "date":
		return [][]string{{time.Now().AddDate(0, -1, 0).Format(time.DateOnly)}, {time.Now().AddDate(1, 0, 0).Format(time.DateOnly)}}
	case "https-url":
		return [][]string{{"https://api.product.example/"}}
	case "text":
		return [][]string{{"As our handbook says, reviewed each quarter."}}
	}
	var every []string
	for _, c := range q.Choices {
		all = append(all, []string{c.Value})
		every = append(every, c.Value)
	}
	if q.Kind == "choose" {
		all = append(all, every, []string{})
	}
	return all
}

// Answers are the next answers to questions that are not done, by how often each
// was tried, which it counts; what is given stands as it is. Empty when all are done.
func Answers(questions []Asked, evidence []string, tried map[string]int, given map[string]string) map[string]any {
	out := map[string]any{}
	for _, q := range questions {
		v, fixed := given[q.ID]
		switch {
		case fixed && !q.Answered:
			out[q.ID] = map[string]any{"values": []string{v}, "evidence": evidence}
		case fixed || q.Done():
		default:
			all := q.Tries()
			out[q.ID] = map[string]any{"values": all[tried[q.ID]%len(all)], "evidence": evidence}
			tried[q.ID]++
		}
	}
	return out
}

// Evidence is a piece of every type for a product: content by the query that
// submits it.
func Evidence(product string) map[string]string {
	dated := url.Values{"type": {"certificate"}, "issued_at": {time.Now().AddDate(0, -1, 0).UTC().Format(time.RFC3339)}, "expires_at": {time.Now().AddDate(0, 9, 0).UTC().Format(time.RFC3339)}}
	pdf := func(what string) string { return "%PDF-1.7\n" + what + " of " + product + "\n%%EOF\n" }
	return map[string]string{
		dated.Encode(): pdf("certificate"), "type=self-assessment": pdf("workbook"), "type=policy": "policy of " + product, "type=screenshot": "\x89PNG\r\n\x1a\n" + product,
		"type=sample-log": "event time user success", "type=scan-report": "scan of " + product, "type=diagram": pdf("diagram"),
		"type=attestation": "attested for " + product, "type=test-report": "tested " + product,
	}
}
