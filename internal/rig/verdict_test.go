package rig_test

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/line"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/internal/supervise"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/selfsign"
	"github.com/bilbycast/edge-agent/release"
)

// The times of a trial, all divided by faster.
const (
	faster     = 30
	windowSecs = 120
	holdSecs   = 20
	window     = windowSecs * time.Second / faster
	hold       = holdSecs * time.Second / faster
)

// scaled returns a time of the real world in the time of these tests.
func scaled(d time.Duration) time.Duration { return d / faster }

// ending is what becomes of a version on trial.
type ending string

const (
	kept       ending = "kept"        // it is last-good
	unproven   ending = "unproven"    // it serves, and last-good is the previous version
	rolledBack ending = "rolled back" // the previous version runs
)

// verdict is one row of the table: what is wrong, and what follows.
type verdict struct {
	name string
	// fault is that of 1.1.0, as the file sim-fault has it; "": it is a good version.
	fault string
	// config changes the node before it is installed.
	config func(*world, *rig.NodeConfig)
	// swap makes the world bad. It is called after the old version has ended, before the
	// new one starts.
	swap func(*world)
	// during is what happens from the new version's first start on. nil: nothing for three
	// and a half windows, which is longer than any version had before.
	during func(*world)
	// meanwhile is what 1.1.0 is after during, while the world is bad. "": not asked.
	meanwhile ending
	// heal makes the world sound again. nil: the line is.
	heal func(*world)
	// end is what 1.1.0 is in the end.
	end ending
	// events are what the manager was told in the end, after upgrade_staged; nil: what
	// follows from end.
	events []string
	// finds are texts that the event of the rollback and `status` have in the end.
	finds []string
	// faster and windowSecs are the row's own; 0: those of all rows.
	faster, windowSecs int
	// run runs a row of another kind, in place of all the above.
	run func(*testing.T)
}

// world is a node with its line, manager and releases, while a row runs.
type world struct {
	*bench
	line    *line.Line
	cert    tls.Certificate // of the manager
	env     []string
	ready   atomic.Int32 // starts of 1.1.0 that were ready
	starts  atomic.Int32 // of 1.1.0
	swapped chan struct{}
	mark    int // of the timeline, before the upgrade
	sound   line.Fault

	ca       *authority     // that signed the manager's certificate, where the node has a ca_file
	resolver *line.Resolver // where the node has a name for its manager
}

// set changes the world's line.
func (w *world) set(f line.Fault) {
	w.t.Helper()
	if err := w.line.Set(f); err != nil {
		w.t.Error(err)
	}
}

// pass waits for a time of the trial.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	select {
	case <-time.After(d): // the time itself is what the row is about
	case <-w.ctx.Done():
		w.t.Fatal(context.Cause(w.ctx))
	}
}

// until waits for what no event of the timeline shows.
func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for tick := time.Tick(50 * time.Millisecond); !is(); {
		select {
		case <-tick:
		case <-w.ctx.Done():
			w.t.Fatalf("waiting for %s: %v", what, context.Cause(w.ctx))
		}
	}
}

// newWorld returns a world whose node runs 1.0.0, and has had a session of some length.
func newWorld(t *testing.T, v *verdict) *world {
	t.Helper()
	ctx := patience(t)
	r := newRig(t)
	w := &world{bench: &bench{Rig: r, t: t, ctx: ctx, bin: builds(t)}, swapped: make(chan struct{}), sound: line.Sound}
	w.declares()
	cert, err := selfsign.Ensure(filepath.Join(r.Dir, "tls"))
	if err != nil {
		t.Fatal(err)
	}
	w.cert = cert.TLS
	manager, err := url.Parse(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	if w.line, err = line.New(manager.Host); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.line.Close)
	c := rig.NodeConfig{
		Version: "1.0.0", Binary: w.bin["1.0.0"], Commands: w.releases.Commands, URLs: []string{"wss://" + w.line.Addr()},
		WindowSecs: cmp.Or(v.windowSecs, windowSecs), HoldSecs: holdSecs, TimeoutStart: 2 * window,
		Env: []string{fmt.Sprintf("EDGE_AGENT_SIM_FASTER=%d", cmp.Or(v.faster, faster))},
	}
	once := sync.OnceFunc(func() {
		if v.swap != nil {
			v.swap(w)
		}
		close(w.swapped)
	})
	c.OnChange = func(e supervise.Event) {
		tree, err := w.node.Tree()
		if err != nil || tree.Current.String() != "1.1.0" {
			return
		}
		switch e.Kind {
		case supervise.Exited:
			once()
		case supervise.Started, supervise.ExecFailed:
			w.starts.Add(1)
		case supervise.Ready:
			w.ready.Add(1)
		}
	}
	if v.config != nil {
		v.config(w, &c)
	}
	w.set(w.sound)
	w.publish("1.0.0", "")
	w.env = append(os.Environ(), c.Env...)
	if w.node, err = r.Install(ctx, c); err != nil {
		t.Fatal(err)
	}
	w.node.Start()
	t.Cleanup(func() {
		w.node.Stop()
		if t.Failed() {
			w.dump()
		}
	})
	w.id = w.wait(0, "the first health beat", func(e rig.Entry) bool { return e.Type == "capabilities" }).NodeID
	return w
}

// dump logs what happened.
func (w *world) dump() {
	journal, _ := os.ReadFile(w.node.Journal)
	w.t.Logf("the node's journal:\n%s", journal)
	for _, e := range w.Timeline.Since(0) {
		w.t.Logf("%s %-8s %-14s start=%d %s %s %s", e.At.Format("05.000"), e.From, e.Type, e.Start, e.Version, e.ErrorCode, e.Message)
	}
}

// release publishes 1.1.0 with a fault.
func (w *world) release(fault string) {
	w.t.Helper()
	w.releaseOf("1.1.0", fault)
}

func (w *world) releaseOf(version, fault string) {
	w.t.Helper()
	o := w.releases
	o.Version, o.Binary = version, w.bin[version]
	o.Formats, o.Chunks = []string{release.FormatZstd}, true // as publishers have them; earlier agents take the tarball
	if fault != "" {
		path := filepath.Join(w.t.TempDir(), "sim-fault")
		if err := os.WriteFile(path, []byte(fault), 0o644); err != nil {
			w.t.Fatal(err)
		}
		o.Extra = map[string]string{"sim-fault": path}
	}
	if _, err := w.Publish(o); err != nil {
		w.t.Fatal(err)
	}
}

// now returns what 1.1.0 is at present, by the links and, once these may be an ending, by what
// the node says of itself: all rows that wait look often.
func (w *world) now() ending {
	w.t.Helper()
	tree, err := w.node.Tree()
	if err != nil {
		w.t.Fatal(err)
	}
	current, good := tree.Current.String(), tree.LastGood.String()
	is, want := ending(""), state.Status("")
	switch {
	case current == "1.1.0" && good == "1.1.0":
		is, want = kept, state.Stable
	case current == "1.0.0" && good == "1.0.0":
		is, want = rolledBack, state.RolledBack
	case current == "1.1.0" && good == "1.0.0" && w.saysUnproven():
		is, want = unproven, state.PendingHealth
	default:
		return ending(fmt.Sprintf("current %s, last-good %s", current, good))
	}
	// Not by last-good, which may be a script, and may be another version a moment later.
	out, err := exec.CommandContext(w.ctx, w.bin["1.2.0"], "status", "--json", "--root", w.node.Root).Output()
	var st rig.Status
	if err == nil {
		err = json.Unmarshal(out, &st)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	if st.Status != want {
		return ending(fmt.Sprintf("%s, current %s, last-good %s", st.Status, current, good))
	}
	return is
}

// saysUnproven reports whether the present start sent READY=1, and said in its last STATUS=
// that it is unproven.
func (w *world) saysUnproven() bool {
	says := ""
	for _, e := range w.Timeline.Since(w.mark) {
		if e.From == rig.FromNode && e.Type == string(supervise.StatusText) {
			says = e.Message
		}
	}
	return w.ready.Load() > 0 && strings.Contains(says, "unproven")
}

// try runs a row to its end.
func (v *verdict) try(t *testing.T) {
	w := newWorld(t, v)
	w.release(v.fault)
	w.mark, _ = w.upgrade("1.1.0")
	select {
	case <-w.swapped:
	case <-w.ctx.Done():
		t.Fatal("1.1.0 was not staged")
	}
	began := time.Now()
	switch {
	case v.during != nil:
		v.during(w)
	case v.swap != nil:
		w.pass(7 * window / 2)
	}
	if v.meanwhile != "" {
		w.until(string(v.meanwhile), func() bool { return w.now() == v.meanwhile })
	}
	if v.fault == "" && w.starts.Load() > 1 && v.meanwhile == unproven {
		t.Errorf("an unproven version was started %d times", w.starts.Load())
	}
	switch {
	case v.heal != nil:
		v.heal(w)
	case v.swap != nil:
		w.set(w.sound)
	}
	end := map[ending]string{kept: "upgrade_completed", rolledBack: "upgrade_rolled_back"}[v.end]
	if end != "" {
		w.event(w.mark, end)
	}
	w.until(string(v.end), func() bool { return w.now() == v.end })
	if v.end == rolledBack && w.starts.Load() > 3 {
		t.Errorf("1.1.0 was started %d times before it was rolled back, want 3 at most", w.starts.Load())
	}
	t.Logf("%s after %.1f windows and %d starts", v.end, float64(time.Since(began))/float64(window), w.starts.Load())
	if end == "" {
		return
	}
	version := map[ending]string{kept: "1.1.0", rolledBack: "1.0.0"}[v.end]
	w.until(version+" online at the manager", func() bool {
		n, err := w.Client.Node(w.ctx, w.id)
		return err == nil && n.Online && n.Version == version
	})
	want := append([]string{"upgrade_started", "upgrade_downloaded", "upgrade_staged"}, v.events...)
	if v.events == nil {
		want = append(want, end)
	}
	if got := w.codes(); !slices.Equal(got, want) {
		t.Errorf("events %q, want %q", got, want)
	}
	if v.finds != nil {
		w.found(v.finds)
	}
}

// found checks that the event of a rollback, and the node's status after it, have the texts.
func (w *world) found(texts []string) {
	w.t.Helper()
	page, err := w.Client.Events(w.ctx, api.EventQuery{NodeID: w.id, Search: "upgrade_rolled_back"})
	if err != nil || len(page.Events) != 1 {
		w.t.Fatalf("%v, %d events", err, len(page.Events))
	}
	status, err := exec.CommandContext(w.ctx, w.bin["1.2.0"], "status", "--json", "--root", w.node.Root).Output()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, text := range texts {
		for where, b := range map[string][]byte{"the event": page.Events[0].Details, "status": status} {
			var whole bytes.Buffer
			if err := json.Compact(&whole, b); err != nil {
				w.t.Fatal(err)
			}
			if !strings.Contains(whole.String(), text) {
				w.t.Errorf("%s lacks %s: %s", where, text, b)
			}
		}
	}
}

// TestVerdicts runs the table of verdicts: every fault of the world, which must not cost a
// good version its place, and every fault of a version, which must.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("the table takes minutes")
	}
	builds(t)
	ofWorld, ofVersion := boxRows()
	tables := [][]verdict{append(ofWorld, worldFaults()...), append(ofVersion, versionFaults()...), bothFaults()}
	for i, atLeast := range []int{32, 18} {
		if n := len(tables[i]); n < atLeast {
			t.Errorf("table %d has %d rows, want %d", i, n, atLeast)
		}
	}
	all := slices.Concat(tables[2], tables[1], tables[0]) // roughly, those that take long first
	var cases, wrong atomic.Int32
	var wg sync.WaitGroup
	room := make(chan bool, 10) // rows at once: most of their time is waiting
	for _, v := range all {
		room <- true
		wg.Go(func() {
			defer func() { <-room }()
			run := v.try
			if v.run != nil {
				run = v.run
			}
			ok := t.Run(strings.ReplaceAll(v.name, " ", "-"), func(t *testing.T) {
				defer func() {
					if !t.Skipped() { // a machine may lack what a row needs
						cases.Add(1)
					}
				}()
				run(t)
			})
			if !ok {
				wrong.Add(1)
			}
		})
	}
	wg.Wait()
	fmt.Printf("verdicts: %d cases, %d wrong\n", cases.Load(), wrong.Load())
}
