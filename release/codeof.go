package release

import (
	"errors"
	"syscall"
)

// CodeOf returns the wire code of err: that of the Error in it, disk_full for an
// error that says so, and Internal for every other.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case errors.As(err, &e) && e.Code != Internal:
		return e.Code
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return DiskFull
	}
	return Internal
}
