package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/verify"
)

// StageFrom stages the release that lies in from, a directory or a tar file,
// for a site that no release host can be reached from. It takes the very same
// checks as an upgrade by the manager; only upgrade.enabled, which is the
// manager's permission, is not asked for: whoever runs this is at the node.
//
// The version waits for an operator (state.Apply) or, with apply, is put on
// trial at the next start. c.Version is not read: the running version is the
// one that current points to. progress may be nil; see stage.Config.
func StageFrom(ctx context.Context, c Config, from string, apply bool, progress func(phase string, done, total int64)) (verify.Release, error) {
	source, err := stage.OpenSource(from)
	if err != nil {
		return verify.Release{}, err
	}
	defer source.Close()
	return StageSource(ctx, c, source, apply, progress)
}

// StageSource is StageFrom for a source that is open: a caller that gives up
// root may open one first that its new user could not.
func StageSource(ctx context.Context, c Config, source stage.Source, apply bool, progress func(phase string, done, total int64)) (verify.Release, error) {
	c.Version = "0.0.0"
	r, err := c.resolve()
	if err != nil {
		return verify.Release{}, fmt.Errorf("config: %w", err)
	}
	now, err := r.layout.Read()
	if err != nil {
		return verify.Release{}, err
	}
	running := now.Tree.Current
	if running.IsZero() {
		return verify.Release{}, fmt.Errorf("no version is installed under %s", r.layout.Root())
	}
	trust, unfit, err := verify.LoadKept(c.Signers, fsutil.DirFS(r.layout.TrustDir()))
	if err != nil {
		return verify.Release{}, err
	}
	if unfit != nil {
		r.Log.Error().Err(unfit).Msg("the trust root that was renewed is not used, but the compiled-in one")
	}
	sc := r.staging(trust)
	sc.From, sc.Progress = source, progress
	stager, err := stage.New(sc)
	if err != nil {
		return verify.Release{}, err
	}

	rel, err := stager.Fetch(ctx, release.Version{})
	if err != nil {
		return verify.Release{}, err
	}
	m := rel.Manifest()
	if m.Version == running {
		return rel, fmt.Errorf("%s runs already", running)
	}
	req, err := release.NewRequest(m.Version.String(), m.Channel, "", "", r.host)
	if err != nil {
		return rel, err
	}
	policy := r.policy
	policy.Enabled, policy.Floor, policy.FloorSequence = true, now.State.Floor, now.State.FloorSequence
	if err := policy.Check(req, running); err != nil {
		return rel, err
	}
	artefact, err := policy.Select(m, req, r.host)
	if err != nil {
		return rel, err
	}
	if now.State.Status == state.PendingHealth {
		return rel, release.Errorf(release.InProgress, "%s is on trial; wait for its result", now.State.Target)
	}
	staged, err := stager.Stage(ctx, rel, artefact, func() {})
	if err != nil {
		return rel, err
	}
	hand := stage.Shelve
	if apply {
		hand = stage.Swap
	}
	_, err = hand(ctx, r.layout, staged, state.Trial{
		ID: fmt.Sprintf("offline-%s-%d", m.Version, time.Now().UnixMilli()), Channel: m.Channel, MaxAttempts: r.Upgrade.MaxBootAttempts,
	})
	if errors.Is(err, state.ErrReportsPending) { // it is done, and told later
		err = nil
	}
	return rel, err
}

// RenewTrust takes a newer trust root from the directory from, if Sigstore's
// TUF keys prove it, and keeps it under the root of l. See verify.Renew.
func RenewTrust(ctx context.Context, l state.Layout, from string) (verify.Renewal, error) {
	return renewTrust(ctx, l, fsutil.DirFS(from))
}

// renewTrust reads from, which may be a slow host, before it takes the lock of l, and
// proves under the lock what it read: somebody else may have renewed it meanwhile.
func renewTrust(ctx context.Context, l state.Layout, from fs.FS) (verify.Renewal, error) {
	kept := fsutil.DirFS(l.TrustDir())
	r, err := verify.Renew(from, kept)
	if err != nil {
		return r, err
	}
	read := memory(r.Files)
	err = l.Locked(ctx, func() (err error) {
		if r, err = verify.Renew(read, kept); err != nil {
			return err
		}
		return l.KeepTrust(r.Files)
	})
	return r, err
}

// memory is files by their names.
type memory map[string][]byte

// Open opens a file for reading alone.
func (m memory) Open(name string) (fs.File, error) {
	b, ok := m[name]
	if !ok {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return memoryFile{bytes.NewReader(b)}, nil
}

type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error               { return nil }
func (memoryFile) Stat() (fs.FileInfo, error) { return nil, fs.ErrInvalid }
