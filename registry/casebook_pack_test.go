package registry

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// Whatever is packed comes out as it was, whichever body came first; and what is
// alike takes a fraction.
func TestBodiesComeOutAsTheyWere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPacks()
		common := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "common")
		for range rapid.IntRange(1, 5).Draw(t, "bodies") {
			own := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "own")
			body := append(bytes.Clone(own), common...)
			x := p.pack("paper", bytes.Clone(body))
			if !bytes.Equal(x.body(), body) {
				t.Fatalf("%q came out as %q", body, x.body())
			}
		}
	})
	p := newPacks()
	body := func(n byte) []byte {
		b := make([]byte, 2000)
		for i := range b {
			b[i] = byte(i*i>>3) ^ byte(i)
		}
		b[500], b[1500] = n, n
		return b
	}
	p.pack("paper", body(0))
	if x := p.pack("paper", body(1)); len(x.data) > 200 || !bytes.Equal(x.body(), body(1)) {
		t.Errorf("a body that differs in two bytes takes %d", len(x.data))
	}
	large := bytes.Repeat([]byte("casework "), 20_000) // more than a dictionary may have
	for range 2 {
		if x := p.pack("large", large); !bytes.Equal(x.body(), large) || len(x.data) > 40_000 {
			t.Errorf("a large body takes %d", len(x.data))
		}
	}
}
