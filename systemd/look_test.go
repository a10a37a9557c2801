package systemd

import (
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/trial"
)

const lookedUp = `LoadState=loaded
ActiveState=active
SubState=running
Result=success
InvocationID=abc
Job=0
NRestarts=2
TimeoutStartUSec=1min 30s
InactiveExitTimestampMonotonic=10000000
ActiveEnterTimestampMonotonic=12000000
ActiveExitTimestampMonotonic=8000000
InactiveEnterTimestampMonotonic=9000000
ExecMainStartTimestampMonotonic=11000000
`

func TestLook(t *testing.T) {
	t.Parallel()
	const (
		restarted = "ExecMainCode=1\nExecMainStatus=4\nExecMainStartTimestampMonotonic=20000000\nExecMainExitTimestampMonotonic=30000000"
		down      = "ActiveState=inactive\nSubState=dead\nInactiveEnterTimestampMonotonic="
	)
	up := trial.Service{State: trial.Up, Active: true, Invocation: "abc", Begin: 11 * time.Second, Age: 89 * time.Second, Ran: true, Restarts: 2, StartLimit: 90 * time.Second}
	with := func(change func(*trial.Service)) trial.Service { s := up; change(&s); return s }
	for name, tt := range map[string]struct {
		lines, restart, path string
		want                 trial.Service
		words                string
	}{
		"up":                            {"", "", "", up, "app.service is active (running, result success)"},
		"reloading":                     {"ActiveState=reloading\nSubState=reload\nJob=7", "", "", up, "a job is pending"},
		"no limit":                      {"TimeoutStartUSec=infinity\nNRestarts=", "", "", with(func(s *trial.Service) { s.StartLimit, s.Restarts = 0, -1 }), ""},
		"it named another main process": {"ExecMainStartTimestampMonotonic=50000000", "", "", with(func(s *trial.Service) { s.Begin, s.Age = 12*time.Second, 88*time.Second }), ""},
		"before its main process": {"ActiveState=activating\nSubState=start-pre\nJob=7\nInactiveEnterTimestampMonotonic=39000000\nInactiveExitTimestampMonotonic=40000000", "", "",
			with(func(s *trial.Service) { s.Active, s.Ran, s.Begin, s.Age = false, false, 40*time.Second, time.Minute }), "start-pre"},
		"RestartMode=direct": {"ActiveState=activating\nSubState=start-pre\nJob=7\nActiveExitTimestampMonotonic=40000000", "", "",
			with(func(s *trial.Service) { s.Active, s.Ran, s.Begin, s.Age = false, false, 40*time.Second, time.Minute }), ""},
		"activating":         {"ActiveState=activating\nSubState=start\nJob=7", "", "", with(func(s *trial.Service) { s.Active = false }), ""},
		"pause":              {"ActiveState=activating\nSubState=auto-restart\nResult=exit-code", "", "", with(func(s *trial.Service) { s.Active, s.State, s.Retries = false, trial.Between, true }), "auto-restart, result exit-code"},
		"queued":             {"ActiveState=activating\nSubState=auto-restart-queued\nJob=7", "", "", with(func(s *trial.Service) { s.Active, s.State, s.Retries = false, trial.Between, true }), ""},
		"stopping":           {"ActiveState=deactivating\nSubState=stop-sigterm", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Between }), ""},
		"main process first": {"ExecMainStartTimestampMonotonic=9999700", "", "", with(func(s *trial.Service) { s.Begin, s.Age = 9999700*time.Microsecond, 90000300*time.Microsecond }), ""},
		"failed, main process first": {"ActiveState=failed\nSubState=failed\nExecMainStartTimestampMonotonic=9999700\nExecMainExitTimestampMonotonic=15000000\nInactiveEnterTimestampMonotonic=15000100", "", "",
			with(func(s *trial.Service) {
				s.Active, s.State, s.Begin, s.Age = false, trial.Down, 10*time.Second, 90*time.Second
			}), ""},
		"failed before its main process": {"ActiveState=failed\nSubState=failed\nExecMainStartTimestampMonotonic=5000000\nExecMainExitTimestampMonotonic=8000000\nInactiveEnterTimestampMonotonic=15000100", "", "",
			with(func(s *trial.Service) {
				s.Active, s.State, s.Ran, s.Begin, s.Age = false, trial.Down, false, 10*time.Second, 90*time.Second
			}), ""},
		"to restart": {"Job=7", "", "", with(func(s *trial.Service) { s.State = trial.Between }), ""},
		"to start":   {"ActiveState=inactive\nSubState=dead\nJob=7", "", "", with(func(s *trial.Service) { s.Active, s.State, s.Queued = false, trial.Between, true }), ""},
		"failed":     {"ActiveState=failed\nSubState=failed\nResult=exit-code", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Down }), "app.service is failed (failed, result exit-code)"},
		"stopped, and its program ended with an error": {"ActiveState=failed\nSubState=failed\nResult=exit-code\nRestart=always", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Stopped }), "app.service is failed (failed, result exit-code)"},
		"stopped, and killed":                          {"ActiveState=failed\nSubState=failed\nResult=timeout\nRestart=always", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Stopped }), "result timeout"},
		"started too often":                            {"ActiveState=failed\nSubState=failed\nResult=start-limit-hit\nRestart=always", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Down }), ""},
		"it cannot be started":                         {"ActiveState=failed\nSubState=failed\nResult=resources\nRestart=always", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Down }), ""},
		"simple, before its main process": {"Type=simple\nActiveState=activating\nSubState=start-pre\nJob=7\nInactiveEnterTimestampMonotonic=39000000\nInactiveExitTimestampMonotonic=40000000", "", "",
			with(func(s *trial.Service) { s.Active, s.Ran, s.Begin, s.Age = false, false, 40*time.Second, time.Minute }), "start-pre"},
		"simple":                   {"Type=simple", "", "", with(func(s *trial.Service) { s.StartLimit = 0 }), ""},
		"exited":                   {"SubState=exited", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Down }), "active (exited"},
		"stopped":                  {down + "20000000", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Stopped }), "inactive"},
		"stopped in a pause":       {down + "20000000\nResult=exit-code", "", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Stopped }), "inactive"},
		"never started":            {"ActiveState=inactive\nSubState=dead\nInvocationID=\nNRestarts=0\nInactiveExitTimestampMonotonic=0\nActiveEnterTimestampMonotonic=0\nExecMainStartTimestampMonotonic=0", "", "", trial.Service{State: trial.Stopped, StartLimit: 90 * time.Second}, ""},
		"its file was removed":     {"LoadState=not-found", "", "", up, "LoadState=not-found"},
		"own stop, served again":   {down + "15000000", "ActiveState=activating\nExecMainCode=0\nExecMainStatus=0\nExecMainExitTimestampMonotonic=0", "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Between }), ""},
		"own stop":                 {down + "25000000", restarted, "", with(func(s *trial.Service) { s.Active, s.State, s.OwnStop = false, trial.Stopped, true }), "depends on failed at its restart"},
		"own stop, asked again":    {down + "15000000", restarted, "", with(func(s *trial.Service) { s.Active, s.State, s.OwnStop = false, trial.Stopped, true }), "depends on failed at its restart"},
		"stopped later":            {down + "31000000", restarted, "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Stopped }), ""},
		"stopped, and served well": {down + "25000000", strings.Replace(restarted, "Status=4", "Status=0", 1), "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Stopped }), ""},
		"killed by signal 4":       {down + "25000000", strings.Replace(restarted, "Code=1", "Code=2", 1), "", with(func(s *trial.Service) { s.Active, s.State = false, trial.Stopped }), ""},
		"own stop, and up again":   {"", restarted, "", up, ""},
		"path failed":              {"", "", "LoadState=loaded\nActiveState=failed\nWantedBy=multi-user.target app-agent.service", with(func(s *trial.Service) { s.PathDown = true }), ""},
		"path of earlier units":    {"", "", "LoadState=loaded\nActiveState=failed\nWantedBy=multi-user.target", up, ""},
		"path active":              {"", "", "LoadState=loaded\nActiveState=active\nWantedBy=app-agent.service", up, ""},
		"path masked":              {"", "", "LoadState=masked\nActiveState=inactive\nWantedBy=app-agent.service", up, ""},
	} {
		p := []map[string]string{properties(replaceLines(lookedUp, tt.lines)), properties(tt.restart), properties(tt.path)}
		got, err := lookAt("app.service", "app-agent.service", p, 100*time.Second)
		words := got.Words
		if got.Words = ""; err != nil || got != tt.want || !strings.Contains(words, tt.words) {
			t.Errorf("%s: %v\n got %+v %q\nwant %+v", name, err, got, words, tt.want)
		}
	}
	if _, err := lookAt("app.service", "", []map[string]string{{}, {}, {}}, 0); err == nil {
		t.Error("an empty answer is a state")
	}
}
