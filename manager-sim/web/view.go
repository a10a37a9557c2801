package web

import (
	"encoding/json"
	"fmt"
	"html/template"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/server"
	"github.com/bilbycast/edge-agent/release"
)

// node is a node as the API has it.
type node struct {
	ID            string          `json:"id"`
	DeviceType    string          `json:"device_type"`
	GroupID       string          `json:"group_id"`
	Online        bool            `json:"online"`
	Version       string          `json:"version"`
	TargetVersion string          `json:"target_version"`
	UpgradeState  string          `json:"upgrade_state"`
	ErrorCode     string          `json:"error_code"`
	CommandID     string          `json:"command_id"`
	Capabilities  []string        `json:"capabilities"`
	Upgrade       json.RawMessage `json:"upgrade"`
	RegisteredAt  time.Time       `json:"registered_at"`
	LastSeen      time.Time       `json:"last_seen"`
}

// settled reports whether the last upgrade has ended.
func (n node) settled() bool {
	switch server.UpgradeState(n.UpgradeState) {
	case server.Idle, server.Updated, server.Failed, server.RolledBack:
		return true
	}
	return false
}

// Upgradable reports whether the node can be told to upgrade.
func (n node) Upgradable() bool {
	for _, c := range n.Capabilities {
		if c == "upgrade" {
			return true
		}
	}
	return false
}

// WhyNot says why a node has no Upgrade button.
func (n node) WhyNot() string {
	if n.Upgradable() {
		return ""
	}
	return "The node's last health beat did not advertise the capability “upgrade”. Set enabled = true in [upgrade] of its config.toml, or update it by hand once to a version that has the upgrade module."
}

// chip is a state as a word and an icon.
type chip struct {
	Word, Icon, Kind string // Kind: "plain", "busy", "good" or "bad"
	Code             string
	Meaning, Fix     string // of the code
}

// Chip is the node's upgrade.
func (n node) Chip() chip {
	busy := func(word string) chip { return chip{Word: word, Icon: "◔", Kind: "busy"} }
	switch server.UpgradeState(n.UpgradeState) {
	case server.Queued, server.Sent:
		return busy("queued")
	case server.Staging:
		var u struct {
			Progress struct {
				Phase      string `json:"phase"`
				BytesDone  int64  `json:"bytes_done"`
				BytesTotal int64  `json:"bytes_total"`
			} `json:"progress"`
		}
		if json.Unmarshal(n.Upgrade, &u) == nil && u.Progress.BytesTotal > 0 {
			return busy(fmt.Sprintf("staging %d %%", 100*u.Progress.BytesDone/u.Progress.BytesTotal))
		}
		return busy("staging")
	case server.Staged:
		return busy("restarting")
	case server.Proving:
		return busy("proving")
	case server.Updated:
		return chip{Word: "updated", Icon: "✓", Kind: "good"}
	case server.Failed:
		return coded("upgrade failed", n.ErrorCode)
	case server.RolledBack:
		return coded("rolled back", n.ErrorCode)
	}
	if !n.Online {
		return chip{Word: "offline", Icon: "○", Kind: "plain"}
	}
	return chip{Word: "idle", Icon: "·", Kind: "plain"}
}

func coded(word, code string) chip {
	m := meanings[code]
	return chip{word, "✕", "bad", code, m[0], m[1]}
}

// meanings are what an operator should know of a code: what it means, and what
// to do.
var meanings = map[string][2]string{
	string(release.Disabled):           {"Upgrades are off in the node's own configuration.", "Set enabled = true in [upgrade] of its config.toml and restart the service."},
	string(release.ChannelNotAllowed):  {"The node does not take releases of this channel.", "Add the channel to allowed_channels in its config.toml and restart."},
	string(release.VersionTooOld):      {"The version is below what the node's configuration, or an installed release, allows.", "Pick a newer version."},
	string(release.SequenceTooOld):     {"The manifest is older than one that the node has proved healthy.", "Pick a newer release."},
	string(release.VersionInvalid):     {"The version is not one.", "Pick one from the list."},
	string(release.InProgress):         {"Another upgrade runs on the node, or a version is on trial.", "Wait until it has ended."},
	string(release.SignatureInvalid):   {"The manifest's signature does not hold.", "Treat it as tampering until it is explained: compare the release with its workflow run."},
	string(release.IdentityNotAllowed): {"The release was signed by somebody whom the node does not allow.", "If the release workflow was renamed, publish one release from the old workflow that carries the new allowlist."},
	string(release.RekorInvalid):       {"No transparency log that the node knows has the signature.", "Publish the release anew, or renew the node's trust root: edge-agent trust update."},
	string(release.URLInvalid):         {"The manifest names a file elsewhere than in its own release.", "Publish the release anew."},
	string(release.NetworkError):       {"The node could not fetch the release.", "Check the node's way to the release host, and its proxy."},
	string(release.ManifestInvalid):    {"The manifest is not a manifest for this request.", "Publish the release anew."},
	string(release.ArchMismatch):       {"The release has nothing for the node's machine.", "Publish it for this architecture."},
	string(release.VariantMismatch):    {"The release has no such variant.", "Publish it in this variant."},
	string(release.ChecksumMismatch):   {"The tarball is not the one that was signed.", "Retry; if it persists, report it as a security problem."},
	string(release.ExtractFailed):      {"The tarball could not be unpacked, or its program does not run.", "Publish the release anew."},
	string(release.DiskFull):           {"There is too little space on the node: three times the tarball is needed.", "Free space on the node."},
	string(release.RolledBack):         {"The new version did not come up healthy; the node runs the previous one again.", "Look at the event's journal, or journalctl on the node. It is safe to investigate."},
	string(release.Internal):           {"A defect, or an I/O error on the node.", "See the node's journal."},
	"time_limit":                       {"The node gave no outcome within the time limit. One that comes later still counts.", "See whether it is online; retry, or skip it."},
}

// ago is how long before now t was, in words.
func ago(t, now time.Time) string {
	d := now.Sub(t)
	plural := func(k int, unit string) string {
		if k == 1 {
			return "1 " + unit + " ago"
		}
		return fmt.Sprintf("%d %ss ago", k, unit)
	}
	switch {
	case t.IsZero():
		return "never"
	case d < 5*time.Second:
		return "now"
	case d < time.Minute:
		return plural(int(d.Seconds()), "second")
	case d < time.Hour:
		return plural(int(d.Minutes()), "minute")
	case d < 48*time.Hour:
		return plural(int(d.Hours()), "hour")
	}
	return plural(int(d.Hours()/24), "day")
}

// navEntry is one entry of the menu.
type navEntry struct {
	Page, Word string
	Here       bool
}

// span is a part of a bar, in percent.
type span struct{ X, Width float64 }

func spans(parts []int, of int) []span {
	var out []span
	x := 0.0
	for _, k := range parts {
		width := 100 * float64(k) / float64(max(of, 1))
		out = append(out, span{x, width})
		x += width
	}
	return out
}

// functions are what templates may call.
var functions = template.FuncMap{
	"nav":        func(p page, name, word string) navEntry { return navEntry{name, word, p.Nav == name} },
	"severities": func() []string { return []string{"info", "warning", "critical"} },
	"skew": func(shares []share, of int) []span {
		var parts []int
		for _, s := range shares {
			parts = append(parts, s.Nodes)
		}
		return spans(parts, of)
	},
	"progress": func(nodes []rollout.Node) []span { // updated, failed, at work
		var parts [3]int
		for _, n := range nodes {
			switch n.State {
			case rollout.NodeUpdated:
				parts[0]++
			case rollout.NodeFailed, rollout.NodeRolledBack:
				parts[1]++
			case rollout.NodeCommanded:
				parts[2]++
			}
		}
		return spans(parts[:], len(nodes))
	},
	"ago":     func(t time.Time) string { return ago(t, time.Now()) },
	"utc":     func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"short":   func(id string) string { return id[:min(len(id), 8)] },
	"join":    func(s []string) string { return strings.Join(s, ", ") },
	"add":     func(a, b int) int { return a + b },
	"percent": func(part, of int) int { return 100 * part / max(of, 1) },
	"coded":   coded,
	"words":   func(s string) string { return strings.ReplaceAll(s, "_", " ") },
	"json": func(b json.RawMessage) string {
		if len(b) == 0 || string(b) == "null" {
			return ""
		}
		return string(b)
	},
}
