package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

// stateInterval is the least time between two writes of the state file.
const stateInterval = time.Second

// stateKeeper writes the newest head offered to a file, on a goroutine of its
// own: a disk that stalls must not keep a lease from being renewed. The file
// lags by at most stateInterval and a write. A nil keeper keeps nothing.
type stateKeeper struct {
	path   string
	offers chan Head     // capacity 1: the newest replaces the one not yet taken
	ending chan struct{} // closed when no more will be offered
	done   chan error
}

// openState reads the head kept by an earlier process, zero when there is
// none, and starts the keeper. A file that does not verify is an error: it
// would take away what protects a restart from an older store.
func openState(path string, s *Sealer, log *slog.Logger) (*stateKeeper, Head, error) {
	var h Head
	if path == "" {
		return nil, h, nil
	}
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, h, fmt.Errorf("state file: %w", err)
	default:
		if err := json.Unmarshal(data, &h); err != nil || s.Head(&h) != h.MAC {
			return nil, Head{}, fmt.Errorf("state file %s: %w; remove it if the register was made anew or its key changed", path, ErrTampered)
		}
	}
	k := &stateKeeper{path: path, offers: make(chan Head, 1), ending: make(chan struct{}), done: make(chan error, 1)}
	go k.run(h, log)
	return k, h, nil
}

// offer hands over a head to keep; it never blocks. Only Run's goroutine calls it.
func (k *stateKeeper) offer(h Head) {
	if k == nil {
		return
	}
	select {
	case <-k.offers:
	default:
	}
	k.offers <- h // there is room: this goroutine alone fills it
}

// close writes what was offered last and waits for it.
func (k *stateKeeper) close(log *slog.Logger) {
	if k == nil {
		return
	}
	close(k.ending)
	close(k.offers)
	if err := <-k.done; err != nil {
		log.Error("state file not written at the end: a restart may accept an older store", "err", err)
	}
}

func (k *stateKeeper) run(kept Head, log *slog.Logger) {
	var err error
	warned := false
	for h := range k.offers {
		if h == kept || h == (Head{}) {
			continue
		}
		if err = writeFileAtomic(k.path, h); err == nil {
			kept = h
		} else if !warned {
			log.Warn("state file not written: a restart may accept an older store", "err", err)
			warned = true
		}
		select {
		case <-k.ending:
		case <-time.After(stateInterval):
		}
	}
	k.done <- err
}

func writeFileAtomic(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(append(data, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
