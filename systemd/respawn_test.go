package systemd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFitRestart(t *testing.T) {
	t.Parallel()
	root := filepath.Join(t.TempDir(), "root")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ answer, want string }{
		{"ActiveState=active\nPaths=" + root + "/restart (PathChanged)", ""},
		{"ActiveState=active\nPaths=" + link + "/restart (PathChanged)", ""},
		{"ActiveState=inactive\nPaths=" + root + "/restart (PathChanged)", `edge-respawn.path is "inactive", not active`},
		{"ActiveState=failed\nPaths=", `"failed", not active`},
		{"", "not active"}, // no such unit
		{"ActiveState=active\nPaths=" + root + "/restart (PathExists)", "not for a change of " + root + "/restart"},
		{"ActiveState=active\nPaths=/other/restart (PathChanged)", "not for a change"},
		{"ActiveState=active\nPaths=" + root + "/state.json (PathChanged)", "not for a change"},
		{"ActiveState=active\nPaths=", "not for a change"},
	} {
		err := Service{Layout: at(t, root)}.fitRestart("edge-respawn.path", properties(tt.answer))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%q: %v, want %q", tt.answer, err, tt.want)
		}
	}
}
