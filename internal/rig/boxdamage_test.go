package rig_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
)

// For every kind of damage of the install root, a working version starts, and `edge-agent
// status` reports the problem and the remedy.
func TestUnderSystemdDamagedRoots(t *testing.T) {
	b := setupBox(t, rig.NodeConfig{HoldSecs: 1}, box.Options{})
	b.publish("1.1.0", "")
	mark, _ := b.upgrade("1.1.0") // so that there are two versions
	b.event(mark, "upgrade_completed")
	b.ends("1.1.0", "stable", "upgrade completed")
	sh := func(format string, args ...any) (string, error) {
		return b.node.Exec(b.ctx, "sh", "-c", "cd "+rig.BoxRoot+"\n"+fmt.Sprintf(format, args...))
	}
	if out, err := sh("systemctl stop edge.service && cp -a . /root/good"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	for _, tt := range []struct {
		name, damage string
		runs         string   // the version
		says         []string // before the start
	}{
		{"state.json is missing", "rm state.json", "1.1.0", []string{"there is no state.json yet"}},
		{"state.json is empty", ": >state.json", "1.1.0", []string{"the next start keeps it as state.json.corrupt and continues from the links"}},
		{"state.json is truncated", "truncate -s 40 state.json", "1.1.0", []string{"the next start keeps it as state.json.corrupt and continues from the links"}},
		{"state.json is garbage", "head -c 3000 /dev/urandom >state.json", "1.1.0", []string{"the next start keeps it as state.json.corrupt and continues from the links"}},
		{"state.json is huge", "truncate -s 1G state.json", "1.1.0", []string{"the next start keeps it as state.json.corrupt and continues from the links"}},
		{"state.json is a directory", "rm state.json && mkdir state.json", "1.1.0", []string{"the next start keeps it as state.json.corrupt and continues from the links"}},
		{"state.json is a link", "mv state.json /tmp/s && ln -s /tmp/s state.json", "1.1.0", []string{"the next start keeps it as state.json.corrupt and continues from the links"}},
		{"state.json is of a newer schema", `echo '{"schema":99,"status":"stable"}' >state.json`, "1.1.0", []string{"the next start keeps it as state.json.corrupt and continues from the links"}},
		{"state.json is unreadable", "chmod 000 state.json", "1.1.0", []string{"permission denied; nothing is changed until it can be read"}},
		{"state.json is another's", "chown root:root state.json && chmod 600 state.json", "1.1.0", []string{"state.json belongs to root", "permission denied; nothing is changed until it can be read"}},
		{"everything is another's", "chown -R root:root versions outbox downloads state.json .lock && chmod 600 .lock", "1.1.0", []string{"belongs to root, but the service runs as edge: run: chown -R edge: /opt/edge"}},
		{"the outbox is a file", "rm -rf outbox && touch outbox", "1.1.0", []string{"outbox is not a directory; the service renames it"}},
		{"the lock is another's", "rm -f .lock && touch .lock && chmod 600 .lock && chown root .lock", "1.1.0", []string{".lock belongs to root, but the service runs as edge: run: chown -R edge: /opt/edge"}},
		{"current is missing", "rm current", "1.1.0", []string{"current was missing or dangling; it now points to 1.1.0 (at the next start)"}},
		{"current leads nowhere", "ln -sfn versions/9.9.9 current", "1.1.0", []string{"current was missing or dangling; it now points to 1.1.0 (at the next start)"}},
		{"current leads out", "ln -sfn /etc current", "1.1.0", []string{"current was missing or dangling; it now points to 1.1.0 (at the next start)"}},
		{"current is a directory", "rm current && mkdir current", "1.1.0", []string{"current was missing or dangling; it now points to 1.1.0 (at the next start)"}},
		{"previous is missing", "rm previous", "1.1.0", nil},
		{"last-good is missing", "rm last-good", "1.1.0", []string{"finished keeping 1.1.0"}},
		{"last-good leads nowhere", "ln -sfn versions/9.9.9 last-good", "1.1.0", []string{"finished keeping 1.1.0"}},
		{"the running version was removed", "rm -r versions/1.1.0", "1.0.0", []string{"current was missing or dangling; it now points to 1.0.0 (at the next start)"}},
		{"the version before was removed", "rm -r versions/1.0.0", "1.1.0", nil},
		{"versions/ was edited by hand", "mkdir versions/foo versions/1.2 versions/.partial-3.0.0 && touch versions/4.0.0 && ln -s 1.1.0 versions/5.0.0", "1.1.0", nil},
		{"the file system is read-only", "mount --bind . . && mount -o remount,bind,ro . ", "1.1.0", []string{"mounted read-only: no upgrade and no rollback is possible: mount it read-write"}},
	} {
		damage := func() {
			if out, err := sh("%s", tt.damage); err != nil {
				t.Fatalf("%s: %v %s", tt.name, err, out)
			}
		}
		damage()
		said, err := sh("setpriv --reuid=edge --regid=edge --clear-groups /root/good/versions/1.1.0/edge-agent status --root %s 2>&1", rig.BoxRoot)
		if err != nil {
			t.Errorf("%s: status: %v %s", tt.name, err, said)
		}
		for _, want := range tt.says {
			if !strings.Contains(said, want) {
				t.Errorf("%s: status says\n%s\nwant %q", tt.name, said, want)
			}
		}
		mark := b.Timeline.Mark()
		out, err := sh("systemctl reset-failed edge.service; systemctl start edge.service; systemctl is-active edge.service; journalctl -u edge.service -o cat --no-pager | tail -15")
		if err != nil || !strings.HasPrefix(out, "active\n") {
			t.Errorf("%s: the service did not start: %v\n%s", tt.name, err, out)
		} else {
			b.wait(mark, tt.name, func(e rig.Entry) bool { return e.Type == "authenticated" && e.Version == tt.runs })
		}
		if out, err := sh("systemctl stop edge.service; cd /; umount %[1]s 2>/dev/null; find %[1]s -mindepth 1 -delete && cp -a /root/good/. %[1]s/", rig.BoxRoot); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	}
}
