package web_test

import (
	"net/url"
	"strings"
	"testing"
)

// The page of a node shows its actions, the commands to them with their results, escaped, and a
// form. A refused form keeps what was typed.
func TestCommandsToActions(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.on("GET /api/v1/nodes/n1", 200, nodeRecord("n1", object{"actions": []string{"reboot", "set_gain"}}))
	f.on("GET /api/v1/nodes/n1/actions", 200, object{"actions": []object{
		{"command_id": "c4", "action": "set_gain", "state": "pending", "created_at": stamp, "expires_at": stamp, "requested_by": "ann", "params_bytes": 8},
		{"command_id": "c3", "action": "set_gain", "state": "ended", "success": true, "created_at": stamp, "answered_at": stamp, "requested_by": "ann", "result": object{"a": "<script>alert(1)</script>\u202e"}},
		{"command_id": "c2", "action": "reboot", "state": "ended", "created_at": stamp, "requested_by": "ann", "error_code": "action_interrupted", "error": "the service stopped"},
		{"command_id": "c1", "action": "reboot", "state": "ended", "success": true, "created_at": stamp, "requested_by": "ann", "result": strings.Repeat("long ", 1000)},
	}})
	f.nodePages()
	body := p.get("/admin/nodes/n1", 200)
	has(t, body, "Actions of its service: reboot, set_gain.", "command c4", "waits for the node; sent until 2026-03-04", "8 bytes of parameters", "command c3", "done after", `"a": "`,
		"command c2", "failed", "the service stopped", "action_interrupted", "is not carried out again", "command c1", "<details><summary>Result (5002 bytes)</summary>", `<option value="set_gain">`, `<textarea name="params"`)
	if strings.Contains(body, "<script>alert") || strings.Contains(body, "\u202e") {
		t.Error("the result is not escaped")
	}
	if n := strings.Count(body, ">Withdraw</button>"); n != 1 {
		t.Errorf("%d commands can be withdrawn, want the one that waits", n)
	}
	f.on("POST /api/v1/nodes/n1/actions/c4/withdraw", 200, object{"command_id": "c4"})
	if resp, _ := p.post("/admin/nodes/n1/commands/c4/withdraw", 303, nil); resp.Header.Get("Location") != "/admin/nodes/n1#commands" || f.last() != "POST /api/v1/nodes/n1/actions/c4/withdraw" {
		t.Errorf("withdrawn: %v, %s", resp.Header, f.last())
	}
	f.on("POST /api/v1/nodes/n1/actions/c3/withdraw", 409, refusal(409, "not_now", "The command was sent, or is over."))
	_, body = p.post("/admin/nodes/n1/commands/c3/withdraw", 409, nil)
	has(t, body, "The command was sent, or is over.")
	f.on("POST /api/v1/nodes/n1/actions", 409, refusal(409, "too_many_commands", "The node has not answered 16 commands."))
	_, body = p.post("/admin/nodes/n1/commands", 409, url.Values{"action": {"set_gain"}, "params": {` {"db":3} `}})
	has(t, body, "The node has not answered 16 commands.", `<option value="set_gain" selected>`, `{"db":3}</textarea>`)
	if want := `POST /api/v1/nodes/n1/actions {"action":"set_gain","params":{"db":3}}`; f.last() != want {
		t.Errorf("the form called %s, want %s", f.last(), want)
	}
	before := f.last()
	_, body = p.post("/admin/nodes/n1/commands", 400, url.Values{"action": {"set_gain"}, "params": {`{"db":`}})
	has(t, body, "The parameters are not JSON", `{"db":</textarea>`)
	if f.last() != before {
		t.Errorf("the form called %s", f.last())
	}
}

// A command that was accepted leads back to the page; parameters as large as the API allows fit
// into the form.
func TestACommandIsSentByThePage(t *testing.T) {
	t.Parallel()
	f, p := overFake(t)
	f.on("POST /api/v1/nodes/n1/actions", 202, object{"command_id": "c1"})
	resp, _ := p.post("/admin/nodes/n1/commands", 303, url.Values{"action": {"reboot"}, "params": {""}})
	if got := resp.Header.Get("Location"); got != "/admin/nodes/n1#commands" {
		t.Errorf("it leads to %s", got)
	}
	if want := `POST /api/v1/nodes/n1/actions {"action":"reboot"}`; f.last() != want {
		t.Errorf("the form called %s, want %s", f.last(), want)
	}
	p.post("/admin/nodes/n1/commands", 303, url.Values{"action": {"reboot"}, "params": {`"` + strings.Repeat("é", 32<<10-1) + `"`}})
}
