package verify

import (
	"strings"

	"github.com/bilbycast/edge-agent/release"
)

// Trust is what a node believes, and where it looks for releases.
type Trust struct {
	*Verifier
	repository string // of the first row
	host       string // simulation only: stands for https://github.com
	ca         []byte // simulation only: PEM of the release host's CA
}

// Load returns the compiled-in trust: Sigstore's production root and the rows
// given, or DefaultSigners if there are none. In a simulation build it reads
// both from a directory instead.
func Load(signers []Signer) (Trust, error) {
	if len(signers) == 0 {
		signers = DefaultSigners()
	}
	return load(signers)
}

// BaseURL is where the manifest of v says that its files are; FetchURL is
// where they are fetched from. The two differ only in a simulation build.
func (t Trust) BaseURL(v release.Version) string { return release.BaseURL(t.repository, v) }

// FetchURL is the base of the URLs that the files of v are fetched from.
func (t Trust) FetchURL(v release.Version) string {
	if t.host == "" {
		return t.BaseURL(v)
	}
	return release.BaseURL(strings.Replace(t.repository, "https://github.com", t.host, 1), v)
}

// ReleaseCA returns the only CA (PEM) that the release host may use, or nil
// for the system's.
func (t Trust) ReleaseCA() []byte { return t.ca }
