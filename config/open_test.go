package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/unreadable"
)

// registeredNode returns a root with credentials, and the text of a valid config.toml.
func registeredNode(t *testing.T) (l state.Layout, text string) {
	t.Helper()
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	write(t, l.CredentialsFile(), `{"node_id":"n","node_secret":"s"}`, 0o600)
	return l, "[service]\ndevice_type = \"edge\"\ninstall_root = \"" + l.Root() + "\"\n[manager]\nurls = [\"wss://m\"]\nregistration_token = \"hunter2\"\n[upgrade]\nenabled = true\n"
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func texts(w Warnings) string {
	var all []string
	for _, x := range w.List {
		all = append(all, x.String())
	}
	return strings.Join(all, "\n")
}

// A registered node runs with every file, and knows what it must say and withhold. A node
// without credentials gets today's error.
func TestARegisteredNodeOpensEveryFile(t *testing.T) {
	t.Parallel()
	add := func(more string) func(string) string { return func(s string) string { return s + more } }
	become := func(text string) func(string) string { return func(string) string { return text } }
	const copied = "copy of the last valid file"
	for name, tt := range map[string]struct {
		change    func(string) string // nil: the file is removed
		mode      os.FileMode
		withhold  string // in Withhold; "": nothing is withheld
		warn      string // in List; "": there are none
		first     string // in the error of a node without credentials; "": it runs
		onlyWarns bool
	}{
		"valid":                         {change: add("")},
		"unknown key of a section":      {change: add("[health]\ncolour = 1\n"), warn: `line 10: unknown key "health.colour"`, first: "unknown key", onlyWarns: true},
		"unknown section":               {change: add("[metrics]\nport = 1\n"), warn: `unknown key "metrics"`, first: "unknown key", onlyWarns: true},
		"unknown key of no section":     {change: func(s string) string { return "x = 1\n" + s }, warn: `unknown key "x"`, first: "unknown key", onlyWarns: true},
		"unknown key of upgrade":        {change: add("windows = [\"Mon\"]\n"), withhold: "upgrade.windows", warn: "upgrade.windows", first: "unknown key"},
		"unknown table of upgrade":      {change: add("[upgrade.windows]\nmon = 1\n"), withhold: "upgrade.windows", warn: "upgrade.windows", first: "unknown key"},
		"unknown tables of upgrade":     {change: add("[[upgrade.windows]]\nmon = 1\n"), withhold: "upgrade.windows", warn: "upgrade.windows", first: "unknown key"},
		"dotted key of upgrade":         {change: func(s string) string { return "upgrade.windows = 1\n" + strings.Replace(s, "[upgrade]\n", "", 1) }, withhold: "upgrade.windows", warn: "upgrade.windows", first: "unknown key"},
		"inline table of upgrade":       {change: func(s string) string { return "upgrade = { windows = 1 }\n" + strings.Split(s, "[upgrade]")[0] }, withhold: "upgrade.windows", warn: "upgrade.windows", first: "unknown key"},
		"upgrade in capitals":           {change: func(s string) string { return strings.Replace(s, "[upgrade]", "[Upgrade]\nWindows = 1", 1) }, withhold: "Upgrade.Windows", warn: "Upgrade.Windows", first: "unknown key"},
		"both kinds":                    {change: add("windows = 1\n[health]\ncolour = 1\n"), withhold: "upgrade.windows", warn: "health.colour", first: "unknown key"},
		"world-readable secret":         {change: add(""), mode: 0o644, warn: "others may read its secrets (mode 0644): run: chmod 600", first: "chmod 600", onlyWarns: true},
		"group-readable secret":         {change: add(""), mode: 0o640, warn: "chmod 600", first: "chmod 600", onlyWarns: true},
		"world-readable without secret": {change: func(s string) string { return strings.Replace(s, "registration_token", "# ", 1) }, mode: 0o644},
		"writable for others":           {change: func(s string) string { return strings.Replace(s, "registration_token", "# ", 1) }, mode: 0o666, warn: "others may change it"},
		"no TOML":                       {change: add("[upgrade\n"), withhold: copied, warn: "line 9", first: "line 9"},
		"cut off":                       {change: func(s string) string { return s[:len(s)/2] }, withhold: copied, warn: copied, first: "line"},
		"empty":                         {change: become(""), withhold: copied, warn: "device_type", first: "device_type"},
		"zeros":                         {change: become(strings.Repeat("\x00", 512)), withhold: copied, warn: copied, first: "line 1"},
		"too large":                     {change: add("#" + strings.Repeat("x", MaxFile)), withhold: copied, warn: copied, first: "limit"},
		"a value of another type":       {change: add("max_boot_attempts = \"3\"\n"), withhold: "upgrade.max_boot_attempts must be a whole number", warn: copied, first: "must be a whole number"},
		"a broken rule":                 {change: add("keep_versions = 1\n"), withhold: "keep_versions = 1 is outside", warn: copied, first: "keep_versions"},
		"missing":                       {withhold: copied, warn: "no such file", first: "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, text := registeredNode(t)
			path := l.ConfigFile()
			write(t, l.AcceptedConfig(), text, 0o600)
			if tt.mode == 0 {
				tt.mode = 0o600
			}
			if tt.change != nil {
				write(t, path, tt.change(text), tt.mode)
			}
			s, w, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			said := texts(w)
			if s.Layout.Root() != l.Root() || len(s.URLs) != 1 {
				t.Errorf("settings %+v", s)
			}
			if !strings.Contains(w.Withhold, tt.withhold) || (w.Withhold == "") != (tt.withhold == "") {
				t.Errorf("withholds %q, want %q", w.Withhold, tt.withhold)
			}
			if !strings.Contains(said, tt.warn) || (said == "") != (tt.warn == "") {
				t.Errorf("warns %q, want %q", said, tt.warn)
			}
			if fromCopy := strings.Contains(w.Withhold, copied); fromCopy != w.Accepted.IsZero() {
				t.Errorf("from the copy %t, to be kept %q", fromCopy, w.Accepted.Reveal())
			}
			if n := strings.Count(said, "upgrade.windows"); n > 1 {
				t.Errorf("one key, %d warnings: %s", n, said)
			}
			if strings.Contains(said, "hunter2") {
				t.Errorf("a secret: %s", said)
			}
			if (w.Path != "") != strings.Contains(said, "others may") {
				t.Errorf("repairs the mode of %q; %s", w.Path, said)
			}
			if got := OnlyWarns(path); got != tt.onlyWarns {
				t.Errorf("OnlyWarns = %t", got)
			}
			_, strict := Read(path)
			if err := os.Remove(l.CredentialsFile()); err != nil {
				t.Fatal(err)
			}
			_, _, err = Open(path)
			if (err == nil) != (tt.first == "") || err != nil && (!strings.Contains(err.Error(), tt.first) || strict == nil || err.Error() != strict.Error()) {
				t.Errorf("without credentials: %v; Read: %v; want %q", err, strict, tt.first)
			}
		})
	}
}

// A damaged credentials.json is one, too: the node may not be ended for its configuration.
func TestDamagedCredentialsCount(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(string) error{
		"empty": func(p string) error { return os.Truncate(p, 0) },
		"directory": func(p string) error {
			if err := os.Remove(p); err != nil {
				return err
			}
			return os.Mkdir(p, 0o700)
		},
	} {
		l, text := registeredNode(t)
		write(t, l.AcceptedConfig(), text, 0o600)
		if err := damage(l.CredentialsFile()); err != nil {
			t.Fatal(err)
		}
		if _, w, err := Open(l.ConfigFile()); err != nil || w.Withhold == "" {
			t.Errorf("%s: %+v, %v", name, w, err)
		}
	}
}

// Root changed the owner of the file: a file that this user can read is a warning, and
// the copy stands in for another.
func TestAFileOfAnotherUser(t *testing.T) {
	t.Parallel()
	if os.Geteuid() == 0 { // which alone can make the files
		const edge, other = 65534, 65533
		for name, tt := range map[string]struct {
			file, user uint32
			mode       os.FileMode
			cause      string
			remedy     string // after "run: "
			repairable bool
		}{
			"of root, for all":           {0, edge, 0o644, "others may read its secrets (mode 0644), and it belongs to root", "chown %u: %f && chmod 600 %f", false},
			"of root, for the group":     {0, edge, 0o640, "others may read its secrets (mode 0640), and it belongs to root", "chown %u: %f && chmod 600 %f", false},
			"of root":                    {0, edge, 0o600, "it belongs to root", "chown %u: %f && chmod 600 %f", false},
			"its own, for all":           {edge, edge, 0o644, "others may read its secrets (mode 0644)", "chmod 600 %f", true},
			"its own":                    {edge, edge, 0o600, "", "", false},
			"another user runs doctor":   {edge, other, 0o600, "", "", false},
			"root runs doctor":           {edge, 0, 0o600, "", "", false},
			"root runs doctor, for all":  {edge, 0, 0o644, "others may read its secrets (mode 0644)", "chmod 600 %f", false},
			"of another user, for group": {other, edge, 0o640, "it belongs to", "chown %u: %f && chmod 600 %f", false},
		} {
			l, text := registeredNode(t)
			path := l.ConfigFile()
			write(t, path, text, tt.mode)
			if err := errors.Join(os.Chown(path, int(tt.file), int(tt.file)), os.Chown(l.Root(), edge, edge)); err != nil {
				t.Fatal(err)
			}
			f, err := parse(path)
			if err != nil {
				t.Fatal(err)
			}
			w, repairable := f.access(l, tt.user)
			remedy := strings.NewReplacer("%f", path, "%u", userName(edge)).Replace(tt.remedy)
			if !strings.Contains(w.Cause, tt.cause) || (w.Cause == "") != (tt.cause == "") || strings.TrimPrefix(w.Remedy, "run: ") != remedy || repairable != tt.repairable {
				t.Errorf("%s: %+v, %t; want %q, %q", name, w, repairable, tt.cause, remedy)
			}
		}
	}
	l, text := registeredNode(t)
	write(t, l.AcceptedConfig(), text, 0o600)
	write(t, l.ConfigFile(), text, 0o600)
	unreadable.While(t, l.Root(), l.ConfigFile(), func() {
		if s, w, err := Open(l.ConfigFile()); err != nil || !strings.Contains(w.Withhold, "permission denied") || s.Layout.Root() != l.Root() {
			t.Errorf("%+v, %v", w, err)
		}
	})
}

// The copy is found where the file is not in the install root, if the file still names
// the root. A damaged copy, and that of a root without credentials, are not used.
func TestWhereTheCopyIs(t *testing.T) {
	t.Parallel()
	l, text := registeredNode(t)
	path := filepath.Join(t.TempDir(), "edge.toml")
	write(t, path, text+"[upgrade\n", 0o600)
	if _, _, err := Open(path); err == nil || !strings.Contains(err.Error(), "line 9") {
		t.Errorf("without a copy: %v", err)
	}
	write(t, l.AcceptedConfig(), text, 0o600)
	if s, w, err := Open(path); err != nil || s.Layout.Root() != l.Root() || !strings.Contains(w.Withhold, path) {
		t.Errorf("%+v, %v", w, err)
	}
	write(t, l.AcceptedConfig(), text[:40], 0o600)
	if _, _, err := Open(path); err == nil {
		t.Error("a damaged copy is used")
	}
}
