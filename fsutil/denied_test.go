package fsutil

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// denials are what another user may not do below a directory that deniedThings makes, and what
// the error must say.
func denials(dir string) map[string]struct {
	do   func() error
	want string // "": it is no denial
} {
	in := func(name string) string { return filepath.Join(dir, name) }
	run := func(name string) func() error {
		return func() (err error) {
			for err = syscall.ETXTBSY; errors.Is(err, syscall.ETXTBSY); { // as below
				err = exec.Command(in(name)).Run()
			}
			return err
		}
	}
	open := func(name string, flags int) func() error {
		return func() error { _, err := os.OpenFile(in(name), flags, 0o600); return err }
	}
	return map[string]struct {
		do   func() error
		want string
	}{
		"a directory above a program": {run("closed/below/program"), "may not enter " + in("closed") + ": give it the x bit there"},
		"a program":                   {run("program"), "has no x bit on " + in("program")},
		"a program by its ACL":        {run("acl"), "has no x bit on " + in("acl")},
		"a mount":                     {run("noexec/program"), "is on a file system mounted noexec"},
		"reading":                     {open("secret", os.O_RDONLY), "has no r bit on " + in("secret")},
		"writing":                     {open("readable", os.O_WRONLY), "has no w bit on " + in("readable")},
		"a directory above a file":    {open("closed/below/file", os.O_RDONLY), "may not enter " + in("closed")},
		"creating":                    {open("new", os.O_WRONLY|os.O_CREATE), "has no w bit on " + dir},
		"making a directory":          {func() error { return os.Mkdir(in("new"), 0o700) }, "has no w bit on " + dir},
		"removing":                    {func() error { return os.Remove(in("readable")) }, "has no w bit on " + dir},
		"renaming":                    {func() error { return os.Rename(in("readable"), in("new")) }, "has no w bit on " + dir},
		"looking":                     {func() error { _, err := os.Stat(in("closed/below/file")); return err }, "may not enter " + in("closed")},
		"a security module": {func() error {
			return fmt.Errorf("x: %w", &fs.PathError{Op: "fork/exec", Path: in("good"), Err: unix.EACCES})
		}, "mandatory access control refuses it: look for SELinux, AppArmor"},
		"fapolicyd":                   {func() error { return &fs.PathError{Op: "fork/exec", Path: in("good"), Err: unix.EPERM} }, "mandatory access control"},
		"opened for writing":          {func() error { return &fs.PathError{Op: "open", Path: in("good"), Err: unix.EACCES} }, "has no w bit on " + in("good")},
		"a security module, entering": {func() error { return &fs.PathError{Op: "lstat", Path: in("good"), Err: unix.EACCES} }, "mandatory access control"},
		"not there":                   {open("nothing", os.O_RDONLY), ""},
		"another error":               {func() error { return &fs.PathError{Op: "open", Path: in("good"), Err: unix.EIO} }, ""},
		"of no file":                  {func() error { return unix.EACCES }, ""},
		"none":                        {func() error { return nil }, ""},
	}
}

// Each denial says which of the mode, noexec and mandatory access control refused.
func TestDenials(t *testing.T) {
	if dir := os.Getenv("EDGE_AGENT_TEST_DENIED"); dir != "" {
		for name, tt := range denials(dir) {
			err := tt.do()
			got := NameDenial(err)
			if tt.want == "" {
				if got != err {
					t.Errorf("%s: %v", name, got)
				}
				continue
			}
			if got == nil || !strings.Contains(got.Error(), tt.want) || !errors.Is(got, fs.ErrPermission) {
				t.Errorf("%s: %v\nwant %q", name, got, tt.want)
			}
			if again := NameDenial(fmt.Errorf("again: %w", got)); strings.Count(again.Error(), tt.want) != 1 {
				t.Errorf("%s: said twice: %v", name, again)
			}
		}
		return
	}
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir, err := os.MkdirTemp("", "denied")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	in := func(name string) string { return filepath.Join(dir, name) }
	write := func(name string, mode fs.FileMode) error {
		return errors.Join(os.MkdirAll(filepath.Dir(in(name)), 0o755), os.WriteFile(in(name), []byte("#!/bin/sh\n"), 0o755), os.Chmod(in(name), mode))
	}
	self, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = errors.Join(os.WriteFile(in("test"), self, 0o755), os.Mkdir(in("noexec"), 0o755), unix.Mount("tmpfs", in("noexec"), "tmpfs", unix.MS_NOEXEC, "size=1M"))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(in("noexec"), unix.MNT_DETACH) })
	if err := errors.Join(write("closed/below/program", 0o755), write("closed/below/file", 0o644), write("program", 0o744), write("acl", 0o755),
		write("noexec/program", 0o755), write("secret", 0o600), write("readable", 0o644), write("good", 0o755),
		os.Chmod(in("closed"), 0o744), os.Chmod(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(in("acl"), "system.posix_acl_access", denyingACL(65534), 0); err != nil {
		t.Logf("no ACL here: %v", err)
		if err := os.Chmod(in("acl"), 0o744); err != nil {
			t.Fatal(err)
		}
	}
	// A child of another test may still have the program open for writing, until it executes
	// its own (golang.org/issue/22315).
	var out []byte
	for err = syscall.ETXTBSY; errors.Is(err, syscall.ETXTBSY) && t.Context().Err() == nil; {
		cmd := exec.Command(in("test"), "-test.run=^TestDenials$")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "EDGE_AGENT_TEST_DENIED="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err = cmd.CombinedOutput()
	}
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// denyingACL is an ACL that allows everything to everybody but one user.
func denyingACL(uid uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, 2) // the version
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, 7, ^uint32(0)}, {0x02, 4, uid}, {0x04, 7, ^uint32(0)}, {0x10, 7, ^uint32(0)}, {0x20, 7, ^uint32(0)}} {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b
}
