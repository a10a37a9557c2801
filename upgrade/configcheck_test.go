package upgrade

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
)

const (
	checks  = "1.8.0" // declares `config check`
	unaware = "1.7.0" // has the same program, and declares nothing
)

// configFile writes a config.toml that the check of a release answers with an exit code.
func configFile(t *testing.T, l state.Layout, answer string) {
	t.Helper()
	if err := os.WriteFile(l.ConfigFile(), []byte("# exit "+answer+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Before the swap the new version checks config.toml, if it declares that it can.
func TestTheNewVersionChecksTheConfiguration(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for name, tt := range map[string]struct {
		version, answer string // of the check; "": there is no config.toml
		unit            string
		end             End
		want            release.Code
		says            string // the error or the log
	}{
		"good":              {version: checks, answer: "0"},
		"refused":           {version: checks, answer: "1 line 7: no such key", want: release.ConfigRefused, says: "line 7: no such key"},
		"ignored":           {version: checks, answer: "3 line 8: unknown", says: "not with everything in it: 3 line 8: unknown"},
		"does not know it":  {version: checks, answer: "2 unknown command", want: release.ExtractFailed, says: "`edge-agent config check`: exit status 2: 2 unknown command"},
		"undeclared":        {version: unaware, answer: "1 line 7: no such key"},
		"attached":          {version: checks, answer: "1 line 7: no such key", unit: "app.service"},
		"elsewhere":         {version: checks},
		"shelved":           {version: checks, answer: "1 line 7: no such key", end: Shelve, says: "apply will refuse"},
		"shelved, unsound":  {version: checks, answer: "2", end: Shelve, want: release.ExtractFailed},
		"shelved, attached": {version: checks, answer: "2 x", unit: "app.service", end: Shelve},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := nodeWith(t, "0.9.0", "")
			n.Service.Unit = tt.unit
			if tt.answer != "" {
				configFile(t, n.Layout, tt.answer)
			}
			var log bytes.Buffer
			p, err := newPipeline(Config{Node: &n, Log: slog.New(slog.NewJSONHandler(&log, nil))}, trust)
			if err != nil {
				t.Fatal(err)
			}
			err = fromStick(t, p, tt.version, tt.end)
			said := log.String()
			if err != nil {
				said += err.Error()
			}
			if codeOf(err) != tt.want || !strings.Contains(said, tt.says) {
				t.Errorf("got %v, log %s", err, &log)
			}
			if warned := strings.Contains(log.String(), "config.toml"); warned != (tt.want == "" && tt.says != "") {
				t.Errorf("log: %s", &log)
			}
			res, err := n.Layout.Read()
			if swapped := res.Tree.Current == release.MustVersion(tt.version); err != nil || swapped != (tt.want == "" && tt.end == Swap) {
				t.Errorf("current is %s, %v", res.Tree.Current, err)
			}
		})
	}
}

// An operator's change checks the file again, which may have changed since. It refuses to
// apply, and warns of a rollback.
func TestApplyChecksTheConfigurationAgain(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	n := nodeWith(t, "0.9.0", "")
	configFile(t, n.Layout, "0")
	if err := fromStick(t, pipeline(t, &n, trust), checks, Shelve); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		answer string
		want   release.Code
		note   string
	}{{"1 line 7: no", release.ConfigRefused, ""}, {"9", release.ExtractFailed, ""}, {"3 line 8: unknown", "", "line 8: unknown"}} {
		configFile(t, n.Layout, tt.answer)
		res, err := Apply(t.Context(), n.Layout, Running{})
		if codeOf(err) != tt.want || !strings.Contains(strings.Join(res.Notes, "\n"), tt.note) {
			t.Errorf("%s: %v, notes %q", tt.answer, err, res.Notes)
		}
		if (res.State.Status == state.PendingHealth) != (tt.want == "") {
			t.Errorf("%s: %s", tt.answer, res.State.Status)
		}
	}

	n = nodeWith(t, "0.9.0", "")
	p := pipeline(t, &n, trust)
	if err := fromStick(t, p, checks, Shelve); err != nil {
		t.Fatal(err)
	}
	configFile(t, n.Layout, "1 line 7: no")
	res, err := RollBack(t.Context(), n.Layout, release.MustVersion(checks))
	if err != nil || res.State.Target != release.MustVersion(checks) || !strings.Contains(strings.Join(res.Notes, "\n"), "line 7: no") {
		t.Errorf("rollback: %v, %s, notes %q", err, res.State.Status, res.Notes)
	}
}
