package stage

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
)

// learn records the digests of the versions that an undisturbed run left.
func (m *matrix) learn(l state.Layout) error {
	t, err := l.Tree()
	if err != nil {
		return err
	}
	for _, v := range t.Versions {
		d, err := digest(l, v)
		if err != nil {
			return err
		}
		m.mu.Lock()
		m.digests[d] = true
		m.mu.Unlock()
	}
	return nil
}

func digest(l state.Layout, v release.Version) (string, error) {
	n, err := readTree(l.Version(v))
	if err != nil {
		return "", err
	}
	var b strings.Builder
	n.describe(&b, 0)
	return fmt.Sprintf("%s %x", v, sha256.Sum256([]byte(b.String()))), nil
}

// start runs the ordinary start sequence until a version runs, and checks what
// must hold. healthy reports whether a version other than the old one is healthy. If
// last is false, the disk still fails: then only what starts is checked, and on a
// read-only disk no other version can start.
func (m *matrix) start(ctx context.Context, conf Config, root, what string, healthy bool, disk *crashDisk, p promised, last bool) {
	var bad []string
	violated := func(format string, args ...any) { bad = append(bad, fmt.Sprintf(format, args...)) }
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.cases++
		for _, b := range bad {
			m.violations = append(m.violations, fmt.Sprintf("%s (new version healthy: %v): %s", what, healthy, b))
		}
	}()
	if disk == nil {
		disk = &crashDisk{at: -1}
	}
	s, err := at(conf, root, disk)
	if err != nil {
		violated("%v", err)
		return
	}
	if to, err := os.Readlink(filepath.Join(root, "last-good")); err == nil {
		if d, err := digest(s.Layout, release.MustVersion(filepath.Base(to))); err != nil || !m.known(d) {
			violated("before the start, last-good points to %s: %v", to, err)
		}
	}
	running := release.Version{}
	starts := 0
	for running.IsZero() && starts <= matrixAttempts+1 {
		starts++
		watchdog.Run(ctx, s.Layout)
		to, err := os.Readlink(s.Layout.Current())
		if err != nil {
			violated("start %d: %v", starts, err)
			return
		}
		v, err := release.ParseVersion(filepath.Base(to))
		if err != nil {
			violated("start %d: current points to %s", starts, to)
			return
		}
		if d, err := digest(s.Layout, v); err != nil || !m.known(d) {
			violated("start %d: current points to %s, which is not complete: %v", starts, v, err)
			return
		}
		if healthy || v.String() == oldVersion {
			running = v
		}
	}
	if running.IsZero() && (last || disk.fault != readOnly) {
		violated("nothing runs after %d starts", starts)
		return
	}
	if !last {
		return
	}
	if err := prove(ctx, s, nil); err != nil {
		violated("the agent's start: %v", err)
		return
	}
	m.checkAtRest(s.Layout, running, healthy, p, violated)
}

func (m *matrix) known(d string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.digests[d]
}

// checkAtRest checks a root whose version runs and proved healthy.
func (m *matrix) checkAtRest(l state.Layout, running release.Version, healthy bool, p promised, violated func(string, ...any)) {
	res, err := l.Read()
	if err != nil {
		violated("%v", err)
		return
	}
	s, t := res.State, res.Tree
	if len(res.Notes) > 0 {
		violated("at rest: %q", res.Notes)
	}
	if t.Current != running || t.LastGood != running || s.Good != running {
		violated("runs %s, but current is %s, last-good %s, good %s", running, t.Current, t.LastGood, s.Good)
	}
	if s.Status == state.PendingHealth || len(s.PendingReports) != 0 {
		violated("status %s, %d pending reports", s.Status, len(s.PendingReports))
	}
	for _, v := range t.Versions {
		if d, err := digest(l, v); err != nil || !m.known(d) {
			violated("version %s is not complete: %v", v, err)
		}
		if v.String() == badChecksum || v.String() == notExecutable {
			violated("the refused %s is installed", v)
		}
	}
	downloads, _ := filepath.Glob(l.Download("*"))
	filepath.WalkDir(l.Root(), func(path string, d os.DirEntry, err error) error {
		if err == nil && len(downloads) > 0 && state.IsPartial(d.Name()) { // it is resumed with the download
			return fs.SkipDir
		}
		if err == nil && (strings.HasPrefix(d.Name(), fsutil.TempPrefix) || strings.HasPrefix(d.Name(), state.PartialPrefix) || strings.HasPrefix(d.Name(), ".removed-")) {
			violated("left behind: %s", path)
		}
		return err
	})
	m.checkReports(l, s, p, violated)
}

// checkReports checks that the reports of each command are complete and agree.
func (m *matrix) checkReports(l state.Layout, s state.State, p promised, violated func(string, ...any)) {
	entries, damaged, err := l.Outbox().List()
	if err != nil || damaged != nil {
		violated("outbox: %v %v", err, damaged)
	}
	events := map[string][]release.Code{}
	acks := map[string][]state.Command{}
	ids := map[string]bool{}
	for _, e := range entries {
		if ids[e.ID] {
			violated("%s is in the outbox twice", e.ID)
		}
		ids[e.ID] = true
	}
	for _, e := range p.delivered { // once more is once
		if !ids[e.ID] {
			entries = append(entries, e)
		}
		ids[e.ID] = true
	}
	for _, e := range entries {
		if e.Ack != nil {
			acks[e.Ack.ID] = append(acks[e.Ack.ID], *e.Ack)
		} else {
			events[e.Event.CommandID] = append(events[e.Event.CommandID], e.Event.Code)
		}
	}
	for _, id := range p.commands {
		if _, ok := s.Command(id); !ok && !p.torn {
			violated("command %s was taken and is forgotten", id)
		}
	}
	for id := range events {
		if _, ok := s.Command(id); !ok && id != "" && !p.torn {
			violated("events %v of command %s, which is unknown", events[id], id)
		}
	}
	for _, c := range s.Commands {
		got := events[c.ID]
		n := func(codes ...release.Code) (n int) {
			for _, code := range got {
				if slices.Contains(codes, code) {
					n++
				}
			}
			return n
		}
		ended := n(release.Completed, release.RolledBack)
		story := fmt.Sprintf("%s: %v, acks %+v", c.ID, got, acks[c.ID])
		switch {
		case !c.Done || len(acks[c.ID]) != 1 || acks[c.ID][0] != c:
			violated("not one outcome: %+v; %s", c, story)
		case n(release.Started) != 1:
			violated("not started once: %s", story)
		case c.Status == "staged" && (n(release.Staged) != 1 || ended != 1 || len(got) > 4):
			violated("staged, but: %s", story)
		case c.Status == "staged_manual" && (n(release.StagedManual) != 1 || n(release.Staged) != ended):
			violated("staged for an operator, but: %s", story)
		case c.Code != "" && (n(c.Code) != 1 || ended != 0 || n(release.Staged, release.StagedManual) != 0 || len(got) > 3):
			violated("failed, but: %s", story)
		}
	}
}
