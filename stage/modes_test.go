package stage

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/internal/oddfs"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

const umaskEnv = "EDGE_AGENT_TEST_UMASK"

// What is staged has the same modes under every umask, which belongs to the
// whole process: hence a child.
func TestModesOfAVersionWhateverTheUmask(t *testing.T) {
	if u := os.Getenv(umaskEnv); u != "" {
		mask, err := strconv.ParseInt(u, 8, 32)
		if err != nil {
			t.Fatal(err)
		}
		s := setup(t, nil)
		syscall.Umask(int(mask))
		rel, a := fetch(t, s, "1.0.0")
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {
			for _, path := range []string{s.Layout.StagingLock(), s.Layout.Download(a.SHA256)} {
				if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o600 {
					t.Errorf("umask %s: %s has mode %v: %v", u, path, st.Mode(), err)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		modes := map[string]fs.FileMode{
			"versions": 0o755, "versions/1.0.0": 0o755, "versions/1.0.0/edge-agent": 0o755, "versions/1.0.0/padding": 0o644,
			"versions/1.0.0/.release.json": 0o644, "downloads": 0o700,
		}
		for name, mode := range modes {
			if st, err := os.Lstat(filepath.Join(s.Layout.Root(), name)); err != nil || st.Mode().Perm() != mode {
				t.Errorf("umask %s: %s has mode %v, not %v: %v", u, name, st.Mode(), mode, err)
			}
		}
		dir, err := unpack(t, archive(t, "file bin/a/b = x", "dir share", "file share/c = y"), release.Artefact{})
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"bin", "bin/a", "bin/a/b", "share", "share/c"} {
			if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != 0o755 {
				t.Errorf("umask %s: %s has mode %v: %v", u, name, st.Mode(), err)
			}
		}
		return
	}
	t.Parallel()
	for _, u := range []string{"000", "027", "077"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestModesOfAVersionWhateverTheUmask$")
		cmd.Env = append(os.Environ(), umaskEnv+"="+u)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}

// A file system mounted noexec is named, before anything is downloaded.
func TestNoExec(t *testing.T) {
	t.Parallel()
	s := setup(t, nil)
	mount(t, s.Layout.Root(), "tmpfs", "tmpfs", syscall.MS_NOEXEC, "size=32M")
	rel, a := fetch(t, s, "1.0.0")
	const text = "is on a file system mounted noexec: mount it with exec, or set service.install_root elsewhere"
	_, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() { t.Error("it was downloaded") })
	if code(err) != release.ExtractFailed || !strings.Contains(err.Error(), text) {
		t.Errorf("got %s: %v", code(err), err)
	}
	// A version that is there already.
	dir := s.Layout.Version(rel.Manifest().Version)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "edge-agent"), []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := s.selfCheck(t.Context(), dir); code(err) != release.ExtractFailed || !strings.Contains(err.Error(), text) {
		t.Errorf("got %s: %v", code(err), err)
	}
	s.NoRun = true
	if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
		t.Errorf("a service that is not run by the agent: %v", err)
	}
}

// If a program may not be executed for another reason, the error names the likely cause.
// The test runs as another user in a child, since root may enter everything.
func TestForbidden(t *testing.T) {
	if dir := os.Getenv("EDGE_AGENT_TEST_FORBIDDEN"); dir != "" {
		s := setupCheck(t)
		for name, want := range map[string]string{
			"closed/version": "may not enter " + filepath.Join(dir, "closed") + ": give it the x bit there",
			"owner":          "has no x bit on " + filepath.Join(dir, "owner", "edge-agent"),
		} {
			if err := s.selfCheck(context.Background(), filepath.Join(dir, name)); code(err) != release.ExtractFailed || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		return
	}
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "forbidden")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin := filepath.Join(dir, "test")
	for _, sub := range []string{"closed/version", "owner"} {
		path := filepath.Join(dir, sub)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.WriteFile(filepath.Join(path, "edge-agent"), []byte("#!/bin/sh\n"), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(bin, self, 0o755), os.Chmod(dir, 0o755), os.Chmod(filepath.Join(dir, "closed"), 0o744),
		os.Chmod(filepath.Join(dir, "owner", "edge-agent"), 0o744)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd, err := start(t.Context(), func() *exec.Cmd {
		cmd := exec.Command(bin, "-test.run=^TestForbidden$")
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &out
		cmd.Env = append(os.Environ(), "EDGE_AGENT_TEST_FORBIDDEN="+dir, "TMPDIR=/tmp")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		return cmd
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.Bytes())
	}
}

// What mandatory access control refuses in the directory of the self-check is named so.
func TestForbiddenBySecurityModule(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(oddfs.Mount(t, oddfs.Refusals{oddfs.Exec: syscall.EACCES}).Dir, "versions", state.PartialPrefix+"1.0.0")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "edge-agent"), []byte("#!/bin/sh\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	err := setupCheck(t).selfCheck(t.Context(), dir)
	if code(err) != release.ExtractFailed || !strings.Contains(err.Error(), "mandatory access control refuses it") || !ofDevice(err) {
		t.Errorf("got %s: %v", code(err), err)
	}
}

// setupCheck returns a Stager that can check a version, and nothing else.
func setupCheck(t *testing.T) *Stager {
	t.Helper()
	return &Stager{Config: Config{Binary: "edge-agent", Check: DefaultLimits, Progress: func(string, int64, int64) {}}}
}
