package upgrade

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/oddfs"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// files lists everything below dir, with modes and targets.
func files(t *testing.T, dir string) (list []string) {
	t.Helper()
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		to, _ := os.Readlink(path)
		list = append(list, path+" "+st.Mode().String()+" "+to)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return list
}

// A root that cannot store, lock or execute a release refuses it before a tarball is
// downloaded, whichever way it comes, and keeps every file. The reason names the operation,
// the file system and the remedy.
func TestARootThatCannotIsRefusedBeforeTheDownload(t *testing.T) {
	t.Parallel()
	var tarballs atomic.Int64
	trust := trusted(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, ".tar.") {
				tarballs.Add(1)
			}
			h.ServeHTTP(w, r)
		})
	})
	for name, tt := range map[string]struct {
		refuse oddfs.Refusals
		code   release.Code
		want   []string
	}{
		"vfat":       {oddfs.VFAT, release.Internal, []string{"cannot make symbolic links", "such as ext4"}},
		"no locks":   {oddfs.Refusals{oddfs.Lock: unix.ENOLCK}, release.Internal, []string{"cannot lock files", "rpc.statd"}},
		"read-only":  {oddfs.Refusals{oddfs.Create: unix.EROFS}, release.Internal, []string{"cannot create files", "remount,rw"}},
		"no chmod":   {oddfs.Refusals{oddfs.Chmod: unix.EPERM}, release.Internal, []string{"cannot restrict the modes", "such as ext4"}},
		"no rename":  {oddfs.Refusals{oddfs.Rename: unix.EINVAL}, release.Internal, []string{"by rename", "such as ext4"}},
		"no fsync":   {oddfs.Refusals{oddfs.Sync: unix.EINVAL}, release.Internal, []string{"cannot sync a file", "such as ext4"}},
		"not to run": {oddfs.Refusals{oddfs.Exec: unix.EACCES}, release.ExtractFailed, []string{"cannot execute programs in", "AppArmor"}},
	} {
		for _, way := range ways {
			if strings.HasPrefix(way.name, "a check") || name == "not to run" && way.install { // without versions/, the path of the rule is not known
				continue
			}
			t.Run(name+", "+way.name, func(t *testing.T) {
				f := oddfs.Mount(t, oddfs.Refusals{})
				var n config.Settings
				if way.install {
					n = emptyNodeAt(t, f.Dir)
				} else {
					n = nodeAt(t, f.Dir, "0.9.0", "")
				}
				f.Refuse(t, tt.refuse)
				before, asked := files(t, f.Dir), tarballs.Load()
				err := way.run(t, pipeline(t, &n, trust), "1.0.0")
				if err == nil || release.CodeOf(err) != tt.code || !strings.Contains(err.Error(), "fuse.odd") {
					t.Errorf("%v", err)
				}
				for _, want := range tt.want {
					if err != nil && !strings.Contains(err.Error(), want) {
						t.Errorf("%v, want %q", err, want)
					}
				}
				if after := files(t, f.Dir); !slices.Equal(after, before) || tarballs.Load() != asked {
					t.Errorf("%d requests of a tarball; it had %q, and has %q", tarballs.Load()-asked, before, after)
				}
				f.Refuse(t, oddfs.NFS)
				if err := way.run(t, pipeline(t, &n, trust), "1.0.0"); err != nil {
					t.Errorf("repaired: %v", err)
				}
			})
		}
	}
}

// A host that answers nothing, which is waited for, delays no refusal of the root; and the reason
// is the root's.
func TestASilentHostDelaysNoRefusal(t *testing.T) {
	t.Parallel()
	trust := trusted(t, func(http.Handler) http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	})
	run := func(t *testing.T, n config.Settings, want string) {
		p, v := pipeline(t, &n, trust), release.MustVersion("1.7.0")
		src := p.Host(v)
		defer src.Close()
		if _, err := p.Run(t.Context(), src, Request{Version: v, End: Swap}); err == nil || release.CodeOf(err) != release.Internal || !strings.Contains(err.Error(), want) {
			t.Errorf("%v", err)
		}
	}
	t.Run("a file system that cannot", func(t *testing.T) {
		t.Parallel()
		f := oddfs.Mount(t, oddfs.Refusals{})
		n := nodeAt(t, f.Dir, "0.9.0", "")
		f.Refuse(t, oddfs.Refusals{oddfs.Rename: unix.EINVAL})
		run(t, n, "no release can be installed here")
	})
	t.Run("no way back", func(t *testing.T) {
		t.Parallel()
		n := emptyNode(t)
		if err := fromStick(t, pipeline(t, &n, trust), "1.0.0", Install); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(n.Layout.Version(release.MustVersion("1.0.0")), "edge-agent"), []byte("#!/bin/sh\nexit 0 # bit errors\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		run(t, n, "1.0.0 would be the version to roll back to, but its file edge-agent has another content")
	})
}

// Each directory that is elsewhere is tried for what happens there.
func TestDirectoriesElsewhereAreTried(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for name, tt := range map[string]struct {
		refuse oddfs.Refusals
		want   string // "": nothing is needed there
	}{
		"versions":        {oddfs.VFAT, "cannot make symbolic links"},
		"versions, run":   {oddfs.Refusals{oddfs.Exec: unix.EACCES}, "cannot execute programs"},
		"downloads":       {oddfs.Refusals{oddfs.Lock: unix.EOPNOTSUPP}, "cannot lock files"},
		"downloads, vfat": {oddfs.VFAT, ""},
		"outbox":          {oddfs.Refusals{oddfs.Rename: unix.EXDEV}, "by rename"},
		"outbox, vfat":    {oddfs.VFAT, ""},
		"trust":           {oddfs.Refusals{oddfs.Create: unix.EROFS}, ""}, // only a renewed trust root
	} {
		f := oddfs.Mount(t, oddfs.Refusals{})
		n := emptyNode(t)
		dir, _, _ := strings.Cut(name, ",")
		inside := filepath.Join(f.Dir, dir)
		if err := errors.Join(os.Mkdir(inside, 0o755), os.Symlink(inside, filepath.Join(n.Layout.Root(), dir))); err != nil {
			t.Fatal(err)
		}
		n = nodeAt(t, n.Layout.Root(), "0.9.0", "")
		f.Refuse(t, tt.refuse)
		err := fromStick(t, pipeline(t, &n, trust), "1.0.0", Swap)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), f.Dir) && !strings.Contains(err.Error(), n.Layout.Versions())):
			t.Errorf("%s: %v", name, err)
		}
		entries, err := os.ReadDir(f.Dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("%s: left %v, %v", name, entries, err)
		}
	}
}

// A shelved version is not put on trial in a root that cannot hold a trial. A way back is
// never refused.
func TestApplyTriesTheRoot(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	f := oddfs.Mount(t, oddfs.NFS)
	n := nodeAt(t, f.Dir, "0.9.0", "")
	if err := fromStick(t, pipeline(t, &n, trust), "1.0.0", Shelve); err != nil {
		t.Fatal(err)
	}
	f.Refuse(t, oddfs.Refusals{oddfs.Sync: unix.EINVAL})
	var cannot *fsutil.Inability
	if _, err := Apply(t.Context(), n.Layout, Running{}); !errors.As(err, &cannot) || cannot.Ability != fsutil.CanSync {
		t.Errorf("apply: %v", err)
	}
	f.Refuse(t, oddfs.NFS)
	if res, err := Apply(t.Context(), n.Layout, Running{}); err != nil || res.State.Status != state.PendingHealth {
		t.Fatalf("%+v, %v", res.State, err)
	}
	f.Refuse(t, oddfs.Refusals{oddfs.Chmod: unix.EPERM, oddfs.Exec: unix.EACCES})
	if res, err := RollBack(t.Context(), n.Layout, release.Version{}); err != nil || res.State.Status != state.RolledBack {
		t.Errorf("rollback: %+v, %v", res.State, err)
	}
}
