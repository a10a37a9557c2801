package upgrade

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// failFrom is a disk that makes the first n changes, and fails every later one, as a
// power cut ends them.
type failFrom struct{ n *int }

var errCut = errors.New("power cut")

func (f failFrom) Change(_ fsutil.Op, change func() error) error {
	if *f.n--; *f.n < 0 {
		return errCut
	}
	return change()
}

// An installation that was interrupted after any change is completed by another run,
// and the root never has a current that is not complete.
func TestAnInstallationCanBeRepeated(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	v := release.MustVersion("1.1.0")
	for cut, ended := 0, false; !ended; cut++ {
		n := emptyNode(t)
		whole := n.Layout
		left := cut
		n.Layout = whole.On(fsutil.Disk{Seam: failFrom{&left}})
		err := fromStick(t, pipeline(t, &n, trust), "1.1.0", Install)
		ended = err == nil
		tree, treeErr := whole.Tree()
		if treeErr != nil && !errors.Is(treeErr, os.ErrNotExist) || !tree.Current.IsZero() && !tree.Has(tree.Current) {
			t.Fatalf("cut %d: %+v, %v", cut, tree, treeErr)
		}
		n.Layout = whole
		if err := fromStick(t, pipeline(t, &n, trust), "1.1.0", Install); err != nil && !errors.Is(err, ErrInstalled) {
			t.Errorf("cut %d: the second run: %v", cut, err)
		}
		res := do(t, whole, nil)
		if tree, err = whole.Tree(); err != nil || tree.Current != v || tree.LastGood != v || res.State.Good != v || res.State.Floor != v || res.State.Status != state.Stable {
			t.Errorf("cut %d: %+v, %+v, %v", cut, tree, res.State, err)
		}
		if ended && cut < 20 {
			t.Errorf("an installation makes only %d changes", cut)
		}
	}
}

// Of two installations at once the second finds a version, and changes nothing.
func TestTwoInstallationsAtOnce(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	n := emptyNode(t)
	first := true
	p, err := newPipeline(Config{Node: &n, Progress: func(phase string, _, _ int64) {
		if phase == "verify" && first {
			first = false
			if err := fromStick(t, pipeline(t, &n, trust), "1.0.0", Install); err != nil {
				t.Error(err)
			}
		}
	}}, trust)
	if err != nil {
		t.Fatal(err)
	}
	if err := fromStick(t, p, "1.1.0", Install); !errors.Is(err, ErrInstalled) {
		t.Errorf("the second installation: %v", err)
	}
	v := release.MustVersion("1.0.0")
	if res := do(t, n.Layout, nil); res.Tree.Current != v || res.Tree.LastGood != v || res.State.Good != v {
		t.Errorf("%+v, %+v", res.Tree, res.State)
	}
}

// Only an installation accepts a root without a version; every other end refuses it
// before it reads the release, and writes nothing.
func TestARootWithoutAVersion(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for _, end := range []End{Swap, Shelve} {
		n := emptyNode(t)
		err := fromStick(t, pipeline(t, &n, trust), "1.0.0", end)
		if err == nil || !strings.Contains(err.Error(), "no version is installed under") {
			t.Errorf("end %d: %v", end, err)
		}
		entries, err := os.ReadDir(n.Layout.Root())
		if err != nil || len(entries) > 0 {
			t.Errorf("end %d: the root has %v, %v", end, fmt.Sprint(entries), err)
		}
	}
}
