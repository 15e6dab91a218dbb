package registry

import (
	"bytes"
	"sync"

	"github.com/klauspost/compress/s2"
)

// Bodies shorter than packBytesMin are kept as they are; a body of at least
// packDictMin bytes is the dictionary of its kind.
const (
	packBytesMin = 128
	packDictMin  = 512
)

// packs make the bodies of cases small: those of one kind differ in little, so
// the first long one serves all others as their dictionary (S2). Of a hundred
// thousand certifications of 1 KB a tenth is left.
type packs struct {
	mu    sync.RWMutex
	dicts map[CaseKind]*s2.Dict
}

// packed is one body; dict nil: as it is.
type packed struct {
	data []byte
	dict *s2.Dict
}

func newPacks() *packs { return &packs{dicts: map[CaseKind]*s2.Dict{}} }

func (p *packs) pack(kind CaseKind, body []byte) packed {
	if len(body) < packBytesMin {
		return packed{data: body}
	}
	dict := p.dict(kind, body)
	if dict == nil {
		return packed{data: body}
	}
	small := dict.Encode(nil, body)
	if len(small) > len(body)*3/4 {
		return packed{data: body}
	}
	return packed{bytes.Clone(small), dict} // Encode gives more capacity than that
}

func (p *packs) dict(kind CaseKind, body []byte) *s2.Dict {
	p.mu.RLock()
	d := p.dicts[kind]
	p.mu.RUnlock()
	if d != nil || len(body) < packDictMin {
		return d
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dicts[kind] == nil {
		p.dicts[kind] = s2.MakeDict(bytes.Clone(body[:min(len(body), s2.MaxDictSize)]), nil)
	}
	return p.dicts[kind]
}

// body is the body as it was; it must not be written to.
func (p *packed) body() []byte {
	if p.dict == nil {
		return p.data
	}
	b, err := p.dict.Decode(nil, p.data)
	if err != nil {
		panic("registry: casework packed here does not unpack: " + err.Error())
	}
	return b
}
