package config

import (
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/state"
)

// An empty list of managers is a node without one. A missing key may be forgotten, so it
// stays an error. A token that has no use is named.
func TestWithoutAManager(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ manager, fails, warns string }{
		"none":             {"urls = []\n", "", ""},
		"none, spread out": {"urls = [\n  # none\n]\n", "", ""},
		"a token":          {"urls = []\nregistration_token = \"hunter2\"\n", "", "registration_token has no use"},
		"forgotten":        {"", "manager.urls is missing", ""},
		"forgotten, token": {"registration_token = \"hunter2\"\n", "or [] for a node without a manager", ""},
	} {
		l, err := state.At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		text := "[service]\ndevice_type = \"edge\"\ninstall_root = \"" + l.Root() + "\"\n[manager]\n" + tt.manager
		write(t, l.ConfigFile(), text, 0o600)
		s, w, err := Open(l.ConfigFile())
		if (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) || len(s.URLs) > 0 {
			t.Errorf("%s: %v, %v", name, s.URLs, err)
		}
		if said := texts(w); !strings.Contains(said, tt.warns) || (said == "") != (tt.warns == "") || strings.Contains(said, "hunter2") {
			t.Errorf("%s: warns %q, want %q", name, said, tt.warns)
		}
		if _, strict := Read(l.ConfigFile()); (strict == nil) != (tt.fails == "") {
			t.Errorf("%s: Read: %v", name, strict)
		}
	}
}

// A node that has run without a manager has no credentials, and starts with every file.
func TestANodeWithoutAManagerOpensEveryFile(t *testing.T) {
	t.Parallel()
	l, _ := registeredNode(t)
	if err := os.Remove(l.CredentialsFile()); err != nil {
		t.Fatal(err)
	}
	text := "[service]\ndevice_type = \"edge\"\ninstall_root = \"" + l.Root() + "\"\n[manager]\nurls = []\n"
	for name, tt := range map[string]struct {
		file     string
		withhold string
	}{
		"valid":       {text, ""},
		"cut off":     {text[:40], "copy of the last valid file"},
		"unknown key": {text + "[health]\ncolour = 1\n", ""},
		"no urls":     {strings.Replace(text, "urls = []", "", 1), "urls is missing"},
	} {
		write(t, l.ConfigFile(), tt.file, 0o600)
		write(t, l.AcceptedConfig(), text, 0o600)
		s, w, err := Open(l.ConfigFile())
		if err != nil || s.Layout.Root() != l.Root() || len(s.URLs) > 0 || !strings.Contains(w.Withhold, tt.withhold) || (w.Withhold == "") != (tt.withhold == "") {
			t.Errorf("%s: %+v, %v", name, w, err)
		}
		if err := os.Remove(l.AcceptedConfig()); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(l.ConfigFile()); (err == nil) != (name == "valid") {
			t.Errorf("%s, at its first start: %v", name, err)
		}
	}
}
