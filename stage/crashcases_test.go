package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/watchdog"
)

const (
	matrixAttempts = 2 // max_boot_attempts of the trials
	oldVersion     = "1.9.0"
	newVersion     = "2.0.0"
	bigVersion     = "1.0.0"
	badChecksum    = "2.1.0"
	notExecutable  = "2.2.0"
)

// crashCase is one operation on a root that earlier ones have prepared.
type crashCase struct {
	name   string
	before []step
	step   step
	// lost: current leads nowhere, and only a write can change that.
	lost bool
	// proved: the new version has proved healthy before, so it is healthy.
	proved bool
	// torn: what state.json held is gone, and nobody can tell it.
	torn bool
}

// step is one thing that a process does, as the agent, the watchdog or the
// command line does it. It adds to p what is durable when it returns.
type step func(ctx context.Context, s *Stager, p *promised) error

// promised is what must be on disk after an operation, and what the manager has.
type promised struct {
	commands  []string
	delivered []state.Entry
	torn      bool
}

type known struct {
	rel verify.Release
	art release.Artefact
}

// releases are verified ones, by version.
type releases map[string]known

// verified fetches every release that the tests of crashes use.
func verified(t *testing.T, host *Stager) releases {
	rs := releases{}
	for _, v := range []string{bigVersion, newVersion, smallStreamed, streamed, badChecksum, notExecutable} {
		rel, a := fetch(t, host, v)
		rs[v] = known{rel, a}
	}
	return rs
}

func ignorePendingReports(err error) error {
	if errors.Is(err, state.ErrReportsPending) {
		return nil
	}
	return err
}

// upgrade is agent/upgrade.go, without a manager.
func upgrade(rs releases, version string, commit func(context.Context, state.Layout, Staged, state.Trial) (state.Result, error)) step {
	return func(ctx context.Context, s *Stager, p *promised) error {
		return upgradeAs(rs, fmt.Sprintf("upgrade-%s-%d", version, len(p.commands)), version, commit)(ctx, s, p)
	}
}

func upgradeAs(rs releases, id, version string, commit func(context.Context, state.Layout, Staged, state.Trial) (state.Result, error)) step {
	return func(ctx context.Context, s *Stager, p *promised) error {
		v := release.MustVersion(version)
		_, err := s.Layout.Do(ctx, func(st state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
			return state.Start(st, state.Command{ID: id, Version: v, From: t.Current}, time.Now()), t, nil
		})
		if ignorePendingReports(err) != nil {
			return err
		}
		p.commands = append(p.commands, id)
		k := rs[version]
		staged, err := s.Stage(ctx, s.Host(k.rel.Manifest().Version), k.rel, k.art, func() {
			s.Layout.Do(ctx, func(st state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
				return state.Downloaded(st, id, time.Now()), t, nil
			})
		})
		if err == nil {
			_, err = commit(ctx, s.Layout, staged, state.Trial{ID: id, CommandID: id, MaxAttempts: matrixAttempts})
			err = ignorePendingReports(err)
		}
		if err == nil {
			return nil
		}
		for range 2 { // the agent tries for ever
			if _, e := s.Layout.Do(ctx, func(st state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
				return state.Fail(st, id, release.Internal, err.Error(), time.Now()), t, nil
			}); e == nil {
				break
			}
		}
		return err
	}
}

// resumed resumes a command that a restart interrupted, and lets it fail.
func resumed(st state.State, now time.Time) state.State {
	st, c := state.Resume(st, 0, now)
	if c.ID != "" {
		st = state.Fail(st, c.ID, release.NetworkError, "resumed, and failed", now)
	}
	return st
}

func boot(ctx context.Context, s *Stager, _ *promised) error {
	return errors.Join(watchdog.Run(ctx, s.Layout).Errs...)
}

// prove is what the agent of a healthy version does.
func prove(ctx context.Context, s *Stager, _ *promised) error {
	now := time.Now()
	if _, err := s.Layout.Do(ctx, func(st state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		return resumed(st, now), t, nil
	}); ignorePendingReports(err) != nil {
		return err
	}
	if err := s.Tidy(ctx); err != nil {
		return err
	}
	res, err := s.Layout.Do(ctx, func(st state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
		st, t = state.Keep(st, t, st.Target, "", now)
		return st, t, nil
	})
	if err != nil {
		return err
	}
	return Prune(ctx, s.Layout, 2, res.Tree.Current)
}

// deliver gives the manager what is in the outbox; what it has goes.
func deliver(_ context.Context, s *Stager, p *promised) error {
	box := s.Layout.Outbox()
	entries, _, err := box.List()
	if err != nil {
		return err
	}
	for _, e := range entries {
		p.delivered = append(p.delivered, e)
		if err := box.Remove(e.ID); err != nil {
			return err
		}
	}
	return nil
}

func rollBack(s state.State, t state.Tree, now time.Time) (state.State, state.Tree, error) {
	return state.RollBack(s, t, release.Version{}, now)
}

func by(change func(state.State, state.Tree, time.Time) (state.State, state.Tree, error)) step {
	return func(ctx context.Context, s *Stager, _ *promised) error {
		_, err := s.Layout.Do(ctx, func(st state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
			return change(st, t, time.Now())
		})
		return err
	}
}

func raw(change func(l state.Layout) error) step {
	return func(_ context.Context, s *Stager, _ *promised) error { return change(s.Layout) }
}

func crashCases(rs releases) []crashCase {
	up := upgrade(rs, newVersion, Swap)
	shelve := upgrade(rs, newVersion, Shelve)
	garbage := raw(func(l state.Layout) error {
		return os.WriteFile(filepath.Join(l.Root(), "state.json"), []byte(`{"schema":1,"sta`), 0o644)
	})
	point := func(link, version string) step {
		return raw(func(l state.Layout) error {
			return fsutil.Disk{}.Symlink("versions/"+version, filepath.Join(l.Root(), link))
		})
	}
	old := raw(func(l state.Layout) error { return writeVersion(l, "1.8.0", "old") })
	removeInstalled := raw(func(l state.Layout) error { return os.RemoveAll(l.Version(release.MustVersion(newVersion))) })
	lower := func(version string) step {
		return raw(func(l state.Layout) error {
			return errors.Join(writeVersion(l, version, "of the image"), os.WriteFile(filepath.Join(l.Version(release.MustVersion(version)), lowerFile), nil, 0o644))
		})
	}
	keep := func(n int, next step) step {
		return func(ctx context.Context, s *Stager, p *promised) error {
			s.KeepVersions = n
			return next(ctx, s, p)
		}
	}
	older := raw(func(l state.Layout) error { return writeVersion(l, "1.7.0", "older") })
	return []crashCase{
		{name: "stage over a directory of an image", before: []step{lower(newVersion)}, step: up},
		{name: "stage over a directory of an image that previous points to", before: []step{lower(newVersion), point("previous", newVersion)}, step: up},
		{name: "keep and prune what is of an image", before: []step{lower("1.8.0"), up, boot}, step: prove, proved: true},
		{name: "prune, then stage", before: []step{old, older, point("previous", "1.8.0")}, step: keep(2, up)},
		{name: "prune what is of an image, then stage", before: []step{old, lower("1.7.0"), point("previous", "1.8.0")}, step: keep(2, up)},
		{name: "prune what was rolled back, then stage", before: []step{upgrade(rs, bigVersion, Swap), boot, boot, boot, prove}, step: keep(2, up)},
		{name: "stage and swap", step: up},
		{name: "stage and swap, streamed", step: upgrade(rs, smallStreamed, Swap)},
		{name: "refused: bad checksum", step: upgrade(rs, badChecksum, Swap)},
		{name: "refused: cannot run", step: upgrade(rs, notExecutable, Swap)},
		{name: "stage over a directory of other bytes", before: []step{raw(func(l state.Layout) error {
			return writeVersion(l, newVersion, "by hand")
		})}, step: up},
		{name: "stage with a leftover", before: []step{raw(func(l state.Layout) error {
			return os.WriteFile(l.Download(rs[newVersion].art.SHA256), []byte("not the beginning of it"), 0o644)
		})}, step: up},
		{name: "stage what is there", before: []step{up, boot, prove, by(rollBack), boot, prove}, step: up},
		{name: "start counted", before: []step{up}, step: boot},
		{name: "last start counted", before: []step{up, boot}, step: boot},
		{name: "revert", before: []step{up, boot, boot}, step: boot},
		{name: "start after the revert", before: []step{up, boot, boot, boot}, step: boot},
		{name: "keep and prune", before: []step{old, up, boot}, step: prove, proved: true},
		{name: "deliver", before: []step{up, boot, prove}, step: deliver, proved: true},
		{name: "deliver in a trial", before: []step{up, boot}, step: deliver},
		{name: "shelve", step: shelve},
		{name: "manual apply", before: []step{shelve}, step: by(state.Apply)},
		{name: "manual rollback in a trial", before: []step{up, boot}, step: by(rollBack)},
		{name: "manual rollback", before: []step{up, boot, prove}, step: by(rollBack), proved: true},
		{name: "manual rollback kept", before: []step{up, boot, prove, by(rollBack), boot}, step: prove, proved: true},
		{name: "upgrade again after a revert", before: []step{up, boot, boot, boot, prove, removeInstalled}, step: up},
		{name: "first start of a root", before: []step{raw(func(l state.Layout) error {
			return errors.Join(os.Remove(filepath.Join(l.Root(), "state.json")), os.Remove(filepath.Join(l.Root(), "last-good")))
		})}, step: boot},
		{name: "state.json torn", before: []step{garbage}, step: boot, torn: true},
		{name: "state.json torn in a trial", before: []step{up, boot, garbage}, step: boot, torn: true},
		{name: "current led nowhere", before: []step{point("current", "9.9.9")}, step: boot, lost: true},
		{name: "current moved by hand", before: []step{old, point("current", "1.8.0")}, step: boot},
		{name: "version taken away in a trial", before: []step{up, boot, removeInstalled}, step: boot, lost: true},
	}
}

// oldRoot lays out a root that runs oldVersion.
func oldRoot(l state.Layout) error {
	if err := errors.Join(os.Mkdir(l.Root(), 0o755), l.Make(), writeVersion(l, oldVersion, "old and good"),
		l.Disk().Symlink("versions/"+oldVersion, l.Current())); err != nil {
		return err
	}
	_, err := l.Do(context.Background(), nil)
	return err
}

func writeVersion(l state.Layout, version, text string) error {
	dir := l.Version(release.MustVersion(version))
	return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "edge-agent"), []byte(text), 0o755))
}

func (p promised) clone() promised {
	return promised{slices.Clone(p.commands), slices.Clone(p.delivered), p.torn}
}
