// Package evidencedir keeps the bytes of evidence in a folder, by content
// address: FOLDER/ab/abcdef…, the digest in hexadecimal, each written whole and
// to the disk before its name appears.
//
// Nothing in the folder is ever changed; several control planes may share it.
// Only the control plane's own user may read it.
package evidencedir

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/certification"
)

// Dir is a folder of evidence.
type Dir struct{ path string }

const (
	incoming = "incoming"
	// staleAfter is how old an unfinished upload must be to be nobody's any more.
	staleAfter = time.Hour
)

// Open makes the folder where it is missing, and removes uploads that a process
// left unfinished when it was killed.
func Open(path string) (*Dir, error) {
	d := &Dir{path}
	if err := os.MkdirAll(filepath.Join(path, incoming), 0o700); err != nil {
		return nil, fmt.Errorf("evidence folder: %w", err)
	}
	left, err := os.ReadDir(filepath.Join(path, incoming))
	if err != nil {
		return nil, fmt.Errorf("evidence folder: %w", err)
	}
	for _, e := range left {
		if info, err := e.Info(); err == nil && time.Since(info.ModTime()) > staleAfter {
			if err := os.Remove(filepath.Join(path, incoming, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("evidence folder: %w", err)
			}
		}
	}
	return d, nil
}

// Keep implements assurance.Files.
func (d *Dir) Keep(ctx context.Context, take func(io.Writer) (certification.Evidence, error)) (certification.Evidence, error) {
	f, err := os.CreateTemp(filepath.Join(d.path, incoming), "upload-*")
	if err != nil {
		return certification.Evidence{}, unavailable(err)
	}
	// Gone whatever happens: what is kept has another name by then.
	defer func() { _ = os.Remove(f.Name()) }()
	defer f.Close()
	sum := sha256.New()
	e, err := take(writer{f, sum})
	if err != nil {
		return e, err
	}
	if err := ctx.Err(); err != nil {
		return e, err
	}
	digest, err := certification.ParseAddress(e.Address)
	if err != nil {
		return e, err
	}
	if digest != hex.EncodeToString(sum.Sum(nil)) {
		return e, fmt.Errorf("%w: what was written is not what was hashed", registry.ErrUnavailable)
	}
	if err := f.Sync(); err != nil {
		return e, unavailable(err)
	}
	name := d.name(digest)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return e, unavailable(err)
	}
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return e, unavailable(err)
	}
	if err := syncDir(filepath.Dir(name)); err != nil {
		return e, unavailable(err)
	}
	return e, nil
}

// writer writes to the file and the hash; a failure of the disk is told apart
// from one of whoever sends.
type writer struct {
	f   *os.File
	sum io.Writer
}

func (w writer) Write(b []byte) (int, error) {
	n, err := w.f.Write(b)
	if err != nil {
		return n, unavailable(err)
	}
	return w.sum.Write(b)
}

// Open implements assurance.Files: the bytes are hashed before anybody reads them.
func (d *Dir) Open(_ context.Context, address string) (io.ReadSeekCloser, error) {
	digest, err := certification.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(d.name(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: the evidence %s is not in the folder", registry.ErrNotFound, address)
	}
	if err != nil {
		return nil, unavailable(err)
	}
	sum := sha256.New()
	if _, err = io.Copy(sum, f); err == nil && hex.EncodeToString(sum.Sum(nil)) != digest {
		err = fmt.Errorf("%w: the evidence %s is not what was kept", registry.ErrTampered, address)
	} else if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Sweep removes what no record names: evidence whose record was never committed.
// What is younger than an hour is left: its record may be on the way.
func (d *Dir) Sweep(named func(address string) bool) (removed int, err error) {
	err = filepath.WalkDir(d.path, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.Contains(path, string(filepath.Separator)+incoming+string(filepath.Separator)) {
			return err
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) <= staleAfter || named("sha256:"+e.Name()) {
			return err
		}
		removed++
		return os.Remove(path)
	})
	return removed, err
}

func (d *Dir) name(digest string) string { return filepath.Join(d.path, digest[:2], digest) }

func unavailable(err error) error {
	return fmt.Errorf("%w: evidence folder: %w", registry.ErrUnavailable, err)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
