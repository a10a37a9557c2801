package oddfs

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// serve shows base/behind at base/mnt until wait returns.
func serve(base string, wait func()) error {
	behind := filepath.Join(base, "behind")
	var st syscall.Stat_t
	if err := syscall.Stat(behind, &st); err != nil {
		return err
	}
	root := &fs.LoopbackRoot{Path: behind, Dev: uint64(st.Dev)}
	top := &node{LoopbackNode: &fs.LoopbackNode{RootData: root}, faults: filepath.Join(base, "faults")}
	root.RootNode = top
	_, err := fs.Mount(filepath.Join(base, "mnt"), top, &fs.Options{MountOptions: fuse.MountOptions{
		DirectMountStrict: true, AllowOther: true, EnableLocks: true, FsName: "odd", Name: "odd", Options: []string{"default_permissions"},
	}})
	if err != nil {
		return err
	}
	wait()
	// Detached: a process of the test may still be there.
	if err := unix.Unmount(filepath.Join(base, "mnt"), unix.MNT_DETACH); err != nil {
		return err
	}
	return nil
}

// node is a file or directory, which refuses what the file faults says.
type node struct {
	*fs.LoopbackNode
	faults string
}

// WrapChild makes a node of each file and directory that the loopback finds or makes.
func (n *node) WrapChild(_ context.Context, ops fs.InodeEmbedder) fs.InodeEmbedder {
	if child, ok := ops.(*fs.LoopbackNode); ok {
		return &node{LoopbackNode: child, faults: n.faults}
	}
	return ops
}

// refuses returns the error of op, and whether op is refused.
func (n *node) refuses(op Op) (syscall.Errno, bool) {
	var refuse Refusals
	b, err := os.ReadFile(n.faults)
	if err != nil || json.Unmarshal(b, &refuse) != nil {
		return syscall.EIO, true
	}
	errno, ok := refuse[op]
	return errno, ok
}

// handle is an open file that knows how it was opened.
type handle struct {
	*fs.LoopbackFile
	of       *node
	writable bool
}

func (n *node) opened(f fs.FileHandle, flags uint32) fs.FileHandle {
	if f, ok := f.(*fs.LoopbackFile); ok {
		return &handle{f, n, flags&syscall.O_ACCMODE != syscall.O_RDONLY}
	}
	return f
}

// PassthroughFd keeps the kernel from reading and writing without asking this server.
func (h *handle) PassthroughFd() (int, bool) { return 0, false }

func (h *handle) Allocate(ctx context.Context, off, size uint64, mode uint32) syscall.Errno {
	if errno, ok := h.of.refuses(Reserve); ok {
		return errno
	}
	return h.LoopbackFile.Allocate(ctx, off, size, mode)
}

func (h *handle) Write(ctx context.Context, data []byte, off int64) (uint32, syscall.Errno) {
	if errno, ok := h.of.refuses(Write); ok {
		return 0, errno
	}
	return h.LoopbackFile.Write(ctx, data, off)
}

func (h *handle) Read(ctx context.Context, buf []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno, ok := h.of.refuses(Read); ok {
		return nil, errno
	}
	return h.LoopbackFile.Read(ctx, buf, off)
}

// openExec is the flag with which the kernel opens a program to execute it (__FMODE_EXEC).
const openExec = 0x20

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno, ok := n.refuses(Exec); ok && flags&openExec != 0 && strings.Contains(n.Path(nil), "/.partial-") {
		return nil, 0, errno
	}
	f, fuseFlags, errno := n.LoopbackNode.Open(ctx, flags)
	return n.opened(f, flags), fuseFlags, errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno, ok := n.refuses(Create); ok {
		return nil, nil, 0, errno
	}
	child, f, fuseFlags, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return child, n.opened(f, flags), fuseFlags, errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno, ok := n.refuses(Create); ok {
		return nil, errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *node) Symlink(ctx context.Context, target, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno, ok := n.refuses(Symlink); ok {
		return nil, errno
	}
	return n.LoopbackNode.Symlink(ctx, target, name, out)
}

func (n *node) Rename(ctx context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	op := Rename
	if flags&unix.RENAME_EXCHANGE != 0 {
		op = Exchange
	}
	if errno, ok := n.refuses(op); ok {
		return errno
	}
	return n.LoopbackNode.Rename(ctx, name, parent, newName, flags)
}

func (n *node) Setattr(ctx context.Context, f fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, chmod := in.GetMode(); chmod {
		if errno, ok := n.refuses(Chmod); ok && errno != 0 {
			return errno
		} else if ok {
			return n.Getattr(ctx, f, out)
		}
	}
	return n.LoopbackNode.Setattr(ctx, f, in, out)
}

func (n *node) Fsync(ctx context.Context, f fs.FileHandle, flags uint32) syscall.Errno {
	if errno, ok := n.refuses(Sync); ok {
		return errno
	}
	if f, ok := f.(*handle); ok {
		return f.Fsync(ctx, flags)
	}
	return 0
}

func (n *node) Setlk(ctx context.Context, f fs.FileHandle, owner uint64, lk *fuse.FileLock, flags uint32) syscall.Errno {
	h, ok := f.(*handle)
	if !ok {
		return syscall.EBADF
	}
	if lk.Typ != syscall.F_UNLCK {
		if errno, ok := n.refuses(Lock); ok {
			return errno
		}
		if errno, ok := n.refuses(LockReadOnly); ok && !h.writable {
			return errno
		}
	}
	return h.Setlk(ctx, owner, lk, flags)
}
