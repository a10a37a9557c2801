// Package box boots a real systemd as PID 1 of namespaces of its own, on an
// overlay of this machine's own root, in about half a second; nothing is
// installed. Tests use it to see what systemd does, and to cut the power.
//
// A box needs root and the namespaces of the kernel: Available says whether
// this machine can. Its disk outlives Cut, Off and a reboot, until Close.
// The host's temporary folder is hidden inside; put files in through Path.
package box

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
)

//go:embed box.sh
var script []byte

// Options of a box; the zero value is a box without a network.
type Options struct {
	Name string // also its host name; letters and digits
	// HostNetwork shares the host's network, so that a server on loopback is
	// reached; otherwise the box has a loopback of its own and nothing else.
	HostNetwork bool
	// Delegate gives it the controllers that MemoryMax= and TasksMax= need.
	Delegate bool
	// DiskMB, if not 0, gives it a disk of its own: ext4 in a file, so that Cut
	// loses what was not synced.
	DiskMB int
}

// Box is a machine. It is down until Boot.
type Box struct {
	Options
	dir string // of the script's state
	sh  string // the script
}

// New returns a box that keeps everything under dir.
func New(dir string, o Options) (*Box, error) {
	b := &Box{Options: o, dir: dir, sh: filepath.Join(dir, "box.sh")}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return b, os.WriteFile(b.sh, script, 0o755)
}

var available = sync.OnceValue(func() error {
	if os.Getuid() != 0 {
		return errors.New("a box needs root")
	}
	dir, err := os.MkdirTemp("", "box-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, err := New(dir, Options{Name: "probe"})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := b.Boot(ctx); err != nil {
		return fmt.Errorf("a box does not boot here: %w", err)
	}
	return b.Close(ctx)
})

// Available returns nil if this machine can boot boxes, and else why not. The
// first call boots one.
func Available() error { return available() }

func (b *Box) do(ctx context.Context, verb string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", append([]string{b.sh, verb, b.Name}, args...)...)
	cmd.Env = append(os.Environ(), "BOX_DIR="+b.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("box %s: %s %s: %w: %s", b.Name, verb, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Boot starts the box, again perhaps, and returns when systemd is up.
func (b *Box) Boot(ctx context.Context) error {
	var args []string
	if b.HostNetwork {
		args = append(args, "-n")
	}
	if b.Delegate {
		args = append(args, "-m")
	}
	if b.DiskMB > 0 {
		args = append(args, "-d", strconv.Itoa(b.DiskMB))
	}
	_, err := b.do(ctx, "up", args...)
	return err
}

// Exec runs a command inside and returns what it wrote to its standard output.
// The error holds its exit status and what it wrote to standard error.
func (b *Box) Exec(ctx context.Context, args ...string) (string, error) {
	return b.do(ctx, "exec", args...)
}

// Path returns a path, usable from outside while the box is up, of a file inside.
func (b *Box) Path(ctx context.Context, inside string) (string, error) {
	root, err := b.do(ctx, "root")
	return filepath.Join(strings.TrimSpace(root), inside), err
}

// Bus returns the address of its system bus, usable from outside while it is up.
func (b *Box) Bus(ctx context.Context) (string, error) {
	out, err := b.do(ctx, "bus")
	return strings.TrimSpace(out), err
}

// Journal returns the messages of a unit, of all boots, as plain text.
func (b *Box) Journal(ctx context.Context, unit string) (string, error) {
	return b.Exec(ctx, "journalctl", "--no-pager", "-o", "short-precise", "-u", unit)
}

// Cut takes the power away. On a disk of its own it loses what was not synced:
// with flushed, only the data of files, else renames and links as well.
func (b *Box) Cut(ctx context.Context, flushed bool) error {
	how := "2"
	if flushed {
		how = "1"
	}
	_, err := b.do(ctx, "cut", how)
	return err
}

// Off powers the box off in good order.
func (b *Box) Off(ctx context.Context) error {
	_, err := b.do(ctx, "off")
	return err
}

// WaitOff waits until a box that was told to reboot or power off is down.
func (b *Box) WaitOff(ctx context.Context) error {
	_, err := b.do(ctx, "wait")
	return err
}

// Close cuts the power, and forgets the disk.
func (b *Box) Close(ctx context.Context) error {
	_, err := b.do(ctx, "rm")
	return err
}
