// Package install installs a node (Node.Install), removes it (Node.Uninstall), writes its
// units (LoadUnit, WriteUnits), and finds its faults (Doctor, QueryStatus).
//
// Install creates the user, the empty install root and the unit as root. Everything else
// in the root is done by a child process that becomes the service's user for good
// (Work). So no part of a release runs as root, and a link in the root gives access to
// nothing that the user could not open.
//
// A first install that fails removes what it created. After a crash, run Install again:
// it keeps a version that is installed, and continues. Uninstall and its purge can be
// repeated as well. QueryStatus changes nothing, and Doctor nothing but temporary files.
//
// The package prints progress to a writer that it is given. It parses no command line
// and decides no exit code.
package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/agent"
	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/upgrade"
)

const (
	maxUnit  = 64 << 10
	unitDir  = "/etc/systemd/system"
	maxToken = 4 << 10
)

// RootsDir is the parent of install roots for which no path is given.
const RootsDir = "/opt/bilbycast"

// UsageError is a mistake in the arguments of a call.
type UsageError struct{ error }

func (e UsageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// ErrReported is a failure that the child process has already printed.
var ErrReported = errors.New("failed")

// Node describes a service on this device, for Install and Uninstall. Check fills in the
// defaults.
type Node struct {
	Name, Root, User    string
	DeviceType, Manager string // "none" for Manager: the node has none
	TokenFile, CAFile   string // "-" for TokenFile is Stdin
	Fingerprint         string
	Wait                time.Duration // how long to wait for the first registration; 0: not at all
	RestartSecs         float64       // between two starts of the service
	Environment         []string      // NAME=VALUE, for the unit
	// ChangeOwner permits Install to give a root that belongs to another user to User.
	// Otherwise Install asks Confirm, unless that is nil: nobody can be asked.
	ChangeOwner bool
	Confirm     func(question string) bool

	// Child is the command line of a process that runs Work as root. It gets a Job.
	Child []string
	Stdin io.Reader
	// Out gets a line for each step, and Err the standard error of Child.
	Out, Err io.Writer

	real      string // Root without links
	userNamed bool   // whether the caller named User
	madeUser  bool   // whether this process created User
	stopped   bool   // whether this process stopped the service

	own systemd.Unit // the arguments, writable paths and devices of the present unit
}

// Check fills in the defaults, and refuses values that must not reach a unit, a path or a
// command line. It changes nothing on the device.
func (n *Node) Check() error {
	if n.Name == "" {
		n.Name = n.DeviceType
	}
	if n.Root == "" {
		n.Root = filepath.Join(RootsDir, n.Name)
	}
	n.userNamed = n.User != ""
	if n.User == "" {
		n.User = n.Name
	}
	l, err := state.At(n.Root)
	if err != nil {
		return usage("--root: %w", err)
	}
	// Before anything changes, refuse what the unit would refuse.
	if _, err := n.unit(l, "edge-agent", config.Upgrade{BootHealthWindowSecs: 120}).Files(); err != nil {
		return UsageError{err}
	}
	if n.Manager == noManager && n.TokenFile != "" {
		return usage("--token-file has no use with --manager none: leave it out")
	}
	if n.User == "root" {
		return usage("--user root: the service must run without root")
	}
	if err := n.resolve(); err != nil {
		return err
	}
	path := n.unitPath()
	if isMask(path) {
		return fmt.Errorf("%s is masked (%s is a link to /dev/null, or empty): run systemctl unmask %[1]s, and then this again", n.service(), path)
	}
	if text, err := fsutil.ReadFile(path, maxUnit); !errors.Is(err, fs.ErrNotExist) && !n.wrote(text) {
		return errors.Join(fmt.Errorf("%s exists, and was not written by edge-agent for %s: choose another --name, or move the file away", path, n.Root), err)
	}
	for _, path := range n.besideUnits() {
		if text, err := fsutil.ReadFile(path, maxUnit); !errors.Is(err, fs.ErrNotExist) && !n.wroteBeside(text) {
			return errors.Join(fmt.Errorf("%s exists, and was not written by edge-agent for %s: choose another --name, or move the file away", path, n.service()), err)
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("run this as root (sudo edge-agent ...), since it creates a user and a unit")
	}
	return nil
}

// resolve follows the links of the root. It refuses a root that is no directory, or a
// directory of the system.
func (n *Node) resolve() error {
	n.real = filepath.Clean(n.Root)
	if _, err := os.Lstat(n.Root); err == nil {
		if n.real, err = filepath.EvalSymlinks(n.Root); err != nil {
			to, _ := os.Readlink(n.Root)
			return fmt.Errorf("the install root %s is a dangling link to %s: create that directory, or remove the link", n.Root, to)
		}
		if st, err := os.Stat(n.real); err == nil && !st.IsDir() {
			return fmt.Errorf("the install root %s is not a directory", n.Root)
		}
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(n.Root)); err == nil {
		n.real = filepath.Join(dir, filepath.Base(n.Root))
	}
	if rel, err := filepath.Rel("/", n.real); err != nil || systemDir(rel) {
		return usage("--root %s: %s is a directory of the system; give the service one of its own, like %s/%s", n.Root, n.real, RootsDir, n.Name)
	}
	return nil
}

// systemDir reports whether rel, a path below /, is a directory of the system.
func systemDir(rel string) bool {
	first, rest, below := strings.Cut(rel, "/")
	switch first {
	case ".", "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys":
		return !below || first != "run" && first != "etc"
	case "usr", "var":
		second, _, deep := strings.Cut(rest, "/")
		return !deep && !strings.HasPrefix(second, "edge")
	}
	return !below && map[string]bool{"home": true, "media": true, "mnt": true, "opt": true, "root": true, "srv": true, "tmp": true, "lost+found": true}[first]
}

// report writes one line to n.Out.
func (n *Node) report(format string, args ...any) {
	// The line may contain text of the service or of its journal.
	fmt.Fprintln(n.Out, release.Foreign(fmt.Sprintf(format, args...), maxReport))
}

const maxReport = 4000 // bytes of a line

// Install installs the release that what names: a directory, a tar file, an https URL or
// a version, as upgrade.Pipeline.Open accepts it. If a version is installed, Install keeps it,
// and applies the new settings of n. Then it starts the service, and waits until the
// node has registered, if it has a manager. Call Check first.
func (n *Node) Install(ctx context.Context, what string) (err error) {
	l, err := state.At(n.Root)
	if err != nil {
		return err
	}
	if err := n.checkUserName(); err != nil {
		return err
	}
	kept, err := n.ownership(l)
	if err != nil {
		return err
	}
	if err := n.agree(l, kept); err != nil {
		return err
	}
	if err := n.agreeUser(kept); err != nil {
		return err
	}
	n.keepSettings()
	defer func() {
		if err != nil && n.stopped { // it ran before, and no later step started it
			command(context.WithoutCancel(ctx), "systemctl", "start", "--no-block", "--", n.service())
		}
	}()
	changed := false
	_, err = os.Lstat(l.Current())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := n.layOut(ctx, l, kept, what); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		n.report("%s has a version, which stays", n.Root)
		if changed, err = n.again(ctx, l, kept); err != nil {
			return err
		}
	}
	c, err := n.load(l)
	if err != nil {
		return err
	}
	_, err = os.Lstat(l.CredentialsFile())
	registered := err == nil
	before, _ := fsutil.ReadFile(n.unitPath(), maxUnit)
	if err := n.writeUnit(l, c); err != nil {
		return err
	}
	if after, _ := fsutil.ReadFile(n.unitPath(), maxUnit); string(before) != string(after) {
		changed = changed || n.startingInVain(ctx, l)
	}
	n.stopped = false // the result of start counts
	if err := n.start(ctx, l, changed); err != nil {
		return err
	}
	if len(c.Manager.URLs) == 0 {
		return n.running(ctx, agent.NoManager)
	}
	if registered {
		return n.running(ctx, "the node is registered")
	}
	return n.await(ctx, l)
}

// load reads config.toml. The service's user owns it, so load refuses values that must
// not reach the unit, which root writes.
func (n *Node) load(l state.Layout) (config.Config, error) {
	path := l.ConfigFile()
	checked, err := config.Read(path)
	c := checked.Config
	if err != nil {
		return c, err
	}
	s := c.Service
	switch {
	case s.Unit != "":
		return c, fmt.Errorf("%s is attached to %s; see docs/attach.md", path, s.Unit)
	case s.Name != n.Name:
		return c, fmt.Errorf("%s is for the service %q (service.name), not %q: give --name", path, s.Name, n.Name)
	case resolved(s.InstallRoot) != resolved(n.Root):
		return c, fmt.Errorf("%s has service.install_root = %q, which is not %s: correct it, or give --root", path, s.InstallRoot, n.Root)
	}
	if _, err := n.unit(l, s.Binary, c.Upgrade).Files(); err != nil {
		return c, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

// layOut creates the user, the root, config.toml and the first version. If it fails, it
// removes the root and the user that it created.
func (n *Node) layOut(ctx context.Context, l state.Layout, kept ownership, what string) (err error) {
	if err := n.tryPlace(ctx); err != nil {
		return err
	}
	e, err := upgrade.Examine(ctx, upgrade.Config{}, what)
	if err == nil && !e.Release.OK() {
		err = e.Refused
	}
	if err != nil {
		return err
	}
	m, s := e.Release.Manifest(), e.Release.Signature()
	n.report("%s is genuine: signed by %s, of commit %s, at %s", m.Version, s.Workflow, s.Commit, s.Time.Format(time.RFC3339))
	if m.DeviceType != n.DeviceType {
		return fmt.Errorf("%s is for the device type %q, not %q", what, m.DeviceType, n.DeviceType)
	}
	job := Job{Root: n.real, Install: what}
	var changed []string
	if _, err := os.Lstat(l.ConfigFile()); errors.Is(err, fs.ErrNotExist) {
		if job.Config, err = n.newConfig(); err != nil {
			return err
		}
	} else if err != nil {
		return err
	} else if job.Config, changed, err = n.changedConfig(l); err != nil { // from an earlier run, or from an operator
		return err
	} else if changed != nil {
		job.Keep = filepath.Base(l.ConfigCopy(time.Now()))
	}
	if kept.exists && !resumable(l) {
		return fmt.Errorf("%s has a state.json but no version, so it is a damaged install: see edge-agent doctor --config %s", n.Root, l.ConfigFile())
	}
	handed := false
	defer func() {
		if err != nil && !kept.exists {
			err = errors.Join(err, l.Disk().Discard(n.real))
			handed = false
		}
		if err != nil && n.madeUser && !handed { // otherwise the root belongs to that user
			err = errors.Join(err, command(ctx, "userdel", n.User))
		}
	}()
	uid, gid, err := n.makeUser(ctx)
	if err != nil {
		return err
	}
	handed = true
	made, err := n.makeRoot(l, kept)
	if err != nil {
		return err
	}
	if _, err := n.handOver(ctx, l, made, uid, gid); err != nil {
		return err
	}
	if err := n.child(ctx, job); err != nil {
		return err
	}
	t, err := l.Tree()
	if err != nil {
		return err
	}
	n.report("%s is in %s", t.Current, n.Root)
	switch {
	case changed != nil:
		n.report("changed %s in %s; the old file is %s", strings.Join(changed, " and "), l.ConfigFile(), job.Keep)
	case job.Config != "":
		n.report("wrote %s", l.ConfigFile())
	}
	return nil
}
