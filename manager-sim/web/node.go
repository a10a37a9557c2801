package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// event is an event as the pages show it.
type event struct{ api.Event }

func eventsOf(list []api.Event) []event {
	events := make([]event, len(list))
	for i, e := range list {
		events[i] = event{e}
	}
	return events
}

func (e event) details() (d wire.Details) {
	if json.Unmarshal(e.Details, &d) != nil {
		return wire.Details{}
	}
	return d
}

// Journal returns the last lines of a version that was rolled back, oldest first.
func (e event) Journal() []string { return e.details().Journal }

// Trial returns what the trial of a version found that was rolled back: how its starts
// ended, and what the two versions found of the line. A row is a name and a text.
func (e event) Trial() (rows [][2]string) {
	d := e.details()
	for i, why := range d.FailedStarts {
		rows = append(rows, [2]string{fmt.Sprintf("Start %d failed", i+1), cmp.Or(why, "the node does not know why")})
	}
	if d.Dependency {
		rows = append(rows, [2]string{"Probably a dependency", "after the rollback the check of the previous version failed as well"})
	}
	t := d.Trial
	if t == nil {
		return rows
	}
	for _, how := range t.NotCounted {
		rows = append(rows, [2]string{"Start that did not count", how})
	}
	if t.Contradictions > 0 {
		rows = append(rows, [2]string{"Contradicted", fmt.Sprintf("%d times the previous version reached the manager, and the new one did not, before and after", t.Contradictions)})
	}
	for _, row := range [][2]string{{"Link of the new version", t.Link}, {"Probe of the previous version", t.Probe}, {"Its probe before the swap", t.ProbeBefore},
		{"Own check, in the last round", t.Check}, {"Its dependency, in that round", t.Dependency}} {
		if row[1] != "" {
			rows = append(rows, row)
		}
	}
	return rows
}

// moment is one line in the timeline of an upgrade.
type moment struct {
	At      time.Time
	After   string // time since the request
	What    string
	Message string
	Bad     bool
	Trial   [][2]string
	Journal []string
}

func (e event) moment() moment {
	return moment{At: e.ReceivedAt, What: e.ErrorCode, Message: e.Message, Bad: e.Severity != string(release.Info), Trial: e.Trial(), Journal: e.Journal()}
}

// attempt is one upgrade of a node.
type attempt struct {
	api.Command
	Moments []moment
}

// nodeView is the data of the page of a node.
type nodeView struct {
	Node     node
	Attempts []attempt
	Others   []moment // events that belong to no command
	Groups   []api.Group
	Names    map[string]string // of groups, by id
	Older    bool              // there are older attempts
	More     bool              // there are older events
	Actions  []action          // the newest commands to the node's actions
	Form     actionForm        // of another one
}

func (r *request) node() error { return r.nodePage(nil) }

func (r *request) nodePage(refusal error) error {
	v, err := r.nodeView()
	if err != nil {
		return err
	}
	if refusal != nil {
		return r.refused(refusal, "node", "Node "+v.Node.ID, "nodes", v)
	}
	return r.show("node", "Node "+v.Node.ID, "nodes", true, v)
}

func (r *request) nodeView() (nodeView, error) {
	ctx, id := r.Context(), r.PathValue("id")
	n, err := r.api.Node(ctx, id)
	if err != nil {
		return nodeView{}, err
	}
	commands, err := r.api.Commands(ctx, id, 0, "")
	if err != nil {
		return nodeView{}, err
	}
	connections, err := r.api.Connections(ctx, id)
	if err != nil {
		return nodeView{}, err
	}
	events, err := r.api.Events(ctx, api.EventQuery{NodeID: n.ID, Category: wire.CategoryUpgrade, PerPage: api.MaxEventsPerPage})
	if err != nil {
		return nodeView{}, err
	}
	v := nodeView{Node: node{n}, Older: commands.Next != "", More: events.Total > len(events.Events)}
	if v.Actions, err = r.actionsOf(n.ID); err != nil {
		return nodeView{}, err
	}
	v.Groups, v.Names, err = r.groupList()
	until := time.Now() // of the newest command; of the others, the next one's time
	for i, c := range commands.Commands {
		if i == 0 && v.Node.UpgradeState.Ended() {
			until = time.Time{}
		}
		v.Attempts = append(v.Attempts, attempt{c, timeline(c, eventsOf(events.Events), connections, until)})
		until = c.CreatedAt
	}
	v.Others = otherEvents(commands.Commands, eventsOf(events.Events), v.Older)
	return v, err
}

// otherEvents returns the events of upgrades that this manager did not request, oldest first: those without a
// command, or with one that this manager does not have. older is whether it has commands
// that are not in the list.
func otherEvents(commands []api.Command, events []event, older bool) []moment {
	var ms []moment
	for _, e := range slices.Backward(events) {
		known := slices.ContainsFunc(commands, func(c api.Command) bool { return c.ID == e.CommandID })
		if e.CommandID == "" || !known && !older {
			ms = append(ms, e.moment())
		}
	}
	return ms
}

// timeline returns the moments of a command, oldest first. It includes the node's
// connections until the last report of the command, or until then if that is later.
func timeline(c api.Command, events []event, connections []api.Connection, then time.Time) []moment {
	requested := moment{At: c.CreatedAt, What: "requested", Message: c.Version + " (" + c.Channel + ")"}
	if c.Actor != "" {
		requested.Message += " by " + c.Actor
	}
	ms := []moment{requested}
	if !c.SentAt.IsZero() {
		ms = append(ms, moment{At: c.SentAt, What: "command sent"})
	}
	if m, ok := withdrawal(c); ok {
		ms = append(ms, m)
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
			ms = append(ms, e.moment())
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
	if err := r.api.SetGroup(r.Context(), r.PathValue("id"), r.PostFormValue("group_id")); err != nil {
		return r.nodePage(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
}

// resolveNode removes the mark of two devices with one identity.
func (r *request) resolveNode() error {
	if _, err := r.api.ResolveNode(r.Context(), r.PathValue("id")); err != nil {
		return r.nodePage(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
}

func (r *request) removeNodePage() error { return r.confirmRemoveNode(nil) }

func (r *request) confirmRemoveNode(refusal error) error {
	n, err := r.readableNode()
	if err != nil {
		return err
	}
	at := "/admin/nodes/" + url.PathEscape(n.ID)
	return r.confirm(refusal, confirmation{
		Title: "Remove node " + n.ID, Nav: "nodes", Action: at + "/remove", Button: "Remove node", Cancel: at,
		Effects: []string{
			"The manager revokes the node's secret and ends its connection. The node cannot connect with that secret again.",
			"The node leaves its group, and no rollout upgrades it.",
			"The software on the device keeps running. The node's history stays readable.",
			"To manage the device again, register it: remove credentials.json in its install root, set a registration token in config.toml, and restart the service.",
		}})
}

func (r *request) removeNode() error {
	if err := r.api.RemoveNode(r.Context(), r.PathValue("id"), r.reason()); err != nil {
		return r.confirmRemoveNode(err)
	}
	return r.to("/admin/nodes/%s", url.PathEscape(r.PathValue("id")))
}
