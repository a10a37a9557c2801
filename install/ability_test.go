package install

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/oddfs"
	"github.com/bilbycast/edge-agent/internal/state"
	"golang.org/x/sys/unix"
)

// Doctor names what the file system of the root cannot do, and leaves nothing there.
func TestDoctorFileSystem(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refuse        oddfs.Refusals
		trust         bool // there is a renewed trust root
		cause, remedy string
	}{
		"all":                  {oddfs.Refusals{}, true, "", ""},
		"NFS":                  {oddfs.NFS, false, "", ""},
		"NFS, renewed trust":   {oddfs.NFS, true, "a newer trust root cannot be kept: the file system of ", "trust a link to a directory of root on a local file system"},
		"vfat":                 {oddfs.VFAT, false, "(fuse.odd) cannot make symbolic links: operation not permitted", "such as ext4"},
		"no locks":             {oddfs.Refusals{oddfs.Lock: unix.ENOLCK}, false, "(fuse.odd) cannot lock files: no locks available", "rpc.statd"},
		"not to be executed":   {oddfs.Refusals{oddfs.Exec: unix.EACCES}, false, "cannot execute programs in ", "AppArmor"},
		"not to be written":    {oddfs.Refusals{oddfs.Create: unix.EACCES}, false, "cannot create files in ", "namei -l"},
		"an error of the disk": {oddfs.Refusals{oddfs.Sync: unix.EIO}, false, "could not be tried now: ", "journalctl -k"},
		"full":                 {oddfs.Refusals{oddfs.Create: unix.ENOSPC}, false, "", ""}, // another check
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := oddfs.Mount(t, oddfs.Refusals{})
			l, err := state.At(f.Dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Make(); err != nil {
				t.Fatal(err)
			}
			if tt.trust {
				if err := l.KeepTrust(map[string][]byte{"a": nil}); err != nil {
					t.Fatal(err)
				}
			}
			d := node(t, "wss://m:1")
			d.l, d.user = l, uint32(os.Geteuid())
			f.Refuse(t, tt.refuse)
			d.fileSystem(t.Context())
			if len(d.findings) != 1 || d.findings[0].OK != (tt.cause == "") || !strings.Contains(d.findings[0].Cause, tt.cause) || !strings.Contains(d.findings[0].Remedy, tt.remedy) {
				t.Errorf("%+v", d.findings)
			}
			for _, dir := range []string{f.Dir, l.Versions()} {
				entries, err := os.ReadDir(dir)
				if err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") }) {
					t.Errorf("left in %s: %v, %v", dir, entries, err)
				}
			}
		})
	}
}

// Install refuses a file system on which no version can be installed, before it fetches
// anything, makes a user, or leaves a directory: whether the root exists or not.
func TestInstallTriesThePlaceFirst(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		refuse oddfs.Refusals
		want   string // "": not refused here
	}{
		"all":                          {oddfs.Refusals{}, ""},
		"NFS":                          {oddfs.NFS, ""},
		"vfat":                         {oddfs.VFAT, "(fuse.odd) cannot make symbolic links: operation not permitted: use a local file system such as ext4"},
		"vfat, modes too":              {oddfs.Refusals{oddfs.Symlink: unix.EPERM, oddfs.Chmod: unix.EPERM}, "(fuse.odd) cannot restrict the modes of files"},
		"no locks":                     {oddfs.Refusals{oddfs.Lock: unix.ENOLCK}, "(fuse.odd) cannot lock files: no locks available"},
		"read-only":                    {oddfs.Refusals{oddfs.Create: unix.EROFS}, "(fuse.odd) cannot create files: read-only file system: mount it read-write"},
		"root is nobody special there": {oddfs.Refusals{oddfs.Create: unix.EACCES}, "permission denied"},
		"full":                         {oddfs.Refusals{oddfs.Create: unix.ENOSPC}, "no space left"},
	} {
		for _, place := range []string{"", "edge", "a/b/edge"} {
			t.Run(name+", "+place, func(t *testing.T) {
				t.Parallel()
				f := oddfs.Mount(t, tt.refuse)
				n := Node{DeviceType: "edge", Root: filepath.Join(f.Dir, place)}
				n.real = n.Root
				err := n.tryPlace(t.Context())
				// A root that exists is not created: what may pass, and what only root may not
				// do, the installation itself reports.
				if tt.want == "" || place == "" && (name == "full" || strings.HasPrefix(name, "root")) {
					if err != nil {
						t.Error(err)
					}
				} else if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v", err)
				}
				if entries, err := os.ReadDir(f.Dir); err != nil || len(entries) > 0 {
					t.Errorf("left: %v, %v", entries, err)
				}
			})
		}
	}
}

// The child process tries the root as its owner, before it changes anything there.
func TestWorkTriesTheRoot(t *testing.T) {
	t.Parallel()
	f := oddfs.Mount(t, oddfs.NFS)
	work := func(job Job) error {
		b, err := json.Marshal(job)
		if err != nil {
			t.Fatal(err)
		}
		return Work(context.WithoutCancel(t.Context()), bytes.NewReader(b), slog.New(slog.DiscardHandler), nil)
	}
	if err := work(Job{Root: f.Dir}); err != nil {
		t.Errorf("on NFS: %v", err)
	}
	f.Refuse(t, oddfs.Refusals{oddfs.Lock: unix.EOPNOTSUPP})
	for _, job := range []Job{{Root: f.Dir}, {Root: f.Dir, Config: "text"}, {Root: f.Dir, Config: "text", Install: f.Dir}} {
		if err := work(job); !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "cannot lock files") {
			t.Errorf("%+v: %v", job, err)
		}
	}
	if entries, err := os.ReadDir(f.Dir); err != nil || len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
