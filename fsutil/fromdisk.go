package fsutil

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// FromDisk reads a file from its disk, and not from memory: where a write failed, Linux may
// keep the page, and tells only the first process that asks, which may have been killed since.
type FromDisk struct {
	f     *os.File
	block []byte // of a mapping, since it must begin at a page
	at    int64
}

const fromDiskBlock = 512 << 10

// ReadFromDisk begins to read f, a regular file, at its first byte. Nothing else may use f
// until Close. The error is errors.ErrUnsupported where the file system does not say that it
// can (it needs Linux 6.1, and e.g. ext4, xfs or f2fs).
//
//	statx(STATX_DIOALIGN), fcntl(F_SETFL, O_DIRECT)
func ReadFromDisk(f *os.File) (*FromDisk, error) {
	var st unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); err != nil {
		return nil, &os.PathError{Op: "statx", Path: f.Name(), Err: err}
	}
	memory, offset := int(st.Dio_mem_align), int(st.Dio_offset_align)
	if st.Mask&unix.STATX_DIOALIGN == 0 || memory == 0 || offset == 0 || memory > os.Getpagesize() || fromDiskBlock%offset != 0 {
		return nil, fmt.Errorf("read %s from its disk: %w", f.Name(), errors.ErrUnsupported)
	}
	block, err := unix.Mmap(-1, 0, fromDiskBlock, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	r := &FromDisk{f: f, block: block}
	if err := r.direct(unix.O_DIRECT); err != nil {
		return nil, errors.Join(err, unix.Munmap(block))
	}
	return r, nil
}

// direct sets O_DIRECT of the file to that flag, or to 0.
func (r *FromDisk) direct(flag int) error {
	flags, err := unix.FcntlInt(r.f.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(r.f.Fd(), unix.F_SETFL, flags&^unix.O_DIRECT|flag)
	}
	if err != nil {
		return &os.PathError{Op: "fcntl", Path: r.f.Name(), Err: err}
	}
	return nil
}

// Next returns the next bytes of the file, which are valid until the next call. At the end it
// returns io.EOF.
func (r *FromDisk) Next() ([]byte, error) {
	if r.at%fromDiskBlock != 0 { // where the last block ended, the file did
		return nil, io.EOF
	}
	for {
		n, err := unix.Pread(int(r.f.Fd()), r.block, r.at)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, &os.PathError{Op: "read", Path: r.f.Name(), Err: err}
		case n == 0:
			return nil, io.EOF
		default:
			r.at += int64(n)
			return r.block[:n], nil
		}
	}
}

// Close ends the reading. The file stays open, at the offset that it had.
func (r *FromDisk) Close() error {
	return errors.Join(r.direct(0), unix.Munmap(r.block))
}
