package incident

import (
	"fmt"
	"strings"
	"text/template"
	"time"
)

// Message is a notice of an incident to one recipient, as it would be sent.
type Message struct {
	To      Audience `json:"to"`
	Subject string   `json:"subject"`
	Body    string   `json:"body"` // plain text
}

// Notices writes messages. What a template can say is a Shared, so that no
// wording can tell a recipient more than the matrix does.
type Notices struct {
	byAudience map[Audience]*template.Template
}

// NewNotices parses the wording; nil takes the built-in one. A template gets a
// Shared as .Incident, the advice as .Advice and the entity's name as .From.
func NewNotices(wording map[Audience]string) (*Notices, error) {
	n := &Notices{byAudience: map[Audience]*template.Template{}}
	for _, a := range Audiences() {
		if a == Staff || a == Public {
			continue // staff see the incident, the public sees the register
		}
		text, ok := wording[a]
		if !ok {
			text = builtIn[a]
		}
		t, err := template.New(string(a)).Option("missingkey=error").Funcs(template.FuncMap{"local": local, "list": func(s []string) string { return strings.Join(s, ", ") }}).Parse(text)
		if err != nil {
			return nil, fmt.Errorf("notice to %s: %w", a, err)
		}
		n.byAudience[a] = t
	}
	return n, nil
}

// Preview writes the notice that a recipient would get; false when it may get
// none.
func (n *Notices) Preview(x *Incident, to Recipient) (Message, bool, error) {
	t := n.byAudience[to.Audience]
	shared, ok := x.For(to)
	if t == nil || !ok {
		return Message{}, false, nil
	}
	var b strings.Builder
	err := t.Execute(&b, struct {
		Incident Shared
		Advice   []string
	}{shared, Advice(x.Type, to.Audience)})
	if err != nil {
		return Message{}, false, fmt.Errorf("notice to %s: %w", to.Audience, err)
	}
	subject, body, _ := strings.Cut(strings.TrimSpace(b.String()), "\n")
	if x.Drill {
		subject = "DRILL – " + subject
		body = "This is a drill. Nothing has happened.\n" + body
	}
	return Message{To: to.Audience, Subject: subject, Body: strings.TrimSpace(body) + "\n"}, true, nil
}

// Advice is what a recipient can do about a type of incident, in plain words.
func Advice(t Type, to Audience) []string {
	switch to {
	case Entity:
		out := []string{"Keep all logs from a week before the event on; do not change or delete them.", "Tell us of anything new in stages; do not wait until you know everything."}
		switch t {
		case CredentialCompromise:
			out = append([]string{"Revoke the credential and issue another; rotate every secret that was kept beside it."}, out...)
		case Malware, UnauthorisedAccess:
			out = append([]string{"Cut the machines concerned off the network, and leave them switched on."}, out...)
		case Vulnerability:
			out = append([]string{"Say which versions are affected and when a corrected one will be out."}, out...)
		}
		return out
	case Chain:
		return []string{"Look for the indicators above in your own logs of the last 30 days.", "Tell us within 24 hours if you find one."}
	case Intermediary:
		return []string{"Watch your clients' accounts for lodgments and changes of details that you did not make.", "Your clients are told as well."}
	case User:
		return []string{"Watch for messages that use your details; do not follow links in them.", "Look at what was lodged for you in the last weeks, and tell us of anything you do not know.", "You need not do anything else now."}
	}
	return nil
}

// local is an instant in words that need no conversion.
func local(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.UTC().Format("2 January 2006 15:04 UTC")
}

var builtIn = map[Audience]string{
	Entity: `Incident {{.Incident.ID}}{{with .Incident.Products}}: {{list .}}{{end}}
An incident that concerns your software is {{.Incident.State}}: {{.Incident.Type}}{{with .Incident.Level}}, level {{.}}{{end}}.
It happened at {{local .Incident.OccurredAt.Std}}.
{{with .Incident.SSIDs}}Your subscriptions concerned: {{list .}}.
{{end}}{{with .Incident.Indicators}}Indicators:
{{range .}}  {{.Kind}} {{.Value}}
{{end}}{{end}}
What to do:
{{range .Advice}}- {{.}}
{{end}}`,
	Chain: `Incident {{.Incident.ID}} in a chain you are part of{{with .Incident.Products}}: {{list .}}{{end}}
An incident in a product that you help to deliver, or are connected to, is {{.Incident.State}}: {{.Incident.Type}}.
{{with .Incident.SSIDs}}Your subscriptions concerned: {{list .}}.
{{end}}{{with .Incident.Indicators}}Indicators:
{{range .}}  {{.Kind}} {{.Value}}
{{end}}{{end}}
What to do:
{{range .Advice}}- {{.}}
{{end}}`,
	Intermediary: `Notice about software your clients use{{with .Incident.Products}}: {{list .}}{{end}}
There is an incident in software that some of your clients use. It is {{.Incident.State}}.

What to do:
{{range .Advice}}- {{.}}
{{end}}`,
	User: `Notice about software you use{{with .Incident.Products}}: {{list .}}{{end}}
There is an incident in software that you use. It is {{.Incident.State}}.
{{with .Incident.SSIDs}}It concerns your connection {{list .}}.
{{end}}
What to do:
{{range .Advice}}- {{.}}
{{end}}`,
}
