package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/systemd"
)

// journalGroup may read the journal, which has why a version failed.
const journalGroup = "systemd-journal"

// RunAsOwner makes a process of root, which is about to run the agent with the root l and
// the configuration at path, one of the root's owner. Otherwise its files would belong
// to root, and lock the service's user out. It does nothing for other users. unit is the
// unit of the node, or "".
//
// Where that is not possible, a process that systemd started stays root, with the
// warning that is returned: a node must start. One that somebody started by hand gets an
// error. A root that belongs to root is for an agent of root, unless the unit has
// another user.
func RunAsOwner(ctx context.Context, l state.Layout, path, unit string) (warning string, err error) {
	owner, err := l.Owner()
	if os.Geteuid() != 0 || err != nil { // the agent reports a missing root
		return "", nil
	}
	l = WithGroup(l)
	byHand := !startedBySystemd(ctx, unit)
	why := ""
	if owner == 0 {
		if byHand && unit != "" {
			why = unitOfOther(ctx, l, unit)
		}
	} else if why = unusable(l, path, owner); why == "" {
		err := fsutil.BecomeOwner(l.Root(), journalGroup)
		if err == nil {
			return "", nil
		}
		why = err.Error() // a sandbox may deny it
	}
	switch {
	case why == "":
		return "", nil
	case byHand:
		return "", fmt.Errorf("run as root: %s", why)
	}
	return "the agent stays root: " + why, nil
}

// startedBySystemd reports whether systemd started this process, for unit, or for any
// service if that is "". The environment alone does not show that: a shell inherits it, for
// instance after su without a dash. From 248 on systemd also sets SYSTEMD_EXEC_PID,
// which another process has by inheritance only. A process that a wrapper started is known
// by the control group of the unit.
func startedBySystemd(ctx context.Context, unit string) bool {
	if os.Getenv("INVOCATION_ID") == "" {
		return false
	}
	pid := os.Getenv("SYSTEMD_EXEC_PID")
	if pid == strconv.Itoa(os.Getpid()) {
		return true
	}
	if self, err := systemd.Self(); err == nil && (unit == "" || self == unit) {
		return true
	}
	// Without the variable it is by hand only if this systemd would have set it.
	return pid == "" && !systemd.SetsExecPID(ctx)
}

// unusable returns why the owner of a root could not run the agent with it, with the
// remedy, or "".
func unusable(l state.Layout, path string, owner uint32) string {
	name := systemd.UserName(owner)
	found, by, ok, err := l.Misowned(owner)
	if st, statErr := os.Stat(path); statErr == nil && !ok && err == nil && !may(owner, st, 4) {
		found, ok = path, true
		by, _, _ = ownerIDs(st)
	}
	switch {
	case err != nil:
		return err.Error()
	case ok:
		return fmt.Sprintf("%s belongs to %s, and %s, who owns the install root, could not use it: run: chown -R %s %s", found, systemd.DescribeUser(by), name, l.NewOwner(name), resolved(l.Root()))
	}
	return ""
}

// unitOfOther returns, if the unit of a root of root has another user, that its user
// could not use what an agent of root writes, or "".
func unitOfOther(ctx context.Context, l state.Layout, unit string) string {
	if systemd.Booted() != nil {
		return ""
	}
	s, err := systemd.QueryState(ctx, unit)
	if uid, ok := systemd.UserID(s.User); err != nil || s.Load != "loaded" || ok && uid == 0 {
		return ""
	}
	return fmt.Sprintf("%s runs as %s, but %s belongs to root, and so would the files of this process: start the service instead (systemctl start %s), after: chown -R %s %s", unit, s.User, l.Root(), unit, l.NewOwner(s.User), resolved(l.Root()))
}

// RunAsOwnerOf is RunAsOwner for the directory of the configuration at path, if that is
// an install root: a configuration in it is then read as its owner.
func RunAsOwnerOf(ctx context.Context, path string) (warning string, err error) {
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return "", nil
	}
	l, err := state.At(dir)
	if err != nil {
		return "", nil
	}
	if _, err := os.Lstat(l.Versions()); err != nil {
		return "", nil
	}
	return RunAsOwner(ctx, l, path, "")
}

// ExistingGroups returns u without a group that does not exist, since systemd would not
// start the unit. The notes describe that, and a user that does not exist.
func ExistingGroups(u systemd.Unit) (_ systemd.Unit, notes []string) {
	if u.Journal && !systemd.GroupExists(journalGroup) {
		u.Journal = false
		notes = append(notes, "there is no group "+journalGroup+": the unit is without it, and the event of a rollback will have no journal")
	}
	if _, _, ok := systemd.LookupUser(u.User); !ok {
		notes = append(notes, fmt.Sprintf("there is no user %s: create it before the service starts", u.User))
	}
	return u, notes
}
