package rig_test

import (
	"encoding/json"
	"strings"
	"testing"
)

const (
	userRoot   = "/opt/bilbycast/edge"
	userConfig = userRoot + "/config.toml"
	notEdge    = "find " + userRoot + " /data -ignore_readdir_race ! -user edge ! -path /data -exec test -e {} \\; -print" // the agent makes and removes files
)

// problems returns what doctor finds: the cause and the remedy of each check.
func (b *bareBox) problems() map[string]finding {
	b.t.Helper()
	out := b.sh("/opt/bin/edge-agent doctor --json --config " + userConfig + " 2>/dev/null; true")
	var all []finding
	if err := json.Unmarshal([]byte(strings.SplitAfter(out, "\n]")[0]), &all); err != nil {
		b.t.Fatalf("doctor: %v\n%s", err, out)
	}
	bad := map[string]finding{}
	for _, f := range all {
		if !f.OK {
			bad[f.What] = f
		}
	}
	return bad
}

// runsAsEdge fails the test unless the service runs, doctor finds no problem, and nobody
// but the user edge owns a file.
func (b *bareBox) runsAsEdge(after string) {
	b.t.Helper()
	b.sh("systemctl is-active edge; test $(ps -o user= -p $(systemctl show -p MainPID --value edge)) = edge")
	if out := b.sh(notEdge); out != "" {
		b.t.Errorf("%s: not the user's:\n%s", after, out)
	}
	if out, err := b.run("/opt/bin/edge-agent doctor --config " + userConfig); err != nil {
		b.t.Errorf("%s: %v\n%s", after, err, out)
	}
}

// command returns the first command of a remedy.
func command(remedy string) string {
	_, remedy, _ = strings.Cut(remedy, "run: ")
	remedy, _, _ = strings.Cut(remedy, "; or")
	return "export PATH=/opt/bin:$PATH; " + remedy
}

// The system was installed again, and the install root kept: without the user, with
// another uid, or with the uid of another program's user. Doctor names the owner, and
// install repairs the root with a permission only. The node stays the same.
func TestUnderSystemdReimaged(t *testing.T) {
	b := setupBare(t, "reimaged", "")
	b.sh("mkdir -p /data/versions " + userRoot + "; ln -s /data/versions " + userRoot + "/versions")
	b.want(b.sh(b.install("")), "registered with the manager")
	b.runsAsEdge("the install")
	node := b.sh("cat " + userRoot + "/credentials.json")
	const gone = "U=$(id -u edge); systemctl disable -q --now edge; userdel edge; groupdel edge 2>/dev/null; "
	const noUnit = "rm /etc/systemd/system/edge.service; systemctl daemon-reload; "
	for _, tt := range []struct {
		name, spoil string
		check       string // of doctor
		facts       []string
		unit        bool // whether the unit is still there
	}{
		{"no user and no unit", gone + noUnit, "unit edge.service: unit file", []string{"which no user has", "there is no such user", "create the user edge, give " + userRoot + " and /data/versions"}, false},
		{"no user", gone, "unit edge.service: User=", []string{"which no user has", "there is no such user", "create the user edge, stop edge.service, give "}, true},
		{"another uid", gone + "useradd --system -u 4321 edge", "unit edge.service: User=", []string{"which no user has", "edge (uid 4321)"}, true},
		{"the uid of another program", gone + noUnit + "useradd --system -u $U otherdaemon; useradd --system edge", "unit edge.service: unit file", []string{"belongs to otherdaemon (uid ", "give --user otherdaemon instead"}, false},
		{"the uid of another program, with the unit", "userdel otherdaemon; " + gone + "useradd --system -u $U otherdaemon; useradd --system edge; systemctl start edge || true", "unit edge.service: User=", []string{"belongs to otherdaemon (uid ", "edge (uid "}, true},
	} {
		b.sh(tt.spoil)
		found, ok := b.problems()[tt.check]
		if !ok || tt.unit && !strings.Contains(found.Cause, tt.facts[0]) || tt.unit && !strings.Contains(found.Remedy, "--change-owner") {
			t.Errorf("%s: doctor finds %+v", tt.name, b.problems())
		}
		files := b.sh("find " + userRoot + " /data /etc/systemd/system -printf '%p %U %i\\n' | sort; getent passwd")
		out, err := b.run(b.install("") + " </dev/null")
		if err == nil {
			t.Errorf("%s: install asked nobody:\n%s", tt.name, out)
		}
		b.want(out, append(tt.facts, "Nothing was changed", "--change-owner")...)
		if after := b.sh("find " + userRoot + " /data /etc/systemd/system -printf '%p %U %i\\n' | sort; getent passwd"); after != files {
			t.Errorf("%s: the refusal changed something:\n%s\nbefore:\n%s", tt.name, after, files)
		}
		if tt.unit { // which has the environment that this simulation needs
			out = b.sh(command(found.Remedy))
		} else {
			out = b.sh(b.install("--change-owner"))
		}
		b.want(out, "edge.service is running")
		b.runsAsEdge(tt.name)
		if now := b.sh("cat " + userRoot + "/credentials.json"); now != node {
			t.Errorf("%s: another node: %s, before: %s", tt.name, now, node)
		}
	}
	// On a terminal, the same by an answer.
	b.sh(gone)
	if out, err := b.run(`echo n | script -qec "` + b.install("") + `" /dev/null`); err == nil {
		t.Errorf("answered no: %s", out)
	} else {
		b.want(out, "[y/N]", "Nothing was changed")
	}
	b.want(b.sh(`echo y | script -qec "`+b.install("")+`" /dev/null`), "[y/N]", "created the user edge", "edge.service is running")
	b.runsAsEdge("an answer")
}

// The user is made before anything else: if that fails, nothing is left. It needs neither
// a PATH, nor a free name of its group.
func TestUnderSystemdInstallMakesTheUserFirst(t *testing.T) {
	b := setupBare(t, "userfirst", "")
	b.sh("echo 1 >/etc/passwd.lock; ln /etc/passwd.lock /etc/passwd.1 2>/dev/null; true") // as if another program changed it
	out, err := b.run(b.install(""))
	if err == nil {
		t.Errorf("useradd did not fail: %s", out)
	}
	b.want(out, "useradd ", "create the user edge yourself")
	b.sh("test ! -e " + userRoot + "; test ! -e /etc/systemd/system/edge.service; ! getent passwd edge")
	b.sh("rm /etc/passwd.lock /etc/passwd.1; groupadd --system edge; mkdir -p /data")
	b.want(b.sh("env -i EDGE_AGENT_SIM_TRUST=/opt/trust "+b.install("")), "created the user edge", "registered with the manager")
	b.runsAsEdge("an install without a PATH")
	// The same for what runs systemctl.
	b.want(b.sh("env -i EDGE_AGENT_SIM_TRUST=/opt/trust /opt/bin/edge-agent status --root "+userRoot), "edge.service running")
	b.want(b.sh("env -i /opt/bin/edge-agent uninstall --device-type edge"), "stopped edge.service")
	// The first installation was interrupted, and then the system installed again.
	b.sh("cd " + userRoot + " && rm -r current last-good state.json credentials.json versions; chown -R 4321 .")
	before := b.sh("find " + userRoot + " -printf '%p %U %i\\n'")
	if out, err = b.run(b.install("") + " </dev/null"); err == nil {
		t.Error("it asked nobody")
	}
	b.want(out, userRoot+" belongs to uid 4321, which no user has; the service is to run as edge", "--change-owner")
	if after := b.sh("find " + userRoot + " -printf '%p %U %i\\n'"); after != before {
		t.Errorf("the refusal changed %s\nto %s", before, after)
	}
	b.want(b.sh(b.install("--change-owner")), "it belonged to uid 4321", "registered with the manager")
	b.runsAsEdge("an install into a kept root")
}

// A system without the group systemd-journal gets units without it, and doctor finds a
// unit that has it.
func TestUnderSystemdWithoutTheJournalGroup(t *testing.T) {
	b := setupBare(t, "nogroup", "")
	b.sh("mkdir -p /data; cp /etc/group /root/group; cp /etc/gshadow /root/gshadow")
	b.want(b.sh(b.install("")), "registered with the manager")
	b.sh("grep -q SupplementaryGroups=systemd-journal /etc/systemd/system/edge.service")
	b.sh("systemctl stop edge; sed -i '/^systemd-journal:/d' /etc/group /etc/gshadow; systemctl start edge || true")
	f := b.problems()["unit edge.service: User="]
	if !strings.Contains(f.Cause, "SupplementaryGroups=systemd-journal, and there is no such group") || !strings.Contains(f.Remedy, "groupadd --system systemd-journal") {
		t.Errorf("doctor finds %+v", b.problems())
	}
	b.want(b.sh("/opt/bin/edge-agent unit --config "+userConfig+" --user edge"), "User=edge", "note: there is no group systemd-journal")
	b.sh("! /opt/bin/edge-agent unit --config " + userConfig + " --user edge 2>/dev/null | grep Supplementary")
	b.sh("sed 's/^\\[service\\]/[service]\\nunit = \"app.service\"/' " + userConfig + " >/root/attached.toml; chmod 600 /root/attached.toml; ! /opt/bin/edge-agent unit --config /root/attached.toml --user edge 2>/dev/null | grep Supplementary")
	b.want(b.sh(b.install("")), "wrote /etc/systemd/system/edge.service", "edge.service is running")
	b.runsAsEdge("install without the group")
	// By the other remedy.
	b.sh("cp /root/group /etc/group; cp /root/gshadow /etc/gshadow; " + b.install("") + "; systemctl restart edge; systemctl stop edge; sed -i '/^systemd-journal:/d' /etc/group /etc/gshadow; systemctl start edge || true")
	b.sh(command(b.problems()["unit edge.service: User="].Remedy))
	// systemd may have merged that restart with one of its own that waited: then it goes on
	// counting, and only the count tells doctor a crash loop.
	b.sh("systemctl restart edge")
	b.runsAsEdge("groupadd")
}

// The first start by hand as root, and every other command of root, leaves no file that
// the service's user cannot use.
func TestUnderSystemdRunAsRoot(t *testing.T) {
	b := setupBare(t, "asroot", "")
	b.sh("mkdir -p /data")
	b.want(b.sh(b.install("")), "registered with the manager")
	const run = "timeout -s TERM 20 /opt/bin/edge-agent run --config " + userConfig
	byHand := "(" + run + ` & echo $! >/root/pid; for i in $(seq 100); do test -e ` + userRoot + `/credentials.json && break; sleep 0.1; done; ps -o user= -p $(pgrep -P $(cat /root/pid)); kill $(cat /root/pid); wait)`
	b.sh("systemctl stop edge; rm " + userRoot + "/credentials.json " + userRoot + "/state.json; sed -i 's/^registration_token.*/registration_token = \"" + b.token + "\"/' " + userConfig)
	b.sh("chown edge: " + userConfig + "; rm -rf " + userRoot + "/outbox " + userRoot + "/downloads " + userRoot + "/.agent.lock " + userRoot + "/.lock")
	b.want(b.sh(byHand), "edge\n")
	b.sh("test -e " + userRoot + "/credentials.json; systemctl start edge")
	b.runsAsEdge("run by hand")
	for _, command := range []string{
		"stage --config " + userConfig + " --from /root/release", "apply --root " + userRoot, "rollback --root " + userRoot, "status --root " + userRoot, "config check " + userConfig,
		"doctor --config " + userConfig, "trust show --root " + userRoot, "verify /root/release --config " + userConfig, "unit --config " + userConfig + " --user edge",
		"watchdog --root " + userRoot, "rescue --root " + userRoot,
	} {
		b.run("/root/edge-agent " + command)
		if out := b.sh(notEdge); out != "" {
			t.Errorf("%s leaves:\n%s", command, out)
		}
	}
	// What an earlier version left: a person is told, and the service of root goes on.
	b.sh("systemctl stop edge; chown root " + userRoot + "/credentials.json")
	out, err := b.run(run)
	if err == nil {
		t.Error("it ran")
	}
	b.want(out, "credentials.json belongs to root (uid 0), and edge, who owns the install root, could not use it", "chown -R edge: "+userRoot)
	user := "ps -o user= -p $(systemctl show -p MainPID --value edge)"
	b.sh("mkdir -p /etc/systemd/system/edge.service.d; printf '[Service]\\nUser=\\nCapabilityBoundingSet=~\\n' >/etc/systemd/system/edge.service.d/x.conf; systemctl daemon-reload; systemctl restart edge")
	b.want(b.sh(user+"; journalctl -u edge --no-pager"), "root\n", "the agent stays root: ")
	// Without a unit of another user and without such files it becomes the owner. The agent of
	// root may write a report that waits for the manager at any time, so it is the whole
	// remedy, and the service is stopped meanwhile.
	b.sh("systemctl stop edge; chown -R edge: " + userRoot + "; systemctl start edge")
	b.want(b.sh(user), "edge")
	b.sh("find " + userRoot + " -ignore_readdir_race ! -user edge | grep . && exit 1; true")
	// A root of root is not for root, either, if the unit has another user.
	b.sh("rm -r /etc/systemd/system/edge.service.d; systemctl daemon-reload; systemctl stop edge; chown -R root: " + userRoot)
	if out, err = b.run(run); err == nil {
		t.Error("it ran")
	}
	b.want(out, "edge.service runs as edge, but "+userRoot+" belongs to root", "chown -R edge: "+userRoot)
	b.want(b.sh(b.install("")), "edge.service is running") // root's files need no permission
	b.runsAsEdge("install")
	b.sh("systemctl stop edge; chown root: " + userRoot + "/state.json " + userRoot + "/credentials.json")
	b.want(b.sh(b.install("")), "to edge; it belonged to root (uid 0)", "edge.service is running")
	b.runsAsEdge("install over files of root")
}
