package verify_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clockEnv shifts the clock of the build that TestClocks makes.
const clockEnv = "EDGE_AGENT_TEST_CLOCK"

// The whole suite passes whatever the clock says: the time of a signature is
// what a log or an authority signed. The test build has another time.Now.
func TestClocks(t *testing.T) {
	if os.Getenv(clockEnv) != "" {
		t.Skip("this is the build with another clock")
	}
	if testing.Short() {
		t.Skip("compiles the standard library")
	}
	t.Parallel()
	dir := t.TempDir()
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	b, err := os.ReadFile(source)
	if err != nil {
		t.Fatal(err)
	}
	const now = "\nfunc Now() Time {\n"
	if strings.Count(string(b), now) != 1 {
		t.Fatalf("%s has another form of Now", source)
	}
	shifted := strings.Replace(string(b), now, `
func Now() Time {
	if testClock != 0 {
		return Unix(testClock, 0).Add(Duration(runtimeNano()))
	}
	return realNow()
}

var testClock = func() (secs int64) {
	s, _ := syscall.Getenv("`+clockEnv+`")
	for _, c := range []byte(s) {
		secs = 10*secs + int64(c-'0')
	}
	return secs
}()

func realNow() Time {
`, 1)
	shifted = strings.Replace(shifted, "import (\n", "import (\n\t\"syscall\"\n", 1)
	overlay := filepath.Join(dir, "overlay.json")
	replaced, err := json.Marshal(map[string]any{"Replace": map[string]string{source: filepath.Join(dir, "time.go")}})
	if err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{overlay: string(replaced), filepath.Join(dir, "time.go"): shifted} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "verify.test")
	if out, err := exec.CommandContext(t.Context(), "go", "test", "-c", "-overlay", overlay, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, year := range []int{1970, 2000, 2100} {
		at := time.Date(year, 1, 1, 0, 1, 0, 0, time.UTC)
		cmd := exec.CommandContext(t.Context(), program, "-test.v", "-test.run", "TestTheClockIsShifted|TestVerification|TestSignedNonsense|TestAGenuine|TestRenew|TestNewRefuses|TestEmbedded")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", clockEnv, at.Unix()))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), fmt.Sprint("the clock says ", year)) || !strings.Contains(string(out), "cases, 0 wrong") {
			t.Errorf("in %d: %v\n%s", year, err, out)
			continue
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "cases,") {
				t.Logf("in %d: %s", year, strings.TrimSpace(line))
			}
		}
	}
}

// TestTheClockIsShifted shows that TestClocks does what it says.
func TestTheClockIsShifted(t *testing.T) {
	if os.Getenv(clockEnv) == "" {
		t.Skip("only in the build of TestClocks")
	}
	t.Logf("the clock says %d", time.Now().UTC().Year())
}
