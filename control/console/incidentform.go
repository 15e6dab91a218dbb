package console

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/incident"
)

// reportForm is a report as its form shows it: every field as it was typed, so
// that what is wrong comes back as it was.
type reportForm struct {
	Staff bool // may say whom it concerns, who told, and that it is a drill
	First bool // not yet kept
	// Action is where it is sent; Revision what it was made of.
	Action   string
	Revision registry.Revision
	Problem  *problem

	Title, Type, Level, Description, Entity, Channel  string
	ReporterName, ReporterEmail                       string
	Occurred, Aware, Zone                             string
	Records, SSIDs, DataTypes, FileFormat, Indicators string
	TFN, Bank, Identity, Fraud, Taxpayer, Drill       bool
	Subjects                                          []subjectField
	Types                                             []typeChoice
	Levels, Kinds, Channels                           []string
	Zones                                             []zoneChoice
	Now                                               string
}

type subjectField struct {
	N        int
	Kind, ID string
}

type typeChoice struct{ Value, Name, Hint string }

type zoneChoice struct{ Value, Name string }

// zones are where the people are who fill in the form.
var zones = []zoneChoice{
	{"UTC", "UTC"}, {"Australia/Sydney", "Sydney, Melbourne, Canberra, Hobart"}, {"Australia/Brisbane", "Brisbane"}, {"Australia/Adelaide", "Adelaide"},
	{"Australia/Darwin", "Darwin"}, {"Australia/Perth", "Perth"},
}

const inputTime = "2006-01-02T15:04" // of a datetime-local field

var typeHints = map[incident.Type]string{
	incident.CredentialCompromise: "a key, token or machine credential is known to somebody it should not be", incident.UnauthorisedAccess: "somebody got in who should not have",
	incident.MisdirectedDisclosure: "data went to the wrong person", incident.Malware: "malware or ransomware", incident.FraudulentLodgment: "something was lodged that nobody had asked for",
	incident.ThirdPartyBreach: "at a supplier or an add-on", incident.Vulnerability: "a hole that nobody is known to have used", incident.Availability: "the software or the service is down",
}

var reportKinds = []string{"product", "version", "client-app", "subscription", "credential", "entity", "service"}

// fill adds what the form offers to choose from.
func (f *reportForm) fill(v *visit) {
	a := v.person.Actor
	f.Staff = a.Staff()
	for _, t := range incident.Types() {
		f.Types = append(f.Types, typeChoice{string(t), words(string(t)), typeHints[t]})
	}
	for _, l := range incident.Levels() {
		f.Levels = append(f.Levels, string(l))
	}
	f.Kinds, f.Zones = reportKinds, zones
	f.Channels = []string{string(incident.ByConsole), string(incident.ByPhone), string(incident.ByEmail)}
	if f.Zone == "" {
		f.Zone = "UTC"
	}
	f.Now = v.now().UTC().Format("2 January 2006, 15:04 UTC")
	for len(f.Subjects) < 3 || f.Subjects[len(f.Subjects)-1].ID != "" {
		f.Subjects = append(f.Subjects, subjectField{Kind: "product"})
	}
	for i := range f.Subjects {
		f.Subjects[i].N = i
	}
}

func words(s string) string { return strings.ReplaceAll(s, "-", " ") }

// subjectFieldsMax bounds what a form may send.
const subjectFieldsMax = 50

// reportTyped reads the form as it was sent.
func (v *visit) reportTyped() reportForm {
	f := reportForm{
		Title: v.form("title"), Type: v.form("type"), Level: v.form("level"), Description: v.form("description"), Entity: v.form("entity"), Channel: v.form("channel"),
		ReporterName: v.form("reporter-name"), ReporterEmail: v.form("reporter-email"),
		Occurred: v.form("occurred"), Aware: v.form("aware"), Zone: v.form("zone"), Records: v.form("records"), SSIDs: v.form("ssids"), DataTypes: v.form("data-types"),
		FileFormat: v.form("file-format"), Indicators: v.form("indicators"),
		TFN: v.form("tfn") != "", Bank: v.form("bank") != "", Identity: v.form("identity") != "", Fraud: v.form("fraud") != "", Taxpayer: v.form("taxpayer") != "", Drill: v.form("drill") != "",
	}
	for i := range subjectFieldsMax {
		n := strconv.Itoa(i)
		if id := v.form("subject-id-" + n); id != "" {
			f.Subjects = append(f.Subjects, subjectField{Kind: v.form("subject-kind-" + n), ID: id})
		}
	}
	return f
}

// reportOf is the form of what is known.
func reportOf(x *incidentView) reportForm {
	e := &x.Exposure
	f := reportForm{
		Revision: x.Revision, Title: x.Title, Type: string(x.Type), Level: string(x.Level), Description: x.Description, Zone: "UTC",
		Occurred: typedTime(x.OccurredAt), Aware: typedTime(x.AwareAt), SSIDs: strings.Join(e.SSIDs, "\n"), DataTypes: strings.Join(e.DataTypes, ", "), FileFormat: e.FileFormat,
		TFN: e.TFN, Bank: e.Bank, Identity: e.Identity, Fraud: e.Fraud, Taxpayer: e.Taxpayer, Drill: x.Drill,
	}
	if x.Entity != 0 {
		f.Entity = x.Entity.String()
	}
	if e.Records > 0 {
		f.Records = strconv.Itoa(e.Records)
	}
	for _, s := range x.Subjects {
		f.Subjects = append(f.Subjects, subjectField{Kind: s.Kind.String(), ID: s.ID})
	}
	var lines []string
	for _, i := range x.Indicators {
		lines = append(lines, i.Kind+" "+i.Value)
	}
	f.Indicators = strings.Join(lines, "\n")
	return f
}

func typedTime(t registry.Time) string {
	if !t.Set() {
		return ""
	}
	return t.Std().Format(inputTime)
}

// body is what is sent to the API; the problem is what cannot even be sent.
func (f *reportForm) body(first bool) (map[string]any, *problem) {
	b := map[string]any{"title": f.Title, "type": f.Type, "description": f.Description}
	for _, t := range []struct{ field, member, value string }{{"occurred", "occurred_at", f.Occurred}, {"aware", "aware_at", f.Aware}} {
		if t.value == "" {
			continue
		}
		at, err := f.instant(t.value)
		if err != nil {
			return nil, &problem{"Write the time as 2026-11-22T09:30.", t.field}
		}
		b[t.member] = at
	}
	exposure := map[string]any{"tfn": f.TFN, "bank": f.Bank, "identity": f.Identity, "fraud": f.Fraud, "taxpayer": f.Taxpayer, "file_format": f.FileFormat,
		"ssids": list(f.SSIDs), "data_types": split(f.DataTypes, ",\n")}
	if f.Records != "" {
		n, err := strconv.Atoi(f.Records)
		if err != nil || n < 0 {
			return nil, &problem{"Write how many records as a number, or leave it out while nobody knows.", "records"}
		}
		exposure["records"] = n
	}
	b["exposure"] = exposure
	subjects := []map[string]string{}
	for _, s := range f.Subjects {
		if s.ID != "" {
			subjects = append(subjects, map[string]string{"kind": s.Kind, "id": s.ID})
		}
	}
	b["subjects"] = subjects
	indicators := []map[string]string{}
	for _, line := range split(f.Indicators, "\n") {
		kind, value, _ := strings.Cut(line, " ")
		indicators = append(indicators, map[string]string{"kind": strings.TrimSuffix(kind, ":"), "value": strings.TrimSpace(value)})
	}
	b["indicators"] = indicators
	if f.Staff && f.Entity != "" {
		abn, err := registry.ParseABN(f.Entity)
		if err != nil {
			return nil, &problem{"That is no ABN: 11 digits, as in the business register.", "entity"}
		}
		b["entity"] = abn
	}
	if first {
		f.firstOnly(b)
	}
	return b, nil
}

func (f *reportForm) firstOnly(b map[string]any) {
	b["channel"] = string(incident.ByConsole)
	if f.Level != "" {
		b["level"] = f.Level
	}
	if !f.Staff {
		return
	}
	if f.Channel != "" {
		b["channel"] = f.Channel
	}
	if f.Drill {
		b["drill"] = true
	}
	if f.ReporterName != "" || f.ReporterEmail != "" {
		b["reporter"] = map[string]string{"name": f.ReporterName, "email": f.ReporterEmail}
	}
}

func (f *reportForm) instant(s string) (registry.Time, error) {
	zone := time.UTC
	for _, z := range zones {
		if z.Value == f.Zone {
			var err error
			if zone, err = time.LoadLocation(z.Value); err != nil {
				return 0, fmt.Errorf("zone: %w", err)
			}
		}
	}
	for _, layout := range []string{inputTime, "2006-01-02T15:04:05", time.RFC3339} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return registry.At(t), nil
		}
	}
	return 0, fmt.Errorf("no time: %q", s)
}

// list splits by anything between words.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ';' || r == ' ' || r == '\n' || r == '\r' || r == '\t' })
}

func split(s, at string) []string {
	out := []string{}
	for _, one := range strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(at, r) }) {
		if one = strings.TrimSpace(one); one != "" {
			out = append(out, one)
		}
	}
	return out
}

// reportFields are the form's fields by the API's pointers.
func reportField(pointer string) string {
	part, rest, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	switch part {
	case "occurred_at":
		return "occurred"
	case "aware_at":
		return "aware"
	case "subjects":
		n, _, _ := strings.Cut(rest, "/")
		return "subject-id-" + url.PathEscape(n)
	case "exposure":
		return map[string]string{"records": "records", "ssids": "ssids", "data_types": "data-types", "file_format": "file-format"}[strings.Split(rest, "/")[0]]
	case "title", "type", "level", "description", "entity", "indicators", "channel":
		return part
	case "reporter":
		return "reporter-" + rest
	}
	return ""
}
