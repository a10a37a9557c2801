package fsutil_test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
)

// newOwner is a uid, for which no user need exist.
const newOwner = 54321

func needRoot(t *testing.T) {
	t.Helper()
	box.NeedRoot(t)
}

func ownerOf(t *testing.T, path string) int {
	t.Helper()
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return int(st.Sys().(*syscall.Stat_t).Uid)
}

// build creates files: a name that ends in "/" is a directory, "a -> b" a link,
// "a = b" a second name of b.
func build(t *testing.T, root string, names ...string) {
	t.Helper()
	for _, name := range names {
		var err error
		switch {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(filepath.Join(root, name), 0o755)
		case strings.Contains(name, " -> "):
			from, to, _ := strings.Cut(name, " -> ")
			err = os.Symlink(to, filepath.Join(root, from))
		case strings.Contains(name, " = "):
			from, to, _ := strings.Cut(name, " = ")
			err = os.Link(filepath.Join(root, to), filepath.Join(root, from))
		default:
			err = os.WriteFile(filepath.Join(root, name), nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestGiveChangesTheWholeTreeAndNothingElse(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := t.TempDir()
	build(t, dir, "victim/", "victim/shadow", "root/", "root/versions/1.0.0/lib/", "root/versions/1.0.0/app",
		"root/versions/1.0.0/app2 = root/versions/1.0.0/app", "root/versions/1.0.0/lib/f", "root/current -> versions/1.0.0", "root/out -> ../victim", "root/file -> ../victim/shadow")
	if err := fsutil.Give(filepath.Join(dir, "root"), newOwner, newOwner); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		want := 0
		if rel == "root" || strings.HasPrefix(rel, "root/") {
			want = newOwner
		}
		if got := ownerOf(t, path); got != want {
			t.Errorf("%s belongs to %d, want %d", rel, got, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// If Give refuses a tree, its top directory still belongs to root, which shows that the
// tree was not handed over.
func TestGiveRefuses(t *testing.T) {
	t.Parallel()
	needRoot(t)
	for want, names := range map[string][]string{
		"2 names":                       {"victim/", "victim/shadow", "root/a/", "root/a/f = victim/shadow"},
		"not a directory":               {"other/", "root -> other"},
		"more than 200 directories":     {"root/" + strings.Repeat("d/", 203)},
		"is a device":                   {"root/a/"},
		"no such file":                  {},
		"not a directory, but a file":   {"root"},
		"3 names, and only 2 of them a": {"victim/", "victim/shadow", "root/", "root/f = victim/shadow", "root/g = victim/shadow"},
	} {
		dir := t.TempDir()
		build(t, dir, names...)
		root := filepath.Join(dir, "root")
		if want == "is a device" {
			if err := syscall.Mknod(filepath.Join(root, "a/null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
				t.Fatal(err)
			}
		}
		want, _, _ = strings.Cut(want, ", but")
		if err := fsutil.Give(root, newOwner, newOwner); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", names, err, want)
		}
		for _, path := range []string{"root", "victim/shadow", "other"} {
			if _, err := os.Lstat(filepath.Join(dir, path)); err == nil && ownerOf(t, filepath.Join(dir, path)) != 0 {
				t.Errorf("%v: %s was given away", names, path)
			}
		}
	}
}

// While root hands over a tree, a process of the new owner replaces a directory by a link.
// Give never changes the owner of what the link points to.
func TestGiveAgainstItsNewOwner(t *testing.T) {
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
		names := []string{"victim/", "victim/f", "root/versions/1.0.0/zzz/", "root/versions/1.0.0/zzz/f"}
		for i := range 300 {
			names = append(names, fmt.Sprintf("root/versions/1.0.0/lib%03d", i))
		}
		build(t, dir, names...)
		cmd := exec.Command("sh", "-c", "echo ready; while ! mv zzz yyy 2>/dev/null; do :; done; ln -s "+dir+"/victim zzz")
		cmd.Dir = filepath.Join(dir, "root/versions/1.0.0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: newOwner, Gid: newOwner}}
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
		if err := fsutil.Give(filepath.Join(dir, "root"), newOwner, newOwner); err != nil {
			t.Log(err)
		}
		if err := cmd.Wait(); err != nil { // it ends once the directory is its own
			t.Fatal(err)
		}
		for _, path := range []string{"victim", "victim/f"} {
			if got := ownerOf(t, filepath.Join(dir, path)); got != 0 {
				t.Errorf("%s belongs to %d", path, got)
			}
		}
	}
}
