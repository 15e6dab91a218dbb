package control

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/dspgate/dspgate/registry"
)

// Whatever is taken for a body reads the same when it is written and read
// again, and has no member that nobody reads.
func FuzzDecodeBody(f *testing.F) {
	f.Add([]byte(`{"abn":"65000000101","name":"x","roles":["D"],"state":"Draft","reason":"y"}`))
	f.Add([]byte(`{"abn":"65 000 000 101","Name":"x"}`))
	f.Add([]byte(`{"name":"x","name":"y"}`))
	f.Add([]byte(`[[[[`))
	d := newDocument("test")
	f.Fuzz(func(t *testing.T, b []byte) {
		var in entityBody
		if d.decode(b, &in) != nil {
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(b, &members); err != nil {
			t.Fatalf("took what is no object: %q", b)
		}
		for name := range members {
			switch name {
			case "abn", "name", "roles", "state", "contact", "reason":
			default:
				t.Fatalf("nobody reads %q of %q", name, b)
			}
		}
		if _, err := registry.ParseABN(in.ABN.String()); err != nil || in.Name == "" {
			t.Fatalf("took %+v of %q", in, b)
		}
		out, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		var again entityBody
		if err := d.decode(out, &again); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(in.Roles) == 0 { // an empty list and none are the same
			in.Roles, again.Roles = nil, nil
		}
		if !reflect.DeepEqual(in, again) {
			t.Fatalf("%+v became %+v", in, again)
		}
	})
}
