package rig_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// bareBox is a machine without an installed node, with a manager and a release in reach.
type bareBox struct {
	*box.Box
	t                       *testing.T
	ctx                     context.Context
	url, token, fingerprint string
}

func setupBare(t *testing.T, name string, binary string) *bareBox {
	t.Helper()
	needBox(t)
	bin := builds(t)
	ctx := patience(t)
	r := newRig(t)
	if binary == "" {
		binary = bin["1.0.0"]
	}
	for v, program := range map[string]string{"1.0.0": binary, "1.1.0": bin["1.1.0"]} {
		if _, err := r.Publish(fakerelease.Options{Version: v, Binary: program}); err != nil {
			t.Fatal(err)
		}
	}
	b := &bareBox{t: t, ctx: ctx}
	b.Box = box.ForTest(ctx, t, box.Options{HostNetwork: true})
	b.url, b.token, b.fingerprint = r.Registration()
	text, err := os.ReadFile(bin["1.0.0"])
	if err := errors.Join(err, os.WriteFile(b.path("/root/edge-agent"), text, 0o700), os.WriteFile(b.path("/root/token"), []byte(b.token+"\n"), 0o600),
		os.CopyFS(b.path("/opt/trust"), os.DirFS(r.TrustDir())), os.Mkdir(b.path("/opt/bin"), 0o755), os.WriteFile(b.path("/opt/bin/edge-agent"), text, 0o755),
		os.CopyFS(b.path("/root/release"), os.DirFS(filepath.Join(r.Releases, "www/acme/edge/releases/download/v1.1.0")))); err != nil {
		t.Fatal(err)
	}
	b.sh("chmod -R go= /root/release")
	return b
}

func (b *bareBox) path(inside string) string { return b.MustPath(b.ctx, b.t, inside) }

// sh runs a script, which must succeed, and returns its output.
func (b *bareBox) sh(script string) string {
	b.t.Helper()
	out, err := b.run(script)
	if err != nil {
		b.t.Errorf("%s: %v\n%s", script, err, out)
	}
	return out
}

func (b *bareBox) run(script string) (string, error) {
	out, err := b.Exec(b.ctx, "sh", "-c", "export EDGE_AGENT_SIM_TRUST=/opt/trust; "+script+" 2>&1")
	return strings.TrimSpace(out), err
}

// install returns the command line. The flags in more come last, and so override others.
func (b *bareBox) install(more string) string {
	return "/root/edge-agent install 1.0.0 --device-type edge --manager " + b.url + " --token-file /root/token --cert-fingerprint " + b.fingerprint +
		" --environment EDGE_AGENT_SIM_TRUST=/opt/trust --restart-secs 0.1 --wait 20s " + more
}

func (b *bareBox) want(out string, words ...string) {
	b.t.Helper()
	for _, w := range words {
		if !strings.Contains(out, w) {
			b.t.Errorf("no %q in\n%s", w, out)
		}
	}
}

// With every kind of install root, umask and PATH, the service runs and its user owns the
// whole root, doctor finds no problem, and purge leaves nothing.
func TestUnderSystemdInstallRoots(t *testing.T) {
	box.Long(t)
	b := setupBare(t, "roots", "")
	const purge = "/root/edge-agent uninstall --device-type edge --purge "
	for _, tt := range []struct{ name, before, umask, root, real, after, left string }{
		{"umask 077, no parent", "test ! -e /opt/bilbycast", "077", "/opt/bilbycast/edge", "/opt/bilbycast/edge",
			"test $(stat -c %a /opt/bilbycast) = 755; test $(stat -c %a /opt/bilbycast/edge) = 750", "test ! -e /opt/bilbycast/edge"},
		{"umask 027, deep parents", "mkdir -m 711 /narrow", "027", "/narrow/a/b/edge", "/narrow/a/b/edge",
			"test $(stat -c %a /narrow) = 711; test $(stat -c %a /narrow/a/b) = 755", "test ! -e /narrow/a/b/edge"},
		{"a link", "mkdir -p /data/edge; ln -s /data/edge /opt/bilbycast/edge", "077", "/opt/bilbycast/edge", "/data/edge", "test -L /opt/bilbycast/edge", "test ! -e /data/edge; test ! -L /opt/bilbycast/edge"},
		{"a link of the parent", "mkdir -p /data/roots; ln -s /data/roots /opt/linked", "022", "/opt/linked/edge", "/data/roots/edge", "true", "test ! -e /data/roots/edge"},
		{"a mount point", "mkdir -p /opt/bilbycast/edge; mount -t tmpfs -o mode=755 tmpfs /opt/bilbycast/edge; mkdir -m 700 /opt/bilbycast/edge/lost+found", "077", "/opt/bilbycast/edge", "/opt/bilbycast/edge", "true",
			"mountpoint -q /opt/bilbycast/edge; test \"$(ls -A /opt/bilbycast/edge)\" = lost+found; umount /opt/bilbycast/edge; rmdir /opt/bilbycast/edge"},
		{"a link to a mount point", "mkdir /media/disk; mount -t tmpfs -o mode=755 tmpfs /media/disk; ln -s /media/disk /opt/bilbycast/edge", "022", "/opt/bilbycast/edge", "/media/disk", "true",
			"test -z \"$(ls -A /media/disk)\"; umount /media/disk; rm -f /opt/bilbycast/edge"},
		{"versions elsewhere", "mkdir -p /data/v /opt/bilbycast/edge; echo mine >/data/v/mine; ln -s /data/v /opt/bilbycast/edge/versions", "077", "/opt/bilbycast/edge", "/opt/bilbycast/edge", "test -e /data/v/1.0.0/edge-agent",
			"test \"$(ls -A /data/v)\" = mine; test ! -e /opt/bilbycast/edge"},
		{"below /home", "mkdir -p -m 755 /home/alice", "077", "/home/alice/edge", "/home/alice/edge", "grep -q ^ProtectHome=read-only /etc/systemd/system/edge.service", "test ! -e /home/alice/edge"},
		{"a link to a place below /home", "mkdir -p /home/alice/data; ln -s /home/alice/data /opt/bilbycast/edge", "022", "/opt/bilbycast/edge", "/home/alice/data", "true",
			"test ! -e /home/alice/data; test ! -L /opt/bilbycast/edge"},
		{"below /var/home, to which /home is a link", "mv /home /home.before; mkdir -p -m 755 /var/home/alice; ln -s var/home /home", "077", "/var/home/alice/edge", "/var/home/alice/edge",
			"grep -q ^ProtectHome=read-only /etc/systemd/system/edge.service", "test ! -e /var/home/alice/edge; rm /home; mv /home.before /home"},
		// An earlier run wrote it, and no version got in: what is given now counts.
		{"a configuration and no version", `mkdir -p /opt/bilbycast/edge; printf '[service]\nname = "edge"\ndevice_type = "edge"\nbinary = "edge-agent"\n[manager]\nurls = ["wss://127.0.0.1:1"]\ncert_fingerprint = "` + strings.Repeat("ab", 32) + `"\nregistration_token = "old"\n[upgrade]\nenabled = true\n' >/opt/bilbycast/edge/config.toml; chmod 600 /opt/bilbycast/edge/config.toml`,
			"022", "/opt/bilbycast/edge", "/opt/bilbycast/edge", "grep -q 127.0.0.1:1 /opt/bilbycast/edge/config.toml.before-*", "test ! -e /opt/bilbycast/edge"},
	} {
		b.sh(tt.before)
		out := b.sh("umask " + tt.umask + "; export PATH=/usr/local/bin:/usr/bin:/bin; " + b.install("--root "+tt.root))
		b.want(out, "registered with the manager")
		b.sh("set -e; " + tt.after + "; test $(stat -c %a " + tt.root + "/config.toml) = 600; test $(stat -c %a /etc/systemd/system/edge.service) = 644; systemctl is-active edge")
		if out := b.sh("find " + tt.real + " -ignore_readdir_race ! -user edge"); out != "" {
			t.Errorf("%s: not the user's: %s", tt.name, out)
		}
		if out, err := b.run("/opt/bin/edge-agent doctor --config " + tt.root + "/config.toml"); err != nil {
			t.Errorf("%s: %v\n%s", tt.name, err, out)
		}
		b.want(b.sh("/opt/bin/edge-agent status --root "+tt.root), "service      edge.service running since 20", "connection   connected to wss://", "1.0.0 runs and has proved healthy.")
		// Secrets that a later release, an operator or root left there.
		b.sh("cp " + tt.root + "/config.toml " + tt.root + "/config.toml.before-20261125-101112; cp " + tt.root + "/config.toml " + tt.root + "/state.json.corrupt-ABCDEFGH")
		out = b.sh(purge + "--root " + tt.root)
		b.sh("set -e; " + tt.left)
		if out := b.sh("grep -rlF " + b.token + " /opt /data /home /media /narrow /etc /var/lib 2>/dev/null || true"); out != "" {
			t.Errorf("%s: the token is still in %s", tt.name, out)
		}
		if t.Failed() {
			t.Fatalf("%s: %s", tt.name, out)
		}
	}
}

// A refused install prints the reason and changes nothing.
func TestUnderSystemdInstallRefuses(t *testing.T) {
	b := setupBare(t, "refuses", "")
	const purge = "/root/edge-agent uninstall --device-type edge --purge "
	b.sh("mkdir -p /opt/bilbycast /data; ln -s /data/nothing /opt/bilbycast/edge; mkdir -p /opt/docs/versions; echo x >/opt/docs/README; mkdir /opt/theirs; chown nobody /opt/theirs; mkdir /opt/half; ln -s /data/none /opt/half/versions")
	for args, want := range map[string]string{
		b.install(""):                                 "is a dangling link to /data/nothing",
		b.install("--root /opt"):                      "is a directory of the system",
		b.install("--root /opt/theirs"):               "belongs to nobody",
		b.install("--root /opt/half"):                 "/opt/half/versions is a dangling link",
		b.install("--name ../../etc/cron.d/x"):        "is not a name",
		b.install("--user -x"):                        "begins with -",
		purge + "--root /opt/docs":                    "is no install root",
		purge + "--root /usr":                         "is a directory of the system",
		"/root/edge-agent uninstall --device-type ..": "is not a name",
	} {
		before := b.sh("find /opt /etc/systemd /data | sort; getent passwd")
		if out, err := b.run(args); err == nil || !strings.Contains(out+err.Error(), want) {
			t.Errorf("%s: %v\n%s", args, err, out)
		}
		if after := b.sh("find /opt /etc/systemd /data | sort; getent passwd"); after != before {
			t.Errorf("%s changed something:\n%s\nbefore:\n%s", args, after, before)
		}
	}
}

// A second install applies corrected values, and the first one reports why it failed. The
// release never runs as root, and files of root can be staged.
func TestUnderSystemdInstallAgain(t *testing.T) {
	script := filepath.Join(t.TempDir(), "edge-agent")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho \"$(id -u) $1\" >>/var/tmp/ran\nexec /opt/bin/edge-agent \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b := setupBare(t, "again", script)
	const root, config = "/opt/bilbycast/edge", "/opt/bilbycast/edge/config.toml"
	b.sh("touch /var/tmp/ran; chmod 666 /var/tmp/ran")

	// It does not start: the reason and the journal are there.
	b.sh("mkdir /etc/systemd/system/edge.service.d; printf '[Service]\\nExecStart=\\nExecStart=/opt/none\\n' >/etc/systemd/system/edge.service.d/x.conf")
	out, err := b.run(b.install(""))
	if err == nil {
		t.Error("it started")
	}
	// The line of the process that could not run the program is not asked for: journald drops
	// the name of a unit whose process has ended before it looks.
	b.want(out, "edge.service did not start: exit code 203/EXEC", "its last lines in the journal:", "Main process exited, code=exited, status=203/EXEC", "journalctl -u edge.service")
	b.sh("rm -r /etc/systemd/system/edge.service.d")

	// Every line but the corrected ones stays.
	b.sh("sed -i 's/^\\[manager\\]/[manager] # of the site/' " + config + "; echo '# the end' >>" + config)
	wrong := strings.Repeat("ab", 32)
	out, err = b.run(b.install("--cert-fingerprint " + wrong + " --wait 3s"))
	if err == nil {
		t.Error("it registered at a manager with another certificate")
	}
	b.want(out, "changed manager.cert_fingerprint in "+config, "FIX   manager: not connected to the manager, and this node has never registered", "the node has not registered within 3s: ", "fingerprint")
	b.sh("cp " + config + " /root/before")
	out = b.sh("umask 077; " + b.install(""))
	b.want(out, "changed manager.cert_fingerprint in "+config+"; the old file is config.toml.before-20", "registered with the manager")
	if got := b.sh("diff /root/before " + config + " | grep -c '^[<>]'; grep -c 'of the site\\|# the end' " + config); got != "2\n2" {
		t.Errorf("config.toml: %s", got)
	}
	b.want(b.sh("stat -c '%a %U' "+root+"/config.toml.before-* "+config), "600 edge\n600 edge")

	// Nothing is new: nothing changes, once the agent has its copy of the configuration.
	b.sh("until cmp -s " + config + " " + config + ".accepted; do sleep 0.02; done")
	pid := b.sh("systemctl show -p MainPID --value edge; find " + root + " | sort; stat -c %Y " + config)
	b.want(b.sh(b.install("")), "has these settings already, and is not changed", "the node is registered; edge.service is running")
	if got := b.sh("systemctl show -p MainPID --value edge; find " + root + " | sort; stat -c %Y " + config); got != pid {
		t.Errorf("a second run with nothing new changed\n%s\nto\n%s", pid, got)
	}
	if got := b.sh("sort -u /var/tmp/ran"); strings.Contains("\n"+got, "\n0 ") || !strings.Contains(got, " version") {
		t.Errorf("the release ran as root, or was not checked:\n%s", got)
	}

	// Values that the service's user wrote do not get into root's unit.
	for line, want := range map[string]string{`binary = "..\/..\/bin\/sh"`: "inside a version", `name = "..\/x"`: "for the service", `install_root = "\/etc"`: "is not"} {
		b.sh("cp -p " + config + " /root/good; sed -i 's/^device_type.*/&\\n" + line + "/; " + map[string]string{"name": "/^name = \"edge\"/d", "binary": "/^binary = \"edge-agent\"/d"}[strings.Fields(line)[0]] + "' " + config +
			map[bool]string{true: "; sed -i '/^install_root = \"\\/opt/d' " + config}[strings.HasPrefix(line, "install_root")])
		if out, err := b.run(b.install("")); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
		b.sh("cp -p /root/good " + config)
	}

	// Root reads what the service's user may not, and then becomes that user.
	b.want(b.sh("/root/edge-agent stage --config "+config+" --from /root/release"), "1.1.0 is staged")
	b.want(b.sh("/root/edge-agent apply --root "+root), "1.1.0 will run at the next restart: systemctl restart edge")
	b.want(b.sh("/root/edge-agent rollback --root "+root), "1.0.0 will run at the next restart: systemctl restart edge")
	if out, err := b.run("/root/edge-agent rollback 9.9.9 --root " + root); err == nil || !strings.Contains(out, "installed: 1.1.0") {
		t.Errorf("%v %s", err, out)
	}
	if out := b.sh("find " + root + " -ignore_readdir_race ! -user edge"); out != "" {
		t.Errorf("not the user's: %s", out)
	}

	// status is true of a service that does not run.
	status := "/opt/bin/edge-agent status --root " + root
	b.sh("systemctl stop edge")
	b.want(b.sh(status), "edge.service stopped since", "not connected", "The service is stopped", "systemctl start edge.service")
	b.sh("mkdir /etc/systemd/system/edge.service.d; printf '[Service]\\nExecStart=\\nExecStart=/opt/none\\n' >/etc/systemd/system/edge.service.d/x.conf; systemctl daemon-reload; systemctl start edge || true")
	// Between two starts of a crash loop the service is starting, for a moment.
	out = ""
	for tries := 0; tries < 200 && !strings.Contains(out, "crash loop"); tries++ {
		out = b.sh(status)
	}
	b.want(out, "edge.service crash loop", "203/EXEC", "The service is in a crash loop with 1.0.0", "journalctl -u edge.service")
	if strings.Contains(out, "runs and has") {
		t.Errorf("status: %s", out)
	}
}
