package control

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dspgate/dspgate/anomaly"
	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/people"
)

// route is one line of the table.
type route struct {
	method, path, id, summary string
	allow                     registry.Permission // any of these; 0: anybody signed in
	public                    bool                // no sign-in
	kind                      registry.Kind       // the record the path names, 404 for those who may not see it
	value                     string              // the path value that names it
	params                    []param
	body                      reflect.Type
	data                      reflect.Type
	list, recorded, creates   bool
	tagged, matches, trims    bool
	optional                  bool // the body may be left out
	peopleOnly, newcomers     bool
	absent                    bool   // 404 though no record is named
	personal                  string // the personal data it shows, for the audit log
	media                     string // the answer is a file of this media type, written by the handler
	upload                    bool   // the body is a file, read by the handler
	stream                    bool   // the answer goes on, written by the handler
	handle                    func(*call) (answer, error)
}

type handler struct {
	body reflect.Type
	call func(*call) (answer, error)
}

// with decodes the body for a handler that takes one.
func with[T any](s *server, h func(*call, *T) (answer, error)) handler {
	return handler{reflect.TypeFor[T](), func(c *call) (answer, error) {
		in := new(T)
		if err := s.doc.decode(c.body, in); err != nil {
			return answer{}, err
		}
		return h(c, in)
	}}
}

func post(path, id, summary string, h handler) route {
	return route{method: http.MethodPost, path: path, id: id, summary: summary, body: h.body, handle: h.call}
}

func put(path, id, summary string, h handler) route {
	return route{method: http.MethodPut, path: path, id: id, summary: summary, body: h.body, handle: h.call, matches: true}
}

func get(path, id, summary string, h func(*call) (answer, error)) route {
	return route{method: http.MethodGet, path: path, id: id, summary: summary, handle: h}
}

func del(path, id, summary string, h func(*call) (answer, error)) route {
	return route{method: http.MethodDelete, path: path, id: id, summary: summary, handle: h, matches: true}
}

func (rt route) gives(v any) route {
	rt.data, rt.recorded, rt.tagged = reflect.TypeOf(v), true, true
	return rt
}

func (rt route) givesPlain(v any) route { rt.data = reflect.TypeOf(v); return rt }

func (rt route) lists(v any) route {
	rt.list, rt.recorded = true, true
	return rt.listsPlain(v)
}

func (rt route) listsPlain(v any) route {
	rt.data, rt.list = reflect.TypeOf(v), true
	return rt.filters("page", "limit")
}

func (rt route) about(kind registry.Kind, value string) route {
	rt.kind, rt.value = kind, value
	return rt
}

func (rt route) by(p registry.Permission) route { rt.allow = p; return rt }
func (rt route) creating() route                { rt.creates = true; return rt }

// lenient: the body may be left out.
func (rt route) lenient() route { rt.optional, rt.matches = true, true; return rt }
func (rt route) open() route    { rt.public = true; return rt }
func (rt route) trimmed() route { rt.trims = true; return rt }

// byPeople: not for programs, whatever their permissions.
func (rt route) byPeople() route { rt.peopleOnly = true; return rt }

// byNewcomers: also for people signed in who belong to no entity yet, who have no
// permission but this: to apply for one.
func (rt route) byNewcomers() route { rt.newcomers = true; return rt }
func (rt route) unmatched() route   { rt.matches = false; return rt }
func (rt route) missing() route     { rt.absent = true; return rt }

// called names the operation otherwise than by its path.
func (rt route) called(id string) route { rt.id = id; return rt }

// matching: If-Match is heeded. optionally: the body may be left out.
func (rt route) matching() route   { rt.matches = true; return rt }
func (rt route) optionally() route { rt.optional = true; return rt }

// sends: the answer is a file, which the handler writes; takes: the body is one,
// which it reads.
func (rt route) sends(media string) route {
	rt.media, rt.data = media, reflect.TypeFor[struct{}]()
	return rt
}

// streams: the answer is a stream of server-sent events, which the handler writes.
func (rt route) streams() route {
	rt.stream = true
	return rt.sends("text/event-stream")
}

func (rt route) takes() route { rt.upload = true; return rt }

// tells: the answer holds personal data; each reading is put on record.
func (rt route) tells(what string) route { rt.personal = what; return rt }

func (rt route) filters(names ...string) route {
	rt.params = slices.Clone(rt.params)
	for _, n := range names {
		rt.params = append(rt.params, params[n])
	}
	return rt
}

func (rt *route) command() bool { return !reads(rt.method) }

func (rt *route) tag() string {
	noun, _, _ := strings.Cut(strings.TrimPrefix(rt.path, "/v1/"), "/")
	return noun
}

func (rt *route) paramNames() string {
	var names []string
	for _, p := range rt.params {
		names = append(names, p.name)
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ", ")
}

func (rt *route) permissionText() string {
	switch {
	case rt.public:
		return "For everybody, without sign-in."
	case rt.peopleOnly:
		return "For: people signed in at the console."
	case rt.allow == 0:
		return "For everybody signed in; a developer sees its own entity only."
	case rt.newcomers:
		return "For: " + strings.Join(permissionWords(rt.allow), ", ") + ". Also for people signed in at the console who belong to no entity."
	}
	return "For: " + strings.Join(permissionWords(rt.allow), ", ") + "."
}

func permissionWords(p registry.Permission) []string {
	return append([]string{}, people.Words(p)...) // [] where there is none, never null
}

// param is a query parameter.
type param struct {
	name, doc string
	schema    func() *huma.Schema
}

func text() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }

func boolean() *huma.Schema { return &huma.Schema{Type: huma.TypeBoolean} }

func number(least, most float64) func() *huma.Schema {
	return func() *huma.Schema {
		return &huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most}
	}
}

var params = map[string]param{
	"page":         {"page", "From 1.", number(1, pageMax)},
	"limit":        {"limit", "Items on a page.", number(1, limitMax)},
	"q":            {"q", "Only with each of these words, or one that begins so, in its name or ID, or its owner's.", text},
	"entry":        {"entry", "Prove that the log holds the entry with this index.", number(0, 1<<53)},
	"size":         {"size", "Prove that the log extends what it was with so many entries.", number(1, 1<<53)},
	"after":        {"after", "Only what is after this revision, or after so many entries.", number(0, 1<<53)},
	"state":        {"state", "Only in this state.", text},
	"name":         {"name", "Only with each of these words, or one that begins so, in the name or ABN.", text},
	"owner":        {"owner", "Only of the entity with this ABN.", abnText("").schema},
	"entity":       {"entity", "Only what the entity with this ABN owns or helps to deliver.", abnText("").schema},
	"abn":          {"abn", "Only of the entity with this ABN.", abnText("").schema},
	"client_abn":   {"client_abn", "Only for the client with this ABN.", abnText("").schema},
	"product_id":   {"product_id", "Only of this product.", text},
	"service":      {"service", "Only of this service.", text},
	"environment":  {"environment", "Only in this environment.", func() *huma.Schema { return environmentText("").Schema(nil) }},
	"kind":         {"kind", "Only of this kind of subject.", func() *huma.Schema { return kindText("").Schema(nil) }},
	"subject":      {"subject", "Only of the subject with this ID.", text},
	"format":       {"format", "csv or json.", oneOf("csv", "json")},
	"dry_run":      {"dry_run", "Enter nothing; report as if.", boolean},
	"from_line":    {"from_line", "Pass over the lines before this one: where an import that broke off goes on.", number(1, 1<<31)},
	"catalogue":    {"catalogue", "The version of the catalogue; default the one in force.", text},
	"subject_kind": {"subject_kind", "Only what is shown for an entity, or for a product.", oneOf("entity", "product")},
	"requirement":  {"requirement", "Only of this requirement.", text},
	"requirements": {"requirements", "The requirements it is for, separated by commas.", text},
	"type":         {"type", "The type of evidence, or of incident.", text},
	"note":         {"note", "A word to the assessor.", text},
	"issued_at":    {"issued_at", "When it was issued, RFC 3339.", text},
	"expires_at":   {"expires_at", "Until when it says that it holds, RFC 3339; needed for certificates and exception letters.", text},
	"of":           {"of", "Only versions of this.", oneOf("catalogue", "terms")},
	"period":       {"period", "Only of this period's draw.", text},
	"severity":     {"severity", "Only of this severity.", oneOf("low", "medium", "high")},
	"overdue":      {"overdue", "Only what is past its due date (true), or not yet (false); the soonest first.", boolean},
	"listed":       {"listed", "Only those that must be listed (yes), or need not be (no).", oneOf("yes", "no")},
	"word":         {"word", "Only with a word that begins so.", text},
	"level":        {"level", "Only of this level.", oneOf("low", "medium", "high")},
	"officer":      {"officer", "Only what this person works on.", text},
	"why":          {"why", "Why; kept in the log.", text},
	"signal":       {"signal", "Only of this signal.", oneOf(signalWords()...)},
	"field":        {"field", "Only where this field is missing.", oneOf(fieldWords()...)},
	"complete":     {"complete", "Only where no field is missing (true), or where some are (false).", oneOf("true", "false")},
	"policy":       {"policy", "Only of this policy.", text},
	"shadow":       {"shadow", "Only of policies in shadow (true), or enforced (false).", oneOf("true", "false")},
	"outcome":      {"outcome", "Only with this outcome.", oneOf("would", "observed", "denied", "throttled", "restricted", "suspended", "already", "asked")},
	"incident":     {"incident", "Only of this incident.", text},
	"live":         {"live", "Only what there is still something to do about (true), or not (false).", oneOf("true", "false")},
	"topics":       {"topics", "Only of these, separated by commas: decision, decisions, signal, incident, suspension, sidecar.", text},
	"about":        {"about", "Only about this case, such as incident/INC-12.", text},
	"clock":        {"clock", "Only what waits for the agency, or for the applicant; what is due first in front.", oneOf("agency", "applicant")},
	"wanted":       {"wanted", "The standard that is to be met.", text},
	"given":        {"given", "The standard that is met already.", text},
	"active":       {"active", "Only what holds now (true), or what does not (false).", boolean},
	"removed":      {"removed", "Only what was taken away (true), or what holds (false, the default).", boolean},
	"issuer":       {"issuer", "Only of this issuer.", text},
	"risk":         {"risk", "Only of this risk rating.", number(0, 4)},
	"wait":         {"wait", "Answer when every sidecar holds the change, or at the timeout.", boolean},
	"timeout":      {"timeout", "How long to wait, at most 5s.", text},
}

// signalWords are the names of the watcher's signals.
func signalWords() (words []any) {
	for _, n := range anomaly.SignalNames() {
		words = append(words, n)
	}
	return words
}

// oneOf is the schema of a closed vocabulary.
func oneOf(all ...any) func() *huma.Schema {
	return func() *huma.Schema { return &huma.Schema{Type: huma.TypeString, Enum: all} }
}

func (a abnText) schema() *huma.Schema { return a.Schema(nil) }
