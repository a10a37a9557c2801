package systemd

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Capabilities of Linux (linux/capability.h).
const (
	netBindService = 1 << 10
	netRaw         = 1 << 13
	bpf            = 1 << (39 - 32) // in the second word
)

// setCapabilities gives a file permitted capabilities, as setcap does.
func setCapabilities(t *testing.T, path string, low, high uint32) {
	t.Helper()
	b := make([]byte, 20)
	binary.LittleEndian.PutUint32(b, 0x02000001) // revision 2, effective
	binary.LittleEndian.PutUint32(b[4:], low)
	binary.LittleEndian.PutUint32(b[12:], high)
	if err := unix.Setxattr(path, "security.capability", b, 0); err != nil {
		t.Skipf("file capabilities cannot be set here: %v", err)
	}
}

// Privileges of the running program's file are found before an upgrade loses them, unless
// the unit gives them itself, or the file gives none.
func TestPrivilegesOfTheProgram(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file privileges")
	}
	for name, tt := range map[string]struct {
		low, high uint32
		mode      os.FileMode
		lines     string // of the unit
		want      string // in the problem; "": there is none
	}{
		"nothing":                        {0, 0, 0o755, "", ""},
		"a capability":                   {netBindService, 0, 0o755, "", "set AmbientCapabilities=CAP_NET_BIND_SERVICE in [Service]"},
		"two capabilities":               {netBindService | netRaw, 0, 0o755, "", "AmbientCapabilities=CAP_NET_BIND_SERVICE CAP_NET_RAW"},
		"one of the second word":         {0, bpf, 0o755, "", "AmbientCapabilities=CAP_BPF"},
		"the unit gives it, too":         {netBindService, 0, 0o755, "AmbientCapabilities=cap_net_bind_service cap_net_raw", ""},
		"the unit gives another":         {netBindService, 0, 0o755, "AmbientCapabilities=cap_net_raw", "CAP_NET_BIND_SERVICE"},
		"the unit's processes get none":  {netBindService, 0, 0o755, "NoNewPrivileges=yes", ""},
		"root":                           {netBindService, 0, 0o755, "User=root", ""},
		"root, by default":               {netBindService, 0, 0o755, "User=", ""},
		"a dynamic user":                 {netBindService, 0, 0o755, "User=\nDynamicUser=yes", "CAP_NET_BIND_SERVICE"},
		"set-user-ID":                    {0, 0, 0o755 | os.ModeSetuid, "", "the set-user-ID bit"},
		"set-group-ID":                   {0, 0, 0o755 | os.ModeSetgid, "", "the set-group-ID bit"},
		"set-user-ID, and no privileges": {0, 0, 0o755 | os.ModeSetuid, "NoNewPrivileges=yes", ""},
		"through a wrapper":              {netBindService, 0, 0o755, "ExecStart={ path=/usr/bin/nice ; argv[]=/usr/bin/nice ROOT/current/app ; ignore_errors=no }", "CAP_NET_BIND_SERVICE"},
	} {
		root, agent := t.TempDir(), "/bin/sh"
		program := filepath.Join(root, "versions/1.0.0/app")
		for _, v := range []string{"1.0.0", "1.1.0"} {
			if err := os.MkdirAll(filepath.Join(root, "versions", v, "bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"app", "bin/helper"} {
				if err := os.WriteFile(filepath.Join(root, "versions", v, file), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := os.Symlink("versions/1.0.0", filepath.Join(root, "current")); err != nil {
			t.Fatal(err)
		}
		give := func(path string) {
			t.Helper()
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			if tt.low|tt.high != 0 {
				setCapabilities(t, path, tt.low, tt.high)
			}
		}
		give(program)
		s := Service{Unit: "app.service", Layout: at(t, root), Attached: true}
		p := properties(replaceLines(shownAttached(root, agent), strings.ReplaceAll(tt.lines, "ROOT", root)))
		r := s.report(attached, p, agent)
		text := fmt.Sprint(r.Rollback())
		if (r.Rollback() != nil) != (tt.want != "") || !strings.Contains(text, tt.want) {
			t.Errorf("%s: %s, want %q", name, text, tt.want)
		}
		// A helper beside the program loses them, too.
		if err := os.Rename(program, filepath.Join(root, "versions/1.0.0/bin/helper")); err != nil {
			t.Fatal(err)
		}
		err := s.fitPrivileges(p, filepath.Join(root, "versions/1.1.0"))
		if (err != nil) != (tt.want != "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "bin/helper")) {
			t.Errorf("%s, of a helper: %v, want %q", name, err, tt.want)
		}
		if err := s.fitPrivileges(p, filepath.Join(root, "current")); err != nil {
			t.Errorf("%s: the running version lacks nothing of itself: %v", name, err)
		}
	}
}
