// Package powercut cuts the power of a file system: what was not synced is lost.
//
// The disk is a file on a loop device, so the package needs root. Whoever writes to the
// disk must have ended before it is mounted again.
package powercut

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How tells what the disk had done at the cut.
type How uint32

const (
	Journal How = 1 // its journal is flushed, and the data is not
	Nothing How = 2 // neither is flushed
)

// Cut cuts the power of the file system at mnt (EXT4_IOC_SHUTDOWN, XFS_IOC_GOINGDOWN).
// Afterwards it fails every write until it is mounted again.
func Cut(mnt string, how How) error {
	f, err := os.Open(mnt)
	if err != nil {
		return err
	}
	defer f.Close()
	arg := uint32(how)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("shutdown: %w", errno)
	}
	return nil
}

// Disk is an ext4 file system in a file.
type Disk struct{ file, mnt string }

// New makes a disk of so many bytes in file, and mounts it on the directory mnt. Only the
// caller's mount namespace should see it: unshare that first.
func New(file, mnt string, size int64) (*Disk, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		return nil, err
	}
	if err := command("mkfs.ext4", "-q", "-F", file); err != nil {
		return nil, err
	}
	d := &Disk{file, mnt}
	return d, d.mount()
}

// mount mounts the disk. Without noauto_da_alloc ext4 would save a file that is renamed
// over another one without being asked.
func (d *Disk) mount() error {
	return command("mount", "-o", "loop,noauto_da_alloc", d.file, d.mnt)
}

// Cut cuts the power, and mounts the disk again with what it kept. Between the two it calls
// release, which ends what still uses the disk.
func (d *Disk) Cut(how How, release func()) error {
	if err := Cut(d.mnt, how); err != nil {
		return err
	}
	release()
	if err := unix.Unmount(d.mnt, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", d.mnt, err)
	}
	return d.mount()
}

// Close unmounts the disk. Its file stays.
func (d *Disk) Close() error { return unix.Unmount(d.mnt, unix.MNT_DETACH) }

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, out)
	}
	return nil
}
