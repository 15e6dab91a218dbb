package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/dspgate/dspgate/internal/config"
)

const deployDir = "../../deploy"

// TestDeployedConfigurationsAreRead holds the files we tell people to start
// from against what the programs accept.
func TestDeployedConfigurationsAreRead(t *testing.T) {
	side, control := defaultSidecarConfig(), defaultControlConfig()
	if err := config.Load(filepath.Join(deployDir, "sidecar.yaml"), &side, nil, nil); err != nil {
		t.Error(err)
	}
	if err := config.Load(filepath.Join(deployDir, "control.yaml"), &control, nil, nil); err != nil {
		t.Error(err)
	}
	if side.ID == "" || control.ID == "" || len(side.Issuers) != 1 {
		t.Fatalf("read %+v, %+v", side, control)
	}
	// What has to agree between the two.
	if control.LeaseMax < side.Lease.Long {
		t.Errorf("lease_max %v is less than a sidecar's lease.long %v", control.LeaseMax, side.Lease.Long)
	}
	if side.Envoy.Sidecars[0].Authz != side.ListenAuthz || side.Envoy.Sidecars[0].AccessLog != side.Listen {
		t.Errorf("Envoy is sent to %+v; the sidecar listens on %s and %s", side.Envoy.Sidecars[0], side.ListenAuthz, side.Listen)
	}
}

// TestDeployedBootstrapIsWhatTheCommandPrints, and a real Envoy takes it.
func TestDeployedBootstrapIsWhatTheCommandPrints(t *testing.T) {
	var out, errs bytes.Buffer
	file := filepath.Join(deployDir, "envoy/bootstrap.json")
	if code := execute(t.Context(), &globals{stdout: &out, stderr: &errs, getenv: os.Getenv}, []string{"sidecar", "bootstrap", "--config", filepath.Join(deployDir, "sidecar.yaml")}); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("deploy/envoy/bootstrap.json is another one (-file +printed):\n%s", diff)
	}
	envoy := os.Getenv("DSPGATE_ENVOY")
	if envoy == "" {
		envoy = "../../.tools/envoy"
	}
	if said, err := exec.CommandContext(t.Context(), envoy, "--mode", "validate", "--config-path", file).CombinedOutput(); err != nil {
		t.Errorf("Envoy does not take it: %v\n%s", err, said)
	}
}

func TestBootstrapNamesWhatIsMissing(t *testing.T) {
	for want, args := range map[string][]string{
		"needs id and listen": {"--set", "id=a"},
		"admin":               {"--set", "id=a", "--set", "listen=unix:/x", "--admin", "0.0.0.0:9901"},
	} {
		var out, errs bytes.Buffer
		if code := execute(t.Context(), &globals{stdout: &out, stderr: &errs, getenv: os.Getenv}, append([]string{"sidecar", "bootstrap"}, args...)); code != 2 || !strings.Contains(errs.String(), want) {
			t.Errorf("%v: exit %d, %q; want 2 and %q", args, code, errs.String(), want)
		}
	}
}
