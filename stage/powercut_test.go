package stage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/bilbycast/edge-agent/release"
)

// The test binary has three roles. The test asks the harness, in a mount
// namespace of its own, for a number of cuts; the harness mounts a disk, lets a
// writer upgrade and roll back on it, and cuts its power.
const (
	roleEnv    = "EDGE_AGENT_TEST_ROLE"
	settingEnv = "EDGE_AGENT_TEST_SETTING"
	cutsEnv    = "EDGE_AGENT_POWER_CUTS" // on each file system, and kills without one
)

// goodVersions prove healthy when they run; neverHealthy does not.
var goodVersions = []string{bigVersion, newVersion, streamed}

const neverHealthy = "2.3.0"

// setting is what the test passes to the harness, and the harness to the writer.
type setting struct {
	FS, Drop       string // drop: "kind place", the fsyncs to leave out
	Cuts           int
	Seed           uint64
	Dir            string // of the disk's image and of what is remembered outside of it
	Published, URL string
	CA             []byte
	Digests        []string
}

func (p setting) file(name string) string { return filepath.Join(p.Dir, name) }

func (p setting) root() string { return filepath.Join(p.Dir, "mnt", "root") }

func (p setting) command(ctx context.Context, role string) *exec.Cmd {
	b, _ := json.Marshal(p)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, settingEnv+"="+string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// play is called by TestMain; it returns if the process has no part.
func play() {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	var p setting
	err := json.Unmarshal([]byte(os.Getenv(settingEnv)), &p)
	switch {
	case err != nil:
	case role == "harness":
		err = p.harness()
	case role == "writer":
		err = p.write()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func rounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv(cutsEnv)); err == nil {
		return n
	}
	if testing.Short() {
		return 5
	}
	return usual
}

// TestKill ends the process by SIGKILL, at the same moments.
func TestKill(t *testing.T) {
	t.Parallel()
	got := cutPower(t, setting{Cuts: rounds(50)})
	t.Logf("kills: %d, %d bricked, %d events lost", got.Cuts, len(got.Bricked), len(got.Lost))
	for _, w := range append(got.Bricked, got.Lost...) {
		t.Error(w)
	}
}

// TestPowerCut cuts the power of a real file system while versions come and go.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cuts := rounds(24)
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			t.Parallel()
			completed, rolledBack := 0, 0
			for run := 0; completed == 0 || rolledBack == 0; run++ { // five cuts may come before the first of each
				if run == 6 {
					t.Fatalf("%d upgrades and %d rollbacks in %d cuts: both must have happened", completed, rolledBack, run*cuts)
				}
				got := cutPower(t, setting{FS: fs, Cuts: cuts})
				t.Logf("power cuts: %d on %s, %d bricked, %d events lost", got.Cuts, fs, len(got.Bricked), len(got.Lost))
				for _, w := range append(got.Bricked, got.Lost...) {
					t.Error(w)
				}
				if got.Cuts != cuts {
					t.Fatalf("%d cuts, want %d", got.Cuts, cuts)
				}
				completed, rolledBack = completed+got.Completed, rolledBack+got.RolledBack
			}
		})
	}
}

// The controls: without these calls to fsync the cuts must lose something.
func TestPowerCutFindsMissingSyncs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("controls of TestPowerCut")
	}
	for _, drop := range []string{"fsync directory root", "fsync root", "fsync versions", "fsync outbox"} {
		t.Run(drop, func(t *testing.T) {
			t.Parallel()
			got := cutPower(t, setting{FS: "ext4", Cuts: 300, Drop: drop})
			if len(got.Bricked)+len(got.Lost) == 0 {
				t.Errorf("%d cuts without %s, and nothing was found", got.Cuts, drop)
			} else {
				t.Logf("without %s: found by cut %d: %v", drop, got.Cuts, append(got.Bricked, got.Lost...)[0])
			}
		})
	}
}

// outcome is what the harness reports.
type outcome struct {
	Cuts, Completed, RolledBack int
	Bricked, Lost               []string
}

// needDisk skips the test where no file system can be made and mounted; in CI
// that is a failure.
func needDisk(t *testing.T, fs string) {
	_, err := exec.LookPath("mkfs." + fs)
	if os.Getuid() != 0 {
		err = errors.New("mounting needs root")
	}
	switch {
	case err == nil:
	case os.Getenv("EDGE_AGENT_NO_SKIP") != "":
		t.Fatal(err)
	default:
		t.Skipf("NOT TESTED with power cuts: %v", err)
	}
}

func cutPower(t *testing.T, p setting) outcome {
	if p.FS != "" {
		needDisk(t, p.FS)
	}
	s := setup(t, nil)
	for _, v := range append(slices.Clone(goodVersions), neverHealthy) {
		rel, a := fetch(t, s, v)
		if _, err := s.Stage(t.Context(), s.Host(rel.Manifest().Version), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		d, err := digest(s.Layout, release.MustVersion(v))
		if err != nil {
			t.Fatal(err)
		}
		p.Digests = append(p.Digests, d)
	}
	p.Dir, p.Published, p.URL, p.CA = t.TempDir(), published.dir, s.Trust.(trust).Host, s.Trust.ReleaseCA()
	p.Seed = rand.Uint64()
	cmd := p.command(t.Context(), "harness")
	if p.FS != "" {
		cmd.SysProcAttr.Unshareflags = syscall.CLONE_NEWNS
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("seed %d: %v", p.Seed, err)
	}
	var got outcome
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}
