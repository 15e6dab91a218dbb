package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dspgate/dspgate/registry"
)

func TestWatchingIsConfiguredPlainly(t *testing.T) {
	file := filepath.Join(t.TempDir(), "protected")
	if err := os.WriteFile(file, []byte("nobody\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		cfg  watchingConfig
		want string
	}{
		"a zone there is none of":  {watchingConfig{Zone: "Mars/Olympus"}, `zone "Mars/Olympus"`},
		"a list that is none":      {watchingConfig{ProtectedFile: file}, "line 1 is not 32 hexadecimal digits"},
		"a list that is not there": {watchingConfig{ProtectedFile: file + "x"}, "no such file"},
	} {
		s := &sidecar{cfg: sidecarConfig{Watching: c.cfg}, metrics: newMetrics()}
		if _, err := s.watchCallers(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	s := &sidecar{cfg: sidecarConfig{Watching: watchingConfig{Off: true}}, metrics: newMetrics()}
	w, err := s.watchCallers()
	if err != nil || w != nil || w.board() != nil || w.consumers() != nil {
		t.Errorf("off is %v, %v", w, err)
	}
}

func TestTheDefaultZoneNeedsNoSystem(t *testing.T) {
	t.Setenv("ZONEINFO", "/nonexistent")
	z, err := zoneOf("")
	if err != nil || z.String() != defaultZone {
		t.Errorf("%v, %v", z, err)
	}
}

// The room follows the register, between what a small one needs and what the memory
// bears; what is configured goes before.
func TestTheWatchersRoomFollowsTheRegister(t *testing.T) {
	for all, want := range map[int]int{0: 4096, 3000: 4096, 3956: 5275, 300_000: 16384} {
		if got := roomOf(all); got != want {
			t.Errorf("of %d there is room for %d, want %d", all, got, want)
		}
	}
	none := func() (*registry.Casebook, error) { return nil, registry.ErrUnavailable }
	if got := watchRoom(0, none)(); got != 4096 {
		t.Errorf("before the register is there: %d", got)
	}
	if got := watchRoom(77, none)(); got != 77 {
		t.Errorf("configured: %d", got)
	}
}
