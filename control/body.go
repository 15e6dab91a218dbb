package control

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dspgate/dspgate/registry"
)

// Bounds on a body.
const (
	bodyBytesMax  = 64 << 10
	bodyDepthMax  = 16
	bodyErrorsMax = 20 // more than that helps nobody
)

// readBody reads a command's body whole. An empty body is allowed here; a
// missing one is found by the schema.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength > bodyBytesMax {
		return nil, errTooLarge
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyBytesMax))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the body broke off", errMalformed)
	}
	return b, nil
}

// plainBody tells whether a body is sent as it is. A compressed one is not looked
// into: how large it would become is for its sender to say.
func plainBody(r *http.Request) bool {
	for _, coding := range r.Header.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(coding), "identity") {
			return false
		}
	}
	return true
}

func checkMediaType(header string) error {
	media, params, err := mime.ParseMediaType(header)
	if err != nil || media != "application/json" {
		return errMediaType
	}
	if cs, ok := params["charset"]; ok && !strings.EqualFold(cs, "utf-8") {
		return errMediaType
	}
	return nil
}

// decode reads a JSON body into out, strictly: one value, no duplicate and no
// unknown member, everything as the schema says. What is wrong comes back as
// FieldErrors with JSON pointers.
func (d *document) decode(b []byte, out any) error {
	if err := wellFormed(b); err != nil {
		return err
	}
	var loose any
	if err := json.Unmarshal(b, &loose); err != nil {
		return fmt.Errorf("%w: the body is no JSON", errMalformed)
	}
	t := reflect.TypeOf(out).Elem()
	var res huma.ValidateResult
	huma.Validate(d.schemas, d.schemas.Schema(t, true, t.Name()), huma.NewPathBuffer(nil, 0), huma.ModeWriteToServer, loose, &res)
	var all manyErrors
	for _, err := range res.Errors {
		if len(all) < bodyErrorsMax {
			all = append(all, fieldError(err))
		}
	}
	if all == nil {
		fill(reflect.ValueOf(out).Elem(), loose, "", &all)
	}
	if all != nil {
		return all
	}
	return nil
}

// wellFormed refuses what encoding/json would let pass: duplicate members,
// invalid UTF-8, deep nesting, and anything after the value.
func wellFormed(b []byte) error {
	if len(bytes.TrimSpace(b)) == 0 {
		return fmt.Errorf("%w: a JSON body is needed", errMalformed)
	}
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: the body is not UTF-8", errMalformed)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if err := scan(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows the JSON value", errMalformed)
	}
	return nil
}

func scan(dec *json.Decoder, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("%w: the body is no JSON (near byte %d)", errMalformed, dec.InputOffset())
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return nil
	}
	if depth == bodyDepthMax {
		return fmt.Errorf("%w: the body is nested deeper than %d", errMalformed, bodyDepthMax)
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return fmt.Errorf("%w: the body is no JSON (near byte %d)", errMalformed, dec.InputOffset())
			}
			name, _ := key.(string)
			if seen[name] {
				return fmt.Errorf("%w: the member %q stands twice", errMalformed, cut(name, 40))
			}
			seen[name] = true
		}
		if err := scan(dec, depth+1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%w: the body is no JSON (near byte %d)", errMalformed, dec.InputOffset())
	}
	return nil
}

// fieldError makes of huma's finding one of ours: a JSON pointer and a sentence.
func fieldError(err error) error {
	var detail *huma.ErrorDetail
	if !errors.As(err, &detail) {
		return registry.Field("", "%s", err.Error())
	}
	pointer, msg := pointerOf(detail.Location), detail.Message
	if name, ok := strings.CutPrefix(msg, "expected required property "); ok {
		name, _, _ = strings.Cut(name, " ")
		return registry.Field(pointer+"/"+name, "this member is needed")
	}
	if msg == "unexpected property" {
		return unknownMember(pointer)
	}
	return registry.Field(pointer, "%s", msg)
}

// pointerOf turns "chain[0].abn" into "/chain/0/abn".
func pointerOf(location string) string {
	if location == "" {
		return ""
	}
	p := strings.NewReplacer("~", "~0", "/", "~1").Replace(location)
	return "/" + strings.NewReplacer(".", "/", "[", "/", "]", "").Replace(p)
}

// fill copies a validated value into the typed input, field by field, so that a
// wrong check digit or date is reported where it stands.
func fill(dst reflect.Value, src any, pointer string, errs *manyErrors) {
	if len(*errs) >= bodyErrorsMax {
		return
	}
	if src == nil { // the schema lets it pass where a member may be left out
		*errs = append(*errs, registry.Field(pointer, "null means nothing here: leave the member out"))
		return
	}
	if text, ok := dst.Addr().Interface().(encoding.TextUnmarshaler); ok {
		s, _ := src.(string)
		if err := text.UnmarshalText([]byte(s)); err != nil {
			*errs = append(*errs, &registry.FieldError{Field: pointer, Err: err})
		}
		return
	}
	switch dst.Kind() {
	case reflect.Struct:
		members, _ := src.(map[string]any)
		fillStruct(dst, members, pointer, errs)
	case reflect.Slice:
		items, _ := src.([]any)
		out := reflect.MakeSlice(dst.Type(), len(items), len(items))
		for i, v := range items {
			fill(out.Index(i), v, pointer+"/"+strconv.Itoa(i), errs)
		}
		dst.Set(out)
	case reflect.Map:
		members, _ := src.(map[string]any)
		out := reflect.MakeMapWithSize(dst.Type(), len(members))
		for name, v := range members {
			one := reflect.New(dst.Type().Elem()).Elem()
			fill(one, v, pointer+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(cut(name, 100)), errs)
			out.SetMapIndex(reflect.ValueOf(name), one)
		}
		dst.Set(out)
	case reflect.Pointer:
		dst.Set(reflect.New(dst.Type().Elem()))
		fill(dst.Elem(), src, pointer, errs)
	case reflect.String:
		s, _ := src.(string)
		dst.SetString(s)
	case reflect.Bool:
		v, _ := src.(bool)
		dst.SetBool(v)
	case reflect.Float64:
		f, _ := src.(float64)
		dst.SetFloat(f)
	case reflect.Uint8, reflect.Uint64:
		f, _ := src.(float64)
		dst.SetUint(uint64(f)) // the schema bounds it
	case reflect.Int, reflect.Int64:
		f, _ := src.(float64)
		if f < -1<<53 || f > 1<<53 {
			*errs = append(*errs, registry.Field(pointer, "this number is beyond all bounds"))
			return
		}
		dst.SetInt(int64(f))
	default:
		panic("control: body field of kind " + dst.Kind().String())
	}
}

// fillStruct fills the fields of a struct. Names count letter by letter: huma
// would take "Name" for "name", and then nobody would read it.
func fillStruct(dst reflect.Value, members map[string]any, pointer string, errs *manyErrors) {
	known := 0
	for _, f := range reflect.VisibleFields(dst.Type()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if v, ok := members[name]; ok && !f.Anonymous {
			known++
			fill(dst.FieldByIndex(f.Index), v, pointer+"/"+name, errs)
		}
	}
	if known == len(members) {
		return
	}
	for name := range members {
		if !slices.ContainsFunc(reflect.VisibleFields(dst.Type()), func(f reflect.StructField) bool {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			return tag == name
		}) {
			*errs = append(*errs, unknownMember(pointer+pointerOf(name)))
		}
	}
}

func unknownMember(pointer string) error {
	return registry.Field(cut(pointer, 200), "there is no such member; look for a typing mistake")
}

func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
