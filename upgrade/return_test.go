package upgrade

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

// Apply and RollBack rely on two versions: the one on trial and the one to return to.
func TestOperatorsRelyOnIntactVersions(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	old, shelved := release.MustVersion("1.0.0"), release.MustVersion("1.7.0")
	change := func(t *testing.T, n config.Settings, v release.Version) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(n.Layout.Version(v), "edge-agent"), []byte("#!/bin/sh\nexit 0 # bit errors\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	apply := func(t *testing.T, n config.Settings) error {
		_, err := Apply(t.Context(), n.Layout, Running{})
		return err
	}
	for name, tt := range map[string]struct {
		applied bool // 1.7.0 is on trial already, and with kept it proved healthy
		kept    bool
		damage  []release.Version
		noFile  bool // of the last of damage the program is removed
		refused string
		noted   string
	}{
		"apply":                                     {},
		"apply, the running one changed":            {damage: []release.Version{old}, refused: "1.0.0 would be the version to roll back to, but its file edge-agent has another content"},
		"apply, the staged one changed":             {damage: []release.Version{shelved}, refused: "1.7.0 would be put on trial, but its file edge-agent has another content"},
		"rollback, the target changed":              {applied: true, kept: true, damage: []release.Version{old}, refused: "1.0.0 would be put on trial, but its file edge-agent has another content"},
		"rollback, the running one changed":         {applied: true, kept: true, damage: []release.Version{shelved}, noted: "1.7.0 would be the version to roll back to, but its file edge-agent has another content"},
		"rollback, both changed":                    {applied: true, kept: true, damage: []release.Version{shelved, old}, refused: "1.0.0 would be put on trial"},
		"rollback in a trial, the previous changed": {applied: true, damage: []release.Version{old}, noted: "1.0.0 is the version to roll back to, but its file edge-agent has another content"},
		"rollback in a trial, none can be started":  {applied: true, damage: []release.Version{old}, noFile: true, refused: "no other version can be started (1.0.0 cannot be started: its program edge-agent is missing)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := emptyNode(t)
			p := pipeline(t, &n, trust)
			if err := errors.Join(fromStick(t, p, "1.0.0", Install), fromStick(t, p, "1.7.0", Shelve)); err != nil {
				t.Fatal(err)
			}
			if tt.applied {
				if err := apply(t, n); err != nil {
					t.Fatal(err)
				}
			}
			if tt.kept {
				do(t, n.Layout, func(s state.State, tr state.Tree, now time.Time) (state.State, state.Tree, error) {
					s, tr = state.Keep(s, tr, shelved, "", now)
					return s, tr, nil
				})
			}
			for _, v := range tt.damage {
				change(t, n, v)
			}
			if tt.noFile {
				if err := os.Remove(filepath.Join(n.Layout.Version(tt.damage[0]), "edge-agent")); err != nil {
					t.Fatal(err)
				}
			}
			before := do(t, n.Layout, nil)
			run := func(ctx context.Context, l state.Layout) (state.Result, error) { return Apply(ctx, l, Running{}) }
			if tt.applied {
				run = func(ctx context.Context, l state.Layout) (state.Result, error) {
					return RollBack(ctx, l, release.Version{})
				}
			}
			res, err := run(t.Context(), n.Layout)
			if tt.refused == "" && err != nil || tt.refused != "" && (err == nil || !strings.Contains(err.Error(), tt.refused)) {
				t.Errorf("%v", err)
			}
			if notes := strings.Join(res.Notes, "\n"); !strings.Contains(notes, tt.noted) || tt.noted == "" && err == nil && notes != "" {
				t.Errorf("notes %q", notes)
			}
			after := do(t, n.Layout, nil)
			if changed := after.Tree.Current != before.Tree.Current; changed != (tt.refused == "") {
				t.Errorf("%+v, %+v", after.State, after.Tree)
			}
		})
	}
}
