// Package payload makes what a benchmark installs: a tree of programs, and its signed
// releases in each form.
//
// The same Go toolchain gives the same tree. Everything is below one directory; the
// package removes nothing there.
package payload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// Program is the file of a tree that a node executes to check a release.
const Program = "edge-agent"

// extraTools are programs of the Go distribution that come as source. With those that
// come as programs, a tree has about 108 MB.
var extraTools = []string{"cmd/objdump", "cmd/trace"}

// GoTools makes a tree of the programs of the Go toolchain, up to about limit bytes; 0:
// all of them.
func GoTools(ctx context.Context, tree string, limit int64) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	root := strings.TrimSpace(string(out))
	if err := os.MkdirAll(filepath.Join(tree, "bin"), 0o755); err != nil {
		return err
	}
	size := int64(0)
	for _, dir := range []string{filepath.Join(root, "bin"), filepath.Join(root, "pkg", "tool", runtime.GOOS+"_"+runtime.GOARCH)} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if !info.Mode().IsRegular() || limit > 0 && size > 0 && size+info.Size() > limit {
				continue
			}
			if err := copyFile(filepath.Join(dir, e.Name()), filepath.Join(tree, "bin", e.Name())); err != nil {
				return err
			}
			size += info.Size()
		}
	}
	if limit == 0 {
		cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-o", filepath.Join(tree, "bin") + "/"}, extraTools...)...)
		cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %v: %w\n%s", extraTools, err, text)
		}
	}
	return program(tree)
}

// Copy makes a tree of the files in dir.
func Copy(tree, dir string) error {
	if err := os.CopyFS(tree, os.DirFS(dir)); err != nil {
		return fmt.Errorf("copy %s: %w", dir, err)
	}
	return program(tree)
}

// Pad adds a file of size bytes to a tree; it does not compress.
func Pad(tree string, size int64) error {
	f, err := os.Create(filepath.Join(tree, "padding"))
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), size)
	return errors.Join(err, f.Close())
}

// program writes the Program of a tree that has none.
func program(tree string) error {
	path := filepath.Join(tree, Program)
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte("#!/bin/sh\n[ \"$1\" = version ]\n"), 0o755)
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Size returns the number of files in a tree, and their bytes.
func Size(tree string) (files int, bytes int64, err error) {
	err = filepath.WalkDir(tree, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		files, bytes = files+1, bytes+info.Size()
		return err
	})
	return files, bytes, err
}
