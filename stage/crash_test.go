package stage

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

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
	m.report(t)
	t.Logf("crash matrix: %d cases, %d violations", m.cases, len(m.violations))
	least := map[int]int{1: 37_000, 8: 12_000, 41: 3_500}[everyStart()]
	if m.cases < least {
		t.Errorf("only %d cases, fewer than %d", m.cases, least)
	}
}

// everyStart says how far apart the starts are that the matrix runs: the whole matrix takes
// six minutes of two cores.
func everyStart() int {
	switch {
	case testing.Short():
		return 41
	case os.Getenv(box.LongEnv) == "":
		return 8
	}
	return 1
}

// report fails the test for what did not hold.
func (m *matrix) report(t *testing.T) {
	for i, v := range m.violations {
		if i == 20 {
			t.Errorf("... and %d more", len(m.violations)-i)
			break
		}
		t.Error(v)
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

// runMatrix runs the cases: those of everyStart, and for a control every eleventh. Changes of
// the kind forget do nothing.
func runMatrix(t *testing.T, forget fsutil.OpKind) *matrix {
	every := everyStart()
	first := every / 2
	if forget != "" {
		every, first = 11, 0
	}
	m := &matrix{digests: map[string]bool{}, forget: forget}
	host := setup(t, nil)
	base := ramDir(t)
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i, c := range crashCases(verified(t, host)) {
		if i%every != first {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if m.proved() {
				return
			}
			if err := m.run(t.Context(), host.Config, filepath.Join(base, fmt.Sprint(i)), c); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	wg.Wait()
	return m
}

// proved reports whether a control has found what it looks for: the rest would only repeat it.
func (m *matrix) proved() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.forget != "" && len(m.violations) > 0
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
	s, err := New(c)
	if err == nil {
		s.fromDisk = inMemory // the matrix writes what its disk kept
	}
	return s, err
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
	if err := oldRoot(s.Layout); err != nil {
		return err
	}
	p0 := promised{torn: c.torn}
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
	var whole []change
	var taken string // the command that the step accepts, durable after change takenAt
	takenAt := 0
	for kind := none; kind <= noSync; kind++ {
		for i := 0; !m.proved(); i++ {
			d := &crashDisk{at: i, fault: kind}
			p := p0.clone()
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
				whole = slices.DeleteFunc(slices.Clone(d.done), func(c change) bool { return c.Kind == m.forget })
				if err := m.learn(s.Layout); err != nil {
					return err
				}
				if len(p.commands) > len(p0.commands) {
					taken, takenAt = p.commands[len(p0.commands)], firstSave(d.done)
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
	for i := 0; i <= len(whole) && !m.proved(); i++ {
		done := whole[:i]
		p := p0.clone()
		if taken != "" && i > takenAt {
			p.commands = append(p.commands, taken)
		}
		p.delivered = append(p.delivered, deliveredBy(base, root, done)...)
		for n, lost := range losses(done) {
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
					what := fmt.Sprintf("%s, death after change %d of %d (%s)", c.name, i, len(whole), lastOf(done))
					if err := m.death(ctx, conf, root, what, top, gone, healthy, n == 0 && gone == 0, p); err != nil {
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

// deliveredBy is what the manager has before it goes from the outbox.
func deliveredBy(base *node, root string, done []change) (all []state.Entry) {
	for i, c := range done {
		name := filepath.Base(c.Path)
		if c.Kind != fsutil.OpRemove || filepath.Base(filepath.Dir(c.Path)) != "outbox" || strings.HasPrefix(name, fsutil.TempPrefix) {
			continue
		}
		box := replay(base, root, done[:i], func(int) bool { return false }).names["outbox"]
		var e state.Entry
		if json.Unmarshal(box.names[name].data, &e) == nil {
			all = append(all, e)
		}
	}
	return all
}

// death starts the node from the tree top; then again with each death in the
// first start's own watchdog, and if deep in the agent after it.
func (m *matrix) death(ctx context.Context, conf Config, root, what string, top *node, gone int, healthy, deep bool, p promised) error {
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
	rep := watchdog.Run(ctx, s.Layout)
	if deep && (healthy || rep.Current.String() == oldVersion) {
		if err := prove(ctx, s, nil); err != nil {
			return err
		}
	}
	for i := 1; i < len(d.done); i++ {
		again := replay(base, root, d.done[:i], func(int) bool { return false })
		if err := errors.Join(os.RemoveAll(root), again.write(root, 0)); err != nil {
			return err
		}
		m.start(ctx, conf, root, fmt.Sprintf("%s, and in the start after it after %s", what, lastOf(d.done[:i])), healthy, nil, p, true)
	}
	return nil
}
