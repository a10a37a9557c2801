package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// checkPrivileges finds privileges that the file of the running program gives to it. A new
// version is another file, and has none of them: no archive can give a file privileges.
func (u unit) checkPrivileges() (out []Problem) {
	seen := map[string]bool{}
	for _, e := range execLines(u.p["ExecStart"]) {
		for _, arg := range append([]string{e.path}, e.args...) {
			for _, path := range u.versionPaths(arg) {
				if rest, ok := u.inNext(path); ok && !seen[rest] {
					seen[rest] = true
					out = append(out, u.privileges(filepath.Join(u.Layout.Current(), rest))...)
				}
			}
		}
	}
	return out
}

// fitPrivileges returns an error, with the remedy, if a file of the version that current
// points to has a privilege that the one in dir does not get, or nil.
func (s Service) fitPrivileges(p map[string]string, dir string) error {
	u := unit{Service: s, p: p, real: resolve(s.Layout.Root())}
	current := resolve(s.Layout.Current())
	if resolve(dir) == current || !u.filesGive() {
		return nil
	}
	var errs []error
	filepath.WalkDir(current, func(path string, f fs.DirEntry, err error) error {
		if err != nil || !f.Type().IsRegular() || len(errs) == 3 {
			return nil // what cannot be read is not known
		}
		for _, problem := range u.privileges(path) {
			errs = append(errs, problem)
		}
		return nil
	})
	return errors.Join(errs...)
}

// privileges returns a problem if a file in a version gives a privilege to a process of the
// unit that the unit itself does not give.
func (u unit) privileges(path string) []Problem {
	st, err := os.Stat(path)
	if err != nil || !u.filesGive() {
		return nil
	}
	problem := func(what, key, value string) []Problem {
		return []Problem{{Rollback: true, Remedy: fmt.Sprintf("set %s=%s in [Service] of %s, so that every version has it, then run: %s", key, value, u.Unit, u.reloadCommand()),
			Cause: fmt.Sprintf("%s has %s, which a new version would not have: they belong to that one file", path, what)}}
	}
	if st.Mode()&os.ModeSetuid != 0 {
		return problem("the set-user-ID bit", "User", ownerOf(st))
	}
	if st.Mode()&os.ModeSetgid != 0 && st.Mode()&0o010 != 0 {
		return problem("the set-group-ID bit", "Group", "the group of the file")
	}
	given := strings.Fields(strings.ToLower(u.p["AmbientCapabilities"]))
	caps := fileCapabilities(path)
	if !slices.ContainsFunc(caps, func(c string) bool { return !slices.Contains(given, c) }) {
		return nil
	}
	return problem("the file capabilities "+strings.Join(caps, " "), "AmbientCapabilities", strings.ToUpper(strings.Join(caps, " ")))
}

// filesGive reports whether a file can give a process of the unit what it has not already.
func (u unit) filesGive() bool {
	if u.p["NoNewPrivileges"] == "yes" {
		return false
	}
	uid, ok := UserID(u.p["User"])
	root := u.p["User"] == "" || ok && uid == 0
	return !root || u.p["DynamicUser"] == "yes"
}

// ownerOf returns the name of a file's owner.
func ownerOf(st fs.FileInfo) string {
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		return UserName(sys.Uid)
	}
	return "the owner of the file"
}

// fileCapabilities returns the names of the capabilities that a file gives to the process
// that executes it (capabilities(7), struct vfs_cap_data).
func fileCapabilities(path string) (names []string) {
	b := make([]byte, 64)
	n, err := unix.Getxattr(path, "security.capability", b)
	if err != nil || n < 12 {
		return nil
	}
	for i := 0; 4+8*i+8 <= n && i < 2; i++ { // two words of 32 capabilities, each permitted and inheritable
		permitted := binary.LittleEndian.Uint32(b[4+8*i:])
		for bit := range 32 {
			if permitted&(1<<bit) == 0 {
				continue
			}
			name := fmt.Sprintf("cap_%d", 32*i+bit)
			if 32*i+bit < len(capabilityNames) {
				name = "cap_" + capabilityNames[32*i+bit]
			}
			names = append(names, name)
		}
	}
	return names
}

// capabilityNames are in the order of their numbers (linux/capability.h).
var capabilityNames = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable",
	"net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot",
	"sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease",
	"audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read",
	"perfmon", "bpf", "checkpoint_restore",
}
