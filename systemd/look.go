package systemd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/trial"
	"golang.org/x/sys/unix"
)

// looked lists the properties of a service that Look reads, and lookedBeside those of the
// units that restart it.
var (
	looked = []string{
		"LoadState", "ActiveState", "SubState", "Result", "Restart", "InvocationID", "Job", "NRestarts", "Type", "TimeoutStartUSec",
		"InactiveExitTimestampMonotonic", "InactiveEnterTimestampMonotonic", "ActiveEnterTimestampMonotonic", "ActiveExitTimestampMonotonic", "ExecMainStartTimestampMonotonic",
	}
	lookedBeside = []string{"ExecMainCode", "ExecMainStatus", "ExecMainExitTimestampMonotonic", "WantedBy"}
)

// lookAt is Look, with the properties of the service, of the unit that restarts it, and of the
// one that waits for requests. self is the unit of this process.
func lookAt(name, self string, p []map[string]string, now time.Duration) (trial.Service, error) {
	service, restart, path := p[0], p[1], p[2]
	if service["ActiveState"] == "" {
		return trial.Service{}, fmt.Errorf("systemctl show %s: the answer has no ActiveState", name)
	}
	s := trial.Service{State: stateOfUnit(service), Invocation: service["InvocationID"], Words: describe(name, service)}
	switch service["ActiveState"] {
	case "active", "reloading", "refreshing":
		s.Active = service["SubState"] != "exited"
	}
	s.Begin, s.Ran = beginOf(service)
	if s.Begin > 0 {
		s.Age = max(now-s.Begin, 0)
	}
	s.Retries = strings.Contains(service["SubState"], "auto-restart")
	if active := service["ActiveState"]; s.State == trial.Between && (active == "inactive" || active == "failed") {
		s.Queued = true
	}
	if s.State == trial.Stopped && restart["ActiveState"] == "activating" && self != restartUnit(name) {
		s.State = trial.Between // a request is being served; its result comes with its end
	}
	var err error
	if s.Restarts, err = strconv.Atoi(service["NRestarts"]); err != nil {
		s.Restarts = -1
	}
	switch service["Type"] {
	case "simple", "exec", "idle": // they are active as soon as the program runs
		if s.Ran {
			break
		}
		fallthrough // it bounds their ExecStartPre=
	default:
		s.StartLimit, _ = duration(service["TimeoutStartUSec"])
	}
	// That exit status says that the run stopped the service, or found it stopped by a run
	// before and was asked to start it. Whoever stopped it later did so after its end.
	stopped, ended := since(service, "InactiveEnter"), since(restart, "ExecMainExit")
	s.OwnStop = s.State == trial.Stopped && restart["ExecMainCode"] == "1" && restart["ExecMainStatus"] == strconv.Itoa(NotStartedStatus) &&
		stopped > 0 && stopped <= ended
	if s.OwnStop {
		s.Words += ": a unit that it depends on failed at its restart, or a condition of its unit is not met"
	}
	s.PathDown = path["LoadState"] == "loaded" && path["ActiveState"] != "active" && self != "" && slices.Contains(strings.Fields(path["WantedBy"]), self)
	return s, nil
}

// stateOfUnit returns the state of a service for the rules of a trial.
func stateOfUnit(p map[string]string) trial.Unit {
	job := p["Job"] != "" && p["Job"] != "0"
	switch active, sub := p["ActiveState"], p["SubState"]; {
	case active == "deactivating", active == "maintenance", strings.Contains(sub, "auto-restart"):
		return trial.Between
	case active == "activating", active == "reloading", active == "refreshing":
		return trial.Up // with its start or reload as a job
	case job:
		return trial.Between
	case sub == "exited": // RemainAfterExit=yes: its process ended, and nothing restarts it
		return trial.Down
	case active == "active":
		return trial.Up
	case active == "inactive":
		// Only a job leaves a service inactive whose Result is a failure: a stop between two
		// restarts of systemd. By its own fault it would be failed.
		return trial.Stopped
	case p["Restart"] == "always" && p["Result"] != "start-limit-hit" && p["Result"] != "resources":
		// systemd restarts it whenever it ends by itself. So a job stopped it, and its program
		// ended with an error, as many do at SIGTERM, or did not end in time.
		return trial.Stopped
	}
	return trial.Down
}

// beginOf returns when the present start began, or the last one, and whether its main process
// was started. systemd starts that of Type=simple some microseconds before it notes that the
// unit is no longer inactive. So the end of the start before tells the two apart.
func beginOf(p map[string]string) (begin time.Duration, ran bool) {
	begin, main, before := since(p, "InactiveExit"), since(p, "ExecMainStart"), since(p, "InactiveEnter")
	switch p["ActiveState"] {
	case "inactive", "failed":
		main, before = max(main, min(begin, since(p, "ExecMainExit"))), begin
	case "activating": // with RestartMode=direct it was not inactive
		begin, before = max(begin, since(p, "ActiveExit")), max(before, since(p, "ActiveExit"))
	}
	if main == 0 || main < before {
		return begin, false
	}
	if up := since(p, "ActiveEnter"); up >= begin && up < main { // it named another main process
		main = up
	}
	return main, true
}

// since returns a timestamp of a unit, by CLOCK_MONOTONIC, or 0.
func since(p map[string]string, what string) time.Duration {
	us, err := strconv.ParseInt(p[what+"TimestampMonotonic"], 10, 64)
	if err != nil || us < 0 {
		return 0
	}
	return time.Duration(us) * time.Microsecond
}

// describe returns the state of a service for people.
func describe(name string, p map[string]string) string {
	detail := p["SubState"] + ", result " + p["Result"]
	if p["Job"] != "" && p["Job"] != "0" {
		detail += ", a job is pending"
	}
	if p["LoadState"] != "loaded" {
		detail += ", LoadState=" + p["LoadState"]
	}
	return fmt.Sprintf("%s is %s (%s)", name, p["ActiveState"], detail)
}

// monotonic returns the time by which systemd notes when a unit changed.
func monotonic() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("clock_gettime: %w", err)
	}
	return time.Duration(now.Nano()), nil
}
