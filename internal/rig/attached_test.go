package rig_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/internal/box"
	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/fakerelease"
)

// The times of a trial in attached mode, divided by attachedFaster: a window of 5 s.
const (
	attachedFaster = 8
	attachedWindow = 40 * time.Second / attachedFaster
)

// Endings of the table of attached mode, besides those of linked mode.
const (
	takenBack ending = "taken back" // the new version was never started
	refused   ending = "refused"    // before the swap
)

// attachedRow is one row of the table of attached mode: a service in a shell script, beside
// its agent, in a box that it shares with other rows.
type attachedRow struct {
	name string
	// unit has further lines of the service's [Service], and head of its [Unit].
	unit, head string
	// old and new are the scripts of the two versions. "" serves. $W is a directory that the
	// service may write, and the row as well.
	old, new string
	// health has the lines of [health]; "": the check passes unless $W/ill is there.
	health     string
	firstStart int  // first_start_secs of the new version
	own        bool // the row has a box of its own, since it reboots it
	// setup changes the machine before the service first starts.
	setup func(*attachedService)
	// before makes the world bad before the upgrade; during is what happens from the swap on,
	// and meanwhile what the new version is after that.
	before, during func(*attachedService)
	meanwhile      ending
	// heal makes the world sound again.
	heal func(*attachedService)
	// end is what becomes of the new version, and says are texts of its last event, of the
	// refusal, or of status while it is unproven.
	end  ending
	says []string
	runs bool // the previous version runs in the end
}

// attachedService is the service of a row.
type attachedService struct {
	*attachedBox
	t       *testing.T
	name    string // of the unit, without .service
	version string // that it is upgraded to
	id      string // of its node
	w       string // $W
	command string // of the upgrade
	failure string // why the manager could not request it
}

// attachedBox is a machine with the services of some rows.
type attachedBox struct {
	*bench
	machine *box.Box
}

func newAttachedBox(t *testing.T) *attachedBox {
	t.Helper()
	box.Need(t)
	ctx := patience(t)
	b := &attachedBox{bench: &bench{Rig: newRig(t), t: t, ctx: ctx, bin: builds(t)}}
	b.machine = box.ForTest(ctx, t, box.Options{HostNetwork: true})
	b.exec("useradd --system --no-create-home edge; useradd --system --no-create-home app; mkdir -m 1777 /var/w")
	return b
}

// exec runs a script in the box.
func (b *attachedBox) exec(script string) (string, error) {
	out, err := b.machine.Exec(b.ctx, "sh", "-c", script)
	return strings.TrimSpace(out), err
}

// sh runs a script in the box, with the row's $W, $UNIT and $ROOT.
func (s *attachedService) sh(script string) string {
	s.t.Helper()
	out, err := s.exec(fmt.Sprintf("W=%s UNIT=%s.service ROOT=/opt/%[2]s; %s", s.w, s.name, script))
	if err != nil {
		s.t.Errorf("%s: %v: %s", script, err, out)
	}
	return out
}

// lay writes the service of a row, its agent and its release.
func (r attachedRow) lay(t *testing.T, b *attachedBox, n int) *attachedService {
	t.Helper()
	s := &attachedService{attachedBox: b, t: t, name: fmt.Sprintf("row%d", n), version: fmt.Sprintf("1.%d.0", 100+n)}
	s.w = "/var/w/" + s.name
	script := func(text, version string) string {
		if text == "" {
			text = serves
		}
		path := filepath.Join(t.TempDir(), "app")
		if !strings.HasPrefix(text, "#!") {
			text = fmt.Sprintf("#!/bin/sh\nW=%s\necho app %s starts\n%s\n", s.w, version, text)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	s.sh("mkdir -m 777 $W")
	unit := fmt.Sprintf("[Unit]\n%s\n[Service]\nUser=app\nExecStart=/opt/%s/current/app\n%s\n[Install]\nWantedBy=multi-user.target\n", r.head, s.name, strings.ReplaceAll(r.unit, "$W", s.w))
	if err := os.WriteFile(b.machine.MustPath(b.ctx, t, "/etc/systemd/system/"+s.name+".service"), []byte(unit), 0o644); err != nil {
		t.Fatal(err)
	}
	health := r.health
	if health == "" {
		health = `command = ["/usr/bin/test", "!", "-e", "$W/ill"]`
	}
	if _, err := b.Publish(fakerelease.Options{Version: s.version, Binary: script(r.new, s.version), BinaryName: "app", FirstStartSecs: r.firstStart}); err != nil {
		t.Fatal(err)
	}
	if err := b.AttachInBox(b.ctx, b.machine, rig.NodeConfig{
		Name: s.name, Version: "1.0.0", Binary: script(r.old, "1.0.0"), BinaryName: "app", Tool: b.bin["1.0.0"],
		WindowSecs: 40, HoldSecs: 10, Env: []string{fmt.Sprintf("EDGE_AGENT_SIM_FASTER=%d", attachedFaster)},
	}, strings.NewReplacer("$W", s.w, "$ROOT", "/opt/"+s.name).Replace(health)); err != nil {
		t.Fatal(err)
	}
	return s
}

// status is what the node says of itself.
func (s *attachedService) status() (st rig.Status, text string) {
	out, err := s.exec("/opt/bin/edge-agent status --json --root /opt/" + s.name)
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	if err != nil && s.ctx.Err() == nil {
		s.t.Logf("status: %v: %s", err, out)
	}
	return st, out
}

// newest returns the newest event that the manager has of the node.
func (s *attachedService) newest() (e api.Event) {
	if page, err := s.Client.Events(s.ctx, api.EventQuery{NodeID: s.id}); err == nil && len(page.Events) > 0 {
		e = page.Events[0]
	}
	return e
}

// now returns what the new version is at present.
func (s *attachedService) now() (ending, string) {
	if s.failure != "" {
		return refused, s.failure
	}
	st, text := s.status()
	e := s.newest()
	last := e.Message + string(e.Details)
	switch current, good := st.Current, st.LastGood; {
	case current == s.version && good == s.version && st.Status == state.Stable:
		return kept, last
	case current == s.version && good == "1.0.0" && st.Trial.Stage == state.Unproven:
		return unproven, text
	case current == "1.0.0" && strings.Contains(last, "upgrade_not_started"):
		return takenBack, last
	case current == "1.0.0" && strings.Contains(last, "upgrade_rolled_back"):
		return rolledBack, last
	default:
		return ending(fmt.Sprintf("%s, current %s, last-good %s", st.Status, current, good)), last
	}
}

// until waits until is holds.
func (s *attachedService) until(what string, is func() bool) {
	s.t.Helper()
	for tick := time.Tick(500 * time.Millisecond); !is(); {
		select {
		case <-tick:
		case <-s.ctx.Done():
			s.t.Fatalf("waiting for %s: %v", what, context.Cause(s.ctx))
		}
	}
}

// becomes waits until the new version is that.
func (s *attachedService) becomes(want ending) (said string) {
	s.t.Helper()
	var got ending
	deadline := time.Now().Add(4 * time.Minute) // ten times what the longest row takes on an idle machine
	newest, seen := "", time.Time{}
	s.until(string(want), func() bool {
		// Programs in the box take processor time from all rows. So they run when the manager has
		// another event, and now and then.
		e := s.newest()
		if e.EventID == newest && time.Since(seen) < 2*time.Second {
			return false
		}
		newest, seen = e.EventID, time.Now()
		got, said = s.now()
		return got == want || time.Now().After(deadline)
	})
	if got != want {
		s.t.Fatalf("it is %s (%.500s), want %s", got, said, want)
	}
	return said
}

// runsNow reports whether the service is in a start of that version.
func (s *attachedService) runsNow(version string) bool {
	out, _ := s.exec(fmt.Sprintf("journalctl -o cat --no-pager _SYSTEMD_INVOCATION_ID=$(systemctl show -p InvocationID --value %s.service)", s.name))
	return strings.Contains(out, "app "+version+" starts")
}

// started waits until the new version runs.
func (s *attachedService) started() {
	s.t.Helper()
	s.until("the start of "+s.version, func() bool { return s.runsNow(s.version) })
}

// windows waits for that many windows.
func (s *attachedService) windows(n float64) {
	s.t.Helper()
	select {
	case <-time.After(time.Duration(n * float64(attachedWindow))): // the time itself is what the row is about
	case <-s.ctx.Done():
		s.t.Fatal(context.Cause(s.ctx))
	}
}

// begin starts the service and its agent, and requests the upgrade once the node is online.
func (s *attachedService) begin(r attachedRow) {
	s.t.Helper()
	if r.setup != nil {
		r.setup(s)
	}
	s.sh("systemctl enable --now $UNIT ${UNIT%.service}-restart.path ${UNIT%.service}-agent.service 2>&1")
	s.until("the registration", func() bool {
		out, err := s.exec("cat /opt/" + s.name + "/credentials.json")
		var c struct {
			NodeID string `json:"node_id"`
		}
		if err != nil || json.Unmarshal([]byte(out), &c) != nil {
			return false
		}
		s.id = c.NodeID
		n, err := s.Client.Node(s.ctx, s.id)
		return err == nil && n.Online && n.Version == "1.0.0" && n.Health != "" // without a health beat it is not upgraded
	})
	if r.before != nil {
		r.before(s)
	}
	var err error
	if s.command, err = s.Upgrade(s.ctx, s.id, s.version); err != nil {
		s.failure = err.Error()
		return
	}
	s.until("the swap", func() bool {
		list, err := s.Client.Commands(s.ctx, s.id, 1, "")
		if err != nil || len(list.Commands) == 0 || list.Commands[0].AckedAt.IsZero() {
			return false
		}
		if c := list.Commands[0]; !c.Success {
			s.failure = c.ErrorCode + ": " + c.Error
		}
		return true
	})
}

// try runs the row to its end.
func (r attachedRow) try(t *testing.T, s *attachedService) {
	s.t = t
	began := time.Now()
	t.Cleanup(func() {
		if t.Failed() {
			journal, _ := s.machine.Journal(context.Background(), s.name+".service", s.name+"-agent.service", s.name+"-watchdog.service", s.name+"-restart.service", s.name+"-retry.service", s.name+"-dep.service")
			_, text := s.status()
			t.Logf("%s\n%s", text, journal[max(0, len(journal)-20_000):])
		}
		// Rows that have ended take nothing from those that run.
		s.exec(fmt.Sprintf("systemctl --no-block stop %[1]s-agent.service %[1]s-restart.path %[1]s.service; systemctl kill -s KILL %[1]s.service", s.name))
	})
	s.begin(r)
	if s.failure == "" && r.during != nil {
		r.during(s)
	}
	if r.meanwhile != "" {
		s.becomes(r.meanwhile)
	}
	if r.heal != nil {
		r.heal(s)
	}
	said := s.becomes(r.end)
	for _, text := range r.says {
		if !strings.Contains(said, text) {
			t.Errorf("%q is not in: %s", text, said)
		}
	}
	if r.end == rolledBack || r.end == kept || r.runs {
		version := "1.0.0"
		if r.end == kept {
			version = s.version
		}
		s.until(version+" runs", func() bool { return s.runsNow(version) })
	}
	t.Logf("%s after %.1f windows", r.end, float64(time.Since(began))/float64(attachedWindow))
}

// TestVerdictsAttached runs the table of verdicts of attached mode. It runs beside no other test
// of this package, since its windows are short and its rows many.
func TestVerdictsAttached(t *testing.T) {
	if testing.Short() {
		t.Skip("the table takes minutes")
	}
	rows := attachedRows()
	if len(rows) < 30 {
		t.Errorf("%d rows, want 30", len(rows))
	}
	shared := newAttachedBox(t)
	services := make([]*attachedService, len(rows))
	for i, r := range rows {
		if !r.own {
			services[i] = r.lay(t, shared, i)
		}
	}
	if _, err := shared.exec("systemctl daemon-reload"); err != nil {
		t.Fatal(err)
	}
	var cases, wrong atomic.Int32
	var wg sync.WaitGroup
	room := make(chan bool, 14) // rows at once: most of their time is waiting
	for i, r := range rows {
		room <- true
		wg.Go(func() {
			defer func() { <-room }()
			ok := t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
				s := services[i]
				if r.own {
					b := newAttachedBox(t)
					s = r.lay(t, b, i)
					s.sh("systemctl daemon-reload")
				}
				cases.Add(1)
				r.try(t, s)
			})
			if !ok {
				wrong.Add(1)
			}
		})
	}
	wg.Wait()
	fmt.Printf("verdicts attached: %d cases, %d wrong\n", cases.Load(), wrong.Load())
}
