package intake

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// Whatever a file holds, reading it ends, numbers go up, and a line that is read
// can be written and read again as it was.
func FuzzLines(f *testing.F) {
	f.Add(true, []byte("product_id,name,owner_abn,scenario\nA,=b,65000000101,1\n"))
	f.Add(false, []byte(`[{"product_id":"A","name":"b","owner_abn":"65000000101","scenario":1}]`))
	f.Fuzz(func(t *testing.T, isCSV bool, b []byte) {
		format := JSON
		if isCSV {
			format = CSV
		}
		r, err := newReader(bytes.NewReader(b), format)
		if err != nil {
			return
		}
		last := 0
		for range len(b) + 2 {
			l, n, err := r.next()
			if errors.Is(err, io.EOF) {
				return
			}
			var bad *lineError
			if err != nil && !errors.As(err, &bad) {
				return
			}
			if n != last+1 {
				t.Fatalf("line %d after %d", n, last)
			}
			last = n
			if err != nil {
				continue
			}
			if _, err := l.parse(); err != nil {
				continue
			}
			var out bytes.Buffer
			if err := Write(&out, JSON, func(yield func(Line) bool) { yield(l) }); err != nil {
				t.Fatal(err)
			}
			if again, err := parseObject(bytes.TrimSpace(out.Bytes())); err != nil || again.ProductID != l.ProductID || again.Name != l.Name || again.OwnerABN != l.OwnerABN {
				t.Fatalf("%+v came back as %+v, %v", l, again, err)
			}
		}
		t.Fatal("reading does not end")
	})
}
