package agent

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/state"
)

// The agent reports that its process is not the owner of the install root, and does not
// change that: the program decides whom it runs as.
func TestAnotherOwnerIsReported(t *testing.T) {
	t.Parallel()
	box.NeedRoot(t)
	for owner, want := range map[int]string{0: "", 54321: `"owner":54321`} {
		l, err := state.At(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(l.Root(), owner, owner); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		a := newAgent(settings{Settings: config.Settings{Layout: l}, Options: Options{Log: logTo(&out, slog.LevelDebug)}})
		a.reportOwner()
		if got := out.String(); !strings.Contains(got, want) || want == "" && got != "" || os.Geteuid() != 0 {
			t.Errorf("owner %d: %q, want %q", owner, got, want)
		}
	}
}
