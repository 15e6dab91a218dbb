package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// TestChaosKeepsEveryPromise runs twenty whole trials. CHAOS_TRIALS says how
// many, CHAOS_SEED the first of their seeds.
func TestChaosKeepsEveryPromise(t *testing.T) {
	t.Parallel()
	number := func(name string, otherwise uint64) uint64 {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 32); err == nil {
			return n
		}
		return otherwise
	}
	o := settings{dspgate: buildDspgate(t), length: 4 * time.Second, perWorld: 5, worlds: 2, failovers: true, keep: "out"}
	seed, n := number("CHAOS_SEED", 1), number("CHAOS_TRIALS", 20)
	var all tally
	err := trials(t.Context(), seed, int(n), o, func(r *result) bool {
		all.add(r)
		t.Run(fmt.Sprintf("seed-%d", r.seed), func(t *testing.T) {
			if r.err != nil {
				t.Error(r.err)
			}
			for i, v := range r.found {
				if i == shownMax {
					t.Errorf("and %d more", len(r.found)-i)
					break
				}
				t.Errorf("%s: %s", v.Promise, v.What)
			}
			if r.kept != "" {
				t.Logf("logs in %s", r.kept)
			}
		})
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", all.did)
	// Trials in which nothing got through, or nothing was suspended, prove nothing.
	if d := &all.did; d.complete == 0 || d.lifts == 0 || d.allowed == 0 || d.arrivals < d.allowed {
		t.Errorf("the trials were empty: %+v", d)
	}
}

// buildDspgate builds the program as it stands.
func buildDspgate(t *testing.T, flags ...string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "dspgate")
	args := append(append([]string{"build"}, flags...), "-o", bin, "github.com/dspgate/dspgate/cmd/dspgate")
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return bin
}
