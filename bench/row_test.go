package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/bilbycast/edge-agent/bench/host"
	"github.com/bilbycast/edge-agent/bench/payload"
)

// newRelease packs a tree with the program release-manifest of this checkout.
func newRelease(t *testing.T) *payload.Release {
	t.Helper()
	dir := t.TempDir()
	bin := filepath.Join(dir, "release-manifest")
	if out, err := exec.Command("go", "build", "-o", bin, module+"/cmd/release-manifest").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	tree := filepath.Join(dir, "tree")
	from := filepath.Join(dir, "from")
	if err := os.Mkdir(from, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(from, "file"), []byte("data"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := payload.Copy(tree, from); err != nil {
		t.Fatal(err)
	}
	r, err := payload.Pack(t.Context(), bin, tree, filepath.Join(dir, "release"))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.NeedZst(); err != nil {
		t.Fatal(err)
	}
	return r
}

// Every form can be published, or tells why not; each trusts only its own copy.
func TestPublishForms(t *testing.T) {
	t.Parallel()
	r, dir := newRelease(t), t.TempDir()
	var trusts []string
	for _, form := range []string{payload.Gz, payload.GzChunks, payload.ZstChunks} {
		trust, err := r.Publish(dir, form, form, "https://localhost:1", []byte("pem"))
		if offered := r.Offers(form); (offered == nil) != (err == nil) {
			t.Errorf("%s: offered: %v, published: %v", form, offered, err)
		}
		if err != nil {
			continue
		}
		if slices.Contains(trusts, trust) {
			t.Errorf("%s shares %s", form, trust)
		}
		trusts = append(trusts, trust)
		for _, name := range []string{"trusted_root.json", "sim.json", "release_ca.pem"} {
			if _, err := os.Stat(filepath.Join(trust, name)); err != nil {
				t.Error(err)
			}
		}
		at := filepath.Join(dir, "www", form, "acme", "edge", "releases", "download", "v"+payload.Version)
		for _, name := range []string{"manifest.json", "manifest.sig.bundle", filepath.Base(r.File(form))} {
			if _, err := os.Stat(filepath.Join(at, name)); err != nil {
				t.Error(err)
			}
		}
	}
	if len(trusts) == 0 {
		t.Error("no form was published")
	}
}

func TestWhatAPowerCutLeft(t *testing.T) {
	t.Parallel()
	tree := t.TempDir()
	if err := os.WriteFile(filepath.Join(tree, "f"), []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		link, content string // link: what it points to
		want          string
	}{
		"complete":      {"installed/1.1.0", "new", survived},
		"old":           {"installed/1.0.0", "", lost},
		"empty":         {"installed/1.1.0", "", damaged},
		"other content": {"installed/1.1.0", "bad", damaged},
		"no link":       {"", "", damaged},
	} {
		b := &bench{dir: t.TempDir()}
		if c.link != "" {
			dir := filepath.Join(b.target(), c.link)
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "f"), []byte(c.content), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink(c.link, filepath.Join(b.target(), "running")); err != nil {
				t.Fatal(err)
			}
		}
		if got := b.left(t.Context(), &row{tree: tree, active: func(context.Context) (string, error) { return filepath.Join(b.target(), "running"), nil }}); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

// Each row that is chosen can be run: with --size and --only, too.
func TestChosenRows(t *testing.T) {
	t.Parallel()
	r := newRelease(t)
	for only, want := range map[string][]string{
		"gz+chunks":           {"gz+chunks", "gz+chunks-60MB"},
		"gz-resumed":          {"gz-resumed", "gz-60MB"},
		"zst+chunks-60MB":     {"zst+chunks-60MB"},
		"existing":            {"existing", "existing-60MB"},
		"write":               {"write"},
		"gz,gz-60MB,existing": {"gz", "existing", "gz-60MB", "existing-60MB"},
	} {
		dir := t.TempDir()
		h, err := host.Start(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		b := &bench{o: options{only: words(only), sizeMB: 60}, dir: dir, release: r, big: r, host: h, trusts: map[string]string{}}
		rows, err := b.rows(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range b.chosen(rows) {
			if got = append(got, r.name); len(r.command.Args) == 0 && r.why == "" {
				t.Errorf("%s: %s has no command", only, r.name)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", only, got, want)
		}
	}
}
