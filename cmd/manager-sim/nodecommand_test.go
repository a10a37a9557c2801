package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/cmd/internal/cli"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fleet"
	"github.com/bilbycast/edge-agent/wire"
)

// A command to a node's action is sent, and with --wait its result is printed, safe for a
// terminal. Each refusal and failure has its exit code.
func TestNodeCommand(t *testing.T) {
	t.Parallel()
	m := startManager(t)
	n := m.fleet(t.Context(), fleet.Config{Nodes: 1, Actions: []string{"echo", "fail", "ignore"}, Act: func(_ int, c *wire.Command) wire.CommandAck {
		if c.Action.Type == "fail" {
			return wire.CommandAck{Error: "no signal", ErrorCode: wire.ActionFailed}
		}
		return wire.CommandAck{Success: true, Result: c.Action.Params}
	}})[0]
	if out, _, code := m.run("node", "show", n.ID); code != cli.OK || !strings.Contains(out, "echo, fail, ignore") {
		t.Errorf("show: %d %s", code, out)
	}
	file := filepath.Join(t.TempDir(), "params.json")
	if err := os.WriteFile(file, []byte(`{"text": "a\nb", "evil": "\u009b2J\u202e"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	const text = "{\n  \"text\": \"a\\nb\",\n  \"evil\": \"\\u009b2J\\u202e\"\n}\n"
	out, errs, code := m.run("node", "command", n.ID[:8], "echo", "--params", "@"+file, "--wait", "--timeout", "20s")
	if code != cli.OK || out != text || !strings.HasPrefix(errs, "command ") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if err := os.WriteFile(file, []byte("\"a\u009b2J\U000e0041\""), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, code := m.run("node", "command", n.ID, "echo", "--params", "@"+file, "--wait"); code != cli.OK || out != `"a\u009b2J\udb40\udc41"`+"\n" {
		t.Errorf("%d %q", code, out)
	}
	var a api.Action
	out, _, code = m.run("node", "command", n.ID, "echo", "--params", "3", "--wait", "--json")
	if err := json.Unmarshal([]byte(out), &a); code != cli.OK || err != nil || string(a.Result) != "3" || a.State != api.ActionEnded {
		t.Errorf("%d %s", code, out)
	}
	out, _, code = m.run("node", "command", n.ID, "echo", "--json")
	var made api.CommandCreated
	if err := json.Unmarshal([]byte(out), &made); code != cli.OK || err != nil || made.CommandID == "" {
		t.Errorf("%d %s", code, out)
	}
	largest := `"` + strings.Repeat("a", api.MaxParams-2) + `"`
	if err := os.WriteFile(file, []byte(largest), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, errs, code := m.run("node", "command", n.ID, "echo", "--params", "@"+file, "--wait"); code != cli.OK || out != largest+"\n" {
		t.Errorf("%d %d bytes %q", code, len(out), errs)
	}
	out, errs, code = m.run("node", "command", n.ID, "fail", "--wait")
	if code != cli.Refused || out != "" || !strings.Contains(errs, "failed (action_failed): no signal\n") || !strings.Contains(errs, "journal on the device") {
		t.Errorf("%d %q %q", code, out, errs)
	}
	if _, errs, code := m.run("node", "command", n.ID, "format"); code != cli.Refused || !strings.Contains(errs, `Choose one of ["echo" "fail" "ignore"].`) {
		t.Errorf("%d %q", code, errs)
	}
	if _, errs, code := m.run("node", "command", n.ID, "echo", "--params", `"`+strings.Repeat("a", api.MaxParams)+`"`); code != cli.Refused || !strings.Contains(errs, "more than 65536") {
		t.Errorf("%d %q", code, errs)
	}
	if err := os.WriteFile(file, []byte(`"`+strings.Repeat("a", 10*api.MaxParams)+`"`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := m.run("node", "command", n.ID, "echo", "--params", "@"+file); code == cli.OK || !strings.Contains(errs, " bytes") || strings.Contains(errs, "http:") {
		t.Errorf("%d %q", code, errs)
	}
	for _, args := range [][]string{{"--params", "{"}, {"--life", "1s"}, {"--timeout", "1s"}} {
		if _, errs, code := m.run(append([]string{"node", "command", n.ID, "echo"}, args...)...); code != cli.Misuse {
			t.Errorf("%v: %d %q", args, code, errs)
		}
	}
	out, _, code = m.run("node", "commands", n.ID)
	if lines := strings.Split(strings.TrimSpace(out), "\n"); code != cli.OK || len(lines) != 7 || !strings.Contains(lines[1], "fail") || !strings.Contains(lines[1], "failed") || !strings.Contains(lines[1], "no signal") {
		t.Errorf("%d\n%s", code, out)
	}
	if _, errs, code := m.run("node", "commands", n.ID, "--withdraw", made.CommandID); code != cli.Failed || !strings.Contains(errs, "was sent, or is over") {
		t.Errorf("%d %q", code, errs)
	}
}
