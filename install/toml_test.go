package install

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/config"
	"github.com/google/go-cmp/cmp"
)

const written = `# the node in the cellar
[service]
device_type = "edge" # as at the manager
urls = ["wss://not.this:1"]

[manager] # the second one is the standby
urls = [
  "wss://old:8443", # ]
  'wss://b]c:8443',
] # both
"registration_token" = "old # token"   # from the ticket
ca_file = '/etc/ca.pem'

[upgrade]
enabled = true
`

// set replaces a value, and no other byte.
func TestSetChangesOneValueOnly(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ key, value, from, to string }{
		{"urls", `["wss://new:1"]`, "[\n  \"wss://old:8443\", # ]\n  'wss://b]c:8443',\n] # both", `["wss://new:1"] # both`},
		{"registration_token", `"new"`, `"old # token"   # from`, `"new"   # from`},
		{"ca_file", `"/etc/new.pem"`, `'/etc/ca.pem'`, `"/etc/new.pem"`},
		{"cert_fingerprint", `"ab"`, "# the second one is the standby\n", "# the second one is the standby\ncert_fingerprint = \"ab\"\n"},
	} {
		if diff := cmp.Diff(strings.Replace(written, tt.from, tt.to, 1), set(written, "manager", tt.key, tt.value)); diff != "" {
			t.Errorf("%s: %s", tt.key, diff)
		}
	}
	for text, want := range map[string]string{
		"":                                "\n[manager]\nk = 1\n",
		"a = 1":                           "a = 1\n\n[manager]\nk = 1\n",
		"[manager]":                       "[manager]\nk = 1",
		"[ manager ]\n":                   "[ manager ]\nk = 1\n",
		"[manager]\nk = \"\"\"x\ny\"\"\"": "[manager]\nk = 1",
		"[manager]\nk = \"a\\\"b\" # c":   "[manager]\nk = 1 # c",
		"[[manager]]\nk = 2\n":            "[[manager]]\nk = 2\n\n[manager]\nk = 1\n",
		"[x]\nk = 3\n[manager]\n":         "[x]\nk = 3\n[manager]\nk = 1\n",
	} {
		if got := set(text, "manager", "k", "1"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestSameIsNoChange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		key, value, have string
		same             bool
	}{
		{"urls", `["wss://b:1"]`, `["wss://a:1", 'wss://b:1']`, true},
		{"urls", `["wss://b:1"]`, `["wss://b:10"]`, false},
		{"cert_fingerprint", `"AB:cd"`, `"abCD"`, true},
		{"cert_fingerprint", `"abcd"`, `["ffff", "ab:cd"]`, true},
		{"cert_fingerprint", `"abcd"`, `"abce"`, false},
		{"registration_token", `"t"`, `'t'`, true},
		{"registration_token", `"t"`, `"T"`, false},
		{"ca_file", `"/a"`, ``, false},
	} {
		if got := same(setting{tt.key, tt.value}, tt.have); got != tt.same {
			t.Errorf("%s %s and %s: %v", tt.key, tt.value, tt.have, got)
		}
	}
}

// A token of any bytes survives being written to the configuration.
func TestQuote(t *testing.T) {
	t.Parallel()
	for _, token := range []string{"plain", `a"b\c`, "tab\there", "\x7f\x01é"} {
		path := filepath.Join(t.TempDir(), "config.toml")
		text := "[service]\ndevice_type = \"x\"\n[manager]\nregistration_token = " + quote(token) + "\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := config.Load(path); err != nil || c.Manager.RegistrationToken.Reveal() != token {
			t.Errorf("%q: %q, %v", token, c.Manager.RegistrationToken, err)
		}
	}
}

// set terminates for any text, and find then finds the key.
func FuzzSet(f *testing.F) {
	f.Add(written)
	f.Add("[manager]\nurls = [\"\"\"")
	f.Fuzz(func(t *testing.T, text string) {
		out := set(text, "manager", "k", "1")
		if !strings.Contains(out, "1") || len(out) > len(text)+40 {
			t.Errorf("%q", out)
		}
	})
}
