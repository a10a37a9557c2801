package stage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/verify"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

const (
	matrixAttempts = 2 // max_boot_attempts of the trials
	oldVersion     = "1.9.0"
	newVersion     = "2.0.0"
	badChecksum    = "2.1.0"
	notExecutable  = "2.2.0"
)

// crashCase is one operation on a root that earlier ones have prepared.
type crashCase struct {
	name   string
	before []step
	step   step
	lost   bool // current leads nowhere, and only a write can change that
	proved bool // the new version has proved healthy before, so it is
}

// step is one thing that a process does, as the agent, the watchdog or the
// command line does it. What it was told to be durable it adds to p.
type step func(ctx context.Context, s *Stager, p *promised) error

// promised is what an operation was told to be on disk.
type promised struct {
	commands []string
	torn     bool // what state.json held is gone, and nobody can tell it
}

type known struct {
	rel verify.Release
	art release.Artefact
}

var releases = map[string]known{} // of this test, verified once

func ignoreOwed(err error) error {
	if errors.Is(err, state.ErrOwed) {
		return nil
	}
	return err
}

// upgrade is agent/upgrade.go, without a manager.
func upgrade(version string, hand func(context.Context, state.Layout, Staged, state.Trial) (state.Result, error)) step {
	return func(ctx context.Context, s *Stager, p *promised) error {
		return upgradeAs(fmt.Sprintf("upgrade-%s-%d", version, len(p.commands)), version, hand)(ctx, s, p)
	}
}

func upgradeAs(id, version string, hand func(context.Context, state.Layout, Staged, state.Trial) (state.Result, error)) step {
	return func(ctx context.Context, s *Stager, p *promised) error {
		v := release.MustVersion(version)
		_, err := s.Layout.Do(ctx, func(st state.State, t state.Tree) (state.State, state.Tree, error) {
			return state.Start(st, state.Command{ID: id, Version: v, From: t.Current}, time.Now()), t, nil
		})
		if ignoreOwed(err) != nil {
			return err
		}
		p.commands = append(p.commands, id)
		k := releases[version]
		staged, err := s.Stage(ctx, k.rel, k.art, func() {
			s.Layout.Do(ctx, func(st state.State, t state.Tree) (state.State, state.Tree, error) {
				return state.Downloaded(st, id, time.Now()), t, nil
			})
		})
		if err == nil {
			_, err = hand(ctx, s.Layout, staged, state.Trial{ID: id, CommandID: id, MaxAttempts: matrixAttempts})
			err = ignoreOwed(err)
		}
		if err == nil {
			return nil
		}
		for range 2 { // the agent tries for ever
			if _, e := s.Layout.Do(ctx, func(st state.State, t state.Tree) (state.State, state.Tree, error) {
				return state.Fail(st, id, release.Internal, err.Error(), time.Now()), t, nil
			}); e == nil {
				break
			}
		}
		return err
	}
}

func boot(ctx context.Context, s *Stager, _ *promised) error {
	return errors.Join(watchdog.Run(ctx, s.Layout).Errs...)
}

// prove is what the agent of a healthy version does.
func prove(ctx context.Context, s *Stager, _ *promised) error {
	now := time.Now()
	if _, err := s.Layout.Do(ctx, func(st state.State, t state.Tree) (state.State, state.Tree, error) {
		return state.Interrupted(st, now), t, nil
	}); ignoreOwed(err) != nil {
		return err
	}
	if err := s.Tidy(ctx); err != nil {
		return err
	}
	res, err := s.Layout.Do(ctx, func(st state.State, t state.Tree) (state.State, state.Tree, error) {
		st, t = state.Keep(st, t, "", now)
		return st, t, nil
	})
	if err != nil {
		return err
	}
	return Prune(s.Layout, res, 2, res.Tree.Current)
}

func by(change func(state.State, state.Tree, time.Time) (state.State, state.Tree, error)) step {
	return func(ctx context.Context, s *Stager, _ *promised) error {
		_, err := s.Layout.Do(ctx, func(st state.State, t state.Tree) (state.State, state.Tree, error) {
			return change(st, t, time.Now())
		})
		return err
	}
}

func raw(change func(l state.Layout) error) step {
	return func(_ context.Context, s *Stager, _ *promised) error { return change(s.Layout) }
}

func crashCases() []crashCase {
	up := upgrade(newVersion, Swap)
	shelve := upgrade(newVersion, Shelve)
	garbage := raw(func(l state.Layout) error {
		return os.WriteFile(filepath.Join(l.Root(), "state.json"), []byte(`{"schema":1,"sta`), 0o644)
	})
	point := func(link, version string) step {
		return raw(func(l state.Layout) error {
			return fsutil.Disk{}.Symlink("versions/"+version, filepath.Join(l.Root(), link))
		})
	}
	return []crashCase{
		{"stage and swap", nil, up, false, false},
		{"refused: bad checksum", nil, upgrade(badChecksum, Swap), false, false},
		{"refused: cannot run", nil, upgrade(notExecutable, Swap), false, false},
		{"stage over a directory of other bytes", []step{raw(func(l state.Layout) error {
			return writeVersion(l, newVersion, "by hand")
		})}, up, false, false},
		{"stage with a leftover", []step{raw(func(l state.Layout) error {
			return os.WriteFile(l.Download(releases[newVersion].art.SHA256), []byte("not the beginning of it"), 0o644)
		})}, up, false, false},
		{"stage what is there", []step{up, boot, prove, by(state.GoBack), boot, prove}, upgrade(newVersion, Swap), false, false},
		{"start counted", []step{up}, boot, false, false},
		{"last start counted", []step{up, boot}, boot, false, false},
		{"revert", []step{up, boot, boot}, boot, false, false},
		{"start after the revert", []step{up, boot, boot, boot}, boot, false, false},
		{"keep and prune", []step{raw(func(l state.Layout) error { return writeVersion(l, "1.8.0", "old") }), up, boot}, prove, false, true},
		{"shelve", nil, shelve, false, false},
		{"manual apply", []step{shelve}, by(state.Apply), false, false},
		{"manual rollback in a trial", []step{up, boot}, by(state.GoBack), false, false},
		{"manual rollback", []step{up, boot, prove}, by(state.GoBack), false, true},
		{"manual rollback kept", []step{up, boot, prove, by(state.GoBack), boot}, prove, false, true},
		{"upgrade again after a revert", []step{up, boot, boot, boot, prove, raw(func(l state.Layout) error { return os.RemoveAll(l.Version(release.MustVersion(newVersion))) })}, up, false, false},
		{"first start of a root", []step{raw(func(l state.Layout) error {
			return errors.Join(os.Remove(filepath.Join(l.Root(), "state.json")), os.Remove(filepath.Join(l.Root(), "last-good")))
		})}, boot, false, false},
		{"state.json torn", []step{garbage}, boot, false, false},
		{"state.json torn in a trial", []step{up, boot, garbage}, boot, false, false},
		{"current led nowhere", []step{point("current", "9.9.9")}, boot, true, false},
		{"current moved by hand", []step{raw(func(l state.Layout) error { return writeVersion(l, "1.8.0", "old") }), point("current", "1.8.0")}, boot, false, false},
		{"version taken away in a trial", []step{up, boot, raw(func(l state.Layout) error { return os.RemoveAll(l.Version(release.MustVersion(newVersion))) })}, boot, true, false},
	}
}

func writeVersion(l state.Layout, version, text string) error {
	dir := l.Version(release.MustVersion(version))
	return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "edge-agent"), []byte(text), 0o755))
}

// matrix counts cases, and keeps what did not hold.
type matrix struct {
	mu         sync.Mutex
	cases      int
	violations []string
	digests    map[string]bool // of complete versions: "version digest"
	forget     fsutil.OpKind
}

// TestCrashMatrix runs each operation with a fault at each of its changes of
// the file system, and from every state that a power cut may leave; then
// the ordinary start sequence.
func TestCrashMatrix(t *testing.T) {
	m := runMatrix(t, "")
	for i, v := range m.violations {
		if i == 20 {
			t.Errorf("... and %d more", len(m.violations)-i)
			break
		}
		t.Error(v)
	}
	t.Logf("crash matrix: %d cases, %d violations", m.cases, len(m.violations))
	if m.cases < 2000 && !testing.Short() {
		t.Errorf("only %d cases", m.cases)
	}
}

// The controls: a disk on which no fsync of that kind does anything must be found out.
func TestCrashMatrixFindsMissingSyncs(t *testing.T) {
	if testing.Short() {
		t.Skip("the matrix itself runs")
	}
	for _, kind := range []fsutil.OpKind{fsutil.OpSync, fsutil.OpSyncDir} {
		if m := runMatrix(t, kind); len(m.violations) == 0 {
			t.Errorf("without %s nothing is found in %d cases", kind, m.cases)
		} else {
			t.Logf("without %s: %d of %d cases, the first: %s", kind, len(m.violations), m.cases, m.violations[0])
		}
	}
}

// runMatrix runs the cases: all of them, or in a short run and for a control
// every eleventh. Changes of the kind forget do nothing.
func runMatrix(t *testing.T, forget fsutil.OpKind) *matrix {
	m := &matrix{digests: map[string]bool{}, forget: forget}
	host := setup(t, nil)
	for _, v := range []string{newVersion, badChecksum, notExecutable} {
		rel, a := fetch(t, host, v)
		releases[v] = known{rel, a}
	}
	base := ramDir(t)
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, c := range crashCases() {
		if (testing.Short() || forget != "") && i%11 != 0 {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if err := m.run(t.Context(), host.Config, filepath.Join(base, fmt.Sprint(i)), c); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	wg.Wait()
	return m
}

// ramDir is a temporary directory in memory, if there is one that programs can
// run from: the matrix makes some hundred thousand files.
func ramDir(t *testing.T) string {
	var fs unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &fs); err == nil && fs.Flags&unix.ST_NOEXEC == 0 && fs.Bavail*uint64(fs.Bsize) > 32<<20 {
		if dir, err := os.MkdirTemp("/dev/shm", "edge-agent-matrix-"); err == nil {
			t.Cleanup(func() { os.RemoveAll(dir) })
			return dir
		}
	}
	return t.TempDir()
}

// at is a Stager of the same release host on the root dir.
func at(c Config, dir string, seam fsutil.Seam) (*Stager, error) {
	l, err := state.At(dir)
	if err != nil {
		return nil, err
	}
	c.Layout = l.On(fsutil.Disk{Seam: seam})
	return New(c)
}

func (m *matrix) run(ctx context.Context, conf Config, dir string, c crashCase) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// The root that the operation begins with.
	root := filepath.Join(dir, "root")
	s, err := at(conf, root, &crashDisk{})
	if err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(root, 0o755), s.Layout.Make(), writeVersion(s.Layout, oldVersion, "old and good"),
		s.Layout.Disk().Symlink("versions/"+oldVersion, s.Layout.Current())); err != nil {
		return err
	}
	if _, err := s.Layout.Do(ctx, nil); err != nil {
		return err
	}
	p0 := promised{torn: strings.Contains(c.name, "torn")}
	for _, step := range c.before {
		if err := step(ctx, s, &p0); err != nil {
			return fmt.Errorf("before it: %w", err)
		}
	}
	base, err := readTree(root)
	if err != nil {
		return err
	}
	if err := m.learn(s.Layout); err != nil {
		return err
	}

	// What it does when nothing goes wrong, and when each change fails.
	var whole crashDisk
	whole.at = -1
	var told []int // changes done when p.commands grew
	for kind := none; kind <= noSync; kind++ {
		for i := 0; ; i++ {
			d := &crashDisk{at: i, fault: kind}
			p := promised{slices.Clone(p0.commands), p0.torn}
			if err := os.RemoveAll(root); err != nil {
				return err
			}
			if err := base.write(root, 0); err != nil {
				return err
			}
			s, err := at(conf, root, d)
			if err != nil {
				return err
			}
			c.step(ctx, s, &p) // what it says of the fault is not the point
			if kind == none {
				whole = *d
				whole.done = slices.DeleteFunc(whole.done, func(c change) bool { return c.Kind == m.forget })
				if err := m.learn(s.Layout); err != nil {
					return err
				}
				if len(p.commands) > len(p0.commands) {
					told = append(told, firstSave(d.done))
				}
			}
			after, e := readTree(root)
			if e != nil {
				return e
			}
			what := fmt.Sprintf("%s, change %d %s", c.name, i, []string{"", "fails", "fails but was done", "and the disk is full", "and the disk is read-only", "and every fsync fails"}[kind])
			for _, healthy := range c.outcomes() {
				if !healthy {
					if err := errors.Join(os.RemoveAll(root), after.write(root, 0)); err != nil {
						return err
					}
				}
				if kind >= noSpace && !(c.lost && kind == readOnly) { // the start sequence meets the same disk first
					m.start(ctx, conf, root, what+", at starts too", healthy, d, promised{}, false)
				}
				m.start(ctx, conf, root, what, healthy, nil, p, true)
			}
			if kind == none || i >= d.n {
				break
			}
		}
	}

	// Every death, with and without power.
	seen := map[[32]byte]bool{}
	for i := 0; i <= len(whole.done); i++ {
		done := whole.done[:i]
		p := promised{slices.Clone(p0.commands), p0.torn}
		for _, at := range told {
			if i > at {
				p.commands = append(p.commands, fmt.Sprintf("upgrade-%s-%d", target(c), len(p.commands)))
			}
		}
		for _, lost := range losses(done) {
			top := replay(base, root, done, lost)
			for gone := range 3 {
				if gone > 0 && !top.torn() {
					break
				}
				var b strings.Builder
				fmt.Fprintf(&b, "%q\n", p.commands)
				top.describe(&b, gone)
				key := sha256.Sum256([]byte(b.String()))
				if seen[key] {
					continue
				}
				seen[key] = true
				for _, healthy := range c.outcomes() {
					what := fmt.Sprintf("%s, death after change %d of %d (%s)", c.name, i, len(whole.done), lastOf(done))
					if err := m.death(ctx, conf, root, what, top, gone, healthy, p); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// outcomes are what may become of the new version.
func (c crashCase) outcomes() []bool {
	if c.proved {
		return []bool{true}
	}
	return []bool{true, false}
}

func target(c crashCase) string {
	for _, v := range []string{badChecksum, notExecutable} {
		if strings.Contains(c.name, map[string]string{badChecksum: "bad checksum", notExecutable: "cannot run"}[v]) {
			return v
		}
	}
	return newVersion
}

// firstSave is the change that makes the first state.json durable.
func firstSave(done []change) int {
	renamed := false
	for i, c := range done {
		if c.Kind == fsutil.OpRename && filepath.Base(c.To) == "state.json" {
			renamed = true
		}
		if renamed && c.Kind == fsutil.OpSyncDir {
			return i
		}
	}
	return len(done)
}

func lastOf(done []change) string {
	if len(done) == 0 {
		return "none"
	}
	c := done[len(done)-1]
	return fmt.Sprintf("%s %s", c.Kind, filepath.Base(c.Path))
}

// death starts the node from the tree top; then again with each death in the
// first start's own watchdog.
func (m *matrix) death(ctx context.Context, conf Config, root, what string, top *node, gone int, healthy bool, p promised) error {
	fresh := func() error { return errors.Join(os.RemoveAll(root), top.write(root, gone)) }
	if err := fresh(); err != nil {
		return err
	}
	m.start(ctx, conf, root, what, healthy, nil, p, true)
	if err := fresh(); err != nil {
		return err
	}
	base, err := readTree(root)
	if err != nil {
		return err
	}
	d := &crashDisk{at: -1}
	s, err := at(conf, root, d)
	if err != nil {
		return err
	}
	watchdog.Run(ctx, s.Layout)
	for i := 1; i < len(d.done); i++ {
		again := replay(base, root, d.done[:i], func(int) bool { return false })
		if err := errors.Join(os.RemoveAll(root), again.write(root, 0)); err != nil {
			return err
		}
		m.start(ctx, conf, root, fmt.Sprintf("%s, and in the watchdog after %s", what, lastOf(d.done[:i])), healthy, nil, p, true)
	}
	return nil
}

// learn takes the digests of the versions that an undisturbed run left.
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
// must hold. healthy says whether a version other than the old one comes up.
// With last false the disk still fails: then only what starts is checked, and a
// disk that takes nothing at all cannot be helped to another version.
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
			violated("before the start, last-good leads to %s: %v", to, err)
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
			violated("start %d: current leads to %s", starts, to)
			return
		}
		if d, err := digest(s.Layout, v); err != nil || !m.known(d) {
			violated("start %d: current leads to %s, which is not complete: %v", starts, v, err)
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
	m.settled(s.Layout, running, healthy, p, violated)
}

func (m *matrix) known(d string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.digests[d]
}

// settled checks a root whose version runs and proved healthy.
func (m *matrix) settled(l state.Layout, running release.Version, healthy bool, p promised, violated func(string, ...any)) {
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
	if s.Status == state.PendingHealth || len(s.Owed) != 0 {
		violated("status %s, owed %d", s.Status, len(s.Owed))
	}
	for _, v := range t.Versions {
		if d, err := digest(l, v); err != nil || !m.known(d) {
			violated("version %s is not complete: %v", v, err)
		}
		if v.String() == badChecksum || v.String() == notExecutable {
			violated("the refused %s is installed", v)
		}
	}
	filepath.WalkDir(l.Root(), func(path string, d os.DirEntry, err error) error {
		if err == nil && (strings.HasPrefix(d.Name(), fsutil.TempPrefix) || strings.HasPrefix(d.Name(), state.PartialPrefix)) {
			violated("left behind: %s", path)
		}
		return err
	})
	m.told(l, s, p, violated)
}

// told checks that what the manager hears of each command is one story.
func (m *matrix) told(l state.Layout, s state.State, p promised, violated func(string, ...any)) {
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
