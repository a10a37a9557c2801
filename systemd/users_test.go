package systemd

import (
	"fmt"
	"os"
	"os/user"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
)

// The user of a unit, its groups and the owner of the install root are compared with the
// user database, and the cause names all of them.
func TestCheckUser(t *testing.T) {
	t.Parallel()
	box.NeedRoot(t)
	const none = 54321 // no user has that uid
	other, err := user.Lookup("daemon")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		owner         int
		lines         string
		cause, remedy string // "": there is no problem
	}{
		"well":                  {0, "User=root", "", ""},
		"groups that exist":     {0, "User=root\nGroup=root\nSupplementaryGroups=daemon 0", "", ""},
		"no supplementary":      {0, "User=root\nSupplementaryGroups=daemon no-such-group", "SupplementaryGroups=no-such-group, and there is no such group: it cannot start", "groupadd --system no-such-group && systemctl restart edge.service; or "},
		"no group":              {0, "User=root\nGroup=no-such-group", "Group=no-such-group, and there is no such group", "groupadd --system no-such-group"},
		"no such user":          {none, "User=no-such-user", "no such user: it cannot start; ROOT belongs to uid 54321, which no user has", "useradd --system --no-create-home --shell /usr/sbin/nologin no-such-user && chown -R no-such-user: ROOT"},
		"user gone, uid reused": {1, "User=no-such-user", "no such user: it cannot start; ROOT belongs to daemon (uid 1)", "useradd "},
		"another uid":           {none, "User=daemon", "runs as daemon (uid 1), but ROOT belongs to uid 54321, which no user has", "chown -R daemon: ROOT"},
		"a uid without a user":  {none, "User=54321", "no such user", "useradd --system --no-create-home --shell /usr/sbin/nologin --uid 54321 edge && chown -R 54321: ROOT"},
		"the group is left":     {none, "User=tape", "no such user", "--gid tape tape"},
		"root, and no user":     {none, "User=", "runs as root", "User="},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "the group is left" && !GroupExists("tape") {
				t.Skip("NOT TESTED: there is no group tape")
			}
			root := t.TempDir()
			if err := os.Chown(root, tt.owner, tt.owner); err != nil {
				t.Fatal(err)
			}
			u := unit{Service: Service{Unit: "edge.service", Layout: at(t, root)}, kind: linked, p: properties(tt.lines), real: root}
			found := u.checkUser()
			if tt.cause == "" {
				if found != nil {
					t.Errorf("found %+v", found)
				}
				return
			}
			fill := func(s string) string {
				return strings.NewReplacer("ROOT", root, "uid 1,", "uid "+other.Uid+",", "(uid 1)", "(uid "+other.Uid+")").Replace(s)
			}
			if len(found) != 1 || !found[0].Rollback || !strings.Contains(found[0].Cause, fill(tt.cause)) || !strings.Contains(found[0].Remedy, fill(tt.remedy)) {
				t.Errorf("found %+v, want %q, %q", found, fill(tt.cause), fill(tt.remedy))
			}
		})
	}
	// The user of a command line is one that exists.
	root := t.TempDir()
	if err := os.Chown(root, none, none); err != nil {
		t.Fatal(err)
	}
	if got := (unit{Service: Service{Unit: "edge.service", Layout: at(t, root)}, p: map[string]string{}}).writeCommand(); !strings.Contains(got, "--user USER ") {
		t.Error(got)
	}
}

// A process finds users of every source that getent knows.
func TestUserDatabase(t *testing.T) {
	t.Parallel()
	if fields := database("passwd", "root"); len(fields) < 4 || fields[0] != "root" || fields[2] != "0" {
		t.Errorf("%q", fields)
	}
	for _, key := range []string{"no-such-user", "--help", ""} {
		if fields := database("passwd", key); fields != nil {
			t.Errorf("%q: %q", key, fields)
		}
	}
	if uid, gid, ok := LookupUser("root"); !ok || uid != 0 || gid != 0 {
		t.Error(uid, gid, ok)
	}
	for _, name := range []string{"", "54321", "no-such-user"} {
		if _, _, ok := LookupUser(name); ok {
			t.Errorf("%q is a user", name)
		}
	}
	if got := fmt.Sprint(DescribeUser(0), ", ", DescribeUser(54321)); got != "root (uid 0), uid 54321, which no user has" {
		t.Error(got)
	}
}

// The caller's PATH does not matter: after `su` it lacks directories, and others may have
// put programs there.
func TestProgramsOfTheSystem(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if got := Program("getent"); !strings.HasPrefix(got, "/") {
		t.Error(got)
	}
	if got := Program("no-such-program"); got != "no-such-program" {
		t.Error(got)
	}
	if out, err := output(t.Context(), "getent", "passwd", "root"); err != nil || !strings.HasPrefix(string(out), "root:") {
		t.Errorf("%q, %v", out, err)
	}
}
