package web

import (
	"net/http"
	"net/url"
	"slices"
	"time"
)

type command struct {
	ID          string    `json:"command_id"`
	Version     string    `json:"version"`
	Channel     string    `json:"channel"`
	RequestedBy string    `json:"requested_by"`
	CreatedAt   time.Time `json:"created_at"`
	SentAt      time.Time `json:"sent_at"`
	AckedAt     time.Time `json:"acked_at"`
	Success     bool      `json:"success"`
	ErrorCode   string    `json:"error_code"`
	Error       string    `json:"error"`
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

// nodeView is what the page of a node shows.
type nodeView struct {
	Node     node
	Attempts []attempt
	Groups   []group
	Names    map[string]string // of groups, by id
	Older    bool              // there are older attempts
	More     bool              // there are older events
}

func (r *request) nodePath() string { return "/api/v1/nodes/" + url.PathEscape(r.PathValue("id")) }

func (r *request) node() error { return r.nodePage(nil) }

func (r *request) nodePage(problem error) error {
	v, err := r.nodeView()
	if err != nil {
		return err
	}
	if problem != nil {
		return r.refused(problem, "node", "Node "+v.Node.ID, "nodes", v)
	}
	return r.show("node", "Node "+v.Node.ID, "nodes", true, v)
}

func (r *request) nodeView() (nodeView, error) {
	var v nodeView
	if err := r.api(http.MethodGet, r.nodePath(), nil, &v.Node); err != nil {
		return v, err
	}
	var commands struct {
		Commands []command `json:"commands"`
		Next     string    `json:"next"`
	}
	if err := r.api(http.MethodGet, r.nodePath()+"/commands", nil, &commands); err != nil {
		return v, err
	}
	var connections struct {
		Connections []connection `json:"connections"`
	}
	if err := r.api(http.MethodGet, r.nodePath()+"/connections", nil, &connections); err != nil {
		return v, err
	}
	var events struct {
		Events []event `json:"events"`
		Total  int     `json:"total"`
	}
	if err := r.api(http.MethodGet, "/api/v1/events?per_page=200&category=upgrade&node_id="+url.QueryEscape(v.Node.ID), nil, &events); err != nil {
		return v, err
	}
	var err error
	v.Groups, v.Names, err = r.groupList()
	until := time.Now() // of the newest command; of the others, the next one's time
	for i, c := range commands.Commands {
		if i == 0 && v.Node.settled() {
			until = time.Time{}
		}
		v.Attempts = append(v.Attempts, attempt{c, timeline(c, events.Events, connections.Connections, until)})
		until = c.CreatedAt
	}
	v.Older, v.More = commands.Next != "", events.Total > len(events.Events)
	return v, err
}

// timeline returns what is known of a command, oldest first. The node's
// connections are part of it until its last report, or until then.
func timeline(c command, events []event, connections []connection, then time.Time) []moment {
	requested := moment{At: c.CreatedAt, What: "requested", Message: c.Version + " (" + c.Channel + ")"}
	if c.RequestedBy != "" {
		requested.Message += " by " + c.RequestedBy
	}
	ms := []moment{requested}
	if !c.SentAt.IsZero() {
		ms = append(ms, moment{At: c.SentAt, What: "command sent"})
	}
	if !c.AckedAt.IsZero() {
		m := moment{At: c.AckedAt, What: "acknowledged", Message: "staged", Bad: !c.Success}
		if !c.Success {
			m.Message = c.ErrorCode
			if c.Error != "" {
				m.Message += ": " + c.Error
			}
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
			m.What, m.Message = "reconnected", "running "+k.Version
		}
		ms = append(ms, m)
	}
	slices.SortStableFunc(ms, func(a, b moment) int { return a.At.Compare(b.At) })
	for i := range ms {
		ms[i].After = "+" + ms[i].At.Sub(c.CreatedAt).Round(100*time.Millisecond).String()
	}
	return ms
}

func (r *request) setGroup() error {
	if err := r.api(http.MethodPut, r.nodePath()+"/group", map[string]string{"group_id": r.PostFormValue("group_id")}, nil); err != nil {
		return r.nodePage(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
}

// resolveNode ends the mark of two devices with one identity.
func (r *request) resolveNode() error {
	if err := r.api(http.MethodPost, r.nodePath()+"/resolve", nil, nil); err != nil {
		return r.nodePage(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
}

func (r *request) removeNodePage() error { return r.confirmRemoveNode(nil) }

func (r *request) confirmRemoveNode(problem error) error {
	var n node
	if err := r.api(http.MethodGet, r.nodePath(), nil, &n); err != nil {
		return err
	}
	at := "/admin/nodes/" + url.PathEscape(n.ID)
	return r.confirm(problem, confirmation{
		Title: "Remove node " + n.ID, Nav: "nodes", Action: at + "/remove", Button: "Remove node", Cancel: at,
		Effects: []string{
			"The manager revokes the node's secret and ends its connection. The node cannot connect with that secret again.",
			"The node leaves its group, and no rollout upgrades it.",
			"The software on the device keeps running. The node's history stays readable.",
			"To manage the device again, register it: remove credentials.json in its install root, put a registration token into config.toml, and restart the service.",
		}})
}

func (r *request) removeNode() error {
	if err := r.api(http.MethodDelete, r.nodePath(), r.withReason(nil), nil); err != nil {
		return r.confirmRemoveNode(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
}
