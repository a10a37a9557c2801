package box

import (
	"os"
	"testing"
)

// RequireEnv, when set, makes a test that this machine cannot run a failure: CI sets it.
const RequireEnv = "EDGE_AGENT_NO_SKIP"

// Need skips the test, and says why, on a machine that can boot no box.
func Need(t testing.TB) {
	t.Helper()
	err := Available()
	switch {
	case err == nil:
	case os.Getenv(RequireEnv) != "":
		t.Fatalf("%v, and %s is set", err, RequireEnv)
	default:
		t.Skipf("NOT TESTED under real systemd: %v", err)
	}
}
