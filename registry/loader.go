package registry

import (
	"runtime"
	"sync"
)

// Bounds of a load: a batch goes to a worker when it has so many records or
// bytes, and so many records are told one by one when they do not verify.
const (
	batchRecords   = 256
	batchBytes     = 256 << 10
	loadWorkersMax = 4
	tamperedTold   = 16
)

// loader takes the records of a snapshot in batches of copies, verifies and
// decodes them on as many goroutines as there are processors, and puts them
// into one Builder. The order does not matter to a Builder.
type loader struct {
	sealer     *Sealer
	current    *batch // owned by the goroutine that calls put
	full, free chan *batch
	workers    sync.WaitGroup

	mu       sync.Mutex // guards what follows, until finish returns
	b        *Builder
	settled  Revision // the highest of a genuine record
	tampered []string // keys
	err      error    // the first
}

type batch struct {
	records []Record
	data    []byte // what the records' Data point into
	entries []any
}

func startLoader(s *Sealer) *loader {
	n := min(runtime.GOMAXPROCS(0), loadWorkersMax)
	l := &loader{sealer: s, b: NewBuilder(nil, 0), full: make(chan *batch, n), free: make(chan *batch, 2*n)}
	for range cap(l.free) {
		l.free <- &batch{}
	}
	for range n {
		l.workers.Go(l.work)
	}
	return l
}

// put copies a record; it returns the first error there was.
func (l *loader) put(r *Record) error {
	if l.current == nil {
		l.current = <-l.free
		l.mu.Lock()
		err := l.err
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
	c := l.current
	from := len(c.data)
	c.data = append(c.data, r.Data...)
	c.records = append(c.records, *r)
	c.records[len(c.records)-1].Data = c.data[from:len(c.data):len(c.data)]
	if len(c.records) == batchRecords || len(c.data) >= batchBytes {
		l.full <- c
		l.current = nil
	}
	return nil
}

// finish hands over the last batch and waits for the workers.
func (l *loader) finish() error {
	if l.current != nil {
		l.full <- l.current
	}
	close(l.full)
	l.workers.Wait()
	return l.err
}

func (l *loader) work() {
	var d decoder
	for c := range l.full {
		l.one(&d, c)
		clear(c.records)
		clear(c.entries)
		c.records, c.data, c.entries = c.records[:0], c.data[:0], c.entries[:0]
		l.free <- c
	}
}

func (l *loader) one(d *decoder, c *batch) {
	var settled Revision
	var tampered []string
	var err error
	for i := range c.records {
		r := &c.records[i]
		if !l.sealer.Genuine(r) {
			tampered = append(tampered, r.Key())
			continue
		}
		settled = max(settled, r.Revision)
		entry, derr := d.decode(r)
		if derr != nil {
			err = &alarmError{Alarm{Kind: AlarmUndecodable, What: r.Key(), Store: r.Revision, Err: derr}}
			break
		}
		c.entries = append(c.entries, entry)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
	}
	l.settled = max(l.settled, settled)
	l.tampered = append(l.tampered, tampered[:min(len(tampered), tamperedTold-min(tamperedTold, len(l.tampered)))]...)
	for _, e := range c.entries {
		l.b.insert(e)
	}
}
