package evidencedir_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/dspgate/dspgate/registry"
	"github.com/dspgate/dspgate/registry/assurance/evidencedir"
	"github.com/dspgate/dspgate/registry/certification"
)

func open(t *testing.T) (*evidencedir.Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "evidence")
	d, err := evidencedir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d, path
}

func keep(d *evidencedir.Dir, typ certification.EvidenceType, r io.Reader) (certification.Evidence, error) {
	return d.Keep(context.Background(), func(w io.Writer) (certification.Evidence, error) { return certification.TakeEvidence(typ, r, w) })
}

// files are all files under a folder.
func files(t *testing.T, path string) (out []string) {
	t.Helper()
	if err := filepath.WalkDir(path, func(p string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			out = append(out, p)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestKeptIsWhatWasSent(t *testing.T) {
	d, path := open(t)
	const text = "a policy\n"
	first, err := keep(d, certification.Policy, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	again, err := keep(d, certification.Policy, strings.NewReader(text))
	if err != nil || again != first || len(files(t, path)) != 1 {
		t.Errorf("kept again: %+v, %v, %v", again, err, files(t, path))
	}
	f, err := d.Open(t.Context(), first.Address)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if b, err := io.ReadAll(f); err != nil || string(b) != text {
		t.Errorf("%q, %v", b, err)
	}
	info, err := os.Stat(files(t, path)[0])
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("others may read it: %v, %v", info.Mode(), err)
	}
}

func TestRefusedLeavesNothing(t *testing.T) {
	d, path := open(t)
	for name, r := range map[string]io.Reader{
		"a wrong type":  strings.NewReader("MZ\x90\x00"),
		"a TFN":         strings.NewReader(strings.Repeat("line\n", 20_000) + "220115957\n"),
		"broken off":    io.MultiReader(strings.NewReader("line\n"), iotest.ErrReader(io.ErrUnexpectedEOF)),
		"nothing":       strings.NewReader(""),
		"far too large": io.LimitReader(zeros{}, 30<<20),
	} {
		if _, err := keep(d, certification.SampleLog, r); err == nil {
			t.Errorf("%s was kept", name)
		}
		if left := files(t, path); len(left) != 0 {
			t.Errorf("%s left %v", name, left)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Keep(ctx, func(w io.Writer) (certification.Evidence, error) {
		return certification.TakeEvidence(certification.Policy, strings.NewReader("text"), w)
	})
	if !errors.Is(err, context.Canceled) || len(files(t, path)) != 0 {
		t.Errorf("hung up: %v, %v", err, files(t, path))
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '0'
		if i%80 == 79 {
			b[i] = '\n'
		}
	}
	return len(b), nil
}

func TestChangedOnDiskIsNotServed(t *testing.T) {
	d, path := open(t)
	e, err := keep(d, certification.Policy, strings.NewReader("a policy\n"))
	if err != nil {
		t.Fatal(err)
	}
	name := files(t, path)[0]
	if err := os.WriteFile(name, []byte("another\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(t.Context(), e.Address); !errors.Is(err, registry.ErrTampered) {
		t.Errorf("changed: %v", err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(t.Context(), e.Address); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}
	for _, bad := range []string{"", "sha256:..", "sha256:" + strings.Repeat("A", 64), "../../etc/passwd"} {
		if _, err := d.Open(t.Context(), bad); !errors.Is(err, certification.ErrInvalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What no record names goes, once it is old enough to be nobody's; so does an
// upload that a killed process left.
func TestSweep(t *testing.T) {
	d, path := open(t)
	old := time.Now().Add(-2 * time.Hour)
	var addresses []string
	for _, text := range []string{"named", "unnamed", "young"} {
		e, err := keep(d, certification.Policy, strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, e.Address)
		if text != "young" {
			digest, _ := certification.ParseAddress(e.Address)
			if err := os.Chtimes(filepath.Join(path, digest[:2], digest), old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	n, err := d.Sweep(func(a string) bool { return a == addresses[0] })
	if err != nil || n != 1 {
		t.Fatalf("%d removed, %v", n, err)
	}
	for i, want := range []bool{true, false, true} {
		f, err := d.Open(t.Context(), addresses[i])
		if (err == nil) != want {
			t.Errorf("%d: %v", i, err)
		}
		if err == nil {
			f.Close()
		}
	}
	left := filepath.Join(path, "incoming", "upload-1")
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(left, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := evidencedir.Open(path); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an upload of long ago is still there: %v", err)
	}
}
