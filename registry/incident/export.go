package incident

import (
	"bytes"
	"encoding/json"
	"strings"
)

// exported is the JSON that the agency's own incident process is given: the
// event's type as Standard Webhooks has it, and the incident.
func exported(x *Incident, what string) (string, error) {
	exposure := x.Exposure
	exposure.SSIDs = exposure.SSIDs[:min(len(exposure.SSIDs), 100)]
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(struct {
		Type string `json:"type"`
		At   string `json:"timestamp"`
		Data any    `json:"data"`
	}{"incident." + what, x.Timeline[len(x.Timeline)-1].At.String(), exportView{
		ID: x.ID, State: x.State, Drill: x.Drill, Type: x.Type, Level: x.Level, Title: x.Title, Entity: x.Entity.String(),
		OccurredAt: x.OccurredAt.String(), AwareAt: x.AwareAt.String(), ReportedAt: x.ReportedAt.String(),
		Subjects: x.Subjects, Exposure: exposure, Owner: x.Owner, Containment: x.Containment, Cause: shorten(x.Cause), Done: shorten(x.Done),
	}})
	return b.String(), err
}

// exportView leaves the narrative and the indicators out: they are fetched by
// who may see them. A message is at most 64 KiB.
type exportView struct {
	ID          string   `json:"id"`
	State       State    `json:"state"`
	Drill       bool     `json:"drill"`
	Type        Type     `json:"type"`
	Level       Level    `json:"level,omitempty"`
	Title       string   `json:"title"`
	Entity      string   `json:"entity,omitempty"`
	OccurredAt  string   `json:"occurred_at,omitempty"`
	AwareAt     string   `json:"aware_at,omitempty"`
	ReportedAt  string   `json:"reported_at"`
	Subjects    any      `json:"subjects,omitempty"`
	Exposure    Exposure `json:"exposure"`
	Owner       string   `json:"owner,omitempty"`
	Containment []string `json:"containment,omitempty"`
	Cause       string   `json:"cause,omitempty"`
	Done        string   `json:"done,omitempty"`
}

func shorten(s string) string {
	if len(s) > 4000 {
		return strings.ToValidUTF8(s[:4000], "") + "…"
	}
	return s
}
