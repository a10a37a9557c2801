package upgrade

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/config"
	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
	"github.com/bilbycast/edge-agent/verify"
)

// way is how a release reaches a node. They differ in their source and in their
// end, and in nothing that decides whether the release is accepted.
type way struct {
	name    string
	install bool // of a node that has no version
	run     func(t *testing.T, p *Pipeline, v string) error
}

var ways = []way{
	{"a manager's command", false, func(t *testing.T, p *Pipeline, v string) error {
		channel := map[string]string{"1.2.0": "beta"}[v] // the manager names it
		// The agent records it, unless the root is unable.
		p.c.Node.Layout.Do(t.Context(), func(s state.State, tr state.Tree, _ time.Time) (state.State, state.Tree, error) {
			return state.Accept(s, state.Command{ID: "c", Version: release.MustVersion(v)}), tr, nil
		})
		_, err := p.Run(t.Context(), p.Host(release.MustVersion(v)), Request{Version: release.MustVersion(v), Channel: cmp.Or(channel, "stable"), CommandID: "c", End: Swap})
		return err
	}},
	{"a stick", false, func(t *testing.T, p *Pipeline, v string) error { return fromStick(t, p, v, Shelve) }},
	{"a stick, applied", false, func(t *testing.T, p *Pipeline, v string) error { return fromStick(t, p, v, Swap) }},
	{"an installation", true, func(t *testing.T, p *Pipeline, v string) error {
		src, version, err := p.Open(v)
		if err != nil {
			return err
		}
		_, err = p.Run(t.Context(), src, Request{Version: version, End: Install})
		return err
	}},
	{"an installation from a stick", true, func(t *testing.T, p *Pipeline, v string) error { return fromStick(t, p, v, Install) }},
	{"a check", false, func(t *testing.T, p *Pipeline, v string) error {
		src, version, err := p.Open(v)
		if err != nil {
			return err
		}
		e, err := p.Examine(t.Context(), src, version)
		return errors.Join(err, e.Refused)
	}},
	{"a check of a stick", false, func(t *testing.T, p *Pipeline, v string) error {
		src, _, err := p.Open(stick(v))
		if err != nil {
			return err
		}
		defer src.Close()
		e, err := p.Examine(t.Context(), src, release.Version{})
		return errors.Join(err, e.Refused)
	}},
}

func fromStick(t *testing.T, p *Pipeline, v string, end End) error {
	src, _, err := p.Open(stick(v))
	if err != nil {
		return err
	}
	defer src.Close()
	_, err = p.Run(t.Context(), src, Request{End: end})
	return err
}

// Every way of a release onto a node meets the same policy and the same floors,
// and gives the same code; what is refused changes nothing.
func TestEveryWayMeetsTheSameRules(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for name, tt := range map[string]struct {
		version string
		node    func(*config.Settings)
		floor   string
		want    release.Code
		except  []string // ways that do not see it
	}{
		"accepted":           {version: "1.0.0"},
		"another channel":    {version: "1.2.0", want: release.ChannelNotAllowed},
		"min_version":        {version: "1.0.0", node: func(n *config.Settings) { n.Policy.MinVersion = release.MustVersion("1.0.1") }, want: release.VersionTooOld},
		"the rollback floor": {version: "1.0.0", floor: "1.0.1", want: release.VersionTooOld},
		"another device":     {version: "1.3.0", want: release.ManifestInvalid},
		"another variant":    {version: "1.5.0", want: release.VariantMismatch},
		"another signer":     {version: "1.6.0", want: release.IdentityNotAllowed},
		"another tarball":    {version: "1.4.0", want: release.ChecksumMismatch, except: []string{"a check"}}, // it downloads none
	} {
		for _, w := range ways {
			if slices.Contains(tt.except, w.name) {
				continue
			}
			t.Run(name+" by "+w.name, func(t *testing.T) {
				t.Parallel()
				n := nodeWith(t, "0.9.0", tt.floor)
				if w.install {
					n = withoutVersion(t, n)
				}
				if tt.node != nil {
					tt.node(&n)
				}
				before, err := n.Layout.Read()
				if err != nil {
					t.Fatal(err)
				}
				err = w.run(t, pipeline(t, &n, trust), tt.version)
				if got := codeOf(err); got != tt.want {
					t.Errorf("got %q, want %q: %v", got, tt.want, err)
				}
				after, err := n.Layout.Read()
				if err != nil {
					t.Fatal(err)
				}
				if tt.want != "" && (after.Tree.Current != before.Tree.Current || after.State.Status != before.State.Status) {
					t.Errorf("a refused release changed the root: %+v", after)
				}
			})
		}
	}
}

// withoutVersion removes the version of n, so that it is a root of an earlier
// installation: state.json, with its floors, is still there.
func withoutVersion(t *testing.T, n config.Settings) config.Settings {
	t.Helper()
	for _, path := range []string{n.Layout.Current(), n.Layout.LastGood(), filepath.Join(n.Layout.Version(release.MustVersion("0.9.0")), n.Service.Binary), n.Layout.Version(release.MustVersion("0.9.0"))} {
		if err := n.Layout.Disk().Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func codeOf(err error) release.Code {
	if err == nil {
		return ""
	}
	return release.CodeOf(err)
}

// A release on trial is in the way of every other one, by whatever way.
func TestNothingBesideATrial(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for _, w := range ways {
		if w.install {
			continue
		}
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			n := nodeWith(t, "0.9.0", "")
			p := pipeline(t, &n, trust)
			if err := fromStick(t, p, "1.0.0", Swap); err != nil {
				t.Fatal(err)
			}
			if err := w.run(t, p, "1.1.0"); codeOf(err) != release.InProgress || !strings.Contains(err.Error(), "1.0.0 is on trial") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A version under guard or unproven is in the way of no newer one, whose way back is
// last-good. A release that would wait for an operator is refused.
func TestBesideAnUnprovenVersion(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for _, w := range ways {
		if w.install || strings.HasPrefix(w.name, "a check") {
			continue
		}
		for _, judge := range []state.JudgeRecord{{Stage: state.Unproven}, {Stage: state.UnderGuard, Completed: true}} {
			t.Run(w.name+", "+string(judge.Stage), func(t *testing.T) {
				t.Parallel()
				n := nodeWith(t, "0.9.0", "")
				p := pipeline(t, &n, trust)
				if err := fromStick(t, p, "1.0.0", Swap); err != nil {
					t.Fatal(err)
				}
				res, err := n.Layout.Read()
				judge.TrialID, judge.Start = res.State.TrialID, 1
				if err = errors.Join(err, n.Layout.RecordStarts(state.StartsRecord{TrialID: judge.TrialID, Number: 1}), n.Layout.RecordJudge(judge)); err != nil {
					t.Fatal(err)
				}
				err = w.run(t, p, "1.1.0")
				after, _ := n.Layout.Read()
				if w.name == "a stick" { // it is shelved
					if codeOf(err) != release.InProgress || !strings.Contains(err.Error(), "edge-agent accept") || after.State.TrialID != judge.TrialID {
						t.Errorf("got %v, %+v", err, after.State)
					}
					return
				}
				swap, ok := n.Layout.ReadSwap(after.State)
				if s := after.State; err != nil || s.Target.String() != "1.1.0" || s.Previous.String() != "0.9.0" || after.Tree.LastGood.String() != "0.9.0" || !ok || swap.From.String() != "0.9.0" {
					t.Errorf("%v, %+v, %+v, %+v", err, s, after.Tree, swap)
				}
				entries, _, err := n.Layout.Outbox().List()
				superseded := slices.ContainsFunc(entries, func(e state.Entry) bool {
					return e.Event != nil && e.Event.Code == release.Superseded && e.Event.To.String() == "1.0.0"
				})
				if err != nil || superseded == judge.Completed {
					t.Errorf("superseded: %t, %v", superseded, err)
				}
			})
		}
	}
}

// What is installed first sets its floor at once, as it sets it after a trial.
func TestTheFirstVersionSetsItsFloor(t *testing.T) {
	t.Parallel()
	n := emptyNode(t)
	p := pipeline(t, &n, trusted(t, nil))
	if err := fromStick(t, p, "1.1.0", Install); err != nil {
		t.Fatal(err)
	}
	res := do(t, n.Layout, nil)
	if v := release.MustVersion("1.1.0"); res.State.Status != state.Stable || res.State.Good != v || res.Tree.Current != v || res.Tree.LastGood != v || res.State.Floor != v {
		t.Errorf("got %+v, %+v", res.State, res.Tree)
	}
	if err := fromStick(t, p, "1.0.0", Swap); codeOf(err) != release.VersionTooOld || !strings.Contains(err.Error(), "rollback floor") {
		t.Errorf("below the floor: %v", err)
	}
	if err := fromStick(t, p, "1.0.0", Install); !errors.Is(err, ErrInstalled) {
		t.Errorf("a second installation: %v", err)
	}
}

// A host that has another release under the version's URL installs nothing.
func TestTheVersionIsTheRequestedOne(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	n := emptyNode(t)
	p := pipeline(t, &n, trust)
	src, _, err := p.Open(trust.FetchURLs(release.MustVersion("1.0.0"))[0] + "/manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.Run(t.Context(), src, Request{Version: release.MustVersion("1.1.0"), End: Install})
	if codeOf(err) != release.ManifestInvalid || !strings.Contains(err.Error(), "request is for 1.1.0") {
		t.Errorf("got %v", err)
	}
}

// The manager's permission is asked for its commands alone.
func TestUpgradesThatAreOff(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			n := nodeWith(t, "0.9.0", "")
			if w.install {
				n = withoutVersion(t, n)
			}
			n.Policy.Enabled = false
			want := release.Code("")
			if !strings.Contains(w.name, "stick") && !w.install || strings.Contains(w.name, "check") {
				want = release.Disabled // a check reports what the manager's command would meet
			}
			if err := w.run(t, pipeline(t, &n, trust), "1.0.0"); codeOf(err) != want {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// A version that waits for an operator is not applied below a floor that has
// risen meanwhile.
func TestApplyBelowTheFloor(t *testing.T) {
	t.Parallel()
	n := nodeWith(t, "0.9.0", "")
	if err := fromStick(t, pipeline(t, &n, trusted(t, nil)), "1.0.0", Shelve); err != nil {
		t.Fatal(err)
	}
	raise := func(floor string, sequence uint64) {
		do(t, n.Layout, func(s state.State, t state.Tree, _ time.Time) (state.State, state.Tree, error) {
			s.Floor, s.FloorSequence = release.MustVersion(floor), sequence
			return s, t, nil
		})
	}
	for _, tt := range []struct {
		floor    string
		sequence uint64
		want     release.Code
	}{{"1.0.1", 0, release.VersionTooOld}, {"1.0.0", 1 << 40, release.SequenceTooOld}, {"1.0.0", 0, ""}} {
		raise(tt.floor, tt.sequence)
		res, err := Apply(t.Context(), n.Layout, Running{})
		if codeOf(err) != tt.want {
			t.Errorf("floor %s, %d: %v", tt.floor, tt.sequence, err)
		}
		if on := res.State.Status == state.PendingHealth; on != (tt.want == "") {
			t.Errorf("floor %s, %d: %s", tt.floor, tt.sequence, res.State.Status)
		}
	}
}

// A node whose way back is damaged takes no upgrade, and the error names the file; a
// changed data file is no reason.
func TestADamagedWayBack(t *testing.T) {
	t.Parallel()
	trust := trusted(t, nil)
	for name, tt := range map[string]struct {
		file string
		want release.Code
	}{"program": {"edge-agent", release.Internal}, "data": {"data", ""}} {
		n := emptyNode(t)
		p := pipeline(t, &n, trust)
		if err := fromStick(t, p, "1.0.0", Install); err != nil {
			t.Fatal(err)
		}
		dir := n.Layout.Version(release.MustVersion("1.0.0"))
		if tt.file == "data" { // as if the release had one
			record := filepath.Join(dir, state.DigestsFile)
			b, err := os.ReadFile(record)
			if err != nil {
				t.Fatal(err)
			}
			marker := filepath.Join(dir, state.ReleaseFile) // as of an agent that did not record the record
			if err := errors.Join(os.WriteFile(record, append(b, []byte(strings.Repeat("0", 64)+"  data\n")...), 0o644), os.WriteFile(marker, []byte(`{"version":"1.0.0","program":"edge-agent"}`), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, tt.file), []byte("#!/bin/sh\nexit 0 # another\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		err := fromStick(t, p, "1.1.0", Swap)
		if codeOf(err) != tt.want || tt.want != "" && !strings.Contains(err.Error(), "its file edge-agent has another content") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Verified is called between the verification and the download, and for no other release.
func TestVerifiedIsCalledOnce(t *testing.T) {
	t.Parallel()
	for _, strange := range []bool{false, true} {
		n := emptyNode(t)
		var seen []string
		c := Config{Node: &n, Verified: func() { seen = append(seen, "verified") }, Progress: func(phase string, done, _ int64) {
			if done == 0 { // of a stick, a download begins with bytes
				seen = append(seen, phase)
			}
		}}
		var trust stage.Trust = trusted(t, nil)
		if strange {
			trust = refusing{trust}
		}
		p, err := newPipeline(c, trust)
		if err != nil {
			t.Fatal(err)
		}
		err = fromStick(t, p, "1.1.0", Install)
		want := []string{stage.PhaseVerify, "verified", stage.PhaseCheck}
		if strange {
			want = want[:1]
		}
		if (err != nil) != strange || !slices.Equal(seen, want) {
			t.Errorf("refused: %t: %v, %v, want %v", strange, seen, err, want)
		}
	}
}

// refusing is a trust root that accepts no release.
type refusing struct{ stage.Trust }

func (refusing) Release(_, _ []byte) (verify.Release, error) {
	return verify.Release{}, release.Errorf(release.SignatureInvalid, "refused")
}
