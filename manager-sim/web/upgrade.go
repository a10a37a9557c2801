package web

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bilbycast/edge-agent/release"
)

// choice is a version that can be chosen.
type choice struct {
	Version string
	Note    string // how a node that runs another version treats it
}

// choices adds to versions how a node that runs current treats them.
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
			out[i].Note = "older major: only if rollback_majors of the node allows it"
		default:
			out[i].Note = "older: only within rollback_grace of the node"
		}
	}
	return out
}

// published is what the manager knows of the releases for a device type.
type published struct {
	Versions []string
	Problem  string // why the manager cannot list them
}

// choices are the published versions, and the one that was asked for.
func (p published) choices(current, asked string) []choice {
	list := choices(p.Versions, current)
	if asked != "" && len(list) > 0 && !slices.Contains(p.Versions, asked) {
		list = append(list, choice{asked, "not published"})
	}
	return list
}

// releases returns the releases for a device type. That the manager cannot list
// them keeps nobody from an upgrade.
func (r *request) releases(deviceType, channel string) (published, error) {
	var list struct {
		Releases []struct {
			Version string `json:"version"`
		} `json:"releases"`
	}
	err := r.api(http.MethodGet, "/api/v1/releases/"+url.PathEscape(deviceType)+"?channel="+url.QueryEscape(channel), nil, &list)
	var api *apiError
	if errors.As(err, &api) && api.status != http.StatusForbidden {
		return published{Problem: api.text}, nil
	}
	var p published
	for _, rel := range list.Releases {
		p.Versions = append(p.Versions, rel.Version)
	}
	return p, err
}

// notPublished reports whether the API refused a version because it is not
// published. The operator may override that.
func notPublished(err error) bool { return hasCode(err, "not_published") }

// hasCode reports whether err is a refusal of the API with the code.
func hasCode(err error, code string) bool {
	var api *apiError
	return errors.As(err, &api) && api.code == code
}

// upgradeForm is what the form of a node's upgrade shows.
type upgradeForm struct {
	Node      node
	Versions  []choice
	Published published
	Channels  []string
	Version   string
	Channel   string
	Allowed   []string // channels, as far as the node reports them
	Unlisted  bool     // offer to override that the version is not published
}

func (r *request) upgradeForm() (upgradeForm, error) {
	var n node
	if err := r.api(http.MethodGet, r.nodePath(), nil, &n); err != nil {
		return upgradeForm{}, err
	}
	f := upgradeForm{Node: n, Version: strings.TrimSpace(r.FormValue("version")), Channel: r.FormValue("channel"), Channels: []string{"stable"}}
	var u struct {
		Channels []string `json:"channels"`
	}
	if json.Unmarshal(n.Upgrade, &u) == nil && len(u.Channels) > 0 {
		f.Channels, f.Allowed = u.Channels, u.Channels
	}
	if f.Channel == "" {
		f.Channel = f.Channels[0]
	}
	var err error
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
	body := map[string]any{"version": strings.TrimSpace(r.PostFormValue("version")), "channel": r.PostFormValue("channel")}
	for _, option := range []string{"allow_unlisted", "replace"} {
		if r.PostFormValue(option) == "yes" {
			body[option] = true
		}
	}
	err := r.api(http.MethodPost, r.nodePath()+"/upgrade", body, nil)
	if err == nil {
		return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
	}
	f, formErr := r.upgradeForm()
	if formErr != nil {
		return err
	}
	f.Unlisted = notPublished(err)
	return r.refused(err, "upgrade", "Upgrade node "+f.Node.ID, "nodes", f)
}
