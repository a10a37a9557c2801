package box

import (
	"os"
	"testing"
)

// RequireEnv, when set, makes a box that cannot be booted a failure: CI sets it.
const RequireEnv = "EDGE_AGENT_REQUIRE_BOX"

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
