package agent

import "errors"

// ErrUsage is wrapped by the error of ProbeCommand if its arguments are wrong.
var ErrUsage = errors.New("wrong arguments")

// Results of Run and Attend besides nil, for errors.Is.
var (
	// ErrRestart is returned by Run when another version waits for a restart: a release was
	// staged, or an operator pointed current to another version. The process must end, with
	// exit code 0; systemd then starts that version. See ExitCode.
	ErrRestart = errors.New("another version is ready: the service must restart")
	// ErrTrialFailed is wrapped by the error of Run when this version's trial failed in this
	// start. The error says why. The process must end, with another exit code than 0; the
	// watchdog counts the start, and rolls back.
	ErrTrialFailed = errors.New("the trial of this version failed")
	// ErrAlreadyRunning is wrapped by the error of a call of Run or Attend that was refused:
	// an agent runs on the install root already, or Run was called before. It changes nothing.
	ErrAlreadyRunning = errors.New("the agent runs already")
)

// ExitCode returns the exit code of a process in which Run returned err: 0 if the process was
// told to stop, or must restart into another version; otherwise 1.
func ExitCode(err error) int {
	if err == nil || errors.Is(err, ErrRestart) {
		return 0
	}
	return 1
}

// typedError is an error with its own text that errors.Is finds as of the kind.
type typedError struct {
	error
	kind error
}

func (e *typedError) Unwrap() []error { return []error{e.error, e.kind} }
