package verify

import (
	"errors"
	"io/fs"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/release"
)

// Trust is what a node trusts, and where it looks for releases.
type Trust struct {
	*Verifier
	renewed *Renewal
	host    string // simulation only: stands for https://github.com
	ca      []byte // simulation only: PEM of the release host's CA
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

// FetchURLs returns the URLs below which the files of v may be: one for each repository of
// the allowlist, in the order of its rows. A repository that was renamed has a row for each
// of its names.
func (t Trust) FetchURLs(v release.Version) (urls []string) {
	for _, row := range t.signers {
		at := row.Repository
		if t.host != "" {
			at = strings.Replace(at, "https://github.com", t.host, 1)
		}
		if u := release.BaseURL(at, v); !slices.Contains(urls, u) {
			urls = append(urls, u)
		}
	}
	return urls
}

// ReleaseCA returns the only CA (PEM) that the release host may use, or nil for those of
// the system.
func (t Trust) ReleaseCA() []byte { return t.ca }
