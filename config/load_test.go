package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A mistake in config.toml is explained in the words of the file: the line, the
// key, what it must be, and what was probably meant. No secret is quoted.
func TestMistakesInTheConfiguration(t *testing.T) {
	t.Parallel()
	const head = "[service]\ndevice_type = \"edge\"\n"
	for text, want := range map[string]string{
		"[upgrade]\nenabled = \"yes\"\n":                             `line 4: upgrade.enabled must be true or false, not "yes"`,
		"[upgrade]\nboot_health_window_secs = \"1m\"\n":              `line 4: upgrade.boot_health_window_secs must be a whole number, not "1m"`,
		"[upgrade]\nboot_health_window_secs = 1.5\n":                 `line 4: upgrade.boot_health_window_secs must be a whole number, not 1.5`,
		"[upgrade]\nallowed_channels = \"stable\"\n":                 `line 4: upgrade.allowed_channels must be a list of texts like ["a", "b"], not "stable"`,
		"[upgrade]\nrollback_majors = [\"1\"]\n":                     `line 4: upgrade.rollback_majors must be a list of whole numbers`,
		"[manager]\nurls = 1\n":                                      `line 4: manager.urls must be a list of texts`,
		"manager = { registration_token = \"hunter2\", urls = 5 }\n": "",
		"[upgrade]\nrollback_grace = -1\n":                           `line 4: upgrade.rollback_grace must be a whole number of 0 or more, not -1`,
		"[manager]\nregistration_token = [\"hunter2\"]\n":            `line 4: manager.registration_token must be a text in quotes`,
		"[manager]\nproxy = [\"http://u:hunter2@p\"]\n":              `line 4: manager.proxy must be a text in quotes`,
		"[upgrade]\nenable = true\n":                                 `line 4: unknown key "upgrade.enable"; did you mean upgrade.enabled?`,
		"[upgrade]\nkeep_version = 3\n":                              `did you mean upgrade.keep_versions?`,
		"[upgrades]\nenabled = true\n":                               `unknown key "upgrades"; did you mean upgrade?`,
		"[upgrade]\nca_file = \"x\"\n":                               `unknown key "upgrade.ca_file"; did you mean manager.ca_file?`,
		"[manager]\nUrls2 = []\n":                                    `did you mean manager.urls?`,
		"[manager]\nsomething_else_entirely = 1\n":                   `unknown key "manager.something_else_entirely"`,
		"[upgrade]\nenabled = yes\n":                                 "line 4",
		"[upgrade\n":                                                 "line 3",
		"[upgrade]\nenabled = true\nenabled = true\n":                "line 5",
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte(head+text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load(path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
			continue
		}
		for _, no := range []string{"hunter2", "agent.", "struct", "\n"} {
			if strings.Contains(err.Error(), no) {
				t.Errorf("%q: the error has %q: %v", text, no, err)
			}
		}
		if strings.Contains(want, "entirely") && strings.Contains(err.Error(), "did you mean") {
			t.Errorf("a far-fetched suggestion: %v", err)
		}
	}
}

// One fingerprint, or several, by one key.
func TestFingerprintsAreATextOrAList(t *testing.T) {
	t.Parallel()
	a, b := strings.Repeat("0a", 32), strings.Repeat("b1:", 31)+"b1"
	for text, want := range map[string]int{fmt.Sprintf("%q", a): 1, fmt.Sprintf("[%q, %q]", a, b): 2, "[]": 0} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte("[service]\ndevice_type = \"edge\"\n[manager]\nurls = [\"wss://m\"]\ncert_fingerprint = "+text+"\nkey_fingerprint = "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		r, err := c.Resolve()
		if err != nil || len(r.Certs) != want || len(r.Keys) != want {
			t.Errorf("%s: %+v, %v", text, r, err)
		}
	}
}

// No error quotes what may be a secret: not the token, not a password or a query in any
// URL, not the arguments of the health command.
func TestNoErrorQuotesASecret(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"manager.urls with a password":  "urls = [\"wss://u:hunter2@m\"]",
		"manager.urls with a query":     "urls = [\"wss://m/?token=hunter2\"]",
		"manager.urls that is no URL":   "urls = [\"u:hunter2@m:x y\"]",
		"another scheme, a password":    "urls = [\"http://u:hunter2@m\"]",
		"manager.proxy":                 "urls = [\"wss://m\"]\nproxy = \"ftp://u:hunter2@p\"",
		"a token that is a table":       "urls = [\"wss://m\"]\nregistration_token.hunter2 = 1",
		"a token that is a number":      "urls = [\"wss://m\"]\nregistration_token = 42424242",
		"health.http with a password":   "urls = [\"wss://m\"]\n[health]\nhttp = \"http://u:hunter2@h/\"",
		"arguments of the health check": "urls = [\"wss://m\"]\n[health]\ncommand = [\"curl\", \"-H\", \"X: hunter2\"]",
	} {
		path := filepath.Join(t.TempDir(), "config.toml")
		if err := os.WriteFile(path, []byte("[service]\ndevice_type = \"edge\"\n[manager]\n"+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Read(path)
		switch {
		case err == nil:
			t.Errorf("%s: accepted", name)
		case strings.Contains(err.Error(), "hunter2"), strings.Contains(err.Error(), "42424242"), strings.Contains(err.Error(), "struct field"):
			t.Errorf("%s: %v", name, err)
		case !strings.Contains(err.Error(), "manager.") && !strings.Contains(err.Error(), "health."):
			t.Errorf("%s: the error names no key: %v", name, err)
		}
	}
}
