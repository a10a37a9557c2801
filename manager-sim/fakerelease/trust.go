package fakerelease

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/manager-sim/fakesig"
)

// sim is trust/sim.json, which a simulation build of the agent reads.
type sim struct {
	ReleaseHost string   `json:"release_host"` // used in place of https://github.com
	Signers     []signer `json:"signers"`
}

// signer has the same JSON as verify.Signer.
type signer struct {
	Issuer       string `json:"issuer"`
	Repository   string `json:"repository"`
	Workflow     string `json:"workflow"`
	Ref          string `json:"ref"`
	RepositoryID string `json:"repository_id"`
	OwnerID      string `json:"owner_id"`
	Runner       string `json:"runner"`
}

func readSim(dir string) (sim, error) {
	var s sim
	b, err := os.ReadFile(filepath.Join(dir, "sim.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(b, &s)
}

// replace writes a file by rename, so that a reader sees the old or the new one.
func replace(path string, b []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func (s sim) write(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return replace(filepath.Join(dir, "sim.json"), append(b, '\n'))
}

// TrustDir returns the directory, beside the releases in dir, that simulation builds
// trust.
func TrustDir(dir string) string { return filepath.Join(dir, "trust") }

// trust updates dir/trust from the instance, and adds the repository's signer.
func trust(dir, repository string, sig *fakesig.Instance) error {
	to := TrustDir(dir)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	root, err := sig.TrustedRoot()
	if err != nil {
		return err
	}
	if err := replace(filepath.Join(to, "trusted_root.json"), root); err != nil {
		return err
	}
	s, err := readSim(to)
	if err != nil {
		return err
	}
	c := fakesig.GitHub(repository, Workflow, "", commit)
	for _, row := range s.Signers {
		if row.Repository == c.SourceRepositoryURI {
			return nil
		}
	}
	s.Signers = append(s.Signers, signer{
		Issuer: c.Issuer, Repository: c.SourceRepositoryURI, Workflow: Workflow, Ref: "refs/tags/v*",
		RepositoryID: c.SourceRepositoryID, OwnerID: c.SourceRepositoryOwnerID, Runner: c.RunnerEnvironment,
	})
	return s.write(to)
}

// SetHost writes to dir/trust the URL of the release host, and the CA (PEM) of its
// certificate.
func SetHost(dir, url string, caPEM []byte) error {
	to := TrustDir(dir)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	s, err := readSim(to)
	if err != nil {
		return err
	}
	s.ReleaseHost = url
	if err := replace(filepath.Join(to, "release_ca.pem"), caPEM); err != nil {
		return err
	}
	return s.write(to)
}
