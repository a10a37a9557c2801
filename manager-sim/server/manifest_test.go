package server_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// manifestOf returns a manifest.json of 1.1.0, and its SHA-256.
func manifestOf(t *testing.T, sequence uint64) ([]byte, string) {
	t.Helper()
	v := release.MustVersion("1.1.0")
	b, err := json.Marshal(release.Manifest{Version: v, DeviceType: "edge", Channel: "stable", Sequence: sequence, ReleasedAt: time.Unix(1_700_000_000, 0).UTC(),
		Artefacts: []release.Artefact{{Arch: "x86_64-linux", Variant: "default", SHA256: strings.Repeat("0", 64), Size: 1, UnpackedSize: 1,
			URL: release.BaseURL("https://github.com/acme/edge", v) + "/edge.tar.gz"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := release.Parse(b); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return b, hex.EncodeToString(sum[:])
}

// keptFrom lets a node stage 1.1.0 and keep it, and report a manifest: when it authenticates,
// or in its health.
func (p *pair) keptFrom(n *node, reg *wire.RegisterAck, command, manifest string, auth bool) *node {
	p.t.Helper()
	n.reports(command, release.Staged, "1.0.0", "1.1.0", "staged")
	n.conn.Close()
	n = p.dial()
	a := &wire.Auth{NodeID: reg.NodeID, NodeSecret: reg.NodeSecret, SoftwareVersion: "1.1.0", DeviceType: "edge", ProtocolVersion: wire.ProtocolVersion}
	if auth {
		a.ManifestSHA256 = manifest
	}
	n.send(a)
	n.reports(command, release.Completed, "1.0.0", "1.1.0", "healthy")
	if !auth {
		n.healthFrom(manifest)
	}
	n.synced("kept")
	return n
}

func (n *node) healthFrom(manifest string) {
	n.t.Helper()
	n.send(&wire.Health{Status: "ok", Version: "1.1.0", Capabilities: []string{wire.CapabilityUpgrade}, ManifestSHA256: manifest})
}

// A rollout pins the manifest that is published at its start, also if the version is
// published again meanwhile, and names it in each command.
func TestARolloutPinsTheManifest(t *testing.T) {
	t.Parallel()
	published, pinned := manifestOf(t, 1)
	again, other := manifestOf(t, 2)
	var now atomic.Pointer[[]byte]
	now.Store(&published)
	p := startPair(t, server.Config{Manifest: func(context.Context, string, string, string) ([]byte, error) { return *now.Load(), nil }}, `{"version":"1.1.0","settle_secs":0}`, nil)
	now.Store(&again)
	if r := p.rollout(); r.Manifests["edge"] != pinned {
		t.Fatalf("pinned %v", r.Manifests)
	}
	p.first = p.keptFrom(p.first, p.firstReg, p.command, pinned, true)
	c := p.second.command()
	if c.Action.ManifestSHA256 != pinned {
		t.Errorf("the command of the second wave: %+v", c.Action)
	}
	p.second = p.keptFrom(p.second, p.secondReg, c.CommandID, other, true)
	p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
	r := p.rollout()
	n := r.Nodes[1]
	if want := "1 node running another release of the version (" + n.ID + ") in wave 2 of 2"; n.Code != rollout.OtherManifest || r.Reason != want || !strings.Contains(n.Message, other) || !strings.Contains(n.Message, pinned) {
		t.Errorf("%q, %+v", r.Reason, n)
	}
	if v := p.view(n.ID); v.ManifestSHA256 != other {
		t.Errorf("the node: %+v", v)
	}
	p.second.healthFrom(pinned) // somebody installed the right one
	p.until("it counts as updated", func() bool { return p.rollout().Counts[rollout.NodeUpdated] == 2 })
}

// If the manager cannot read the manifest, the first node that is updated decides. A node that
// reports none is no failure.
func TestTheFirstUpdatedNodePinsTheManifest(t *testing.T) {
	t.Parallel()
	wrong, _ := manifestOf(t, 1)
	for name, read := range map[string]func(context.Context, string, string, string) ([]byte, error){
		"nothing is known": nil,
		"it fails":         func(context.Context, string, string, string) ([]byte, error) { return nil, errors.New("no route") },
		"not published":    func(context.Context, string, string, string) ([]byte, error) { return nil, nil },
		"no manifest":      func(context.Context, string, string, string) ([]byte, error) { return []byte("<html>"), nil },
		"too large": func(context.Context, string, string, string) ([]byte, error) {
			return append(make([]byte, release.MaxManifest), wrong...), nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startPair(t, server.Config{Manifest: read}, `{"version":"1.1.0","settle_secs":0}`, nil)
			if r := p.rollout(); len(r.Manifests) != 0 {
				t.Fatalf("pinned %v", r.Manifests)
			}
			a, b := strings.Repeat("a", 64), strings.Repeat("b", 64)
			p.first = p.keptFrom(p.first, p.firstReg, p.command, a, name == "it fails")
			p.until("the pin", func() bool { return p.rollout().Manifests["edge"] == a })
			second := p.second.command().CommandID
			if name == "not published" {
				p.second = p.keptFrom(p.second, p.secondReg, second, "", true)
				p.until("the end", func() bool { return p.rollout().Status == rollout.Completed })
				return
			}
			p.second = p.keptFrom(p.second, p.secondReg, second, b, true)
			p.until("the pause", func() bool { return p.rollout().Status == rollout.Paused })
			if n := p.rollout().Nodes[1]; n.Code != rollout.OtherManifest {
				t.Errorf("%+v", n)
			}
		})
	}
}

// A node that runs another release of the same name is left out of a rollout with that reason.
func TestAnotherReleaseOfTheSameName(t *testing.T) {
	t.Parallel()
	published, pinned := manifestOf(t, 1)
	m := startWith(t, server.Config{Manifest: func(context.Context, string, string, string) ([]byte, error) { return published, nil }})
	var g struct{ ID string }
	m.into(http.StatusCreated, "POST", "/api/v1/groups", `{"name":"site one"}`, &g)
	for _, digest := range []string{pinned, strings.Repeat("0", 64), ""} {
		n, reg := m.register()
		m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+g.ID+`"}`, nil)
		n.healthFrom(digest)
		n.synced("health")
	}
	n, reg := m.register() // runs 1.0.0
	n.health("1.0.0")
	n.synced("health")
	m.into(http.StatusOK, "PUT", "/api/v1/nodes/"+reg.NodeID+"/group", `{"group_id":"`+g.ID+`"}`, nil)
	var plan api.RolloutPlan
	m.into(http.StatusOK, "POST", "/api/v1/groups/"+g.ID+"/upgrade", `{"version":"1.1.0","dry_run":true}`, &plan)
	others, same := 0, 0
	for _, l := range plan.LeftOut {
		if strings.Contains(l.Reason, "another release that is named 1.1.0") {
			others++
		} else if strings.Contains(l.Reason, "It runs 1.1.0 already") {
			same++
		}
	}
	if others != 1 || same != 2 || plan.NodeCount != 1 {
		t.Errorf("%+v", plan)
	}
}
