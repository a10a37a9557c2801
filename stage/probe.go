package stage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/bilbycast/edge-agent/fsutil"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"golang.org/x/sys/unix"
)

const (
	// probeOutput bounds what a probe may print, in bytes.
	probeOutput = 64 << 10
	// probeMemory bounds its memory, in bytes. Below twice that it is not started, since the
	// service must not lose its memory to it.
	probeMemory = 64 << 20
)

// ProbeArgs are the arguments of the command `probe`.
type ProbeArgs struct {
	Credentials string   // a file in place of credentials.json; "": that one
	Keys        []string // of managers to which it may authenticate; none: any that knows probes
	Limit       time.Duration
}

// ProbeRun is what the probe of an installed version did.
type ProbeRun struct {
	// Lines are what it printed: JSON, a line for each step (`edge-agent probe --json`).
	Lines []byte
	// Err is nil if it exited by itself with 0: the link is sound.
	Err error
	// Answered is whether it said anything about the link, good or bad.
	Answered bool
	// Skipped is whether it was not started because memory is short, which says nothing
	// about it.
	Skipped bool
	// Unable is whether this process, not the probe, lacked what starts a child: file
	// descriptors, processes, memory.
	Unable bool
}

// HasProbe reports whether the manifest of an installed version declares `probe`, so that
// Probe may run it.
func HasProbe(l state.Layout, v release.Version) bool {
	m, err := readMarker(l, v)
	return err == nil && slices.Contains(m.Commands, release.CommandProbe) && filepath.IsLocal(m.Program)
}

// Probe runs the command `probe` of an installed version, which must have it, as a child
// with the user and the environment of this process, but without its connections to
// systemd. The child is bounded in time, memory and output, and is the first to be killed
// where memory is short.
func Probe(ctx context.Context, l state.Layout, v release.Version, args ProbeArgs) ProbeRun {
	m, err := readMarker(l, v)
	if err != nil {
		return ProbeRun{Err: err, Unable: lacks(err)}
	}
	if free := freeMemory(); free < 2*probeMemory {
		return ProbeRun{Skipped: true, Err: fmt.Errorf("not started: only %d MiB of memory are free", free>>20)}
	}
	bin := filepath.Join(l.Version(v), m.Program)
	command := []string{"probe", "--config", l.ConfigFile(), "--json"}
	if args.Credentials != "" {
		command = append(command, "--credentials", args.Credentials)
	}
	for _, k := range args.Keys {
		command = append(command, "--manager-key", k)
	}
	out, words := &bounded{limit: probeOutput}, &head{}
	cmd, err := start(ctx, func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, bin, command...)
		cmd.Dir = l.Version(v)
		cmd.Env = append(childEnvironment(os.Environ()), fmt.Sprintf("GOMEMLIMIT=%d", probeMemory/2))
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(""), out, words
		ownGroup(cmd)
		return cmd
	})
	if err != nil {
		return ProbeRun{Err: fmt.Errorf("not started: %w", fsutil.NameDenial(err)), Unable: lacks(err)}
	}
	pid := cmd.Process.Pid
	// A Go program reserves much more address space than it uses, so only data is bounded.
	unix.Prlimit(pid, unix.RLIMIT_DATA, &unix.Rlimit{Cur: 4 * probeMemory, Max: 4 * probeMemory}, nil)
	if f, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), os.O_WRONLY, 0); err == nil {
		f.WriteString("1000")
		f.Close()
	}
	err = Limits{DefaultLimits.CPU, args.Limit}.wait(cmd)
	r := ProbeRun{Lines: out.b, Err: err, Answered: bytes.Contains(out.b, []byte(`"stage":`))}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() && exit.ExitCode() <= maxProbeExit {
		r.Answered = true
	}
	if r.Err != nil && words.String() != "" {
		r.Err = fmt.Errorf("%w: %s", r.Err, words)
	}
	return r
}

// lacks reports whether something failed for what this process, or its user, has
// used up. ENFILE is of the whole machine.
func lacks(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.ENOMEM)
}

// probeStep is what `edge-agent probe --json` prints of a step, as far as it is used here.
type probeStep struct {
	URL   string `json:"url"`
	Stage string `json:"stage"`
	OK    bool   `json:"ok"`
	Error string `json:"error"`
}

// heldStage is the last stage of a probe: the connection was held.
const heldStage = "held"

// Held reports whether the probe succeeded at one manager at least: it was authenticated,
// and its connection was held.
func (r ProbeRun) Held() bool {
	return r.Err == nil && slices.ContainsFunc(r.steps(), func(s probeStep) bool { return s.Stage == heldStage && s.OK })
}

func (r ProbeRun) steps() (steps []probeStep) {
	for line := range bytes.Lines(r.Lines) {
		var s probeStep
		if json.Unmarshal(line, &s) == nil && s.Stage != "" {
			steps = append(steps, s)
		}
	}
	return steps
}

// Words says in one line what the probe found: for each URL the last stage.
func (r ProbeRun) Words() string {
	var words []string
	last := make(map[string]probeStep)
	for _, s := range r.steps() {
		if _, ok := last[s.URL]; !ok {
			words = append(words, s.URL)
		}
		last[s.URL] = s
	}
	for i, url := range words {
		if s := last[url]; s.OK {
			words[i] = fmt.Sprintf("%s: reached %s", url, s.Stage)
		} else {
			words[i] = fmt.Sprintf("%s: failed at %s: %s", url, s.Stage, s.Error)
		}
	}
	if len(words) == 0 && r.Err != nil {
		words = []string{r.Err.Error()}
	}
	return release.Foreign(strings.Join(words, "; "), maxProbeWords)
}

// maxProbeWords bounds ProbeRun.Words, in bytes.
const maxProbeWords = 600

// ProbeKeys returns the keys as ProbeArgs.Keys needs them: without "", that of a manager
// without TLS.
func ProbeKeys(keys ...string) []string {
	return slices.Compact(slices.Sorted(slices.Values(slices.DeleteFunc(keys, func(k string) bool { return k == "" }))))
}

// maxProbeExit is the highest exit code of a probe that ended as it should.
const maxProbeExit = 3
