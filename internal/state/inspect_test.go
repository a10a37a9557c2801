package state

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each fault of a root is one flaw of the right check, with a remedy. Inspect changes
// nothing.
func TestInspectFindsEachFlaw(t *testing.T) {
	t.Parallel()
	root := os.Geteuid() == 0
	const stable = `{"schema":1,"status":"stable","good":"1.0.0"}`
	for _, tt := range []struct {
		name   string
		break_ func(root string) error
		check  string // "": it is well
		cause  string
		remedy string
		asRoot bool // only root can break it
	}{
		{"nothing", func(string) error { return nil }, "", "", "", false},
		{"no current", func(r string) error { return os.Remove(r + "/current") }, "links", "current is missing", "ln -sfn versions/1.0.0 ", false},
		{"no last-good", func(r string) error { return os.Remove(r + "/last-good") }, "links", "last-good is missing", "ln -sfn versions/1.0.0 ", false},
		{"no previous", func(r string) error { return os.Remove(r + "/previous") }, "", "", "", false},
		{"dangling current", func(r string) error { return relinked(r, "current", "versions/9.9.9") }, "links", "current is dangling", "ln -sfn versions/1.0.0 ", false},
		{"dangling last-good", func(r string) error { return relinked(r, "last-good", "versions/9.9.9") }, "links", "last-good is dangling", "ln -sfn versions/1.0.0 ", false},
		{"dangling previous", func(r string) error { return relinked(r, "previous", "versions/9.9.9") }, "links", "previous is dangling", "ln -sfn versions/", false},
		{"absolute", func(r string) error { return relinked(r, "current", r+"/versions/1.0.0") }, "links", "absolute link", "ln -sfn versions/1.0.0 ", false},
		{"outside", func(r string) error { return relinked(r, "current", "/usr") }, "links", "not an installed version", "ln -sfn versions/1.0.0 ", false},
		{"a directory", func(r string) error { os.Remove(r + "/current"); return os.Mkdir(r+"/current", 0o755) }, "links", "is not a link", "mv ", false},
		{"a file", func(r string) error {
			os.Remove(r + "/current")
			return os.WriteFile(r+"/current", nil, 0o644)
		}, "links", "is not a link", "mv ", false},
		{"switched by an operator", func(r string) error { return relinked(r, "current", "versions/1.1.0") }, "links", "an operator changed the link", "ln -sfn versions/1.0.0 ", false},
		{"no versions", func(r string) error { return os.RemoveAll(r + "/versions") }, "links", "no version is installed", "install one", false},
		{"no state yet", func(r string) error { return os.Remove(r + "/state.json") }, "", "", "", false},
		{"torn state", func(r string) error { return os.WriteFile(r+"/state.json", []byte("{"), 0o600) }, "state", "state.json is unreadable", "restart the service", false},
		{"state is a directory", func(r string) error { os.Remove(r + "/state.json"); return os.Mkdir(r+"/state.json", 0o755) }, "state", "unreadable", "restart", false},
		{"outbox is a file", func(r string) error { os.Remove(r + "/outbox"); return os.WriteFile(r+"/outbox", nil, 0o600) }, "outbox", "not a directory", "nothing to do", false},
		{"bad entry", func(r string) error { return os.WriteFile(r+"/outbox/0000000000000001-x.json", []byte("{"), 0o600) }, "outbox", "1 of its entries", "nothing to do", false},
		{"versions is a link", func(r string) error {
			if err := os.Rename(r+"/versions", r+"-v"); err != nil {
				return err
			}
			return os.Symlink(r+"-v", r+"/versions")
		}, "", "", "", false},
		{"versions is a dangling link", func(r string) error { os.RemoveAll(r + "/versions"); return os.Symlink("/mnt/none/v", r+"/versions") }, "links", "versions is a dangling link: it points to /mnt/none/v", "mount the file system that has /mnt/none/v, or create", false},
		{"outbox is a dangling link", func(r string) error { os.RemoveAll(r + "/outbox"); return os.Symlink("/mnt/none/o", r+"/outbox") }, "links", "outbox is a dangling link: it points to /mnt/none/o", "create that directory", false},
		{"not a root", func(r string) error { os.RemoveAll(r); return os.WriteFile(r, nil, 0o644) }, "install root", "is not a directory", "move it away", false},
		{"no root", func(r string) error { return os.RemoveAll(r) }, "install root", "no such file", "install the service", false},
		{"state of another", func(r string) error { return os.Lchown(r+"/state.json", 1, 1) }, "owners", "state.json belongs to", "chown -R ", true},
		{"version of another", func(r string) error { return os.Lchown(r+"/versions/1.1.0", 1, 1) }, "owners", "versions/1.1.0 belongs to", "chown -R ", true},
		{"program of another", func(r string) error {
			path := r + "/versions/1.1.0/lib/app"
			return errors.Join(os.Mkdir(r+"/versions/1.1.0/lib", 0o755), os.WriteFile(path, nil, 0o755), os.Lchown(path, 1, 1))
		}, "owners", "versions/1.1.0/lib/app belongs to", "chown -R ", true},
		{"lock of another", func(r string) error {
			return errors.Join(os.WriteFile(r+"/.agent.lock", nil, 0o600), os.Lchown(r+"/.agent.lock", 1, 1))
		}, "owners", ".agent.lock belongs to", "chown -R ", true},
		{"a note of another", func(r string) error {
			return errors.Join(os.WriteFile(r+"/note", nil, 0o600), os.Lchown(r+"/note", 1, 1), os.Lchown(r+"/config.toml", 1, 1))
		}, "", "", "", true},
		{"root of another", func(r string) error { return os.Lchown(r, 1, 1) }, "owners", "belongs to", "chown -R ", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.asRoot && !root {
				t.Skip("NOT TESTED: needs root")
			}
			dir := filepath.Join(t.TempDir(), "root")
			for _, d := range []string{"versions/1.0.0", "versions/1.1.0", "outbox", "downloads"} {
				if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for name, text := range map[string]string{"state.json": stable, "config.toml": ""} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for _, name := range []string{"current", "last-good"} {
				if err := relinked(dir, name, "versions/1.0.0"); err != nil {
					t.Fatal(err)
				}
			}
			if err := relinked(dir, "previous", "versions/1.1.0"); err != nil {
				t.Fatal(err)
			}
			if err := tt.break_(dir); err != nil {
				t.Fatal(err)
			}
			l, err := At(dir)
			if err != nil {
				t.Fatal(err)
			}
			before := listing(t, dir)
			flaws := l.Inspect(uint32(os.Geteuid()))
			if after := listing(t, dir); after != before {
				t.Errorf("it changes the root:\n%s\nbefore:\n%s", after, before)
			}
			if tt.check == "" {
				if len(flaws) > 0 {
					t.Errorf("found %v", flaws)
				}
				return
			}
			if len(flaws) != 1 || flaws[0].Check != tt.check || !strings.Contains(flaws[0].Cause, tt.cause) || !strings.Contains(flaws[0].Remedy, tt.remedy) {
				t.Errorf("found %+v, want one of %q: %q, %q", flaws, tt.check, tt.cause, tt.remedy)
			}
		})
	}
}

func relinked(root, name, target string) error {
	os.Remove(filepath.Join(root, name))
	return os.Symlink(target, filepath.Join(root, name))
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		b.WriteString(path + "\n")
		return nil
	})
	return b.String()
}
