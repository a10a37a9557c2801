package install

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Purge removes the content of the root, also behind links, and nothing else there.
func TestPurgeEmptiesTheTargetsOfLinks(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	tree(t, dir, "root/config.toml.before-20261125-101112", "root/state.json.corrupt-ABCD", "root/.tmp-x-config.toml", "root/credentials.json", "root/.lock",
		"v/1.0.0/app", "v/.partial-1.1.0/app", "v/.removed-1.2.0/app", "v/mine", "v/other/f", "d/abc.unverified", "d/mine.iso",
		"o/0000000000000001-e.json", "o/0000000000000002-e.json.corrupt", "o/mine.json", "t/15.root.json", "t/trusted_root.json", "t/targets.json", "t/mine.json",
		"etc/config.toml", "etc/shadow",
		"root/versions -> DIR/v", "root/downloads -> DIR/d", "root/outbox -> DIR/o", "root/trust -> DIR/t", "root/config.toml -> DIR/etc/config.toml",
		"root/current -> versions/1.0.0", "root/evil -> DIR/etc", "root/gone -> DIR/nothing")
	if err := work(t, Job{Root: root, Purge: true}); err != nil {
		t.Fatal(err)
	}
	var left []string
	filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(dir, path); err == nil && !e.IsDir() {
			left = append(left, rel)
		}
		return err
	})
	if got := strings.Join(left, " "); got != "d/mine.iso etc/shadow o/mine.json t/mine.json v/mine v/other/f" {
		t.Errorf("left: %s", got)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("left in the root: %v, %v", entries, err)
	}
}

func TestPurgeRefusesOtherDirectories(t *testing.T) {
	t.Parallel()
	const config = "[service]\ndevice_type = \"edge\"\n[manager]\nurls = [\"wss://m:1\"]\nregistration_token = \"t\"\n"
	type files map[string]string
	for name, tt := range map[string]struct {
		names []string
		texts files
		root  bool
	}{
		"other":              {[]string{"versions/v1", "README"}, nil, false},
		"versions of pyenv":  {[]string{"versions/3.12.0/bin/python", "README"}, nil, false},
		"two names":          {[]string{"versions/1.0.0/app", "config.toml"}, nil, true},
		"empty":              {nil, nil, true},
		"lost+found":         {[]string{"lost+found/"}, nil, true},
		"config":             {nil, files{"config.toml": config}, true},
		"config of this":     {nil, files{"config.toml": strings.Replace(config, "\n[m", "\ninstall_root = \"ROOT\"\n[m", 1)}, true},
		"config of another":  {nil, files{"config.toml": strings.Replace(config, "\n[m", "\ninstall_root = \"/opt/x\"\n[m", 1)}, false},
		"config of a tool":   {nil, files{"config.toml": "[tool]\nx = 1\n"}, false},
		"an empty config":    {nil, files{"config.toml": ""}, true}, // nothing to lose
		"empty, and a file":  {[]string{"README"}, files{"config.toml": ""}, false},
		"copy":               {[]string{"config.toml.before-20261125-101112"}, nil, true},
		"copy of another":    {[]string{"config.toml.before-x"}, nil, false},
		"credentials":        {nil, files{"credentials.json": `{"node_id":"n","node_secret":"s"}`}, true},
		"credentials, other": {nil, files{"credentials.json": `{"type":"service_account"}`}, false},
		"state":              {nil, files{"state.json": `{"schema":1,"status":"stable"}`}, true},
		"state, other":       {nil, files{"state.json": `{"x":1}`}, false},
		"links":              {[]string{"versions/1.0.0/app", "current -> versions/1.0.0"}, nil, true},
	} {
		dir := resolved(t.TempDir())
		tree(t, dir, tt.names...)
		for name, text := range tt.texts {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.ReplaceAll(text, "ROOT", dir)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		n := Node{Root: dir, real: dir}
		if err := n.mayPurge(t.Context()); (err == nil) != tt.root || err != nil && !strings.Contains(err.Error(), "no install root") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A link whose file cannot be removed is kept, and each purge names the file until it is
// gone.
func TestPurgeKeepsALinkWhoseTargetRemains(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// A directory in the place of the file cannot be removed: it is not empty.
	tree(t, dir, "root/", "etc/config.toml/x", "root/config.toml -> DIR/etc/config.toml", "root/state.json -> DIR/none")
	for range 2 {
		if err := work(t, Job{Root: dir + "/root", Purge: true}); err == nil || !strings.Contains(err.Error(), "remove "+dir+"/etc/config.toml") {
			t.Errorf("the error names no file: %v", err)
		}
	}
	if err := os.RemoveAll(dir + "/etc"); err != nil {
		t.Fatal(err)
	}
	if err := work(t, Job{Root: dir + "/root", Purge: true}); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(dir + "/root/config.toml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the link was kept: %v", err)
	}
}
