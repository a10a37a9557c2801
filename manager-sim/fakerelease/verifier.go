package fakerelease

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// Trust trusts the releases in a directory, and fetches them from Host, an https URL
// of Handler whose certificate CA signed. It is what a simulation build trusts, for
// programs that are none.
type Trust struct {
	*verify.Verifier
	Host string
	CA   []byte // PEM
}

// NewTrust returns the Trust in the releases that Publish wrote to dir.
func NewTrust(dir, host string, ca []byte) (Trust, error) {
	var sim struct{ Signers []verify.Signer }
	b, err1 := os.ReadFile(filepath.Join(TrustDir(dir), "sim.json"))
	root, err2 := os.ReadFile(filepath.Join(TrustDir(dir), "trusted_root.json"))
	if err := errors.Join(err1, err2, json.Unmarshal(b, &sim)); err != nil {
		return Trust{}, err
	}
	v, err := verify.New(root, sim.Signers)
	return Trust{v, host, ca}, err
}

// BaseURL returns the URL under which the manifest of v names its files.
func (Trust) BaseURL(v release.Version) string {
	return release.BaseURL("https://github.com/"+DefaultRepository, v)
}

// FetchURL returns the URL below which the files of v are fetched.
func (t Trust) FetchURL(v release.Version) string {
	return release.BaseURL(t.Host+"/"+DefaultRepository, v)
}

// ReleaseCA returns the only CA (PEM) that the release host may use.
func (t Trust) ReleaseCA() []byte { return t.CA }
