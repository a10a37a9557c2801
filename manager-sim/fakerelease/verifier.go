package fakerelease

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"

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

// FetchURLs returns the URLs below which the files of v may be, one for each repository
// that has releases in the directory.
func (t Trust) FetchURLs(v release.Version) (urls []string) {
	for _, row := range t.Signers() {
		urls = append(urls, release.BaseURL(strings.Replace(row.Repository, "https://github.com", t.Host, 1), v))
	}
	return urls
}

// ReleaseCA returns the only CA (PEM) that the release host may use.
func (t Trust) ReleaseCA() []byte { return t.CA }
