package rig_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
)

// earlier is the last commit whose programs know no probe: their watchdog counts each start,
// and knows no file of a trial.
const earlier = "17eafae526782390f0e117ff4014f214004c4fdc"

// errNoHistory means that the commit is not there, as in a clone with --depth.
var errNoHistory = errors.New("the history of this clone does not reach back")

// earlierProgram builds edge-agent 1.0.0 of that commit, once, after builds.
var earlierProgram = sync.OnceValues(func() (string, error) {
	if _, err := programs(); err != nil { // makes buildDir
		return "", err
	}
	ctx := context.Background()
	if exec.CommandContext(ctx, "git", "cat-file", "-e", earlier+"^{commit}").Run() != nil {
		return "", errNoHistory
	}
	root, err := exec.CommandContext(ctx, "git", "rev-parse", "--show-toplevel").Output()
	if err != nil {
		return "", err
	}
	source := filepath.Join(buildDir, "earlier")
	if err := os.Mkdir(source, 0o755); err != nil {
		return "", err
	}
	archive := exec.CommandContext(ctx, "git", "archive", earlier)
	archive.Dir = string(bytes.TrimSpace(root))
	unpack := exec.CommandContext(ctx, "tar", "-x", "-C", source)
	if unpack.Stdin, err = archive.StdoutPipe(); err != nil {
		return "", err
	}
	if err := errors.Join(archive.Start(), unpack.Run(), archive.Wait()); err != nil {
		return "", err
	}
	out := filepath.Join(buildDir, "edge-agent-earlier")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-tags", "sim", "-ldflags", "-s -w -X main.version=1.0.0", "-o", out, "./cmd/edge-agent")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	text, err := build.CombinedOutput()
	if err != nil {
		return "", errors.New(string(text))
	}
	return out, nil
})

// Where last-good is of an earlier commit, it and the new version write in turn, and the rule
// of that commit applies.
func TestVerdictsWithAnEarlierLastGood(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("builds an earlier program")
	}
	builds(t)
	program, err := earlierProgram()
	if errors.Is(err, errNoHistory) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []verdict{
		{name: "a good version", end: kept},
		{name: "a version that crashes", fault: "exits-at-once", end: rolledBack},
		{name: "a version whose link is broken", fault: "never-authenticates", end: rolledBack},
		{name: "a version whose check fails", fault: "never-healthy", end: rolledBack},
	} {
		v.config = func(_ *world, c *rig.NodeConfig) { c.Binary, c.Commands = program, nil }
		t.Run(v.name, func(t *testing.T) {
			t.Parallel()
			v.try(t)
		})
	}
}

// A later version may write a status that last-good does not know. Its watchdog sets the file
// aside, and the node runs last-good.
func TestAStatusOfALaterVersion(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("runs a trial")
	}
	w := newWorld(t, &verdict{})
	w.release("")
	w.mark, _ = w.upgrade("1.1.0")
	<-w.swapped
	w.node.Stop()
	path := filepath.Join(w.node.Root, "state.json")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var s map[string]any
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatal(err)
	}
	s["status"], s["confidence"] = "probation", map[string]any{"level": 3}
	if text, err = json.Marshal(s); err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.node.Start()
	w.until("1.0.0 in charge", func() bool {
		tree, err := w.node.Tree()
		st, statusErr := w.node.Status(w.ctx)
		return err == nil && statusErr == nil && tree.Current.String() == "1.0.0" && tree.LastGood.String() == "1.0.0" && st.Status == state.Stable
	})
	w.until("1.0.0 online", func() bool {
		n, err := w.Client.Node(w.ctx, w.id)
		return err == nil && n.Online && n.Version == "1.0.0"
	})
}
