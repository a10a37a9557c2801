package stage

import (
	"io/fs"
	"syscall"
	"testing"
)

// A file of the machine that is missing is no fault of the release.
func TestNoLoader(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{&fs.PathError{Op: "fork/exec", Path: "/v/edge-agent", Err: syscall.ENOENT}, true},
		{&fs.PathError{Op: "fork/exec", Path: "/v/edge-agent", Err: syscall.ELIBBAD}, true},
		{&fs.PathError{Op: "open", Path: "/dev/null", Err: syscall.ENOENT}, false},
		{&fs.PathError{Op: "fork/exec", Path: "/v/edge-agent", Err: syscall.EAGAIN}, false},
	} {
		if got := noLoader(tt.err, "/v/edge-agent"); got != tt.want {
			t.Errorf("%v: %v", tt.err, got)
		}
	}
}
