package stage

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

// smallDisk is an ext4 of its own, and the ballast that fills it.
type smallDisk struct{ root, ballast string }

func newSmallDisk(t *testing.T) smallDisk {
	needDisk(t, "ext4")
	dir := t.TempDir()
	image, mnt := filepath.Join(dir, "disk"), filepath.Join(dir, "mnt")
	sh := fmt.Sprintf("truncate -s 16M %[1]s && mkfs.ext4 -q -F -m 0 -N 256 %[1]s && mkdir %[2]s && mount -o loop %[1]s %[2]s", image, mnt)
	if out, err := exec.Command("sh", "-c", sh).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() {
		err := unix.Unmount(mnt, 0)
		// A child of another test has each open file until it runs its program.
		for tick, n := time.Tick(10*time.Millisecond), 0; err == unix.EBUSY && n < 1000; n++ {
			<-tick
			err = unix.Unmount(mnt, 0)
		}
		if err != nil {
			t.Error(err)
		}
	})
	return smallDisk{filepath.Join(mnt, "root"), filepath.Join(mnt, "ballast")}
}

// leave fills the disk until free bytes or inodes are left; unit is "bytes" or "inodes".
func (d smallDisk) leave(unit string, free uint64) error {
	if err := os.Mkdir(d.ballast, 0o755); err != nil {
		return err
	}
	for i := 0; ; i++ {
		have, err := fsutil.Free(d.ballast)
		if err != nil {
			return err
		}
		if unit == "inodes" && have.Inodes <= free || unit == "bytes" && have.Bytes <= free {
			return nil
		}
		f, err := os.Create(filepath.Join(d.ballast, fmt.Sprint(i)))
		if err != nil {
			return err
		}
		if unit == "bytes" {
			// Less than there is, if the extents need blocks of their own.
			for size := int64(have.Bytes - free); size > 0; size /= 2 {
				if err = unix.Fallocate(int(f.Fd()), 0, 0, size); err != unix.ENOSPC {
					break
				}
			}
		}
		f.Close()
		if err != nil {
			return err
		}
	}
}

// TestFullDisk upgrades with each amount of free space: from the start, when another
// program fills the disk meanwhile, and in the trial. The upgrade is refused or fails
// cleanly, and a version runs throughout. Once there is space again, the reports agree.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	numbers := regexp.MustCompile(`has \d+ (bytes|inodes) free; \d+ are needed`)
	for _, tt := range []struct {
		unit, version, fails string
		most, step           uint64
	}{{"bytes", bigVersion, "in extract", 4 << 20, 256 << 10}, {"inodes", bigVersion, "in extract", 80, 4}, {"bytes", streamed, "in download", 12 << 20, 1536 << 10}} {
		t.Run(tt.unit+" for "+tt.version, func(t *testing.T) {
			t.Parallel()
			if testing.Short() {
				tt.step *= 4
			}
			disk := newSmallDisk(t)
			host := setup(t, nil)
			known := verified(t, host)
			m := &matrix{digests: map[string]bool{}}
			tally := map[string]int{}
			once := func(free uint64, when string, healthy bool) error {
				what := fmt.Sprintf("%d %s free %s", free, tt.unit, when)
				for _, dir := range []string{disk.root, disk.ballast} {
					if err := os.RemoveAll(dir); err != nil {
						return err
					}
				}
				conf := host.Config
				var filled error
				full := false
				fill := func(now string) {
					if !full && now == when {
						full = true
						filled = disk.leave(tt.unit, free)
					}
				}
				conf.Progress = func(phase string, _, _ int64) { fill("in " + phase) }
				s, err := at(conf, disk.root, nil)
				if err != nil {
					return err
				}
				if err := oldRoot(s.Layout); err != nil {
					return err
				}
				if err := m.learn(s.Layout); err != nil {
					return err
				}
				fill("at first")
				p := promised{}
				err = upgrade(known, tt.version, Swap)(t.Context(), s, &p)
				switch {
				case err == nil && when == "never":
					if err := m.learn(s.Layout); err != nil {
						return err
					}
				case err == nil:
					tally[when+": staged"]++
				case code(err) == release.DiskFull && numbers.MatchString(err.Error()):
					tally[when+": refused with the numbers"]++
				case code(err) == release.DiskFull:
					tally[when+": failed cleanly"]++
				case len(p.commands) == 0 && fsutil.IsNoSpace(err):
					tally[when+": not taken"]++
				default:
					m.violations = append(m.violations, fmt.Sprintf("%s: %v", what, err))
				}
				if err != nil {
					for _, name := range strings.Fields(left(t, s)) {
						if strings.HasPrefix(name, "downloads/") || strings.Contains(name, state.PartialPrefix) || strings.Contains(name, tt.version+"/") {
							m.violations = append(m.violations, fmt.Sprintf("%s: left behind: %s", what, name))
						}
					}
				}
				fill("in the trial")
				if filled != nil {
					return filled
				}
				m.start(context.Background(), host.Config, disk.root, what+", and still at starts", healthy, nil, promised{}, false)
				if err := os.RemoveAll(disk.ballast); err != nil {
					return err
				}
				m.start(t.Context(), host.Config, disk.root, what, healthy, nil, p, true)
				return nil
			}
			if err := once(0, "never", true); err != nil {
				t.Fatal(err)
			}
			for free := uint64(0); free <= tt.most; free += tt.step {
				for _, when := range []string{"at first", "in download", "in extract", "in check", "in the trial"} {
					for _, healthy := range []bool{true, false} {
						if err := once(free, when, healthy); err != nil {
							t.Fatalf("%d %s free %s: %v", free, tt.unit, when, err)
						}
					}
				}
			}
			t.Logf("full disk: %d cases, %d violations; %v", m.cases, len(m.violations), tally)
			m.report(t)
			for _, want := range []string{"at first: refused with the numbers", tt.fails + ": failed cleanly", "at first: staged"} {
				if tally[want] == 0 {
					t.Errorf("none was %s", want)
				}
			}
		})
	}
}
