package systemd

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestUnitOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"0::/system.slice/edge.service\n":                                         "edge.service",
		"12:pids:/x.service\n1:name=systemd:/system.slice/player.service\n0::/\n": "player.service",
		"0::/system.slice/_cpu.service\n":                                         "cpu.service",
		"0::/system.slice/__x.service\n":                                          "_x.service",
		"0::/user.slice/user-0.slice/session-1.scope\n":                           "",
		"0::/\n": "", "": "", "nonsense": "",
	} {
		if got, err := unitOf(text); got != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", text, got, err, want)
		}
	}
}

func TestLinesOf(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	line := func(id, text string) { fmt.Fprintf(&b, "{\"MESSAGE\":%q,%s}\n", text, id) }
	line(`"_SYSTEMD_INVOCATION_ID":"long ago"`, "another start")
	line(`"INVOCATION_ID":"before"`, "Starting")
	b.WriteString("not JSON\n" + `{"MESSAGE":[104,105],"_SYSTEMD_INVOCATION_ID":"before"}` + "\n")
	line(`"_SYSTEMD_INVOCATION_ID":"before"`, strings.Repeat("x", 1000))
	few := b.String()
	for i := range 100 {
		line(`"_SYSTEMD_INVOCATION_ID":"before"`, fmt.Sprint("line ", i))
	}
	const now = "{\"MESSAGE\":\"mine\",\"_SYSTEMD_INVOCATION_ID\":\"now\"}\n{\"MESSAGE\":\"Starting\",\"INVOCATION_ID\":\"now\"}\n"
	if diff := cmp.Diff([]string{"Starting", strings.Repeat("x", maxLine)}, linesOf([]byte(few+now), "now")); diff != "" {
		t.Error(diff)
	}
	got := linesOf([]byte(b.String()+now), "now")
	if len(got) != maxLines+1 || got[0] != "Starting" || got[maxLines/2] != "... 62 lines left out" || got[maxLines] != "line 99" {
		t.Errorf("%q", got)
	}
	if got := linesOf(nil, "now"); len(got) != 0 {
		t.Errorf("%q", got)
	}
}

// Lines of a process that was gone before journald learned its invocation.
func TestLinesOfAProcessThatEndsAtOnce(t *testing.T) {
	t.Parallel()
	out := `{"MESSAGE":"nobody's"}
{"MESSAGE":"Starting","INVOCATION_ID":"a"}
{"MESSAGE":"I fail"}
{"MESSAGE":"Failed","INVOCATION_ID":"a"}
{"MESSAGE":"Starting","INVOCATION_ID":"now"}
{"MESSAGE":"of this start"}
`
	if got := strings.Join(linesOf([]byte(out), "now"), "|"); got != "Starting|I fail|Failed" {
		t.Errorf("got %s", got)
	}
}
