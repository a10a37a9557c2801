package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// manifestTimeout bounds how long the start of a rollout waits for the release host.
const manifestTimeout = 10 * time.Second

// manifests returns the SHA-256 of the manifest of p's version for each device type of the
// nodes, as the release host has it now. What cannot be read, or is the manifest of another
// release, is left out: the first node that is updated decides then.
func (c *Catalogue) manifests(ctx context.Context, nodes []store.Node, p rollout.Plan) map[string]string {
	if c.manifest == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, manifestTimeout)
	defer cancel()
	pins := map[string]string{}
	tried := map[string]bool{}
	for _, n := range nodes {
		if tried[n.DeviceType] {
			continue
		}
		tried[n.DeviceType] = true
		digest, err := c.manifestSum(ctx, n.DeviceType, p)
		if err != nil {
			c.log.Warn().Err(err).Str("device_type", n.DeviceType).Str("version", p.Version).Msg("manifest not read; the rollout pins the one of the first node that is updated")
			continue
		}
		if digest != "" {
			pins[n.DeviceType] = digest
		}
	}
	return pins
}

// manifestSum returns the SHA-256 of a manifest; "": it is not known.
func (c *Catalogue) manifestSum(ctx context.Context, deviceType string, p rollout.Plan) (string, error) {
	b, err := c.manifest(ctx, deviceType, p.Channel, p.Version)
	if err != nil || b == nil {
		return "", err
	}
	if len(b) > release.MaxManifest {
		return "", fmt.Errorf("it has %d bytes, more than %d", len(b), release.MaxManifest)
	}
	m, err := release.Parse(b)
	if err != nil {
		return "", err
	}
	if m.Version.String() != p.Version || m.DeviceType != deviceType {
		return "", fmt.Errorf("it is that of %s for the device type %s", m.Version, m.DeviceType)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// actionOf returns the action of a rollout's command to a node, as it is sent.
func actionOf(ctx context.Context, st *store.Store, r rollout.Rollout, nodeID string) (json.RawMessage, error) {
	a := wire.Action{Type: wire.ActionUpgrade, Version: r.Version, Channel: r.Channel, Repair: r.Repair}
	if len(r.Manifests) > 0 {
		n, err := st.Node(ctx, nodeID)
		if err != nil {
			return nil, err
		}
		a.ManifestSHA256 = r.Manifests[n.DeviceType]
	}
	return json.Marshal(a)
}

// pins are the manifests that a rollout pins, by device type.
type pins map[string]string

func pinsOf(r rollout.Rollout) pins {
	p := pins{}
	maps.Copy(p, r.Manifests)
	return p
}

// missing returns the manifest of a node that runs the version and reports one, if none is
// pinned for its device type; or nil.
func (p pins) missing(r rollout.Rollout, n store.Node) *rollout.Pin {
	if n.Version != r.Version || n.Manifest == "" || p[n.DeviceType] != "" {
		return nil
	}
	return &rollout.Pin{DeviceType: n.DeviceType, SHA256: n.Manifest}
}

// add pins a manifest, and returns the event that does so in the rollout.
func (p pins) add(pin rollout.Pin) rollout.Pin {
	p[pin.DeviceType] = pin.SHA256
	return pin
}

// differ reports whether a node runs another release of the version than the pinned one. A
// node that reports no manifest does not.
func (p pins) differ(r rollout.Rollout, n store.Node) bool {
	pinned := p[n.DeviceType]
	return n.Version == r.Version && n.Manifest != "" && pinned != "" && n.Manifest != pinned
}

// OtherManifest describes a node that runs another release of a rollout's version.
func OtherManifest(r rollout.Rollout, n store.Node) string {
	return fmt.Sprintf("it runs the manifest %s; the rollout pinned %s", n.Manifest, r.Manifests[n.DeviceType])
}

// nameOtherReleases corrects the reason of nodes that are left out because they run the
// version, but from another manifest.
func nameOtherReleases(leftOut []api.NodeLeftOut, nodes []store.Node, p rollout.Plan) []api.NodeLeftOut {
	records := make(map[string]store.Node, len(nodes))
	for _, n := range nodes {
		records[n.ID] = n
	}
	for i, l := range leftOut {
		n, pinned := records[l.NodeID], p.Manifests[records[l.NodeID].DeviceType]
		if n.Version == p.Version && n.Manifest != "" && pinned != "" && n.Manifest != pinned {
			leftOut[i].Reason = "It runs another release that is named " + p.Version + ": its manifest is not the published one. Publish the release as a new version."
		}
	}
	return leftOut
}
