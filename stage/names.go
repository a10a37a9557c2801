package stage

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
)

// names is the release host as the Source of one version that may be there by several
// names: a repository was renamed, and the allowlist has a row for each name. Somebody else
// can take a name that was given up, so every name has a try in turn. No name has any of the
// bytes of another: a signature belongs to the manifest beside it, and a tarball is of one name.
type names struct {
	Source          // the first of hosts
	hosts  []Source // in the order in which they are asked
}

func named(hosts ...Source) Source {
	if len(hosts) == 1 {
		return hosts[0]
	}
	return &names{hosts[0], hosts}
}

// prefer makes the names for which first holds the first ones.
func (n *names) prefer(first func(Source) bool) {
	hosts := slices.Clone(n.hosts)
	slices.SortStableFunc(hosts, func(a, b Source) int {
		switch fa, fb := first(a), first(b); {
		case fa && !fb:
			return -1
		case fb && !fa:
			return 1
		}
		return 0
	})
	n.Source, n.hosts = hosts[0], hosts
}

// inTurn calls do with src or, if it has several names, with one after the other until do
// succeeds with one. A name of which do refuses the files (an error that is final) is left
// out. An error that is this device's ends it.
func (s *Stager) inTurn(ctx context.Context, src Source, do func(Source) error) error {
	e := s.effort
	e.begin(s)
	n, ok := src.(*names)
	if !ok {
		return do(src)
	}
	left, refused := slices.Clone(n.hosts), error(nil)
	for i := 0; ; {
		e.names, e.more = len(left), i < len(left)-1
		err := do(left[i])
		switch {
		case err == nil:
			return nil
		case errors.As(err, new(another)):
			i = (i + 1) % len(left)
			continue
		case ctx.Err() != nil, isCode(err, release.Internal), isCode(err, release.DiskFull):
			return err
		case e.ended && refused != nil:
			return release.Errorf(release.CodeOf(err), "%w; and what another name of the repository has is refused: %w", err, refused)
		case e.ended:
			return err
		}
		if refused == nil || isCode(refused, release.NetworkError) {
			refused = err
		}
		if left = slices.Delete(left, i, i+1); len(left) == 0 {
			return refused
		}
		i %= len(left)
	}
}

// Fetch reads the manifest and its signature from src, and verifies them. If the signature
// fails and Renew is set, it tries once more with the trust root beside the release.
func (s *Stager) Fetch(ctx context.Context, src Source) (rel verify.Release, err error) {
	if s.effort.Limit == 0 {
		s.effort.best = 0 // of another release
	}
	err = s.inTurn(ctx, src, func(from Source) (err error) {
		s.effort.done, s.effort.have = 0, 0
		rel, err = s.fetch(ctx, from)
		return err
	})
	return rel, err
}

// signerFirst makes the name of the repository that signed rel the first of src.
func signerFirst(src Source, rel verify.Release) {
	if n, ok := src.(*names); ok {
		end := release.BaseURL(strings.TrimPrefix(rel.Signature().Repository, "https://github.com"), rel.Manifest().Version) + "/"
		n.prefer(func(h Source) bool { return strings.HasSuffix(h.Describe(""), end) })
	}
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
