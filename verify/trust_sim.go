//go:build sim

package verify

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Simulation reports whether this build trusts a simulated Sigstore.
const Simulation = true

// VersionSuffix marks the version that a simulation build prints.
const VersionSuffix = "+sim"

// TrustDirEnv names the environment variable of the directory with trusted_root.json,
// sim.json and release_ca.pem, as "manager-sim release publish" writes it.
const TrustDirEnv = "EDGE_AGENT_SIM_TRUST"

// loadAnchor reads the TUF root of a simulated Sigstore, if it has one.
func loadAnchor() (anchor, error) {
	b, err := os.ReadFile(filepath.Join(os.Getenv(TrustDirEnv), "tuf_root.json"))
	if err != nil {
		return anchor{}, fmt.Errorf("simulated trust: %w", err)
	}
	return anchor{root: b}, nil
}

// load reads keys and host from the directory. It reads the rows there, too, in place of
// ours. Rows of another publisher, set by the build or by a sidecar, hold as in
// production.
func load(signers []Signer) (Trust, error) {
	dir := os.Getenv(TrustDirEnv)
	if dir == "" {
		return Trust{}, fmt.Errorf("this is a simulation build: set %s to the trust directory that manager-sim wrote", TrustDirEnv)
	}
	read := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, name)) }
	rootJSON, err1 := read("trusted_root.json")
	simJSON, err2 := read("sim.json")
	ca, err3 := read("release_ca.pem")
	if err := errors.Join(err1, err2, err3); err != nil {
		return Trust{}, fmt.Errorf("simulated trust: %w", err)
	}
	var sim struct {
		ReleaseHost string   `json:"release_host"`
		Signers     []Signer `json:"signers"`
	}
	if err := json.Unmarshal(simJSON, &sim); err != nil {
		return Trust{}, fmt.Errorf("simulated trust: sim.json: %w", err)
	}
	if !slices.Equal(signers, ourSigners()) {
		sim.Signers = signers
	}
	v, err := New(rootJSON, sim.Signers)
	if err != nil {
		return Trust{}, fmt.Errorf("simulated trust: %w", err)
	}
	return Trust{Verifier: v, host: sim.ReleaseHost, ca: ca}, nil
}
