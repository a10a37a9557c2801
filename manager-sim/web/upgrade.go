package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// choice is a version that an operator can choose.
type choice struct {
	Version string
	Note    string // how it compares with the version that the node runs
}

// choices compares versions with the current one of a node.
func choices(versions []string, current string) []choice {
	out := make([]choice, len(versions))
	now, err := release.ParseVersion(current)
	for i, s := range versions {
		out[i].Version = s
		v, bad := release.ParseVersion(s)
		switch {
		case err != nil || bad != nil:
		case v.Compare(now) == 0:
			out[i].Note = "running now"
		case v.Compare(now) > 0:
			out[i].Note = "newer"
		case v.Major() < now.Major():
			out[i].Note = "older major: allowed only by rollback_majors of the node"
		default:
			out[i].Note = "older: allowed only within rollback_grace of the node"
		}
	}
	return out
}

// published are the releases of a device type that the manager lists.
type published struct {
	Versions []string
	Problem  string // why the manager cannot list them
}

// choices returns the published versions, and the requested one.
func (p published) choices(current, requested string) []choice {
	list := choices(p.Versions, current)
	if requested != "" && len(list) > 0 && !slices.Contains(p.Versions, requested) {
		list = append(list, choice{requested, "not published"})
	}
	return list
}

// releases returns the releases for a device type. If the manager cannot list them, the
// operator can still request an upgrade.
func (r *request) releases(deviceType, channel string) (published, error) {
	list, err := r.api.Releases(r.Context(), deviceType, channel)
	if refusal, ok := refusalOf(err); ok && refusal.Status != http.StatusForbidden {
		return published{Problem: refusal.Detail}, nil
	}
	var p published
	for _, rel := range list {
		p.Versions = append(p.Versions, rel.Version)
	}
	return p, err
}

// upgradeForm is the data of the form of a node's upgrade.
type upgradeForm struct {
	Node      node
	Versions  []choice
	Published published
	Channels  []string
	Version   string
	Channel   string
	Allowed   []string // channels, as far as the node reports them
	Repair    bool     // the version is the repair of a node whose own check fails
	Unlisted  bool     // offer to override that the version is not published
}

func (r *request) upgradeForm() (upgradeForm, error) {
	answer, err := r.api.Node(r.Context(), r.PathValue("id"))
	if err != nil {
		return upgradeForm{}, err
	}
	n := node{answer}
	f := upgradeForm{Node: n, Version: strings.TrimSpace(r.FormValue("version")), Channel: r.FormValue("channel"), Repair: r.FormValue("repair") == "yes", Channels: []string{release.DefaultChannel}}
	var u wire.Upgrade
	if json.Unmarshal(n.Upgrade, &u) == nil && len(u.Channels) > 0 {
		f.Channels, f.Allowed = u.Channels, u.Channels
	}
	if f.Channel == "" {
		f.Channel = f.Channels[0]
	}
	f.Published, err = r.releases(n.DeviceType, f.Channel)
	f.Versions = f.Published.choices(n.Version, f.Version)
	return f, err
}

func (r *request) upgradeNodePage() error {
	f, err := r.upgradeForm()
	if err != nil {
		return err
	}
	return r.show("upgrade", "Upgrade node "+f.Node.ID, "nodes", false, f)
}

func (r *request) upgradeNode() error {
	_, err := r.api.UpgradeNode(r.Context(), r.PathValue("id"), api.NodeUpgrade{
		Version: strings.TrimSpace(r.PostFormValue("version")), Channel: r.PostFormValue("channel"),
		AllowUnlisted: r.PostFormValue("allow_unlisted") == "yes", Replaces: r.PostFormValue("replaces"), Repair: r.PostFormValue("repair") == "yes"})
	if err == nil {
		return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
	}
	f, formErr := r.upgradeForm()
	if formErr != nil {
		return err
	}
	f.Unlisted = api.IsCode(err, api.CodeNotPublished) // the operator may override that
	return r.refused(err, "upgrade", "Upgrade node "+f.Node.ID, "nodes", f)
}
