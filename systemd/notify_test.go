package systemd_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/bilbycast/edge-agent/systemd"
)

// The two cases share a variable of the process, so they run one after the other.
func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := systemd.Notify("READY=1"); err != nil {
		t.Errorf("without systemd: %v", err)
	}

	path := filepath.Join(t.TempDir(), "s")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := systemd.Notify("READY=1\nSTATUS=1.0.0 runs"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil || string(b[:n]) != "READY=1\nSTATUS=1.0.0 runs" {
		t.Errorf("got %q, %v", b[:n], err)
	}

	// A systemd that reads nothing delays nobody: once its queue is full, Notify fails.
	for range 1 << 16 {
		if err = systemd.Notify("WATCHDOG=1"); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a full queue: %v", err)
	}
}
