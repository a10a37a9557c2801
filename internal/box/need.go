package box

import (
	"os"
	"testing"
)

// RequireEnv is an environment variable. If it is set, as in CI, Need fails a test that
// this machine cannot run.
const RequireEnv = "EDGE_AGENT_NO_SKIP"

// Need skips the test, with the reason, on a machine that cannot boot a box.
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
