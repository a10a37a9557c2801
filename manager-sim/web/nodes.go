package web

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/release"
)

type group struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

// groupList returns the groups, and their names by id.
func (r *request) groupList() ([]group, map[string]string, error) {
	var list struct {
		Groups []group `json:"groups"`
	}
	err := r.api(http.MethodGet, "/api/v1/groups", nil, &list)
	names := map[string]string{}
	for _, g := range list.Groups {
		names[g.ID] = g.Name
	}
	return list.Groups, names, err
}

// nodeFilter is the query of the page of nodes.
type nodeFilter struct{ Search, State, Group, Online string }

func (f nodeFilter) takes(n node) bool {
	word := n.Chip().Word
	if i := strings.IndexByte(word, ' '); strings.HasPrefix(word, "staging") && i > 0 {
		word = word[:i]
	}
	return (f.Search == "" || strings.Contains(strings.ToLower(n.ID+" "+n.Version+" "+n.DeviceType), strings.ToLower(f.Search))) &&
		(f.State == "" || f.State == word) && (f.Group == "" || f.Group == n.GroupID) &&
		(f.Online == "" || (f.Online == "yes") == n.Online)
}

// states are the words of chips, for the filter.
var states = []string{"idle", "offline", "queued", "staging", "restarting", "proving", "updated", "upgrade failed", "rolled back"}

func (r *request) nodes() error {
	list, err := all[node](r, "/api/v1/nodes", "nodes")
	if err != nil {
		return err
	}
	groups, names, err := r.groupList()
	if err != nil {
		return err
	}
	q := r.URL.Query()
	f := nodeFilter{q.Get("q"), q.Get("state"), q.Get("group"), q.Get("online")}
	total := len(list)
	list = slices.DeleteFunc(list, func(n node) bool { return !f.takes(n) })
	return r.show("nodes", "Managed nodes", "nodes", true, map[string]any{
		"Nodes": list, "All": total, "Filter": f, "States": states, "Groups": groups, "Names": names})
}

type command struct {
	ID        string    `json:"command_id"`
	Version   string    `json:"version"`
	Channel   string    `json:"channel"`
	CreatedAt time.Time `json:"created_at"`
	SentAt    time.Time `json:"sent_at"`
	AckedAt   time.Time `json:"acked_at"`
	Success   bool      `json:"success"`
	ErrorCode string    `json:"error_code"`
	Error     string    `json:"error"`
}

type connection struct {
	Time    time.Time `json:"time"`
	State   string    `json:"state"`
	Version string    `json:"version"`
}

type event struct {
	Seq        int64     `json:"seq"`
	NodeID     string    `json:"node_id"`
	ReceivedAt time.Time `json:"received_at"`
	Time       time.Time `json:"time"`
	Severity   string    `json:"severity"`
	Category   string    `json:"category"`
	Message    string    `json:"message"`
	ErrorCode  string    `json:"error_code"`
	CommandID  string    `json:"command_id"`
	Details    struct {
		Journal []string `json:"journal"`
	} `json:"details"`
}

// moment is one line of the timeline of an upgrade.
type moment struct {
	At      time.Time
	After   string // since the command
	What    string
	Message string
	Bad     bool
	Journal []string
}

// attempt is one upgrade of a node.
type attempt struct {
	command
	Moments []moment
}

func (r *request) node() error {
	path := "/api/v1/nodes/" + url.PathEscape(r.PathValue("id"))
	var n node
	if err := r.api(http.MethodGet, path, nil, &n); err != nil {
		return err
	}
	var commands struct {
		Commands []command `json:"commands"`
		Next     string    `json:"next"`
	}
	if err := r.api(http.MethodGet, path+"/commands", nil, &commands); err != nil {
		return err
	}
	var connections struct {
		Connections []connection `json:"connections"`
	}
	if err := r.api(http.MethodGet, path+"/connections", nil, &connections); err != nil {
		return err
	}
	var events struct {
		Events []event `json:"events"`
		Total  int     `json:"total"`
	}
	if err := r.api(http.MethodGet, "/api/v1/events?per_page=200&category=upgrade&node_id="+url.QueryEscape(n.ID), nil, &events); err != nil {
		return err
	}
	groups, names, err := r.groupList()
	if err != nil {
		return err
	}
	var attempts []attempt
	until := time.Now() // of the newest command; of the others, the next one's time
	for i, c := range commands.Commands {
		if i == 0 && n.settled() {
			until = time.Time{}
		}
		attempts = append(attempts, attempt{c, timeline(c, events.Events, connections.Connections, until)})
		until = c.CreatedAt
	}
	return r.show("node", "Node "+n.ID, "nodes", true, map[string]any{"Node": n, "Attempts": attempts, "Groups": groups, "Names": names, "More": events.Total > len(events.Events), "Older": commands.Next != ""})
}

// timeline is what is known of a command, oldest first. The node's coming and
// going is part of it until its last word, or until then.
func timeline(c command, events []event, connections []connection, then time.Time) []moment {
	ms := []moment{{At: c.CreatedAt, What: "requested", Message: c.Version + " (" + c.Channel + ")"}}
	if !c.SentAt.IsZero() {
		ms = append(ms, moment{At: c.SentAt, What: "sent", Message: "the command went out, for the last time"})
	}
	if !c.AckedAt.IsZero() {
		m := moment{At: c.AckedAt, What: "acknowledged", Message: "staged", Bad: !c.Success}
		if !c.Success {
			m.Message = c.ErrorCode + ": " + c.Error
		}
		ms = append(ms, m)
	}
	for _, e := range events {
		if e.CommandID == c.ID {
			ms = append(ms, moment{At: e.ReceivedAt, What: e.ErrorCode, Message: e.Message, Bad: e.Severity != "info", Journal: e.Details.Journal})
		}
	}
	for _, m := range ms {
		if then.Before(m.At) {
			then = m.At
		}
	}
	for _, k := range slices.Backward(connections) {
		if k.Time.Before(c.CreatedAt) || k.Time.After(then) {
			continue
		}
		m := moment{At: k.Time, What: k.State}
		if k.Version != "" {
			m.What, m.Message = "re-authenticated", "at "+k.Version
		}
		ms = append(ms, m)
	}
	slices.SortStableFunc(ms, func(a, b moment) int { return a.At.Compare(b.At) })
	for i := range ms {
		ms[i].After = "+" + ms[i].At.Sub(c.CreatedAt).Round(100*time.Millisecond).String()
	}
	return ms
}

// choice is a version that can be chosen.
type choice struct {
	Version string
	Note    string // what a node that runs another version will make of it
}

// choices adds to versions what is known of them at a node that runs current.
func choices(versions []string, current string) []choice {
	out := make([]choice, len(versions))
	now, err := release.ParseVersion(current)
	for i, s := range versions {
		out[i].Version = s
		v, bad := release.ParseVersion(s)
		switch {
		case err != nil || bad != nil:
		case v.Compare(now) == 0:
			out[i].Note = "runs now"
		case v.Compare(now) > 0:
			out[i].Note = "newer"
		case v.Major() < now.Major():
			out[i].Note = "an older major: only if rollback_majors of the node allows it"
		default:
			out[i].Note = "older: only within the node's rollback_grace"
		}
	}
	return out
}

// releases are what can be chosen for a device type.
func (r *request) releases(deviceType, channel string) ([]string, error) {
	var list struct {
		Releases []struct {
			Version string `json:"version"`
		} `json:"releases"`
	}
	err := r.api(http.MethodGet, "/api/v1/releases/"+url.PathEscape(deviceType)+"?channel="+url.QueryEscape(channel), nil, &list)
	var versions []string
	for _, rel := range list.Releases {
		versions = append(versions, rel.Version)
	}
	return versions, err
}

// upgradeForm is what the form of a node's upgrade shows.
type upgradeForm struct {
	Node     node
	Versions []choice
	Channels []string
	Version  string
	Channel  string
	Note     string // what the node's policy will say, as far as it is known
}

func (r *request) upgradeForm() (upgradeForm, error) {
	var n node
	if err := r.api(http.MethodGet, "/api/v1/nodes/"+url.PathEscape(r.PathValue("id")), nil, &n); err != nil {
		return upgradeForm{}, err
	}
	f := upgradeForm{Node: n, Version: r.FormValue("version"), Channel: r.FormValue("channel"), Channels: []string{"stable"}}
	var u struct {
		Channels []string `json:"channels"`
	}
	if json.Unmarshal(n.Upgrade, &u) == nil && len(u.Channels) > 0 {
		f.Channels = u.Channels
		f.Note = "The node takes the channels " + strings.Join(u.Channels, ", ") + ". It refuses versions below its min_version, and more than rollback_grace minor versions back."
	}
	if f.Channel == "" {
		f.Channel = f.Channels[0]
	}
	versions, err := r.releases(n.DeviceType, f.Channel)
	f.Versions = choices(versions, n.Version)
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
	err := r.api(http.MethodPost, "/api/v1/nodes/"+url.PathEscape(r.PathValue("id"))+"/upgrade",
		map[string]string{"version": r.PostFormValue("version"), "channel": r.PostFormValue("channel")}, nil)
	if err == nil {
		return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
	}
	f, formErr := r.upgradeForm()
	if formErr != nil {
		return err
	}
	return r.refused(err, "upgrade", "Upgrade node "+f.Node.ID, "nodes", f)
}

func (r *request) setGroup() error {
	id := url.PathEscape(r.PathValue("id"))
	if err := r.api(http.MethodPut, "/api/v1/nodes/"+id+"/group", map[string]string{"group_id": r.PostFormValue("group_id")}, nil); err != nil {
		return err
	}
	return r.to("/admin/nodes/%s", id)
}
