package systemd

import "testing"

func TestEndOf(t *testing.T) {
	t.Parallel()
	const (
		earlier = `{"INVOCATION_ID":"a","EXIT_CODE":"exited","EXIT_STATUS":"1","COMMAND":"ExecStart","MESSAGE":"x"}` + "\n" + `{"INVOCATION_ID":"a","UNIT_RESULT":"exit-code"}` + "\n"
		now     = `{"INVOCATION_ID":"now","EXIT_CODE":"exited","EXIT_STATUS":"9","COMMAND":"ExecStartPre"}` + "\n"
	)
	for last, want := range map[string]string{
		`{"INVOCATION_ID":"b","EXIT_CODE":"exited","EXIT_STATUS":"3","COMMAND":"ExecStart"}` + "\n" + `{"INVOCATION_ID":"b","UNIT_RESULT":"exit-code"}`: "exit status 3",
		`{"INVOCATION_ID":"b","EXIT_CODE":"killed","EXIT_STATUS":"KILL","COMMAND":"ExecStart"}` + "\n" + `{"INVOCATION_ID":"b","UNIT_RESULT":"signal"}`: "killed by signal KILL",
		`{"INVOCATION_ID":"b","EXIT_CODE":"dumped","EXIT_STATUS":"SEGV"}`:                                                                               "killed by signal SEGV",
		`{"INVOCATION_ID":"b","EXIT_CODE":"dumped","EXIT_STATUS":"11"}`:                                                                                 "killed by signal SEGV",
		`{"INVOCATION_ID":"b","EXIT_CODE":"killed","EXIT_STATUS":"999"}`:                                                                                "killed by signal 999",
		`{"INVOCATION_ID":"b","EXIT_CODE":"killed","EXIT_STATUS":"TERM"}` + "\n" + `{"INVOCATION_ID":"b","UNIT_RESULT":"timeout"}`:                      "the start timed out",
		`{"INVOCATION_ID":"b","EXIT_CODE":"killed","EXIT_STATUS":"ABRT"}` + "\n" + `{"INVOCATION_ID":"b","UNIT_RESULT":"watchdog"}`:                     "no answer within WatchdogSec=",
		`{"INVOCATION_ID":"b","UNIT_RESULT":"oom-kill"}`:                                                                                                "out of memory",
		`{"INVOCATION_ID":"b","UNIT_RESULT":"protocol"}`:                                                                                                `systemd's result is "protocol"`,
		`{"INVOCATION_ID":"b","EXIT_CODE":"exited","EXIT_STATUS":"1","COMMAND":"ExecStartPre"}`:                                                         "",
		`{"INVOCATION_ID":"b","MESSAGE":[1,2,3]}` + "\nnot JSON\n{}":                                                                                    "",
		`{"INVOCATION_ID":"b","EXIT_CODE":"exited","EXIT_STATUS":"203"}`:                                                                                "the program could not be executed (exit status 203)",
		``: "exit status 1",
	} {
		if got := endOf([]byte(earlier+last+"\n"+now), "now"); got != want {
			t.Errorf("%s: %q, want %q", last, got, want)
		}
	}
}

// The last job tells a start that failed with a dependency from an operator's stop.
func TestLastJob(t *testing.T) {
	t.Parallel()
	const (
		started    = `{"JOB_TYPE":"start","JOB_RESULT":"done","UNIT":"app.service"}` + "\n"
		stopped    = `{"JOB_TYPE":"stop","JOB_RESULT":"done","UNIT":"app.service"}` + "\n"
		restarted  = `{"JOB_TYPE":"restart","JOB_RESULT":"done","UNIT":"app.service"}` + "\n"
		dependency = `{"JOB_TYPE":"start","JOB_RESULT":"dependency","UNIT":"app.service"}` + "\n"
		other      = `{"MESSAGE":"app.service: Deactivated successfully."}` + "\nno JSON\n"
	)
	for lines, want := range map[string]string{
		"":                               "",
		started + other:                  "",
		started + stopped + other:        "somebody, or another unit, stopped it",
		stopped + dependency:             "a unit that it depends on failed",
		dependency + started + stopped:   "somebody, or another unit, stopped it",
		restarted + dependency + other:   "a unit that it depends on failed",
		dependency + restarted + started: "",
	} {
		if got := lastJob([]byte(lines)); got != want {
			t.Errorf("%q: %q, want %q", lines, got, want)
		}
	}
}
