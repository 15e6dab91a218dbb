package authz

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestPointerReadsOneMember(t *testing.T) {
	for name, c := range map[string]struct {
		body, ptr, id string
		ok            bool
	}{
		"string":              {`{"tfn":"220115957"}`, "/tfn", "220115957", true},
		"number":              {`{"tfn":220115957}`, "/tfn", "220115957", true},
		"nested":              {`{"a":{"tfn":"1"},"tfn":"2"}`, "/a/tfn", "1", true},
		"outer, not inner":    {`{"a":{"tfn":"1"},"tfn":"2"}`, "/tfn", "2", true},
		"absent":              {`{"x":[{"tfn":"1"}]}`, "/tfn", "", true},
		"empty body":          {"", "/tfn", "", true},
		"twice":               {`{"tfn":"1","tfn":"2"}`, "/tfn", "", false},
		"twice by escape":     {`{"tfn":"1","\u0074fn":"2"}`, "/tfn", "", false},
		"twice by case":       {`{"tfn":"1","TFN":"2"}`, "/tfn", "", false},
		"parent twice":        {`{"a":{"tfn":"1"},"a":{}}`, "/a/tfn", "", false},
		"NUL member":          {`{"x":{"\u0000":"9"}}`, "/tfn", "", true},
		"no JSON":             {`tfn=1`, "/tfn", "", false},
		"two values":          {`{"tfn":"1"}{"tfn":"2"}`, "/tfn", "", false},
		"another case alone":  {`{"TFN":"1"}`, "/tfn", "", false},
		"by escape, alone":    {`{"\u0054fn":"1"}`, "/tfn", "", false},
		"parent's case alone": {`{"A":{"tfn":"1"}}`, "/a/tfn", "", false},
		"object where scalar": {`{"tfn":{"x":"1"}}`, "/tfn", "", false},
		"list where scalar":   {`{"tfn":["1","2"]}`, "/tfn", "", false},
		"list of bodies":      {`[{"tfn":"1"}]`, "/tfn", "", false},
		"list of parents":     {`{"a":[{"tfn":"1"}]}`, "/a/tfn", "", false},
		"scalar where object": {`{"a":"1"}`, "/a/tfn", "", false},
		"scalar alone":        {`"1"`, "/tfn", "", false},
		"parent is null":      {`{"a":null}`, "/a/tfn", "", true},
		"body is null":        {`null`, "/tfn", "", true},
		"true":                {`{"tfn":true}`, "/tfn", "", false},
		"with an exponent":    {`{"tfn":2.2e8}`, "/tfn", "", false},
		"with a fraction":     {`{"tfn":220115957.0}`, "/tfn", "", false},
		"less than nothing":   {`{"tfn":-1}`, "/tfn", "", false},
		"byte order mark":     {"\ufeff" + `{"tfn":"1"}`, "/tfn", "", false},
		"null":                {`{"tfn":null}`, "/tfn", "", true},
		"deep":                {strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000), "/tfn", "", true},
	} {
		id, ok := pointer([]byte(c.body), c.ptr)
		if ok != c.ok || ok && id != c.id {
			t.Errorf("%s: got %q %v, want %q %v", name, id, ok, c.id, c.ok)
		}
	}
}

// FuzzPointer: whatever is found is what encoding/json finds, and two members
// of one name are never silently one.
func FuzzPointer(f *testing.F) {
	f.Add([]byte(`{"tfn":"220115957","x":[1,{"tfn":2}]}`))
	f.Add([]byte(`{"tfn":1,"tfn":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		id, ok := pointer(body, "/tfn")
		if !ok || id == "" {
			return
		}
		var ref map[string]any
		dec := json.NewDecoder(strings.NewReader(string(body)))
		dec.UseNumber()
		if err := dec.Decode(&ref); err != nil {
			t.Fatalf("found %q in what is no JSON object: %v", id, err)
		}
		switch v := ref["tfn"].(type) {
		case string:
			if v != id {
				t.Fatalf("found %q, encoding/json %q", id, v)
			}
		case json.Number:
			if v.String() != id {
				t.Fatalf("found %q, encoding/json %q", id, v)
			}
		default:
			t.Fatalf("found %q where encoding/json finds %v", id, v)
		}
	})
}

func TestSubjectHashSeparatesKindsAndIgnoresSpaces(t *testing.T) {
	h, err := NewSubjectHasher([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	if h.Sum("abn", "56 000 001 313") != h.Sum("abn", "56000001313") {
		t.Error("spaces change the hash")
	}
	if h.Sum("abn", "56000001313") == h.Sum("tfn", "56000001313") {
		t.Error("the kind does not count")
	}
	other, _ := NewSubjectHasher([]byte(strings.Repeat("j", 32)))
	if h.Sum("abn", "1") == other.Sum("abn", "1") {
		t.Error("the key does not count")
	}
	if _, err := NewSubjectHasher(make([]byte, 31)); err == nil {
		t.Error("a short key is accepted")
	}
}

func TestSubjectHashIsOfTheNumberNotOfItsSpelling(t *testing.T) {
	h, err := NewSubjectHasher([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	want := h.Sum("tfn", "220115957")
	for _, id := range []string{
		"220 115 957", "220-115-957", "220.115.957", "220,115,957", "220_115_957", "220/115/957", "\t220115957\n", "+220115957", "(220)115957",
		"220\u00a0115\u2009957", "220\u2013115\u2014957", "220\u2212115\u2212957", "220\u200b115\u2060957\ufeff", "２２０１１５９５７", "٢٢٠١١٥٩٥٧", "𝟚𝟚𝟘𝟙𝟙𝟝𝟡𝟝𝟟", "0220115957", "000220115957",
	} {
		if h.Sum("tfn", id) != want {
			t.Errorf("%q is another person than 220115957", id)
		}
	}
	for _, id := range []string{"220115958", "2201159570", "22011595", "a220115957", "220115957x", "-", ""} {
		if h.Sum("tfn", id) == want {
			t.Errorf("%q is taken for 220115957", id)
		}
	}
	if h.Sum("tfn", "0") == h.Sum("tfn", "") || h.Sum("tfn", "a0") == h.Sum("tfn", "a") {
		t.Error("a zero that does not lead is left out")
	}
}

func TestSubjectHashDoesNotAllocate(t *testing.T) {
	h, err := NewSubjectHasher([]byte(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{strings.Repeat("1", 11), strings.Repeat("0 ２", 25)} {
		if n := testing.AllocsPerRun(100, func() { h.Sum("abn", id) }); n != 0 {
			t.Errorf("%v allocations a hash", n)
		}
	}
}
