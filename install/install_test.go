package install

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// Check refuses values that must not reach a path, a unit or a command line.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(os.Symlink(dir+"/nothing", dir+"/dangling"), os.WriteFile(dir+"/file", nil, 0o644), os.Symlink("/etc", dir+"/etc"), os.Symlink(dir+"/file", dir+"/tofile")); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Node){
		`name "../../etc/cron.d/x"`: func(n *Node) { n.Name = "../../etc/cron.d/x" },
		`name "a/b"`:                func(n *Node) { n.Name = "a/b" },
		`name "-x"`:                 func(n *Node) { n.Name = "-x" },
		`name "a b"`:                func(n *Node) { n.Name = "a b" },
		`name "a%n"`:                func(n *Node) { n.Name = "a%n" },
		`name ""`:                   func(n *Node) { n.DeviceType = "" },
		`user "-x"`:                 func(n *Node) { n.User = "-x" },
		`user "a:b"`:                func(n *Node) { n.User = "a:b" },
		"without root":              func(n *Node) { n.User = "root" },
		"--token-file has no use":   func(n *Node) { n.Manager, n.TokenFile = "none", "token" },
		"not an absolute path":      func(n *Node) { n.Root = "opt" },
		`root "/opt/%n"`:            func(n *Node) { n.Root = "/opt/%n" },
		`root "/" is not`:           func(n *Node) { n.Root = "/usr/.." },
		"--root /opt:":              func(n *Node) { n.Root = "/opt" },
		"--root /usr/lib:":          func(n *Node) { n.Root = "/usr/lib" },
		"--root /etc:":              func(n *Node) { n.Root = "/etc" },
		dir + "/etc: /etc is a":     func(n *Node) { n.Root = dir + "/etc" },
		"dangling link to ":         func(n *Node) { n.Root = dir + "/dangling" },
		"file is not a directory":   func(n *Node) { n.Root = dir + "/file" },
		"tofile is not a directory": func(n *Node) { n.Root = dir + "/tofile" },
		`environment "A=b c"`:       func(n *Node) { n.Environment = []string{"A=b c"} },
	} {
		n := Node{DeviceType: "edge", Root: dir + "/root"}
		change(&n)
		if err := n.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// The values of a config.toml, which the service's user owns, are checked before root
// writes them to a unit.
func TestLoadRefusesForeignValues(t *testing.T) {
	t.Parallel()
	for want, line := range map[string]string{
		"":                        "",
		"inside a version":        `binary = "../../bin/sh"`,
		"not a path inside":       `binary = "a/../../../bin/sh"`,
		"begins with -":           `binary = "-x"`,
		"not made of letters":     "binary = \"a\\nExecStartPre=/bin/sh\"",
		`binary "a%n"`:            `binary = "a%n"`,
		"which is not":            `install_root = "/etc"`,
		`for the service "other`:  `name = "other"`,
		`service "../x"`:          `name = "../x"`,
		"attached to app.service": `unit = "app.service"`,
	} {
		root := t.TempDir()
		text := "[service]\ndevice_type = \"edge\"\n" + line + "\n"
		if !strings.HasPrefix(line, "install_root") {
			text += "install_root = \"" + root + "\"\n"
		}
		text += "[manager]\nurls = [\"wss://m:1\"]\n"
		if err := os.WriteFile(root+"/config.toml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := state.At(root)
		if err != nil {
			t.Fatal(err)
		}
		n := Node{DeviceType: "edge", Name: "edge", User: "edge", Root: root}
		if _, err := n.load(l); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) && !strings.Contains(err.Error(), "version's directory") {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

func work(t *testing.T, job Job) error {
	t.Helper()
	b, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	return Work(t.Context(), bytes.NewReader(b), slog.New(slog.DiscardHandler), nil)
}

func tree(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		var err error
		if from, to, ok := strings.Cut(name, " -> "); ok {
			err = os.Symlink(strings.ReplaceAll(to, "DIR", dir), filepath.Join(dir, from))
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(path, 0o755)
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("secret"), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A new config.toml that is invalid, or has a form that set does not know, does not
// replace the old one. A valid one does, and the old one is copied.
func TestReplaceConfig(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	const old = "[service]\ndevice_type = \"edge\"\n[manager]\nurls = [\"wss://a:1\"]\n"
	path := root + "/config.toml"
	if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		set(old, "manager", "urls", `["http://x"]`),
		set("manager.urls = [\"wss://a:1\"]\n[service]\ndevice_type = \"edge\"\n", "manager", "urls", `["wss://b:1"]`),
		set("manager = { urls = [\"wss://a:1\"] }\n", "manager", "urls", `["wss://b:1"]`),
		"[",
	} {
		if err := work(t, Job{Root: root, Config: text, Keep: "config.toml.before-x"}); err == nil || !strings.Contains(err.Error(), "the old one stays") || strings.Contains(err.Error(), ".tmp-") {
			t.Errorf("%q: %v", text, err)
		}
		if b, err := os.ReadFile(path); err != nil || string(b) != old {
			t.Errorf("%q: %q, %v", text, b, err)
		}
		if entries, err := os.ReadDir(root); err != nil || len(entries) != 2 || entries[0].Name() != ".lock" {
			t.Errorf("%q leaves %v, %v", text, entries, err)
		}
	}
	fresh := set(old, "manager", "urls", `["wss://b:1"]`)
	if err := work(t, Job{Root: root, Config: fresh, Keep: "config.toml.before-x"}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"config.toml": fresh, "config.toml.before-x": old} {
		b, err := os.ReadFile(filepath.Join(root, name))
		st, err2 := os.Stat(filepath.Join(root, name))
		if err := errors.Join(err, err2); err != nil || string(b) != want || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %q, %v", name, b, err)
		}
	}
}

type readOnly struct{}

func (readOnly) Change(fsutil.Op, func() error) error { return syscall.EROFS }

func TestClearMount(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree(t, dir, "config.toml", "versions/1.0.0/app", "downloads/")
	l, err := state.At(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"config.toml": "", "downloads": "", "versions": "is not empty"} {
		if err := clearMount(l, filepath.Join(dir, name)); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b, err := os.ReadFile(dir + "/config.toml"); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	// A disk that refuses the change behaves like a read-only mount.
	tree(t, dir, "credentials.json")
	if err := clearMount(l.On(fsutil.Disk{Seam: readOnly{}}), dir+"/credentials.json"); err == nil || !strings.Contains(err.Error(), "still holds a secret") {
		t.Errorf("read-only: %v", err)
	}
}

// A source that root opened can be read after root was given up. It leaves out FIFOs, and
// links that leave the directory.
func TestOpenSourceHoldsItsFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree(t, dir, "rel/manifest.json", "secret", "rel/out -> DIR/secret")
	if err := syscall.Mkfifo(dir+"/rel/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := stage.OpenSource(dir + "/rel")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := os.RemoveAll(dir + "/rel"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		p, err := s.Open(t.Context(), "manifest.json", 0, "")
		if err != nil || p.Total != 6 {
			t.Fatal(p.Total, err)
		}
		if b, err := io.ReadAll(p.Body); err != nil || string(b) != "secret" {
			t.Errorf("%q, %v", b, err)
		}
	}
	for _, name := range []string{"out", "fifo", "none"} {
		if _, err := s.Open(t.Context(), name, 0, ""); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := stage.OpenSource(dir + "/none"); err == nil {
		t.Error("a source that is not there")
	}
}

func TestAgentUnit(t *testing.T) {
	t.Parallel()
	var c config.Config
	c.Service.Name = "edge"
	if got := AgentUnit(c); got != "edge.service" {
		t.Error(got)
	}
	c.Service.Unit = "app.service"
	if got := AgentUnit(c); got != "app-agent.service" {
		t.Error(got)
	}
}

// A later call applies its settings to an existing config.toml, with or without an
// installed version. Without a change nothing is written.
func TestChangedConfig(t *testing.T) {
	t.Parallel()
	const old = "[service]\ndevice_type = \"edge\"\n[manager]\nurls = [\"wss://a:1\"]\nregistration_token = \"old\"\n"
	root := t.TempDir()
	l, err := state.At(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := (&Node{Root: root, real: root}).changedConfig(l); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a file: %v", err)
	}
	for path, text := range map[string]string{root + "/config.toml": old, root + "/token": "new\n", root + "/same": "old\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		n             Node
		changed, text string
	}{
		{Node{}, "", ""},
		{Node{Manager: "wss://a:1", TokenFile: root + "/same"}, "", ""},
		{Node{Manager: "wss://b:1"}, "manager.urls", `"wss://b:1"`},
		{Node{Manager: "none"}, "manager.urls", "urls = []\n"},
		{Node{TokenFile: root + "/token", Fingerprint: "ab"}, "manager.registration_token manager.cert_fingerprint", `"new"`},
	} {
		text, changed, err := tt.n.changedConfig(l)
		if got := strings.Join(changed, " "); err != nil || got != tt.changed || !strings.Contains(text, tt.text) || (text == "") != (tt.text == "") {
			t.Errorf("%+v: %q, %q, %v", tt.n, text, got, err)
		}
	}
	if _, _, err := (&Node{TokenFile: root + "/none"}).changedConfig(l); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the token file: %v", err)
	}
	if err := errors.Join(os.Rename(root+"/config.toml", root+"/elsewhere"), os.Symlink("elsewhere", root+"/config.toml")); err != nil {
		t.Fatal(err)
	}
	if _, changed, err := (&Node{Manager: "wss://a:1"}).changedConfig(l); err != nil || changed != nil {
		t.Errorf("the same, behind a link: %q, %v", changed, err)
	}
	if _, _, err := (&Node{Manager: "wss://b:1"}).changedConfig(l); err == nil || !strings.Contains(err.Error(), "is a link to elsewhere, which is not changed") {
		t.Errorf("a change behind a link: %v", err)
	}
}

func TestIsMask(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	tree(t, dir, "unit", "mask -> /dev/null", "link -> DIR/unit")
	if err := os.WriteFile(dir+"/empty", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"unit": false, "mask": true, "link": false, "empty": true, "none": false} {
		if isMask(dir+"/"+name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}

// An installation that ended between state.json and the links is continued; a root whose
// state.json says that it was more than that is not.
func TestAnInterruptedInstallationIsContinued(t *testing.T) {
	t.Parallel()
	v := release.MustVersion("1.0.0")
	lay := func(t *testing.T) state.Layout {
		l, err := state.At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(l.Version(v), 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Do(t.Context(), func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
			tr.LastGood, tr.Current = v, v
			return state.Install(s, state.Trial{Target: v}, now), tr, nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(l.Current()); err != nil {
			t.Fatal(err)
		}
		return l
	}
	for name, tt := range map[string]struct {
		change func(l state.Layout) error
		want   bool
	}{
		"no link":             {func(l state.Layout) error { return os.Remove(l.LastGood()) }, true},
		"last-good only":      {func(state.Layout) error { return nil }, true},
		"no state":            {func(l state.Layout) error { return os.Remove(l.StateFile()) }, true},
		"the version is gone": {func(l state.Layout) error { return os.Remove(l.Version(v)) }, false},
		"a damaged state":     {func(l state.Layout) error { return os.WriteFile(l.StateFile(), []byte("{"), 0o600) }, false},
	} {
		l := lay(t)
		if err := tt.change(l); err != nil {
			t.Fatal(err)
		}
		if got := resumable(l); got != tt.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}
