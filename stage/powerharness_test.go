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
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/powercut"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/watchdog"
	"golang.org/x/sys/unix"
)

// harness cuts the power p.Cuts times, or until a control loses something.
func (p setting) harness() error {
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
	umount := func() error { return unix.Unmount(mnt, 0) }
	if err := errors.Join(os.Mkdir(mnt, 0o755), unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)); err != nil {
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
	if err := errors.Join(oldRoot(s.Layout), sh("sync")); err != nil {
		return err
	}
	d, err := digest(s.Layout, release.MustVersion(oldVersion))
	if err != nil {
		return err
	}
	p.Digests = append(p.Digests, d)

	var got outcome
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

// cut runs a writer, and cuts the power at a random moment: half
// the time right after the writer reported that something is on disk.
func (p setting) cut(rng *rand.Rand) error {
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
		err = powercut.Cut(p.file("mnt"), powercut.How(1+rng.IntN(2)))
	}
	cmd.Process.Kill()
	io.Copy(io.Discard, lines)
	cmd.Wait()
	return errors.Join(err, reap())
}

// reap waits for what the writer left running: a self-check. This process is
// its parent now.
func reap() error {
	for {
		switch _, err := unix.Wait4(-1, nil, 0, nil); err {
		case nil, unix.EINTR:
		case unix.ECHILD:
			return nil
		default:
			return err
		}
	}
}

// inspect starts the node once, and adds what was lost to got.
func (p setting) inspect(got *outcome) {
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
			bricked("current points to %s", to)
			return
		}
		if d, err := digest(s.Layout, v); err != nil || !slices.Contains(p.Digests, d) {
			bricked("current points to %s, which is not complete (%v)", v, err)
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
func (p setting) remember(name, line string) error {
	f, err := os.OpenFile(p.file(name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(line + "\n")
	return errors.Join(err, f.Close())
}

func (p setting) remembered(name string) []string {
	b, _ := os.ReadFile(p.file(name))
	return strings.Fields(string(b))
}

func (p setting) stager(seam fsutil.Seam) (*Stager, error) {
	x, err := fakerelease.NewTrust(p.Published, p.URL, p.CA)
	if err != nil {
		return nil, err
	}
	return at(Config{Binary: "edge-agent", Trust: x}, p.root(), seam)
}

// write upgrades, proves and rolls back until it is killed. What is on disk for
// sure it says on standard output, after remembering it.
func (p setting) write() error {
	ctx := context.Background()
	var seam fsutil.Seam
	if p.Drop != "" {
		seam = dropSyncs{p}
	}
	s, err := p.stager(seam)
	if err != nil {
		return err
	}
	rs := releases{}
	var versions []string
	for _, v := range append(slices.Clone(goodVersions), neverHealthy) {
		rel, err := s.Fetch(ctx, s.Host(release.MustVersion(v)))
		if err != nil {
			return err
		}
		rs[v] = known{rel, rel.Manifest().Artefacts[0]}
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
		err = upgradeAs(rs, fmt.Sprint("c", n), next, Swap)(ctx, s, &promised{})
		if err := errors.Join(err, did()); err != nil {
			return err
		}
	}
}

// dropSyncs leaves out the fsyncs that the setting names.
type dropSyncs struct{ p setting }

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
