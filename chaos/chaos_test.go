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

// TestChaosKeepsEveryPromise runs a few whole trials. CHAOS_TRIALS says how
// many, CHAOS_SEED the first of their seeds.
func TestChaosKeepsEveryPromise(t *testing.T) {
	number := func(name string, otherwise uint64) uint64 {
		if n, err := strconv.ParseUint(os.Getenv(name), 10, 64); err == nil {
			return n
		}
		return otherwise
	}
	bin := filepath.Join(t.TempDir(), "dspgate")
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/dspgate/dspgate/cmd/dspgate").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	o := settings{dspgate: bin, length: 4 * time.Second, failovers: true, keep: "out"}
	seed := number("CHAOS_SEED", 1)
	var total stats
	for i := range number("CHAOS_TRIALS", 6) {
		t.Run(fmt.Sprintf("seed-%d", seed+i), func(t *testing.T) {
			found, did, kept, err := runTrial(t.Context(), seed+i, o)
			if err != nil {
				t.Error(err)
			}
			for _, v := range found {
				t.Errorf("%s: %s", v.Promise, v.What)
			}
			if kept != "" {
				t.Logf("logs in %s", kept)
			}
			total.add(did)
		})
	}
	// Trials in which nothing got through, or nothing was suspended, prove nothing.
	if total.complete == 0 || total.lifts == 0 || total.allowed == 0 || total.arrivals < total.allowed {
		t.Errorf("the trials were empty: %+v", total)
	}
}
