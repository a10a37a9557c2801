package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/systemd"
	"github.com/bilbycast/edge-agent/verify"
)

// readable checks that the agent's user can read config.toml and manager.ca_file.
func (d *doctor) readable() {
	var faults []fault
	if why := d.access(d.config, d.user, 4); why != "" && !d.copied && !d.wrongUser() {
		name := systemd.UserName(d.user)
		remedy := fmt.Sprintf("run: chown %s: %s && chmod 600 %[2]s", name, d.config)
		if _, open := blocked(filepath.Dir(d.config), d.user); open != "" {
			remedy = open
		}
		faults = append(faults, fault{fmt.Sprintf("%s cannot read %s: %s", name, d.config, why), remedy})
	}
	if faults != nil { // another user loaded it
		d.findings = slices.DeleteFunc(d.findings, func(f Finding) bool { return f.What == "configuration" })
		d.check("configuration", faults...)
	}
	path := d.c.Manager.CAFile
	if path == "" {
		return
	}
	remedy := "put the PEM of the manager's CA there, readable for " + systemd.UserName(d.user) + ", or correct manager.ca_file in " + d.config
	why := d.access(path, d.user, 4)
	if why == "" {
		if b, err := fsutil.ReadFile(resolved(path), 1<<20); err != nil {
			why = err.Error()
		} else if !strings.Contains(string(b), "-----BEGIN CERTIFICATE-----") {
			why = "it holds no certificate in PEM"
		}
	}
	for _, hidden := range []string{"/home", "/root", "/run/user", "/tmp", "/var/tmp"} { // each may be a link
		if why == "" && strings.HasPrefix(resolved(path), resolved(hidden)+"/") && d.state.Load == "loaded" && d.sandboxed(hidden) {
			why, remedy = "the unit's sandbox hides "+hidden+" from the service", "put it elsewhere, like /etc, and correct manager.ca_file in "+d.config
		}
	}
	if why != "" {
		d.check("ca_file", fault{fmt.Sprintf("manager.ca_file %s cannot be used: %s", path, why), remedy})
		return
	}
	d.check("ca_file")
}

// sandboxed reports whether the agent's unit hides dir.
func (d *doctor) sandboxed(dir string) bool {
	if strings.HasSuffix(dir, "tmp") {
		return d.state.PrivateTmp
	}
	return d.state.ProtectHome
}

// program checks that the programs that the units start exist and can be executed.
func (d *doctor) program(ctx context.Context) {
	var faults []fault
	who := d.user
	if d.c.Service.Unit != "" {
		if s, err := systemd.QueryState(ctx, d.unit); err == nil {
			if uid, ok := systemd.UserID(s.User); ok {
				who = uid
			}
		}
	}
	links := []string{d.l.Current(), d.l.LastGood()}
	if d.c.Service.Unit != "" {
		links = links[:1] // the watchdog is edge-agent, not a program in a version
	}
	for _, dir := range links {
		if _, err := os.Stat(dir); err != nil {
			continue // another check reports the links
		}
		path := filepath.Join(dir, d.c.Service.Binary)
		remedy := fmt.Sprintf("roll back to a version that is complete (edge-agent rollback VERSION --root %s), or restore the file", d.l.Root())
		st, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fault{path + " is missing", remedy})
		case err != nil:
			faults = append(faults, fault{err.Error(), "see the owners and modes: namei -l " + path})
		case !st.Mode().IsRegular():
			faults = append(faults, fault{path + " is not a regular file", remedy})
		case st.Mode()&0o111 == 0:
			faults = append(faults, fault{path + " is not executable", "run: chmod 755 " + resolved(path)})
		default:
			wrong := who == d.user && d.wrongUser() // already reported
			if why := d.access(path, who, 1); why != "" && !wrong {
				if _, open := blocked(path, who); open != "" {
					remedy = open
				} else {
					remedy = "see the owners and modes: namei -l " + path
				}
				faults = append(faults, fault{fmt.Sprintf("%s cannot execute %s: %s", systemd.UserName(who), path, why), remedy})
			}
		}
		if len(faults) > 0 && resolved(dir) == resolved(d.l.LastGood()) {
			break // the same version
		}
	}
	d.check("program", faults...)
}

// Minimum of the free space that an upgrade needs, which is otherwise three times the
// largest installed version: for the tarball, the new version, and the service.
const (
	minSpace  = 32 << 20 // bytes
	minInodes = 1000
)

// space compares the free space with what an upgrade needs.
func (d *doctor) space() {
	free, err := fsutil.Free(d.l.Versions())
	if err != nil {
		if d.failed("links") {
			return
		}
		d.check("disk space", fault{err.Error(), "see the mount of " + d.l.Versions()})
		return
	}
	bytes, files := largest(d.l.Versions())
	bytes, files = max(3*bytes, minSpace), max(3*files, minInodes)
	var faults []fault
	where := "df -h " + d.l.Versions()
	if free.Bytes < bytes {
		faults = append(faults, fault{fmt.Sprintf("%s has %d MiB free; an upgrade needs %d MiB (three times the largest version, at least %d MiB)", d.l.Versions(), free.Bytes>>20, bytes>>20, minSpace>>20),
			"free space on that file system: " + where})
	}
	if free.Inodes < files {
		faults = append(faults, fault{fmt.Sprintf("%s has %d inodes free; an upgrade needs %d", d.l.Versions(), free.Inodes, files), "remove files from that file system: df -i " + d.l.Versions()})
	}
	if more, err := fsutil.Free(d.l.Downloads()); err == nil && more.Device != free.Device {
		if need := max(bytes/3, minSpace); more.Bytes < need {
			faults = append(faults, fault{fmt.Sprintf("%s has %d MiB free; the tar file of an upgrade needs %d MiB (the size of the largest version, at least %d MiB)", d.l.Downloads(), more.Bytes>>20, need>>20, minSpace>>20),
				"free space on that file system: df -h " + d.l.Downloads()})
		}
	}
	d.check("disk space", faults...)
}

// largest returns the size, in bytes, and the number of files of the largest version.
func largest(versions string) (bytes, files uint64) {
	entries, _ := os.ReadDir(versions) // other checks report an unreadable directory
	for _, e := range entries {
		var b, n uint64
		filepath.WalkDir(filepath.Join(versions, e.Name()), func(_ string, f fs.DirEntry, err error) error {
			if err != nil {
				return nil // unreadable files do not count
			}
			n++
			if st, err := f.Info(); err == nil && st.Mode().IsRegular() {
				b += uint64(st.Size())
			}
			return nil
		})
		bytes, files = max(bytes, b), max(files, n)
	}
	return bytes, files
}

// trust checks the renewed trust root.
func (d *doctor) trust() {
	_, unfit, err := verify.LoadKept(nil, fsutil.DirFS(d.l.TrustDir()))
	if err := errors.Join(err, unfit); err != nil {
		d.check("trust", fault{fmt.Sprintf("the renewed trust root in %s is not used: %v", d.l.TrustDir(), err),
			"renew it: edge-agent trust update --root " + d.l.Root() + " --from DIR; or remove " + d.l.TrustDir() + ", so that the compiled-in one is used"})
		return
	}
	d.check("trust")
}

// clock checks that this device's clock is not certainly wrong.
func (d *doctor) clock() {
	if problem := ClockProblem(d.l); problem != "" {
		d.check("clock", fault{problem, setClock})
		return
	}
	d.check("clock")
}

// ClockProblem returns how this device's clock is certainly wrong, or "".
func ClockProblem(l state.Layout) string { return stage.Clock(l, nil).Problem() }

// access returns why a user may not open path (4: read, 1: execute), or "".
func (d *doctor) access(path string, uid uint32, want fs.FileMode) string {
	if uid == 0 {
		return ""
	}
	if dir, _ := blocked(path, uid); dir != "" {
		return "it may not enter " + dir
	}
	real := resolved(path)
	st, err := os.Stat(real)
	if err != nil {
		return cause(err)
	}
	if !may(uid, st, want) {
		return fmt.Sprintf("its mode is %04o, and it belongs to %s", st.Mode().Perm(), ownerName(st))
	}
	if uint32(os.Geteuid()) == uid && want == 4 {
		f, err := os.OpenFile(real, os.O_RDONLY|nonblock, 0)
		if err != nil {
			return cause(err)
		}
		f.Close()
	}
	return ""
}

// may reports whether the mode of a file permits a user to read it (bit 4), or to execute
// or enter it (bit 1).
func may(uid uint32, st fs.FileInfo, bit fs.FileMode) bool {
	return uid == 0 || st.Mode().Perm()&(bit<<class(uid, st)) != 0
}

// class returns by how much the permission bits of a user are shifted in a mode.
func class(uid uint32, st fs.FileInfo) int {
	o, g, ok := ownerIDs(st)
	switch {
	case !ok || o == uid:
		return 6
	case slices.Contains(groupsOf(uid), g):
		return 3
	}
	return 0
}

// blocked returns the highest directory above path that a user may not enter, with its
// mode, and the command that changes that. It returns "" if there is none.
func blocked(path string, uid uint32) (dir, remedy string) {
	for up := filepath.Dir(resolved(path)); ; up = filepath.Dir(up) {
		if st, err := os.Stat(up); err == nil && !may(uid, st, 1) {
			dir = fmt.Sprintf("%s (mode %04o)", up, st.Mode().Perm())
			remedy = "run: chmod o+x " + up
			if class(uid, st) > 0 { // as its owner, or by its group
				remedy = "run: chmod 755 " + up
			}
		}
		if up == filepath.Dir(up) {
			return dir, remedy
		}
	}
}

// Blocked returns an error, with the remedy, if the user of this process may not enter a
// directory above path, or nil.
func Blocked(path string) error {
	uid := uint32(os.Geteuid())
	if dir, remedy := blocked(path, uid); dir != "" {
		return fmt.Errorf("%s may not enter %s: %s", systemd.UserName(uid), dir, remedy)
	}
	return nil
}
