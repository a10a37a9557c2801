// Package peers runs other updaters, each by a shell script of its own.
//
// A script says in its first lines what it needs. A peer whose tools are missing is not
// measured. The package installs no software.
package peers

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

//go:embed scripts
var scripts embed.FS

// Peer is one updater.
type Peer struct {
	Name     string
	Form     string // what it is, and how it is used
	Durable  string // how it reaches the disk
	Root     bool   // it needs root
	tools    []string
	packages []string
}

// All returns every peer, in the order of a table.
func All() ([]Peer, error) {
	var all []Peer
	for _, name := range []string{"shell", "shell-xz", "shell-igzip", "shell-zstd", "rauc", "swupdate", "mender", "ostree", "casync"} {
		b, err := scripts.ReadFile("scripts/" + name + ".sh")
		if err != nil {
			return nil, err
		}
		p := Peer{Name: name}
		for i, line := range strings.Split(string(b), "\n") {
			text, comment := strings.CutPrefix(line, "# ")
			if !comment {
				break
			}
			key, value, _ := strings.Cut(text, ": ")
			switch {
			case i == 0:
				p.Form = text
			case key == "needs":
				for _, need := range strings.Fields(value) {
					tool, pack, _ := strings.Cut(need, "=")
					p.tools, p.packages = append(p.tools, tool), append(p.packages, pack)
				}
			case key == "durable":
				p.Durable = value
			case text == "root":
				p.Root = true
			}
		}
		if p.Form == "" || p.Durable == "" || len(p.tools) == 0 {
			return nil, fmt.Errorf("scripts/%s.sh does not say what it is, needs or syncs", name)
		}
		all = append(all, p)
	}
	return all, nil
}

// Missing returns the Debian packages of the tools that are not installed.
func (p Peer) Missing() (packages []string) {
	for i, tool := range p.tools {
		if _, err := exec.LookPath(tool); err != nil && !slices.Contains(packages, p.packages[i]) {
			packages = append(packages, p.packages[i])
		}
	}
	return packages
}

// Place is where a peer works; see scripts/common.sh.
type Place struct {
	Tree, Gz, Zst string
	Dir, WWW      string
	URL, CA       string
	Target        string
	Size          int64
}

// Env returns the environment of a script.
func (w Place) Env() []string {
	return []string{"TREE=" + w.Tree, "GZ=" + w.Gz, "ZST=" + w.Zst, "DIR=" + w.Dir, "WWW=" + w.WWW, "URL=" + w.URL, "CA=" + w.CA,
		"TARGET=" + w.Target, fmt.Sprintf("SIZE=%d", w.Size), "LC_ALL=C"}
}

// Scripts writes the scripts to a directory, for Args.
func Scripts(dir string) error {
	names, err := scripts.ReadDir("scripts")
	if err != nil {
		return err
	}
	for _, n := range names {
		b, err := scripts.ReadFile("scripts/" + n.Name())
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, n.Name()), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Args returns the command that calls a function of the peer's script in dir.
func (p Peer) Args(dir, function string) []string {
	return []string{"sh", "-euc", `. "$1/common.sh"; . "$1/$2.sh"; "$3"`, "sh", dir, p.Name, function}
}

// Call calls a function of the peer's script in dir, and returns what it prints.
func (p Peer) Call(ctx context.Context, dir string, w Place, function string) (string, error) {
	args := p.Args(dir, function)
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(cmd.Environ(), w.Env()...)
	// A service that it leaves behind must not hold the pipes: they are files.
	out, err := os.CreateTemp("", "bench-peer")
	if err != nil {
		return "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	said, err := os.CreateTemp("", "bench-peer")
	if err != nil {
		return "", err
	}
	defer os.Remove(said.Name())
	defer said.Close()
	cmd.Stdout, cmd.Stderr = out, said
	err = cmd.Run()
	text, e1 := os.ReadFile(out.Name())
	words, e2 := os.ReadFile(said.Name())
	if err != nil {
		return "", fmt.Errorf("%s of %s: %w: %s", function, p.Name, err, bytes.TrimSpace(append(words, text...)))
	}
	return strings.TrimSpace(string(text)), errors.Join(e1, e2)
}
