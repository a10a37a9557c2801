//go:build !sim

package agent

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/wire"
)

// modes is a file system on which no mode can be changed, or which ignores each change.
type modes struct{ err error }

func (m modes) Change(op fsutil.Op, make func() error) error {
	if op.Kind == fsutil.OpChmod {
		return m.err
	}
	return make()
}

// Health has what is wrong with config.toml and the root and was not repaired, and stays
// ok. What withholds upgrades is their reason, and no warning, unless they are disabled.
func TestHealthCarriesWarnings(t *testing.T) {
	t.Parallel()
	chmod := func(mode os.FileMode) func(state.Layout) error {
		return func(l state.Layout) error { return os.Chmod(l.ConfigFile(), mode) }
	}
	for name, tt := range map[string]struct {
		more    string // text of config.toml
		change  func(state.Layout) error
		disk    fsutil.Seam
		replace string // for "enabled = true"
		want    []string
	}{
		"nothing":                {},
		"an unknown key":         {more: "[health]\ncolour = 1\n", want: []string{`unknown key "health.colour"`}},
		"two unknown keys":       {more: "[health]\ncolour = 1\ncolor = 2\n", want: []string{"health.colour", "health.color"}},
		"a protection":           {more: "windows = 1\n"},
		"both":                   {more: "windows = 1\n[health]\ncolour = 1\n", want: []string{"health.colour"}},
		"upgrades are disabled":  {more: "windows = 1\n", replace: "enabled = false", want: []string{"upgrade.windows"}},
		"a repaired mode":        {change: chmod(0o644)},
		"an unchangeable mode":   {change: chmod(0o644), disk: modes{syscall.EPERM}, want: []string{"operation not permitted"}},
		"a mode that is ignored": {change: chmod(0o666), disk: modes{}, want: []string{"still has mode 0666"}},
		"a key and a mode":       {more: "[health]\ncolour = 1\n", change: chmod(0o640), disk: modes{syscall.EROFS}, want: []string{"health.colour", "read-only file system"}},
		"files of the root": {change: func(l state.Layout) error { return os.Chmod(l.CredentialsFile(), 0o644) }, disk: modes{syscall.EPERM},
			want: []string{"credentials.json has mode 0644"}},
		"an ignored mode of a file of the root": {change: func(l state.Layout) error { return os.Chmod(l.CredentialsFile(), 0o604) }, disk: modes{},
			want: []string{"credentials.json has mode 0604"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, health := healthOf(t)
			c := rootWith(t, url)
			l := layoutOf(t, c)
			text := fileOf(c, url)
			if tt.replace != "" {
				text = strings.Replace(text, "enabled = true", tt.replace, 1)
			}
			c = opened(t, c, text+tt.more)
			if err := os.Chmod(l.Root(), 0o750); err != nil {
				t.Fatal(err)
			}
			if tt.change != nil {
				if err := tt.change(l); err != nil {
					t.Fatal(err)
				}
			}
			c = reopened(t, c)
			runOn(t, c, tt.disk)
			h := <-health
			if len(h.Warnings) != len(tt.want) || h.Status != wire.StatusOK || strings.Contains(fmt.Sprint(h.Warnings), "hunter2") {
				t.Fatalf("status %s, warnings %q, want %q", h.Status, h.Warnings, tt.want)
			}
			for i, w := range h.Warnings {
				remedy := "config check " + l.ConfigFile()
				if strings.Contains(w, " mode ") {
					remedy = "run: chmod 600 "
				}
				if !strings.Contains(w, tt.want[i]) || !strings.Contains(w, remedy) || len(w) > wire.MaxWarning {
					t.Errorf("warning %q, want %q and %q", w, tt.want[i], remedy)
				}
			}
		})
	}
}

// Health also has that the process is not the owner of the root.
func TestHealthCarriesAnotherOwner(t *testing.T) {
	t.Parallel()
	box.NeedRoot(t)
	l, err := state.At(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(l.Root(), 54321, 54321); err != nil {
		t.Fatal(err)
	}
	a := newAgent(settings{Settings: config.Settings{Layout: l}})
	a.reportOwner()
	if got := a.healthWarnings(); len(got) != 1 || !strings.Contains(got[0], "not the owner of the install root") || !strings.Contains(got[0], "owner 54321") || !strings.HasSuffix(got[0], "edge-agent doctor has the command") {
		t.Errorf("%q", got)
	}
}

// A second run of the same agent reports what is wrong then, once.
func TestWarningsAreOfTheLastRun(t *testing.T) {
	t.Parallel()
	c := bareNode(t)
	c.Warnings.List = []config.Warning{{Cause: "unknown key", Remedy: "remove it"}}
	a, err := newOf(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a.reportStart()
		if got := a.healthWarnings(); len(got) != 1 || got[0] != "unknown key: remove it" {
			t.Errorf("%q", got)
		}
	}
}

// However many warnings there are, and whatever their texts contain, the message holds
// the limits of the protocol. A remedy is complete, and the last warning counts the rest.
func TestHealthWarningsAreBounded(t *testing.T) {
	t.Parallel()
	a := newAgent(settings{})
	for i := range 1000 {
		a.warn(fmt.Sprint(i, " \x1b[2J\n\u202e ", strings.Repeat("ü", 600)), "run: chmod 600 /opt/edge/config.toml")
	}
	got := a.healthWarnings()
	if len(got) != wire.MaxWarnings || !strings.HasPrefix(got[wire.MaxWarnings-1], "993 more warnings") {
		t.Fatalf("%d: %q", len(got), got)
	}
	for i, w := range got {
		if len(w) > wire.MaxWarning || strings.ContainsFunc(w, func(r rune) bool { return !unicode.IsPrint(r) }) || i < wire.MaxWarnings-1 && !strings.HasSuffix(w, "...: run: chmod 600 /opt/edge/config.toml") {
			t.Errorf("%d bytes: %q", len(w), w)
		}
	}
	a.warnings = nil
	a.warn("cause", strings.Repeat("remedy", 100))
	if got := a.healthWarnings(); len(got[0]) > wire.MaxWarning || !strings.HasPrefix(got[0], "cause: remedy") {
		t.Errorf("%q", got)
	}
	if len(newAgent(settings{}).healthWarnings()) != 0 {
		t.Error("an agent without problems has warnings")
	}
}
