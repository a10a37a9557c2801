package rig_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/oddfs"
	"golang.org/x/sys/unix"
)

// odd mounts a file system at /srv/NAME/mnt of the box, and returns a function that changes
// what it refuses.
func (b *bareBox) odd(name string, refuse oddfs.Refusals) (change func(oddfs.Refusals)) {
	b.t.Helper()
	dir := "/srv/" + name
	change = func(refuse oddfs.Refusals) {
		b.t.Helper()
		text, err := refuse.JSON()
		if err := errors.Join(err, os.WriteFile(b.path(dir+"/faults"), text, 0o600)); err != nil {
			b.t.Fatal(err)
		}
	}
	b.sh("mkdir -p " + dir + "/mnt " + dir + "/behind; test -e /dev/fuse || mknod -m 666 /dev/fuse c 10 229")
	change(refuse)
	b.sh("systemd-run --quiet --unit=odd-" + name + " sh -c 'sleep infinity | " + oddfs.ServeEnv + "=" + dir + " /root/oddfs'; " +
		"for i in $(seq 200); do mountpoint -q " + dir + "/mnt && exit 0; sleep 0.05; done; exit 1")
	return change
}

// A file system on which a node cannot live is refused before anything is fetched or
// created. On NFS a node is installed, upgraded, and says when its locks fail.
func TestUnderSystemdFileSystems(t *testing.T) {
	box.Long(t)
	b := setupBare(t, "filesystems", "")
	program, err := os.ReadFile("/proc/self/exe")
	if err := errors.Join(err, os.WriteFile(b.path("/root/oddfs"), program, 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		refuse oddfs.Refusals
		want   string
	}{
		"vfat":    {oddfs.VFAT, "the file system of /srv/vfat/mnt/edge (fuse.odd) cannot make symbolic links: operation not permitted: use a local file system such as ext4"},
		"nolocks": {oddfs.Refusals{oddfs.Lock: unix.EOPNOTSUPP}, "the file system of /srv/nolocks/mnt/edge (fuse.odd) cannot lock files: operation not supported"},
	} {
		b.odd(name, tt.refuse)
		before := b.sh("find /srv/" + name + " /etc/systemd/system | sort; getent passwd")
		out, err := b.run(b.install("--root /srv/" + name + "/mnt/edge"))
		if err == nil || !strings.Contains(out, tt.want) || strings.Contains(out, "genuine") || strings.Contains(out, "started") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		if after := b.sh("find /srv/" + name + " /etc/systemd/system | sort; getent passwd"); after != before {
			t.Errorf("%s: it left\n%s\nbefore:\n%s", name, after, before)
		}
	}

	change := b.odd("nfs", oddfs.NFS)
	const root = "/srv/nfs/mnt/edge"
	b.want(b.sh(b.install("--root "+root)), "registered with the manager")
	doctor := "/opt/bin/edge-agent doctor --config " + root + "/config.toml"
	b.want(b.sh(doctor), "ok    file system")
	b.sh("/root/edge-agent stage --config " + root + "/config.toml --from /root/release; /root/edge-agent apply --root " + root + "; systemctl restart edge")
	b.until("the trial ends", "/opt/bin/edge-agent status --root "+root, "1.1.0 runs and has proved healthy.")
	b.want(b.sh(doctor), "ok    file system")

	// The locks fail: the node starts, stays registered, and says what is wrong.
	change(oddfs.Refusals{oddfs.Lock: unix.ENOLCK})
	id := b.sh("cat " + root + "/credentials.json")
	b.sh("systemctl restart edge")
	b.until("the reason", "systemctl show -p StatusText edge", "cannot lock files: no locks available")
	b.want(b.sh("systemctl is-active edge; journalctl -u edge"), "active", "its file system has no locks (fuse.odd)")
	for _, command := range []string{doctor, b.install("--root " + root)} {
		if out, err := b.run(command); err == nil || !strings.Contains(out, "cannot lock files: no locks available") {
			t.Errorf("%s: %v\n%s", command, err, out)
		}
	}
	change(oddfs.NFS)
	b.want(b.sh("systemctl restart edge; "+b.install("--root "+root)), "the node is registered; edge.service is running")
	if now := b.sh("cat " + root + "/credentials.json"); now != id {
		t.Errorf("the node had the identity %s, and has %s", id, now)
	}
}

// until waits until the output of a command contains want.
func (b *bareBox) until(what, command, want string) {
	b.t.Helper()
	out := ""
	for limit := patience(b.t); limit.Err() == nil; {
		if out, _ = b.run(command); strings.Contains(out, want) {
			return
		}
	}
	b.t.Fatalf("timeout: %s: %s\n%s", what, out, b.sh("journalctl -u edge | tail -50"))
}
