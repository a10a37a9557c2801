// Package box boots a real systemd as PID 1 of new namespaces, on an overlay of the root
// of this machine, in about half a second. Tests use it to see what systemd does, and
// to cut the power.
//
// A box needs root, and kernel support for namespaces; Available reports whether this
// machine can boot one. The disk of a box survives Cut, Off and a reboot, until Close.
// The temporary directory of the host is hidden inside; Path gives access to the files
// of a box. The package changes nothing on the host.
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
	"syscall"
	"time"
)

//go:embed box.sh
var script []byte

// Options describes a box. The zero value has no network.
type Options struct {
	Name string // also its host name; letters and digits
	// HostNetwork gives the box the network of the host, with its loopback servers.
	// Otherwise the box has only a loopback of its own.
	HostNetwork bool
	// Delegate gives the box the controllers that MemoryMax= and TasksMax= need.
	Delegate bool
	// DiskMB, unless 0, is the size of a disk of its own: ext4 in a file, of which Cut
	// loses what was not synced.
	DiskMB int
}

// Box is a machine. It is powered off until Boot.
type Box struct {
	Options
	dir string // of the script's state
	sh  string // the script
}

// New returns a box that keeps its disk and its state below dir.
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
	ctx := context.Background() // all callers share the result, so no caller's context may end this
	if err := b.Boot(ctx); err != nil {
		return fmt.Errorf("a box does not boot here: %w", err)
	}
	return b.Close(ctx)
})

// Available returns nil if this machine can boot boxes, or the reason why it cannot. The
// first call boots one.
func Available() error { return available() }

// do runs a verb of box.sh, and returns its standard output.
func (b *Box) do(ctx context.Context, verb string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "bash", append([]string{b.sh, verb, b.Name}, args...)...)
	cmd.Env = append(os.Environ(), "BOX_DIR="+b.dir)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// With what it started: a program in a box that goes down may stop, and wait for ever.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("box %s: %s %s: %w: %s", b.Name, verb, strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Boot powers the box on, and returns when systemd is up. It can be repeated after Cut
// and Off.
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

// Exec runs a command inside, and returns its standard output. The error has the exit
// status and the standard error.
func (b *Box) Exec(ctx context.Context, args ...string) (string, error) {
	return b.do(ctx, "exec", args...)
}

// Path returns the path by which the host opens a file inside, while the box is up. Tests call
// it many times a second, so it starts no program.
func (b *Box) Path(_ context.Context, inside string) (string, error) {
	pid, err := b.pid1()
	if err != nil {
		return "", err
	}
	return filepath.Join("/proc", pid, "root", inside), nil
}

// Bus returns the address by which the host opens the system bus of the box, while it
// is up.
func (b *Box) Bus(ctx context.Context) (string, error) {
	path, err := b.Path(ctx, "run/dbus/system_bus_socket")
	return "unix:path=" + path, err
}

// pid1 returns the process id that the box's PID 1 has on the host, as `box.sh` does.
func (b *Box) pid1() (string, error) {
	saved, err := os.ReadFile(filepath.Join(b.dir, b.Name, "pid")) // and when it started
	pid, began, _ := strings.Cut(strings.TrimSpace(string(saved)), " ")
	if err == nil {
		var stat []byte
		stat, err = os.ReadFile(filepath.Join("/proc", pid, "stat"))
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); err == nil && (len(f) < 20 || f[19] != began) {
			err = errors.New("its process id is another's now")
		}
	}
	if err != nil {
		return "", fmt.Errorf("box %s is not up: %w", b.Name, err)
	}
	return pid, nil
}

// Journal returns the journal of units, of all boots, as plain text.
func (b *Box) Journal(ctx context.Context, units ...string) (string, error) {
	args := []string{"journalctl", "--no-pager", "-o", "short-precise"}
	for _, unit := range units {
		args = append(args, "-u", unit)
	}
	return b.Exec(ctx, args...)
}

// Cut cuts the power. A disk of its own then loses what was not synced: the data of
// files, and unless flushed also renames and links.
func (b *Box) Cut(ctx context.Context, flushed bool) error {
	how := "2"
	if flushed {
		how = "1"
	}
	_, err := b.do(ctx, "cut", how)
	return err
}

// Off shuts the box down.
func (b *Box) Off(ctx context.Context) error {
	_, err := b.do(ctx, "off")
	return err
}

// WaitOff waits until a box that reboots or shuts down is down.
func (b *Box) WaitOff(ctx context.Context) error {
	_, err := b.do(ctx, "wait")
	return err
}

// Close cuts the power, and removes the disk.
func (b *Box) Close(ctx context.Context) error {
	_, err := b.do(ctx, "rm")
	return err
}
