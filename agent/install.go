package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/verify"
)

// ErrInstalled says that the root has a version already.
var ErrInstalled = errors.New("a version is installed already")

// InstallFirst puts the release in a directory, in a tar file, at an https URL
// or of a version (as Examine takes it) into a root that has none, after the
// same checks as an upgrade: no byte of it runs before its signature is
// verified. It can be run again after it was interrupted. progress may be nil.
func InstallFirst(ctx context.Context, c Config, what string, progress func(phase string, done, total int64)) (release.Version, error) {
	return InstallSource(ctx, c, what, nil, progress)
}

// InstallSource is InstallFirst for a source that is open, as StageSource has
// it; with nil, what says where the release is.
func InstallSource(ctx context.Context, c Config, what string, from stage.Source, progress func(phase string, done, total int64)) (release.Version, error) {
	c.Version = "0.0.0"
	r, err := c.resolve()
	if err != nil {
		return release.Version{}, fmt.Errorf("config: %w", err)
	}
	if _, err := os.Lstat(r.layout.Current()); !errors.Is(err, fs.ErrNotExist) {
		return release.Version{}, errors.Join(ErrInstalled, err)
	}
	trust, err := verify.Load(c.Signers)
	if err != nil {
		return release.Version{}, err
	}
	sc := r.staging(trust)
	sc.Progress = progress
	var version release.Version
	if sc.From = from; from == nil {
		var done func()
		if version, done, err = aim(&sc, trust, what); err != nil {
			return release.Version{}, err
		}
		defer done()
	}
	stager, err := stage.New(sc)
	if err != nil {
		return release.Version{}, err
	}
	rel, err := stager.Fetch(ctx, version)
	if err != nil {
		return release.Version{}, err
	}
	m := rel.Manifest()
	req, err := release.NewRequest(m.Version.String(), m.Channel, "", "", r.host)
	if err != nil {
		return m.Version, err
	}
	if err := r.policy.Check(req, m.Version); err != nil {
		return m.Version, err
	}
	artefact, err := r.policy.Select(m, req, r.host)
	if err != nil {
		return m.Version, err
	}
	if _, err := stager.Stage(ctx, rel, artefact, func() {}); err != nil {
		return m.Version, err
	}
	return m.Version, r.layout.LinkFirst(m.Version)
}
