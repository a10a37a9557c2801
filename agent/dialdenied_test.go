//go:build !sim

package agent

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A connection that fails at a file says what denies it, and gives no advice about certificates.
func TestADeniedFileOfAConnectionIsNamed(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ca-certificates.crt")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err := explainDial(fmt.Errorf("the CA store: %w", &fs.PathError{Op: "open", Path: file, Err: syscall.EACCES}))
	if want := "permission denied: the modes and the mount allow it, so mandatory access control refuses it"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}
