package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
)

// Flaw is a fault of an install root that no start repairs.
type Flaw struct {
	Check  string // one of FlawChecks
	Cause  string
	Remedy string // a command where one helps
}

func (f Flaw) String() string { return f.Cause + ": " + f.Remedy }

// FlawChecks are the checks of Inspect, in the order of its result.
var FlawChecks = []string{"install root", "links", "owners", "state", "outbox"}

// Inspect returns what an operator must repair in the root. owner is the uid of the
// service's user, to whom every file of the root must belong. It changes nothing.
func (l Layout) Inspect(owner uint32) []Flaw {
	st, err := os.Stat(l.root)
	switch {
	case err != nil:
		return []Flaw{{"install root", err.Error(), "install the service again: edge-agent install --help"}}
	case !st.IsDir():
		return []Flaw{{"install root", l.root + " is not a directory", "move it away, and install the service again"}}
	}
	flaws := l.inspectMounts()
	flaws = append(flaws, l.inspectLinks(owner)...)
	flaws = append(flaws, l.inspectOwners(owner)...)
	if b, err := fsutil.ReadFile(l.StateFile(), MaxState); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			_, err = Decode(b)
		}
		switch {
		case errors.Is(err, fs.ErrPermission):
			if len(flaws) == 0 || flaws[len(flaws)-1].Check != "owners" { // otherwise its owner is the cause
				flaws = append(flaws, Flaw{"state", fmt.Sprintf("state.json is unreadable: %v", err), "run: chmod 600 " + l.StateFile()})
			}
		case err != nil:
			flaws = append(flaws, Flaw{"state", fmt.Sprintf("state.json is unreadable: %v", err),
				"restart the service: it keeps the file as state.json.corrupt, and continues from the links"})
		}
	}
	if st, err := os.Stat(l.OutboxDir()); err == nil && !st.IsDir() {
		flaws = append(flaws, Flaw{"outbox", l.OutboxDir() + " is not a directory; the service renames it when it writes the next event", "nothing to do, unless the file returns: ls -ld " + l.OutboxDir()})
	} else if _, dangles := danglingDir(l.OutboxDir()); dangles {
		return flaws // already reported
	} else if _, bad, err := l.Outbox().List(); err != nil {
		flaws = append(flaws, Flaw{"outbox", fmt.Sprintf("the outbox is unreadable: %v", err), "see its owner and mode: ls -ld " + l.OutboxDir()})
	} else if len(bad) > 0 {
		flaws = append(flaws, Flaw{"outbox", fmt.Sprintf("%d of its entries cannot be read: %v", len(bad), bad[0]), "nothing to do, unless they return: the service renames them"})
	}
	return flaws
}

// inspectLinks checks current, last-good and previous.
func (l Layout) inspectLinks(owner uint32) []Flaw {
	flaws := l.inspectDirs()
	if _, dangles := danglingDir(l.Versions()); dangles {
		return flaws // the links dangle because of it
	}
	t, err := l.Tree() // not reconciled
	if err != nil {
		return append(flaws, Flaw{"links", err.Error(), "see its owner and mode: ls -la " + l.root})
	}
	var now State
	if b, err := fsutil.ReadFile(l.StateFile(), MaxState); err == nil {
		now, _ = Decode(b) // Inspect reports an unreadable state
	}
	if len(t.Versions) == 0 {
		return append(flaws, Flaw{"links", "no version is installed in " + l.Versions(), "install one: edge-agent install --help"})
	}
	target := t.Current
	for _, v := range append([]release.Version{t.LastGood, now.Good, t.Previous}, t.Versions...) {
		if target.IsZero() && t.Has(v) {
			target = v
		}
	}
	relink := func(path string, v release.Version) string {
		return fmt.Sprintf("point it to an installed version: %s", relinkCommand(owner, path, v))
	}
	for _, link := range []struct {
		path   string
		points release.Version
	}{{l.Current(), t.Current}, {l.LastGood(), t.LastGood}, {l.Previous(), t.Previous}} {
		path, points, want := link.path, link.points, target
		if path == l.LastGood() && t.Has(now.Good) {
			want = now.Good
		}
		st, err := os.Lstat(path)
		to, _ := os.Readlink(path)
		_, dangles := os.Stat(path)
		cause, remedy := "", relink(path, want)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if path == l.Previous() || path == l.LastGood() && now.Status == "" { // none was needed yet
				continue
			}
			cause = path + " is missing"
		case err != nil:
			cause = err.Error()
		case st.Mode().Type() != fs.ModeSymlink:
			cause, remedy = path+" is not a link", fmt.Sprintf("move it away (mv %s %s.old), and %s", path, path, relink(path, want))
		case dangles != nil:
			cause = fmt.Sprintf("%s is dangling: it points to %s, which is missing", path, to)
		case points.IsZero():
			cause = fmt.Sprintf("%s points to %s, which is not an installed version", path, to)
		case filepath.IsAbs(to):
			cause, remedy = fmt.Sprintf("%s is an absolute link (%s), so the install root cannot be moved", path, to), relink(path, points)
		}
		if cause != "" {
			flaws = append(flaws, Flaw{"links", cause, remedy})
		}
	}
	if len(flaws) == 0 && now.Status == Stable && t.Current != t.LastGood {
		flaws = append(flaws, Flaw{"links", fmt.Sprintf("current points to %s, but %s is the version that proved healthy: an operator changed the link, and the service has not started since", t.Current, t.LastGood),
			fmt.Sprintf("restart the service, which puts %s on trial; or undo the change: %s", t.Current, relinkCommand(owner, l.Current(), t.LastGood))})
	}
	return flaws
}

// relinkCommand returns the command by which owner points the link at path to v.
func relinkCommand(owner uint32, path string, v release.Version) string {
	return fmt.Sprintf("runuser -u %s -- ln -sfn %s %s", userName(owner), linkTarget(v), path)
}
