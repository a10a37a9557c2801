package rig_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

type finding struct {
	What, Cause, Remedy, Problem string
	OK                           bool
}

// doctor runs doctor as root or as another user.
func (b *inBox) doctor(user string) []finding {
	b.t.Helper()
	script := "EDGE_AGENT_SIM_TRUST=/opt/trust /opt/bin/edge-agent doctor --json --config " + rig.BoxRoot + "/config.toml 2>/dev/null; echo code $?"
	if user != "" {
		script = "runuser -u " + user + " -- sh -c '" + script + "'"
	}
	out, code, _ := strings.Cut(b.sh(script), "\ncode ")
	var all []finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		b.t.Fatalf("doctor: %v\n%s", err, out)
	}
	seen, want := map[string]bool{}, "0"
	for _, f := range all {
		if !f.OK {
			want = "1"
			if f.Cause == "" || f.Remedy == "" || f.Problem != f.Cause+": "+f.Remedy {
				b.t.Errorf("%+v", f)
			}
		}
		if was, ok := seen[f.What]; ok && (was || f.OK) {
			b.t.Errorf("%s is ok and not", f.What)
		}
		seen[f.What] = f.OK
	}
	if code != want {
		b.t.Errorf("exit code %q, want %s", code, want)
	}
	return all
}

// well waits until doctor finds no problem.
func (b *inBox) well(after string) {
	b.t.Helper()
	for tries := 0; ; tries++ {
		bad := ""
		for _, f := range b.doctor("") {
			if !f.OK {
				bad += fmt.Sprintf("%s: %s\n", f.What, f.Problem)
			}
		}
		if bad == "" {
			return
		}
		if tries == 50 {
			b.t.Fatalf("after %s doctor still finds\n%s", after, bad)
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatal(b.ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// fault is a fault of a node: a script causes it, only the check what finds it, its cause
// and remedy contain these words, and another script repairs it.
type fault struct{ name, spoil, what, cause, remedy, repair string }

const reload = "systemctl daemon-reload"

// dropIn returns a fault that a drop-in causes.
func dropIn(text, what, remedy string) fault {
	const dir = "/etc/systemd/system/edge.service.d"
	return fault{text, "mkdir -p " + dir + " && printf '" + text + "' >" + dir + "/x.conf && " + reload, "unit edge.service: " + what, "", remedy, "rm -r " + dir + " && " + reload}
}

// restarted returns a fault that systemd reports only after the next start.
func restarted(f fault) fault {
	f.spoil, f.repair = f.spoil+" && systemctl restart edge", f.repair+" && systemctl restart edge"
	return f
}

// edit returns a fault of a line of config.toml, with a restart.
func edit(name, sed, what, cause, remedy string) fault {
	const file = rig.BoxRoot + "/config.toml"
	return fault{name, "cp -p " + file + " /root/config && sed -i '" + sed + "' " + file + " && chown edge: " + file + " && systemctl restart edge", what, cause, remedy,
		"cp -p /root/config " + file + " && systemctl restart edge"}
}

func (b *inBox) finds(f fault) {
	b.t.Helper()
	b.sh(f.spoil)
	for _, user := range []string{"", "edge"} {
		var found []finding
		for tries := 0; tries < 150; tries++ {
			found = found[:0]
			for _, x := range b.doctor(user) {
				if !x.OK {
					found = append(found, x)
				}
			}
			if len(found) == 1 && found[0].What == f.what && strings.Contains(found[0].Cause, f.cause) {
				break
			}
			select { // what the service reports needs a moment
			case <-b.ctx.Done():
				b.t.Fatal(b.ctx.Err())
			case <-time.After(100 * time.Millisecond):
			}
		}
		if len(found) != 1 || found[0].What != f.what || !strings.Contains(found[0].Cause, f.cause) || !strings.Contains(found[0].Remedy, f.remedy) {
			b.t.Errorf("%s, as %q: want %q, %q, %q; doctor finds\n%+v", f.name, user, f.what, f.cause, f.remedy, found)
		}
	}
	b.sh(f.repair)
}

// Doctor finds each fault of a unit that an operator's drop-in causes.
func TestUnderSystemdDoctorFindsDropIns(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{}, box.Options{})
	b.well("the install")
	for _, f := range []fault{
		dropIn(`[Service]\nRestart=on-failure\n`, "Restart=", "remove Restart= from /etc/systemd/system/edge.service.d/x.conf"),
		dropIn(`[Service]\nRestart=no\n`, "Restart=", "remove Restart= from"),
		dropIn(`[Service]\nRestartPreventExitStatus=0\n`, "Restart=", "remove RestartPreventExitStatus= from"),
		dropIn(`[Service]\nExecStartPre=\n`, "watchdog", "remove every ExecStartPre= from"),
		dropIn(`[Service]\nExecStartPre=\nExecStartPre=/bin/true\n`, "watchdog", "remove every ExecStartPre= from"),
		dropIn(`[Service]\nExecStartPre=\nExecStartPre=-/opt/edge/current/edge-agent watchdog --root /opt/edge\n`, "watchdog", "remove every ExecStartPre= from"),
		dropIn(`[Service]\nExecStartPre=\nExecStartPre=/opt/edge/last-good/edge-agent watchdog --root /opt/edge\n`, "watchdog", `put a "-"`),
		dropIn(`[Service]\nExecStart=\nExecStart=/opt/edge/versions/1.0.0/edge-agent run --config /opt/edge/config.toml\n`, "ExecStart=", "remove every ExecStart= from"),
		dropIn(`[Service]\nExecStart=\nExecStart=/usr/bin/env A=b /opt/edge/current/edge-agent run --config /opt/edge/config.toml\n`, "ExecStart=", "remove every ExecStart= from"),
		dropIn(`[Service]\nExecStart=\nExecStart=/bin/sh -c "/opt/edge/current/edge-agent run --config /opt/edge/config.toml"\n`, "ExecStart=", "remove every ExecStart= from"),
		dropIn(`[Service]\nEnvironmentFile=/opt/edge/current/env\n`, "paths in current", `put a "-"`),
		dropIn(`[Service]\nWorkingDirectory=/opt/edge/versions/1.0.0\n`, "paths in current", `put a "-"`),
		dropIn(`[Service]\nType=exec\n`, "Type=", "remove Type= from"),
		dropIn(`[Service]\nUser=\n`, "User=", "remove User= from"),
		dropIn(`[Service]\nUser=nobody\n`, "User=", "chown -R nobody: /opt/edge"),
		dropIn(`[Service]\nTimeoutStartSec=5\n`, "TimeoutStartSec=", "remove TimeoutStartSec= from"),
		dropIn(`[Service]\nTimeoutStopSec=9\n`, "TimeoutStopSec=", "remove TimeoutStopSec= from"),
		restarted(dropIn(`[Service]\nWatchdogSec=0\n`, "WatchdogSec=", "remove WatchdogSec= from")),
		dropIn(`[Service]\nReadWritePaths=\n`, "ReadWritePaths=", "remove ReadWritePaths= from"),
		dropIn(`[Unit]\nStartLimitIntervalSec=60\n`, "start limits", "remove StartLimitIntervalSec= from"),
		dropIn(`[Service]\nRestrictAddressFamilies=~AF_NETLINK\n`, "network", "RestrictAddressFamilies=AF_NETLINK"),
		{"disabled", "systemctl disable edge", "unit edge.service: enabled", "is disabled", "systemctl enable edge.service", "systemctl enable edge"},
		{"changed on disk", "sleep 1; touch /etc/systemd/system/edge.service", "unit edge.service: daemon-reload", "changed on disk", "systemctl daemon-reload", reload},
		{"no unit", "systemctl stop edge; mv /etc/systemd/system/edge.service /root; " + reload, "unit edge.service: unit file", "there is no unit", "edge-agent unit --config", "mv /root/edge.service /etc/systemd/system/; " + reload + "; systemctl start edge"},
		{"masked", "systemctl stop edge; mv /etc/systemd/system/edge.service /root; systemctl mask edge; " + reload, "unit edge.service: unit file", "is masked", "systemctl unmask edge.service",
			"systemctl unmask edge; mv /root/edge.service /etc/systemd/system/; " + reload + "; systemctl enable --now edge"},
	} {
		b.finds(f)
	}
	b.well("all repairs")
}

// Doctor finds each fault of the install root, the service and the connection.
func TestUnderSystemdDoctorFindsTheRest(t *testing.T) {
	box.Long(t)
	b := setupBox(t, rig.NodeConfig{}, box.Options{DiskMB: 400})
	b.well("the install")
	const root = rig.BoxRoot
	restart := "systemctl restart edge"
	other := strings.Repeat("ab", 32)
	for _, f := range []fault{
		{"stopped", "systemctl stop edge", "service edge.service", "is stopped", "systemctl start edge.service", "systemctl start edge"},
		{"crash loop", "cp -p " + root + "/config.toml /root/config; printf x >>" + root + "/config.toml; systemctl restart edge || true", "configuration", "line", "edge-agent config check", "cp -p /root/config " + root + "/config.toml; " + restart},
		{"killed again and again", `systemd-run --unit=killer sh -c 'while sleep 0.3; do systemctl kill -s KILL edge; done'; sleep 3`, "service edge.service", "in a crash loop: systemd restarted it", "journalctl -u edge.service", "systemctl stop killer; " + restart},
		{"failed", "mkdir /etc/systemd/system/edge.service.d; printf '[Service]\\nExecStart=\\nExecStart=/opt/edge/current/none\\nRestart=no\\n' >/etc/systemd/system/edge.service.d/x.conf; " + reload + "; systemctl restart edge || true; rm -r /etc/systemd/system/edge.service.d; " + reload,
			"service edge.service", "203/EXEC", "systemctl reset-failed edge.service", restart},
		{"dangling", "ln -sfn versions/9 " + root + "/last-good", "links", "dangling", "ln -sfn versions/1.0.0", "ln -sfn versions/1.0.0 " + root + "/last-good"},
		{"owner", "chown root " + root + "/state.json", "owners", "state.json belongs to root", "chown -R edge: /opt/edge", "chown edge " + root + "/state.json"},
		{"owner of the root", "chown root: " + root + " && chmod 755 " + root, "unit edge.service: User=", "belongs to root", "chown -R edge: /opt/edge", "chown edge: " + root},
		{"config of root", "chown root " + root + "/config.toml", "configuration", "permission denied", "chown edge: " + root + "/config.toml", "chown edge " + root + "/config.toml"},
		{"config for all", "chmod 644 " + root + "/config.toml", "configuration", "others may read it", "chmod 600", "chmod 600 " + root + "/config.toml"},
		{"no program", "mv " + root + "/versions/1.0.0/edge-agent /root/", "program", "is missing", "restore the file", "mv /root/edge-agent " + root + "/versions/1.0.0/"},
		{"no x", "chmod 644 " + root + "/versions/1.0.0/edge-agent", "program", "not executable", "chmod 755 /opt/edge/versions/1.0.0/edge-agent", "chmod 755 " + root + "/versions/1.0.0/edge-agent"},
		{"torn state", "cp -p " + root + "/state.json /root/; echo '{' >" + root + "/state.json", "state", "unreadable", "restart the service", "cp -p /root/state.json " + root + "/"},
		{"unfit trust", "mkdir " + root + "/trust; echo '{}' >" + root + "/trust/targets.json; chown -R edge: " + root + "/trust", "trust", "is not used", "edge-agent trust update", "rm -r " + root + "/trust"},
		{"noexec", "mount --bind " + root + "/versions " + root + "/versions; mount -o remount,bind,noexec " + root + "/versions", "install root", "noexec", "mount -o remount,exec", "umount " + root + "/versions"},
		{"read-only", "mount --bind " + root + " " + root + "; mount -o remount,bind,ro " + root, "install root", "read-only", "mount -o remount,rw", "umount " + root},
		{"no bytes", "fallocate -l $(($(df --output=avail -B1 /opt | tail -1) - 20000000)) /opt/filler", "disk space", "MiB free; an upgrade needs", "df -h", "rm /opt/filler"},
		{"no inodes", "mount -t tmpfs -o mode=755,nr_inodes=300 tmpfs /mnt; cp -a " + root + "/versions/. /mnt/; chown edge: /mnt; mount --bind /mnt " + root + "/versions", "disk space", "inodes free", "df -i", "umount " + root + "/versions /mnt"},
		edit("wrong pin", "s/^cert_fingerprint = .*/cert_fingerprint = \""+other+"\"/", "manager", "fingerprint", "set cert_fingerprint"),
		edit("unknown authority", "/^cert_fingerprint/d", "manager", "unknown authority", "ca_file (the PEM of a private CA), or cert_fingerprint"),
		edit("port", `s/^urls = .*/urls = ["wss:\/\/127.0.0.1:1"]/`, "manager", "connection refused", "correct the port in urls"),
		edit("DNS", `s/^urls = .*/urls = ["wss:\/\/manager.invalid:8443"]/`, "manager", "lookup manager.invalid", "DNS"),
		edit("path", `s/^urls = \["\(wss:..[^"]*\)\/*"\]/urls = ["\1\/nothing"]/`, "manager", "answers 404", "correct urls"),
		edit("ca_file missing", `s/^\[manager\]/[manager]\nca_file = "\/etc\/none.pem"/`, "ca_file", "/etc/none.pem", "correct manager.ca_file"),
		edit("ca_file unreadable", `s/^\[manager\]/[manager]\nca_file = "\/etc\/shadow"/`, "ca_file", "its mode is", "readable for edge"),
		edit("ca_file hidden", `s/^\[manager\]/[manager]\nca_file = "\/tmp\/ca.pem"/`, "ca_file", "/tmp/ca.pem", "correct manager.ca_file"),
		edit("off", "s/^enabled = .*/enabled = false/", "upgrades", "upgrades are off", "enabled = true"),
		{"token", "systemctl stop edge; cp -p " + root + "/config.toml " + root + "/credentials.json /root/; sed -i 's/^registration_token = .*/registration_token = \"nonsense\"/' " + root + "/config.toml; chown edge: " + root + "/config.toml; rm " + root + "/credentials.json; " + restart,
			"manager", "refuses this node", "get a new token", "cp -p /root/config.toml /root/credentials.json " + root + "/; " + restart},
	} {
		b.finds(f)
		if t.Failed() {
			b.well(f.name)
		}
	}
	b.well("all repairs")

	// Looking changes nothing: not an entry of the outbox that cannot be read.
	b.sh("systemctl stop edge; runuser -u edge -- mkdir -p " + root + "/outbox; echo '{' >" + root + "/outbox/0000000000000009-x.json; chown edge: " + root + "/outbox/0000000000000009-x.json")
	before := b.sh("find " + root + " | sort")
	b.doctor("")
	b.sh("/opt/bin/edge-agent status --root " + root)
	if after := b.sh("find " + root + " | sort"); after != before {
		t.Errorf("doctor or status changed the root:\n%s\nbefore:\n%s", after, before)
	}
}
