package box

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
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

// NeedRoot skips a test that only root can run, or fails it if RequireEnv is set.
func NeedRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv(RequireEnv) != "":
		t.Fatalf("only root can run this test, and %s is set", RequireEnv)
	default:
		t.Skip("NOT TESTED: only root can run this test")
	}
}

// Slow skips a test with -short: it takes seconds of processor time, or waits for as long.
func Slow(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes seconds")
	}
}

// AtOnce lets so many tests of a package run at once that mostly wait, unless -parallel says how
// many. TestMain calls it before Run.
func AtOnce(tests int) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		flag.Set("test.parallel", strconv.Itoa(tests))
	}
}

// LongEnv is an environment variable. If it is set, as in CI, the tests run that Long
// leaves out.
const LongEnv = "EDGE_AGENT_LONG"

// Long skips a test that takes long: mostly one that tries every input of a kind under a real
// systemd. Without it, go test stays within its time limit.
func Long(t testing.TB) {
	t.Helper()
	if os.Getenv(LongEnv) == "" {
		t.Skipf("it takes long; set %s=1", LongEnv)
	}
}

var boxes atomic.Int32

// ForTest boots a box, and closes it when the test ends. It skips the test as Need does.
// A box without a name gets a unique one.
func ForTest(ctx context.Context, t testing.TB, o Options) *Box {
	t.Helper()
	Need(t)
	if o.Name == "" {
		o.Name = fmt.Sprintf("box%d-%d", os.Getpid(), boxes.Add(1))
	}
	b, err := New(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
	})
	if err := b.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	return b
}

// MustPath is Path, and fails the test where that fails.
func (b *Box) MustPath(ctx context.Context, t testing.TB, inside string) string {
	t.Helper()
	path, err := b.Path(ctx, inside)
	if err != nil {
		t.Fatal(err)
	}
	return path
}
