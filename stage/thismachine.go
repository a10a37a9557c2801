package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// ofThisMachine returns the error of a connection that this machine does not make, whatever the
// network is; nil for another one. A socket that it denies stays denied; all else may pass.
func ofThisMachine(err error) error {
	is := func(errs ...error) bool {
		return slices.ContainsFunc(errs, func(e error) bool { return errors.Is(err, e) })
	}
	if lookup, ok := errors.AsType[*net.DNSError](err); ok {
		if err = ofResolver(lookup); err == nil {
			return nil
		}
	}
	call, _ := errors.AsType[*os.SyscallError](err)
	switch {
	case errors.As(err, new(*fs.PathError)):
		return retryable{release.Errorf(release.Internal, "this machine looks up no names: %w", fsutil.NameDenial(err))}
	case is(unix.EPERM, unix.EACCES) && call != nil && call.Syscall == "socket":
		return release.Errorf(release.Internal, "this machine lets the agent open no socket: %w: look at RestrictAddressFamilies= and SystemCallFilter= of the unit, and at mandatory access control (journalctl -k)", err)
	case is(unix.EPERM, unix.EACCES):
		return retryable{release.Errorf(release.Internal, "this machine makes no connection: %w: look at its firewall, at IPAddressDeny= of the unit, and at mandatory access control (journalctl -k)", err)}
	case is(unix.EAFNOSUPPORT):
		return retryable{release.Errorf(release.Internal, "this machine makes no connection: %w: look at RestrictAddressFamilies= of the unit; the kernel may have no IPv6", err)}
	case is(unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN, unix.EADDRNOTAVAIL):
		return retryable{release.Errorf(release.Internal, "this machine makes no connection: %w", err)}
	}
	return nil
}

// Files that the resolver reads. Without hosts a name that only it has does not exist.
const (
	resolvConf = "/etc/resolv.conf"
	hostsFile  = "/etc/hosts"
)

// ofResolver returns the error of this machine that made a lookup fail, or nil. A
// net.DNSError has only the text of its cause, and the resolver passes over files that it
// cannot open; so the machine itself is examined as well. A file that is missing is no fault:
// some systems write it when the network is up.
func ofResolver(lookup *net.DNSError) error {
	if err := canLookUp(); err != nil {
		return err
	}
	files := []string{resolvConf}
	if lookup.IsNotFound {
		files = append(files, hostsFile)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err == nil {
			f.Close()
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, errno := range []unix.Errno{unix.EPERM, unix.EACCES, unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.EAGAIN, unix.EAFNOSUPPORT} {
		if errno == unix.EAFNOSUPPORT && strings.HasPrefix(lookup.Server, "[::1]") {
			continue // the last server of a resolver that has none
		}
		if strings.HasSuffix(lookup.Err, errno.Error()) {
			return fmt.Errorf("%s%w", release.Foreign(lookup.Error(), release.ForeignLimit), sameWords{errno})
		}
	}
	return nil
}

// sameWords is an errno whose text the error has already.
type sameWords struct{ errno unix.Errno }

func (sameWords) Error() string   { return "" }
func (e sameWords) Unwrap() error { return e.errno }

// canLookUp returns why this machine opens no socket to a name server, or nil.
func canLookUp() error {
	open := func(family int) error {
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
	err, err6 := open(unix.AF_INET), open(unix.AF_INET6)
	switch {
	case err == nil || err6 == nil:
		return nil
	case errors.Is(err, unix.EAFNOSUPPORT):
		err = err6
	}
	return os.NewSyscallError("socket", err)
}
