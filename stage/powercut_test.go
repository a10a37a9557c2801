package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// The test binary plays three parts. The test asks the harness, in a mount
// namespace of its own, for a number of cuts; the harness mounts a disk, lets a
// writer upgrade and roll back on it, and takes its power away.
const (
	roleEnv = "EDGE_AGENT_TEST_ROLE"
	planEnv = "EDGE_AGENT_TEST_PLAN"
	cutsEnv = "EDGE_AGENT_POWER_CUTS" // on each file system, and kills without one
)

// goodVersions prove healthy when they run; neverHealthy does not.
var goodVersions = []string{"1.0.0", newVersion}

const neverHealthy = "2.3.0"

// plan is what the parts tell each other.
type plan struct {
	FS, Drop       string // drop: "kind place", the fsyncs to leave out
	Cuts           int
	Seed           uint64
	Dir            string // of the disk's image and of what is remembered outside of it
	Published, URL string
	CA             []byte
	Digests        []string
}

func (p plan) file(name string) string { return filepath.Join(p.Dir, name) }
func (p plan) root() string            { return filepath.Join(p.Dir, "mnt", "root") }

func (p plan) command(ctx context.Context, role string) *exec.Cmd {
	b, _ := json.Marshal(p)
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role, planEnv+"="+string(b))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// play is called by TestMain; it returns if the process has no part.
func play() {
	role := os.Getenv(roleEnv)
	if role == "" {
		return
	}
	var p plan
	err := json.Unmarshal([]byte(os.Getenv(planEnv)), &p)
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
	got := cutPower(t, plan{Cuts: rounds(50)})
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
			got := cutPower(t, plan{FS: fs, Cuts: cuts})
			t.Logf("power cuts: %d on %s, %d bricked, %d events lost", got.Cuts, fs, len(got.Bricked), len(got.Lost))
			for _, w := range append(got.Bricked, got.Lost...) {
				t.Error(w)
			}
			if got.Cuts != cuts || got.Completed == 0 || got.RolledBack == 0 {
				t.Errorf("%+v: upgrades and rollbacks must both have happened", got)
			}
		})
	}
}

// The controls: without these calls to fsync the cuts must do harm.
func TestPowerCutFindsMissingSyncs(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("controls of TestPowerCut")
	}
	for _, drop := range []string{"fsync directory root", "fsync root", "fsync versions", "fsync outbox"} {
		t.Run(drop, func(t *testing.T) {
			t.Parallel()
			got := cutPower(t, plan{FS: "ext4", Cuts: 300, Drop: drop})
			if len(got.Bricked)+len(got.Lost) == 0 {
				t.Errorf("%d cuts without %s, and nothing was found", got.Cuts, drop)
			} else {
				t.Logf("without %s: found by cut %d: %v", drop, got.Cuts, append(got.Bricked, got.Lost...)[0])
			}
		})
	}
}

// harm is what the harness reports.
type harm struct {
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
	case os.Getenv("EDGE_AGENT_REQUIRE_BOX") != "":
		t.Fatal(err)
	default:
		t.Skipf("NOT TESTED with power cuts: %v", err)
	}
}

func cutPower(t *testing.T, p plan) harm {
	if p.FS != "" {
		needDisk(t, p.FS)
	}
	s := setup(t, nil)
	for _, v := range append(slices.Clone(goodVersions), neverHealthy) {
		rel, a := fetch(t, s, v)
		if _, err := s.Stage(t.Context(), rel, a, func() {}); err != nil {
			t.Fatal(err)
		}
		d, err := digest(s.Layout, release.MustVersion(v))
		if err != nil {
			t.Fatal(err)
		}
		p.Digests = append(p.Digests, d)
	}
	p.Dir, p.Published, p.URL, p.CA = t.TempDir(), published.dir, s.Trust.(trust).host, s.Trust.ReleaseCA()
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
	var got harm
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return got
}

// harness cuts the power p.Cuts times, or until there is harm in a control.
func (p plan) harness() error {
	mnt := p.file("mnt")
	sh := func(format string, args ...any) error {
		c := fmt.Sprintf(format, args...)
		if out, err := exec.Command("sh", "-c", c).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c, err, out)
		}
		return nil
	}
	mkfs := map[string]string{"ext4": "mkfs.ext4 -q -F", "xfs": "mkfs.xfs -q"}[p.FS]
	// ext4 would save a file that is renamed over another one without being asked.
	options := map[string]string{"ext4": ",noauto_da_alloc"}[p.FS]
	mount := func() error { return sh("mount -o loop%s %s %s", options, p.file("disk"), mnt) }
	umount := func() (err error) {
		for range 200 { // a self-check that the writer left may still end
			if err = unix.Unmount(mnt, 0); err == nil {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return err
	}
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return err
	}
	if p.FS == "" {
		none := func() error { return nil }
		mount, umount = none, none
	} else {
		if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
			sh("truncate -s 320M %s && %s %s", p.file("disk"), mkfs, p.file("disk")), mount()); err != nil {
			return err
		}
		defer umount()
	}
	s, err := p.stager(nil)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir(p.root(), 0o755), s.Layout.Make(), writeVersion(s.Layout, oldVersion, "old and good"),
		s.Layout.Disk().Symlink("versions/"+oldVersion, s.Layout.Current()), sh("sync")); err != nil {
		return err
	}
	d, err := digest(s.Layout, release.MustVersion(oldVersion))
	if err != nil {
		return err
	}
	p.Digests = append(p.Digests, d)
	if _, err := s.Layout.Do(context.Background(), nil); err != nil {
		return err
	}

	var got harm
	rng := rand.New(rand.NewPCG(p.Seed, 0))
	for got.Cuts < p.Cuts && (p.Drop == "" || len(got.Bricked)+len(got.Lost) == 0) {
		got.Cuts++
		if err := p.cut(rng); err != nil {
			return err
		}
		if err := errors.Join(umount(), mount()); err != nil {
			return err
		}
		p.inspect(&got)
	}
	for _, e := range p.remembered("delivered") {
		if strings.HasSuffix(e, "."+string(release.Completed)) {
			got.Completed++
		}
		if strings.HasSuffix(e, "."+string(release.RolledBack)) {
			got.RolledBack++
		}
	}
	return json.NewEncoder(os.Stdout).Encode(got)
}

// cut lets a writer work, and takes the power away at a random moment: half
// the time right after it was told that something is on disk.
func (p plan) cut(rng *rand.Rand) error {
	cmd := p.command(context.Background(), "writer")
	var said strings.Builder
	cmd.Stderr = &said
	lines, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	in := bufio.NewScanner(lines)
	if !in.Scan() {
		return errors.Join(errors.New("the writer does not begin"), cmd.Wait(), errors.New(said.String()))
	}
	if rng.IntN(2) == 0 {
		for range 1 + rng.IntN(30) {
			in.Scan()
		}
	} else {
		time.Sleep(time.Duration(rng.IntN(400)) * time.Millisecond)
	}
	if p.FS != "" {
		err = shutdown(p.file("mnt"), uint32(1+rng.IntN(2)))
	}
	cmd.Process.Kill()
	io.Copy(io.Discard, lines)
	cmd.Wait()
	return err
}

// shutdown takes the power of the file system at mnt (EXT4_IOC_SHUTDOWN and
// XFS_IOC_GOINGDOWN): with how 1 its journal is flushed, and the data is not;
// with 2 neither.
func shutdown(mnt string, how uint32) error {
	f, err := os.Open(mnt)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), 0x8004587d, uintptr(unsafe.Pointer(&how))); errno != 0 {
		return fmt.Errorf("shutdown: %w", errno)
	}
	return nil
}

// inspect starts the node once, and looks for harm.
func (p plan) inspect(got *harm) {
	ctx := context.Background()
	bricked := func(format string, args ...any) {
		got.Bricked = append(got.Bricked, fmt.Sprintf("cut %d, seed %d: ", got.Cuts, p.Seed)+fmt.Sprintf(format, args...))
	}
	s, err := p.stager(nil)
	if err != nil {
		bricked("%v", err)
		return
	}
	res, err := s.Layout.Read()
	if err != nil || strings.Contains(fmt.Sprint(res.Notes), "state.json") {
		bricked("the state is lost: %v %v", res.Notes, err) // the node would recover, but forgets
	}
	if res.State.Status == state.PendingHealth {
		for _, c := range p.remembered("counted") {
			id, n, _ := strings.Cut(c, "=")
			if starts, _ := strconv.Atoi(n); id == res.State.TrialID && starts > res.State.BootAttempts {
				bricked("start %d was counted, and only %d are left", starts, res.State.BootAttempts)
			}
		}
	}
	for starts := 1; ; starts++ {
		watchdog.Run(ctx, s.Layout)
		to, err := os.Readlink(s.Layout.Current())
		if err != nil {
			bricked("%v", err)
			return
		}
		v, err := release.ParseVersion(filepath.Base(to))
		if err != nil {
			bricked("current leads to %s", to)
			return
		}
		if d, err := digest(s.Layout, v); err != nil || !slices.Contains(p.Digests, d) {
			bricked("current leads to %s, which is not complete (%v)", v, err)
			return
		}
		if v.String() != neverHealthy {
			break
		}
		if starts > matrixAttempts+1 {
			bricked("nothing runs after %d starts", starts)
			return
		}
	}
	if err := prove(ctx, s, nil); err != nil {
		bricked("the agent's start: %v", err)
	}
	entries, damaged, err := s.Layout.Outbox().List()
	if err != nil || damaged != nil {
		got.Lost = append(got.Lost, fmt.Sprintf("cut %d: outbox: %v %v", got.Cuts, err, damaged))
	}
	have := p.remembered("delivered")
	for _, e := range entries {
		have = append(have, e.ID)
	}
	for _, id := range p.remembered("seen") {
		if !slices.Contains(have, id) {
			got.Lost = append(got.Lost, fmt.Sprintf("cut %d, seed %d: %s", got.Cuts, p.Seed, id))
		}
	}
}

// remember appends to a file outside of the disk that loses its power.
func (p plan) remember(name, line string) error {
	f, err := os.OpenFile(p.file(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

func (p plan) remembered(name string) []string {
	b, _ := os.ReadFile(p.file(name))
	return strings.Fields(string(b))
}

func (p plan) stager(seam fsutil.Seam) (*Stager, error) {
	v, err := verifierOf(p.Published)
	if err != nil {
		return nil, err
	}
	return at(Config{Binary: "edge-agent", Trust: trust{v, p.URL, p.CA}}, p.root(), seam)
}

// write upgrades, proves and goes back until it is killed. What is on disk for
// sure it says on standard output, after remembering it.
func (p plan) write() error {
	ctx := context.Background()
	var seam fsutil.Seam
	if p.Drop != "" {
		seam = dropSyncs{p}
	}
	s, err := p.stager(seam)
	if err != nil {
		return err
	}
	var versions []string
	for _, v := range append(slices.Clone(goodVersions), neverHealthy) {
		rel, err := s.Fetch(ctx, release.MustVersion(v))
		if err != nil {
			return err
		}
		releases[v] = known{rel, rel.Manifest().Artefacts[0]}
		versions = append(versions, v)
	}
	fmt.Println("begins")
	did := func() error {
		entries, _, err := s.Layout.Outbox().List()
		if err != nil {
			return err
		}
		for _, e := range entries {
			if err := p.remember("seen", e.ID); err != nil {
				return err
			}
		}
		_, err = fmt.Println("done")
		return err
	}
	n := time.Now().UnixNano()
	for {
		if err := boot(ctx, s, nil); err != nil {
			return err
		}
		res, err := s.Layout.Read()
		if err != nil {
			return err
		}
		if res.State.Status == state.PendingHealth {
			if err := p.remember("counted", fmt.Sprintf("%s=%d", res.State.TrialID, res.State.BootAttempts)); err != nil {
				return err
			}
		}
		if err := did(); err != nil {
			return err
		}
		running := res.Tree.Current.String()
		if running == neverHealthy {
			continue // it exits at once
		}
		if err := prove(ctx, s, nil); err != nil {
			return err
		}
		if err := did(); err != nil {
			return err
		}
		entries, _, err := s.Layout.Outbox().List()
		if err != nil {
			return err
		}
		for _, e := range entries { // the manager has it, then it goes
			if err := errors.Join(p.remember("delivered", e.ID), s.Layout.Outbox().Remove(e.ID)); err != nil {
				return err
			}
		}
		next := versions[rand.IntN(len(versions))]
		if next == running {
			continue
		}
		n++
		err = upgradeAs(fmt.Sprint("c", n), next, Swap)(ctx, s, &promised{})
		if err := errors.Join(err, did()); err != nil {
			return err
		}
	}
}

// dropSyncs leaves out the fsyncs that the plan names.
type dropSyncs struct{ p plan }

func (d dropSyncs) Change(op fsutil.Op, make func() error) error {
	rel, _ := filepath.Rel(d.p.root(), op.Path)
	place, _, _ := strings.Cut(rel, "/")
	if place == "." || (op.Kind == fsutil.OpSync && place == rel) {
		place = "root"
	}
	if string(op.Kind)+" "+place == d.p.Drop {
		return nil
	}
	return make()
}
