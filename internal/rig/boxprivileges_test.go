package rig_test

import (
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"golang.org/x/sys/unix"
)

// A service that has more than a program is supported, or refused before anything is
// swapped or written: file capabilities, an interpreter, a type that runs nothing, and an
// edge-agent in the directory of one of its versions.
func TestUnderSystemdServicesWithMoreThanAProgram(t *testing.T) {
	box.Long(t)
	b := setupAttached(t, rig.NodeConfig{})
	b.bin["1.3.0"] = app(t, "1.3.0", serves)
	for _, v := range []string{"1.1.0", "1.2.0", "1.3.0"} {
		b.publish(v, "")
	}

	// The program has a capability, of setcap, which the next version would not have.
	program, err := b.node.Path(b.ctx, rig.BoxRoot+"/versions/1.0.0/app")
	if err != nil {
		t.Fatal(err)
	}
	bind := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0} // cap_net_bind_service=ep
	if err := unix.Setxattr(program, "security.capability", bind, 0); err != nil {
		t.Fatal(err)
	}
	b.sh("systemctl restart edge-agent.service")
	b.unavailable("cap_net_bind_service")
	const ambient = "AmbientCapabilities=CAP_NET_BIND_SERVICE"
	b.finds(fault{"file capabilities", "true", "unit edge.service: privileges of the program", "cap_net_bind_service", ambient, "true"})
	b.dropIn("Service", ambient)
	b.sh("systemctl restart edge.service && systemctl restart edge-agent.service")
	b.unavailable("")
	mark, _ := b.upgrade("1.1.0")
	b.event(mark, "upgrade_completed")
	b.runs("1.1.0", "stable")
	if out := b.sh("grep CapEff /proc/$(systemctl show -p MainPID --value edge.service)/status"); !strings.HasSuffix(out, "0000000000000400") {
		t.Errorf("the new version has the capabilities %s", out)
	}

	// An interpreter starts the program.
	b.sh("sed -i 's|^ExecStart=|ExecStart=/bin/sh |' /etc/systemd/system/edge.service && systemctl daemon-reload && systemctl restart edge.service")
	mark, _ = b.upgrade("1.2.0")
	b.event(mark, "upgrade_rolled_back")
	b.runs("1.1.0", "rolled_back")
	mark, _ = b.upgrade("1.3.0")
	b.event(mark, "upgrade_completed")
	b.runs("1.3.0", "stable")

	// A service that runs nothing cannot be attached to, and stays as it is.
	const unit = "edge-agent unit --user edge --dir /etc/systemd/system --environment EDGE_AGENT_SIM_TRUST=/opt/trust --config "
	b.sh("sed 's/\"edge.service\"/\"once.service\"/' " + rig.BoxRoot + "/config.toml >/root/once.toml; chmod 600 /root/once.toml; " +
		"printf '[Service]\nType=oneshot\nUser=app\nExecStart=/usr/bin/test -e " + rig.BoxRoot + "/current/app\n' >/etc/systemd/system/once.service; systemctl daemon-reload; systemctl start once")
	if out := b.sh("/opt/bin/" + unit + "/root/once.toml 2>&1 || true"); !strings.Contains(out, "Type=oneshot") {
		t.Errorf("unit of a service of Type=oneshot: %s", out)
	}
	b.sh("test ! -e /etc/systemd/system/once.service.d && systemctl daemon-reload && systemctl start once")

	// edge-agent is a link into a directory that the next version of it does not have.
	b.sh("mkdir -p /opt/lib/edge-agent-1.0.0 && mv /opt/bin/edge-agent /opt/lib/edge-agent-1.0.0/ && ln -s /opt/lib/edge-agent-1.0.0/edge-agent /opt/bin/edge-agent && " +
		"/opt/bin/" + unit + rig.BoxRoot + "/config.toml && systemctl daemon-reload && systemctl restart edge-agent edge && " +
		"mv /opt/lib/edge-agent-1.0.0 /opt/lib/edge-agent-1.0.1 && ln -sfn /opt/lib/edge-agent-1.0.1/edge-agent /opt/bin/edge-agent && systemctl restart edge-agent edge")
	b.unavailable("")
	b.well("the update of edge-agent")
}
