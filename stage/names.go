package stage

import (
	"context"
	"errors"
	"io/fs"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// names is the release host as the Source of one version that may be there by several
// names: a repository was renamed, and the allowlist has a row for each name. The first
// name that has a file is asked first from then on.
type names struct {
	hosts []Source // never empty
	at    int      // of hosts: which one is asked first
	tried int      // how many of them Fetch refused
}

func (n *names) Local() bool { return false }

func (n *names) Describe(name string) string { return n.hosts[n.at].Describe(name) }

func (n *names) Close() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.Close())
	}
	return errors.Join(errs...)
}

// Open asks every name in one try, as long as they answer that there is no such file.
func (n *names) Open(ctx context.Context, name string, at int64, etag string) (Part, error) {
	p, err := n.hosts[n.at].Open(ctx, name, at, etag)
	for i := 1; i < len(n.hosts) && errors.Is(err, fs.ErrNotExist); i++ {
		other := (n.at + i) % len(n.hosts)
		q, again := n.hosts[other].Open(ctx, name, at, etag)
		if again == nil {
			n.at = other
			return q, nil
		}
	}
	return p, err
}

// next makes the name after the present one the first, and reports whether it was not
// refused yet.
func (n *names) next() bool {
	n.at = (n.at + 1) % len(n.hosts)
	n.tried++
	return n.tried < len(n.hosts)
}

// Fetch reads the manifest and its signature from src, and verifies them. If the signature
// fails and Renew is set, it tries once more with the trust root beside the release. What
// it refuses under one name of a repository may be genuine under another: somebody else
// can take a name that was given up.
func (s *Stager) Fetch(ctx context.Context, src Source) (verify.Release, error) {
	rel, err := s.fetch(ctx, src)
	n, ok := src.(*names)
	for ok && final(err) && ctx.Err() == nil && n.next() {
		if other, err := s.fetch(ctx, src); err == nil {
			return other, nil
		}
	}
	return rel, err
}

// fileOf returns the name of an artefact's tarball. The manifest must name it below the
// repository that signed, or below another one of the allowlist: a publisher's workflow may
// still have the name from before the repository was renamed.
func (s *Stager) fileOf(rel verify.Release, a release.Artefact) (string, error) {
	v := rel.Manifest().Version
	name, err := a.File(release.BaseURL(rel.Signature().Repository, v))
	for _, row := range s.Trust.Signers() {
		if err == nil {
			break
		}
		if other, e := a.File(release.BaseURL(row.Repository, v)); e == nil {
			return other, nil
		}
	}
	return name, err
}
