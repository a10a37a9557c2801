package fsutil_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
)

// oldOwner is a uid of which no user need exist, and third one of a bystander.
const oldOwner, third = 54322, 54323

// chown gives the files that names matches to uid; "" is all.
func chown(t *testing.T, dir string, uid int, under ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		if err == nil && (len(under) == 0 || slices.Contains(under, rel)) {
			err = os.Lchown(path, uid, uid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A tree of an old owner, with files of root in it, goes to the new one as a whole. Nobody
// else may write to its directories afterwards.
func TestTakeAndGive(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	build(t, dir, "victim/", "victim/f", "root/", "root/state.json", "root/credentials.json", "root/versions/1.0.0/", "root/versions/1.0.0/app", "root/versions/1.0.0/app2 = root/versions/1.0.0/app",
		"root/out -> ../victim", "root/file -> ../victim/f", "root/open/")
	chown(t, root, oldOwner)
	chown(t, root, 0, "state.json")
	chown(t, root, newOwner, "versions/1.0.0")
	for path, mode := range map[string]os.FileMode{"open": 0o777, "versions/1.0.0/app": 0o777 | os.ModeSetuid, "credentials.json": 0o600} {
		if err := os.Chmod(filepath.Join(root, path), mode); err != nil {
			t.Fatal(err)
		}
	}
	owners, err := fsutil.Owners(root)
	if err != nil || len(owners) != 3 || owners[0] != root+"/state.json" || owners[newOwner] != root+"/versions/1.0.0" || owners[oldOwner] != root {
		t.Errorf("owners %v, %v", owners, err)
	}
	tree, err := fsutil.Take(root, oldOwner, 0, newOwner)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if got := ownerOf(t, root); got != 0 {
		t.Errorf("taken, the tree belongs to %d", got)
	}
	if err := tree.Give(newOwner, newOwner); err != nil {
		t.Fatal(err)
	}
	owners, err = fsutil.Owners(root)
	if err != nil || len(owners) != 1 || owners[newOwner] == "" {
		t.Errorf("afterwards: owners %v, %v", owners, err)
	}
	for path, mode := range map[string]os.FileMode{"open": os.ModeDir | 0o755, "versions/1.0.0/app": 0o755, "credentials.json": 0o600} {
		if st, err := os.Stat(filepath.Join(root, path)); err != nil || st.Mode() != mode {
			t.Errorf("%s: %v, %v", path, st, err)
		}
	}
	for _, path := range []string{"victim", "victim/f"} {
		if got := ownerOf(t, filepath.Join(dir, path)); got != 0 {
			t.Errorf("%s belongs to %d", path, got)
		}
	}
}

// What belongs to anybody else is not taken, and never given away.
func TestTakeRefuses(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for name, tt := range map[string]struct {
		owner int
		prep  func(root string) error
		want  string
	}{
		"a bystander's file":      {oldOwner, func(r string) error { return os.Lchown(r+"/a/f", third, third) }, "a/f belongs to uid 54323"},
		"a bystander's directory": {oldOwner, func(r string) error { return os.Lchown(r+"/a", third, third) }, "a belongs to uid 54323"},
		"a file of root":          {oldOwner, func(r string) error { return os.Lchown(r+"/a/f", 0, 0) }, "a/f belongs to uid 0"},
		"another tree":            {third, func(string) error { return nil }, "belongs to uid 54322, not 54323"},
		"a link":                  {oldOwner, func(r string) error { os.Rename(r, r+"2"); return os.Symlink(r+"2", r) }, "not a directory"},
		"a device":                {oldOwner, func(r string) error { return syscall.Mknod(r+"/a/null", syscall.S_IFCHR|0o666, 1<<8|3) }, ""},
		"a file with two names":   {oldOwner, func(r string) error { return os.Link(r+"/a/f", r+"-out") }, "2 names"},
	} {
		root := filepath.Join(t.TempDir(), "root")
		build(t, filepath.Dir(root), "root/a/", "root/a/f")
		chown(t, root, oldOwner)
		if err := tt.prep(root); err != nil {
			t.Fatal(err)
		}
		tree, err := fsutil.Take(root, tt.owner)
		if err == nil {
			err = tree.Give(newOwner, newOwner)
			tree.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		if st, err := os.Lstat(root); err == nil && st.IsDir() && ownerOf(t, root) == newOwner {
			t.Errorf("%s: the tree was handed over", name)
		}
	}
}

// While root hands over a tree, a process of the old owner works in it: it moves
// directories and makes new files and links. Afterwards it owns nothing there, and
// nothing outside changed its owner.
func TestTakeAgainstTheOldOwner(t *testing.T) {
	t.Parallel()
	needRoot(t)
	if testing.Short() {
		t.Skip("races")
	}
	for range 5 {
		dir := t.TempDir()
		for d := dir; d != "/tmp" && d != "/"; d = filepath.Dir(d) { // so that the attacker can get there
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		root := filepath.Join(dir, "root")
		names := []string{"victim/", "victim/f", "root/versions/1.0.0/zzz/", "root/versions/1.0.0/zzz/f"}
		for i := range 300 {
			names = append(names, "root/versions/1.0.0/lib"+string(rune('a'+i%26))+strings.Repeat("x", i/26))
		}
		build(t, dir, names...)
		chown(t, root, oldOwner)
		cmd := exec.Command("sh", "-c", `echo ready; while mv zzz aaa && mv aaa zzz && ln -sfn `+dir+`/victim link && : >new; do :; done 2>/dev/null; exit 0`)
		cmd.Dir = filepath.Join(root, "versions/1.0.0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: oldOwner, Gid: oldOwner}}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		tree, err := fsutil.Take(root, oldOwner)
		if err != nil {
			t.Fatal(err)
		}
		err = tree.Give(newOwner, newOwner)
		tree.Close()
		if err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil { // it ends once it may not write there
			t.Fatal(err)
		}
		if owners, err := fsutil.Owners(root); err != nil || len(owners) != 1 || owners[newOwner] == "" {
			t.Errorf("owners %v, %v", owners, err)
		}
		for _, path := range []string{"victim", "victim/f"} {
			if got := ownerOf(t, filepath.Join(dir, path)); got != 0 {
				t.Errorf("%s belongs to %d", path, got)
			}
		}
	}
}

func TestGiveFile(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	build(t, dir, "f", "g", "twice", "again = twice", "dir/", "link -> f")
	chown(t, dir, oldOwner, "f")
	for name, ok := range map[string]bool{"f": true, "g": false, "twice": false, "dir": false, "link": false, "none": false} {
		if err := fsutil.GiveFile(filepath.Join(dir, name), oldOwner, newOwner, newOwner); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ownerOf(t, dir+"/f") != newOwner || ownerOf(t, dir+"/g") != 0 {
		t.Error("the owners are wrong")
	}
}
