package control

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dspgate/dspgate/registry"
)

// document is the OpenAPI 3.1 description, made from the route table, and the
// schemas against which bodies are checked: they cannot drift apart.
type document struct {
	schemas huma.Registry
	api     *huma.OpenAPI
	json    []byte
}

const apiDescription = "The software register of dspgate: who may call the agency's services through which product, and who was stopped. " +
	"Answers are {\"data\":…} or {\"errors\":[…]}, never both. Commands take an Idempotency-Key; changes of one record take If-Match."

// The wire forms of the register's own types, which know nothing of schemas.
type (
	abnText         string
	timeText        string
	environmentText string
	stageText       string
	entityStateText string
	certStateText   string
	versionText     string
	kindText        string
	limitKindText   string
	periodText      string
	roleText        string
	riskNumber      uint8
)

func words[T any, P interface {
	*T
	MarshalText() ([]byte, error)
}](values ...T) []any {
	var out []any
	for _, v := range values {
		b, _ := P(&v).MarshalText() // the enums of registry do not fail
		out = append(out, string(b))
	}
	return out
}

func (abnText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Description: "An ABN: 11 digits with a checksum.", Pattern: `^[1-9][0-9 ]{10,13}$`, Examples: []any{"65000000101"}}
}

func (timeText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Format: "date-time", Description: "RFC 3339."}
}

func (environmentText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(registry.Sandbox, registry.EVTE, registry.PROD)}
}

func (stageText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(registry.StagePVT, registry.StagePROD, registry.NoStage), Description: "In PROD only."}
}

func (entityStateText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(registry.EntityDraft, registry.EntitySubmitted, registry.EntityChecking, registry.EntityRegistered, registry.EntityRejected, registry.EntityCancelled, registry.EntityLapsed)}
}

func (certStateText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(registry.CertDraft, registry.CertSelfCertified, registry.CertInVerification, registry.CertPVT, registry.CertWhitelisted, registry.CertInterim, registry.CertRestricted, registry.CertReviewDue, registry.CertDelisted)}
}

func (versionText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(registry.VersionActive, registry.VersionBlocked)}
}

func (kindText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(subjects...)}
}

func (limitKindText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(registry.LimitRate, registry.LimitConcurrency, registry.LimitQuota, registry.LimitClients)}
}

func (periodText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: words(registry.PeriodDay, registry.PeriodMonth)}
}

func (roleText) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: huma.TypeString, Enum: []any{"D", "SP", "CP", "IHD"}}
}

func (riskNumber) Schema(huma.Registry) *huma.Schema {
	least, most := 0.0, 4.0
	return &huma.Schema{Type: huma.TypeInteger, Minimum: &least, Maximum: &most, Description: "The API risk rating: 1 none, 2 low, 3 medium, 4 high; 0 unknown, treated as 4."}
}

// subjects are the kinds a suspension or a limit may name; which of the two may
// name which, the register says.
var subjects = []registry.Kind{registry.KindEntity, registry.KindProduct, registry.KindVersion, registry.KindClientApp, registry.KindCredential, registry.KindSubscription, registry.KindService, registry.KindTier}

// schemaName keeps the words that several packages use apart.
func schemaName(t reflect.Type, hint string) string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	name := huma.DefaultSchemaNamer(t, hint)
	if path.Base(t.PkgPath()) == "casework" {
		return "Casework" + name
	}
	return name
}

func newDocument(version string) *document {
	schemas := huma.NewMapRegistry("#/components/schemas/", schemaName)
	for from, to := range map[reflect.Type]reflect.Type{
		reflect.TypeFor[registry.ABN]():          reflect.TypeFor[abnText](),
		reflect.TypeFor[registry.Time]():         reflect.TypeFor[timeText](),
		reflect.TypeFor[registry.Environment]():  reflect.TypeFor[environmentText](),
		reflect.TypeFor[registry.Stage]():        reflect.TypeFor[stageText](),
		reflect.TypeFor[registry.EntityState]():  reflect.TypeFor[entityStateText](),
		reflect.TypeFor[registry.CertState]():    reflect.TypeFor[certStateText](),
		reflect.TypeFor[registry.VersionState](): reflect.TypeFor[versionText](),
		reflect.TypeFor[registry.Kind]():         reflect.TypeFor[kindText](),
		reflect.TypeFor[registry.LimitKind]():    reflect.TypeFor[limitKindText](),
		reflect.TypeFor[registry.Period]():       reflect.TypeFor[periodText](),
		reflect.TypeFor[registry.Role]():         reflect.TypeFor[roleText](),
		reflect.TypeFor[registry.Risk]():         reflect.TypeFor[riskNumber](),
	} {
		schemas.RegisterTypeAlias(from, to)
	}
	return &document{
		schemas: schemas,
		api: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "dspgate control plane", Version: version, Description: apiDescription},
			Components: &huma.Components{Schemas: schemas, SecuritySchemes: map[string]*huma.SecurityScheme{
				"bearer": {Type: "http", Scheme: "bearer", Description: "A token of the token file, or of the sign-in."},
			}},
		},
	}
}

// add describes one route and makes the schema of its body.
func (d *document) add(rt *route) {
	op := &huma.Operation{
		Method: rt.method, Path: rt.path, OperationID: rt.id, Summary: rt.summary, Description: rt.permissionText(),
		Tags: []string{rt.tag()}, Responses: map[string]*huma.Response{},
	}
	if !rt.public {
		op.Security = []map[string][]string{{"bearer": {}}}
	}
	for seg := range strings.SplitSeq(rt.path, "/") {
		if name, ok := strings.CutPrefix(seg, "{"); ok {
			name = strings.TrimSuffix(name, "}")
			least, most := 1, pathValueMax
			op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, MinLength: &least, MaxLength: &most}})
		}
	}
	for _, p := range rt.params {
		op.Parameters = append(op.Parameters, &huma.Param{Name: p.name, In: "query", Description: p.doc, Schema: p.schema()})
	}
	if rt.upload {
		op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
	}
	if rt.command() && !rt.upload { // sending a file again changes nothing anyway
		least, most := 1, 128
		op.Parameters = append(op.Parameters, &huma.Param{Name: "Idempotency-Key", In: "header", Description: "Repeating a command with the same key gets the first answer and does nothing. Kept for a day.",
			Schema: &huma.Schema{Type: huma.TypeString, MinLength: &least, MaxLength: &most, Pattern: `^[!-~]+$`}})
		if rt.matches {
			op.Parameters = append(op.Parameters, &huma.Param{Name: "If-Match", In: "header", Description: "The ETag the record must have; otherwise 412.", Schema: &huma.Schema{Type: huma.TypeString, Pattern: etagPattern}})
		}
	}
	if rt.body != nil {
		op.RequestBody = &huma.RequestBody{Required: !rt.optional, Content: map[string]*huma.MediaType{"application/json": {Schema: d.schema(rt.body)}}}
	}
	d.responses(op, rt)
	d.api.AddOperation(op)
}

func (d *document) schema(t reflect.Type) *huma.Schema { return d.schemas.Schema(t, true, t.Name()) }

func (d *document) responses(op *huma.Operation, rt *route) {
	data := d.schema(rt.data)
	if rt.recorded {
		data = d.withRevision(rt.data)
	}
	body := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{"data": data}, Required: []string{"data"}, AdditionalProperties: false}
	if rt.id == "deny-token" { // the one answer that carries more than the record
		body.Properties["data"] = d.schema(reflect.TypeFor[denialView]())
	}
	if rt.list {
		body.Properties["data"] = &huma.Schema{Type: huma.TypeArray, Items: data}
		body.Properties["_meta"] = d.schema(reflect.TypeFor[pageMeta]())
		body.Properties["_links"] = d.schema(reflect.TypeFor[links]())
		body.Required = []string{"data", "_meta", "_links"}
	}
	ok := func(text string) *huma.Response {
		r := &huma.Response{Description: text, Headers: headers("X-Request-Id"), Content: map[string]*huma.MediaType{"application/json": {Schema: body}}}
		switch {
		case rt.tagged:
			r.Headers["ETag"] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeString}, Description: "The record's revision, quoted."}
		case !rt.command():
			r.Headers["ETag"] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeString}, Description: "Of the answer as it is."}
		}
		return r
	}
	op.Responses["200"] = ok("Done.")
	if rt.media != "" {
		file := &huma.Schema{Type: huma.TypeString, Format: "binary"}
		if rt.media == "application/json" { // validators decode it
			file = &huma.Schema{Type: huma.TypeObject}
		}
		if rt.stream {
			file = &huma.Schema{Type: huma.TypeString, Description: "Server-sent events; the data of each is as in the listing of the latest, that of a gap {\"missed\", \"reason\"}."}
			op.Parameters = append(op.Parameters, &huma.Param{Name: "Last-Event-ID", In: "header", Description: "The id of the event heard last: what followed it is told first.", Schema: &huma.Schema{Type: huma.TypeString}})
		}
		op.Responses["200"] = &huma.Response{Description: "The file.", Headers: headers("X-Request-Id", "ETag", "Content-Disposition"), Content: map[string]*huma.MediaType{rt.media: {Schema: file}}}
	}
	if rt.creates {
		op.Responses["200"] = ok("Done already: this is what there was.")
		op.Responses["201"] = ok("Created.")
	}
	if !rt.command() && rt.media != "text/event-stream" {
		op.Responses["304"] = &huma.Response{Description: "Not modified: If-None-Match names the present ETag."}
	}
	for _, status := range rt.statuses() {
		r := &huma.Response{Description: statusText[status], Headers: headers("X-Request-Id"), Content: map[string]*huma.MediaType{"application/json": {Schema: d.schema(reflect.TypeFor[errorsBody]())}}}
		if status == 503 {
			r.Headers["Retry-After"] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeInteger}}
		}
		if status == 401 {
			r.Headers["WWW-Authenticate"] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeString}}
		}
		op.Responses[strconv.Itoa(status)] = r
	}
}

func headers(names ...string) map[string]*huma.Param {
	m := map[string]*huma.Param{}
	for _, n := range names {
		m[n] = &huma.Param{Schema: &huma.Schema{Type: huma.TypeString}}
	}
	return m
}

// withRevision is the schema of a record as record.MarshalJSON writes it. The
// type's own schema stays as it is, for where it stands without a revision.
func (d *document) withRevision(t reflect.Type) *huma.Schema {
	s := d.schemas.Schema(t, false, t.Name())
	if _, ok := s.Properties["revision"]; ok {
		return d.schema(t)
	}
	least := 0.0
	one := *s
	one.Properties = maps.Clone(s.Properties)
	one.Properties["revision"] = &huma.Schema{Type: huma.TypeInteger, Format: "int64", Minimum: &least, Description: "The register's revision that last wrote the record: its ETag."}
	one.Required = append([]string{"revision"}, s.Required...)
	return &one
}

var statusText = map[int]string{
	400: "The request cannot be read.", 401: "No valid sign-in.", 403: "Your permissions do not cover this.",
	404: "No such thing, or none that you may know of.", 409: "Not allowed in the present state.", 410: "The log no longer reaches back that far.", 412: "The record has another ETag by now.",
	413: "The body is too large.", 415: "Send application/json.", 422: "A field or parameter is wrong; source names it.",
	500: "Something went wrong here.", 503: "Not now; Retry-After says when.",
}

// statuses are the failures a route may answer with.
func (rt *route) statuses() []int {
	out := []int{400, 422, 500, 503}
	if !rt.public {
		out = append(out, 401, 403)
	}
	if strings.Contains(rt.path, "{") || rt.command() || rt.absent {
		out = append(out, 404)
	}
	if rt.command() {
		out = append(out, 409, 413, 415)
	}
	if rt.matches {
		out = append(out, 412)
	}
	if rt.trims {
		out = append(out, 410)
	}
	slices.Sort(out)
	return out
}

// finish renders the document; call it when every route was added.
func (d *document) finish() error {
	for _, s := range d.schemas.Map() {
		neverNull(s)
	}
	for _, p := range d.api.Paths {
		for _, op := range []*huma.Operation{p.Get, p.Post, p.Put, p.Delete} {
			if op != nil && op.RequestBody != nil {
				for _, media := range op.RequestBody.Content {
					neverNull(media.Schema)
				}
			}
		}
	}
	b, err := json.Marshal(d.api)
	if err != nil {
		return fmt.Errorf("openapi: %w", err)
	}
	d.json = b
	return nil
}

// neverNull: huma takes every array for nullable; here nothing is ever null.
func neverNull(s *huma.Schema) {
	s.Nullable = false
	for _, p := range s.Properties {
		neverNull(p)
	}
	if s.Items != nil {
		neverNull(s.Items)
	}
}
