package install

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/systemd"
)

// config writes a config.toml for root, with more lines of [service].
func configFile(t *testing.T, root, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.toml")
	text := fmt.Sprintf("[service]\nname = \"app\"\ndevice_type = \"app\"\ninstall_root = %q\nbinary = \"app\"\n%s\n[manager]\nurls = [\"wss://manager.example\"]\n[upgrade]\nboot_health_window_secs = 77\n", root, more)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLoadUnit(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	u, err := LoadUnit(configFile(t, root, ""), systemd.Unit{User: "app"})
	if err != nil {
		t.Fatal(err)
	}
	if u.Name != "app" || u.Layout.Root() != root || u.Binary != "app" || u.WindowSecs != 77 || u.Attached != "" || u.User != "app" || !filepath.IsAbs(u.Agent) {
		t.Errorf("%+v", u)
	}
	if got := StartCommand(u); got != "systemctl daemon-reload && systemctl enable --now app.service" {
		t.Error(got)
	}
	u, err = LoadUnit(configFile(t, root, `unit = "app.service"`), systemd.Unit{User: "upgrader", Agent: "/usr/local/bin/edge-agent"})
	if err != nil || u.Attached != "app.service" || u.Agent != "/usr/local/bin/edge-agent" {
		t.Errorf("%+v, %v", u, err)
	}
	if got := StartCommand(u); !strings.HasSuffix(got, "enable --now app-restart.path app-agent.service && systemctl restart app.service") {
		t.Error(got)
	}
	for _, path := range []string{configFile(t, root+"/", ""), configFile(t, root, "colour = 1"), filepath.Join(root, "none.toml")} {
		if _, err := LoadUnit(path, systemd.Unit{User: "app"}); err == nil {
			t.Errorf("%s was accepted", path)
		}
	}
}

// WriteUnits replaces what edge-agent wrote, and nothing else.
func TestWriteUnits(t *testing.T) {
	t.Parallel()
	u, err := LoadUnit(configFile(t, t.TempDir(), `unit = "app.service"`), systemd.Unit{User: "app", Agent: "/usr/local/bin/edge-agent"})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for range 2 {
		paths, err := WriteUnits(t.Context(), dir, u)
		if err != nil || len(paths) != 6 {
			t.Fatal(paths, err)
		}
	}
	foreign := filepath.Join(dir, "app-restart.path")
	if err := os.WriteFile(foreign, []byte("[Path]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if paths, err := WriteUnits(t.Context(), dir, u); len(paths) > 0 || err == nil || !strings.Contains(err.Error(), foreign) {
		t.Errorf("%v, %v", paths, err)
	}
	if b, err := os.ReadFile(foreign); err != nil || string(b) != "[Path]\n" {
		t.Errorf("a foreign file was replaced: %q, %v", b, err)
	}
}
