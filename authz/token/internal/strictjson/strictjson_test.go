package strictjson_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/authz/token/internal/strictjson"
)

var lim = strictjson.Limits{Depth: 8, Values: 256}

func TestParseRefusesWhatTwoReadersReadDifferently(t *testing.T) {
	many := `{`
	for i := range 40 {
		many += `"k` + string(rune('A'+i%26)) + strings.Repeat("x", i/26) + `":0,`
	}
	for name, c := range map[string]struct {
		doc  string
		want error
	}{
		"two members":                   {`{"a":1,"a":1}`, strictjson.ErrDuplicate},
		"two after unescape":            {`{"exp":1,"\u0065xp":2}`, strictjson.ErrDuplicate},
		"two in a nested object":        {`{"a":[{"b":1,"c":2,"b":3}]}`, strictjson.ErrDuplicate},
		"two empty names":               {`{"":1,"":2}`, strictjson.ErrDuplicate},
		"two beyond the linear scan":    {many + `"kA":1}`, strictjson.ErrDuplicate},
		"invalid UTF-8":                 {"{\"a\":\"\xff\"}", strictjson.ErrSyntax},
		"invalid UTF-8 after an escape": {"{\"a\":\"\\n\xff\"}", strictjson.ErrSyntax},
		"overlong UTF-8":                {"{\"a\":\"\xc0\xaf\"}", strictjson.ErrSyntax},
		"lone high surrogate":           {`"\ud800"`, strictjson.ErrSyntax},
		"lone low surrogate":            {`"\udc00"`, strictjson.ErrSyntax},
		"two high surrogates":           {`"\ud800\ud800"`, strictjson.ErrSyntax},
		"escape cut short":              {`"\u00`, strictjson.ErrSyntax},
		"unknown escape":                {`"\x41"`, strictjson.ErrSyntax},
		"NUL escape letter":             {"\"\\\x00\"", strictjson.ErrSyntax},
		"control character":             {"\"a\nb\"", strictjson.ErrSyntax},
		"something after":               {`{} {}`, strictjson.ErrSyntax},
		"trailing comma":                {`[1,]`, strictjson.ErrSyntax},
		"trailing comma in object":      {`{"a":1,}`, strictjson.ErrSyntax},
		"leading zero":                  {`01`, strictjson.ErrSyntax},
		"plus":                          {`+1`, strictjson.ErrSyntax},
		"NaN":                           {`NaN`, strictjson.ErrSyntax},
		"bare point":                    {`1.`, strictjson.ErrSyntax},
		"comment":                       {`/**/1`, strictjson.ErrSyntax},
		"byte order mark":               {"\xef\xbb\xbf{}", strictjson.ErrSyntax},
		"nothing":                       {``, strictjson.ErrSyntax},
		"too deep":                      {strings.Repeat("[", 9) + strings.Repeat("]", 9), strictjson.ErrLimit},
		"too many":                      {`[` + strings.Repeat("0,", 256) + `0]`, strictjson.ErrLimit},
	} {
		t.Run(name, func(t *testing.T) {
			v, err := strictjson.Parse(c.doc, lim)
			if !errors.Is(err, c.want) {
				t.Errorf("Parse(%q) = %v, %v, want %v", c.doc, v, err, c.want)
			}
		})
	}
}

func TestParseReadsWhatItAccepts(t *testing.T) {
	got, err := strictjson.Parse(" {\"a\\u00e9\\ud83d\\ude00\\/\":[1.5e3,true,false,null,\"é\"],\n\"b\":{}} ", lim)
	if err != nil {
		t.Fatal(err)
	}
	want := &strictjson.Value{Kind: strictjson.Object, Members: []strictjson.Member{
		{Name: "aé😀/", Value: strictjson.Value{Kind: strictjson.Array, Items: []strictjson.Value{
			{Kind: strictjson.Number, Text: "1.5e3"}, {Kind: strictjson.Bool, True: true}, {Kind: strictjson.Bool},
			{Kind: strictjson.Null}, {Kind: strictjson.String, Text: "é"},
		}}},
		{Name: "b", Value: strictjson.Value{Kind: strictjson.Object}},
	}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !got.Variant("B") || got.Variant("b") || got.Variant("c") {
		t.Error("Variant is not the difference in case alone")
	}
	// U+017F folds to s: encoding/json matches it with "sub".
	if v, _ := strictjson.Parse(`{"ſub":1}`, lim); !v.Variant("sub") {
		t.Error("a Unicode case variant was missed")
	}
}

// FuzzStrictJSON: whatever is accepted encoding/json accepts with the same
// meaning; whatever only encoding/json accepts is refused for a reason that we name.
func FuzzStrictJSON(f *testing.F) {
	for _, s := range []string{`{"a":1,"a":2}`, `{"a":"\ud800"}`, `[1,2.5e-3,"x",null,true]`, "\"\xff\"", `{"\u0061":{"b":[]}}`, `-0`, ` {} `, `"\u0000"`, `"\ufffd"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		got, err := strictjson.Parse(doc, lim)
		d := json.NewDecoder(strings.NewReader(doc))
		d.UseNumber()
		var ref any
		refErr := d.Decode(&ref)
		if refErr == nil && d.More() || refErr == nil && strings.TrimLeft(doc[d.InputOffset():], " \t\r\n") != "" {
			refErr = errors.New("something after")
		}
		if err == nil {
			if refErr != nil {
				t.Fatalf("accepted %q, encoding/json says %v", doc, refErr)
			}
			if d := cmp.Diff(ref, plain(got)); d != "" {
				t.Fatalf("%q read differently (-encoding/json +strict):\n%s", doc, d)
			}
			return
		}
		if refErr == nil && errors.Is(err, strictjson.ErrSyntax) {
			// encoding/json mends broken UTF-8 and surrogates; nothing else may differ.
			if utf8.ValidString(doc) && !strings.Contains(strings.ToLower(doc), `\ud`) {
				t.Fatalf("refused %q (%v), encoding/json reads %v", doc, err, ref)
			}
		}
	})
}

func plain(v *strictjson.Value) any {
	switch v.Kind {
	case strictjson.Bool:
		return v.True
	case strictjson.Number:
		return json.Number(v.Text)
	case strictjson.String:
		return v.Text
	case strictjson.Array:
		a := make([]any, len(v.Items))
		for i := range a {
			a[i] = plain(&v.Items[i])
		}
		return a
	case strictjson.Object:
		m := map[string]any{}
		for i := range v.Members {
			m[v.Members[i].Name] = plain(&v.Members[i].Value)
		}
		return m
	}
	return nil
}
