package verify

import (
	"errors"
	"io/fs"
	"strings"

	"github.com/bilbycast/edge-agent/release"
)

// Trust is what a node trusts, and where it looks for releases.
type Trust struct {
	*Verifier
	renewed    *Renewal
	repository string // of the first row
	host       string // simulation only: stands for https://github.com
	ca         []byte // simulation only: PEM of the release host's CA
}

// Load returns the compiled-in trust: Sigstore's production root with the given rows, or
// with DefaultSigners if there are none. A simulation build reads both from a
// directory instead.
func Load(signers []Signer) (Trust, error) {
	t, _, err := LoadKept(signers, nil)
	return t, err
}

// LoadKept is Load with the trust root of an earlier Renew, whose files are in kept. They
// are proven again each time: files on the disk are not trusted. unfit is why they
// cannot be used; then t has the compiled-in root.
func LoadKept(signers []Signer, kept fs.FS) (t Trust, unfit error, err error) {
	if len(signers) == 0 {
		signers = DefaultSigners()
	}
	if t, err = load(signers); err != nil || kept == nil {
		return t, nil, err
	}
	if _, err := fs.Stat(kept, targetsFile); errors.Is(err, fs.ErrNotExist) {
		return t, nil, nil // nothing was ever kept
	}
	a, err := loadAnchor()
	if err != nil {
		return Trust{}, nil, err
	}
	r, unfit := a.known(kept)
	if unfit != nil {
		return t, unfit, nil
	}
	v, err := New(r.TrustedRoot(), t.signers)
	if err != nil {
		return t, err, nil
	}
	t.Verifier, t.renewed = v, &r
	return t, nil, nil
}

// Renewed returns the versions of the TUF root and of the targets of a renewed root. ok is
// false for the compiled-in root.
func (t Trust) Renewed() (rootVersion, targetsVersion int64, ok bool) {
	if t.renewed == nil {
		return 0, 0, false
	}
	return t.renewed.RootVersion, t.renewed.TargetsVersion, true
}

// BaseURL returns the URL under which the manifest of v names its files. FetchURL returns
// where they are fetched from. The two differ only in a simulation build.
func (t Trust) BaseURL(v release.Version) string { return release.BaseURL(t.repository, v) }

// FetchURL returns the URL below which the files of v are fetched.
func (t Trust) FetchURL(v release.Version) string {
	if t.host == "" {
		return t.BaseURL(v)
	}
	return release.BaseURL(strings.Replace(t.repository, "https://github.com", t.host, 1), v)
}

// ReleaseCA returns the only CA (PEM) that the release host may use, or nil for those of
// the system.
func (t Trust) ReleaseCA() []byte { return t.ca }
