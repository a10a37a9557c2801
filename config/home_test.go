package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A config.toml that lies in the root of a registered node, and names another root or none,
// neither moves the node nor makes it an unregistered one.
func TestAFileThatNamesAnotherRoot(t *testing.T) {
	t.Parallel()
	empty, other := t.TempDir(), t.TempDir()
	write(t, filepath.Join(other, "credentials.json"), "{}", 0o600) // of another node
	for name, root := range map[string]string{"wrong": "install_root = \"" + empty + "\"\n", "of another node": "install_root = \"" + other + "\"\n", "lost": ""} {
		for _, copied := range []bool{true, false} {
			l, text := registeredNode(t)
			line := "install_root = \"" + l.Root() + "\"\n"
			write(t, l.ConfigFile(), strings.Replace(text, line, root, 1), 0o600)
			if copied {
				write(t, l.AcceptedConfig(), text, 0o600)
			}
			s, w, err := Open(l.ConfigFile())
			if err != nil || s.Layout.Root() != l.Root() || !strings.Contains(w.Withhold, "set install_root = ") || !w.Accepted.IsZero() || !strings.Contains(texts(w), "refuses upgrades") {
				t.Errorf("%s, copy %t: %s, %+v, %v", name, copied, s.Layout.Root(), w, err)
			}
			if _, err := Read(l.ConfigFile()); err == nil || !strings.Contains(err.Error(), "install_root is ") || OnlyWarns(l.ConfigFile()) {
				t.Errorf("%s: config check says %v", name, err)
			}
			// A link to the root is the root.
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(l.Root(), link); err != nil {
				t.Fatal(err)
			}
			write(t, l.ConfigFile(), text, 0o600)
			if _, w, err := Open(filepath.Join(link, "config.toml")); err != nil || w.Withhold != "" {
				t.Errorf("%s, through a link: %+v, %v", name, w, err)
			}
			// A file elsewhere may name any root.
			file := filepath.Join(t.TempDir(), "config.toml")
			write(t, file, text, 0o600)
			if s, w, err := Open(file); err != nil || w.Withhold != "" || s.Layout.Root() != l.Root() {
				t.Errorf("%s, elsewhere: %+v, %v", name, w, err)
			}
		}
	}
}
