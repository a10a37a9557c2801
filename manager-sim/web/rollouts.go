package web

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

type rolloutDetail struct {
	rollout.Rollout
	GroupName string         `json:"group_name"`
	CreatedBy string         `json:"created_by"`
	Counts    map[string]int `json:"counts"`
}

type rolloutList struct {
	Rollouts []rolloutDetail `json:"rollouts"`
	Next     string          `json:"next"`
}

// rolloutTable is a list of rollouts.
type rolloutTable struct {
	Rollouts []rolloutDetail
	Names    map[string]string // of groups, by id
}

// nodeWords are what a page calls the states of a rollout's nodes.
var nodeWords = map[rollout.NodeState]string{rollout.NodeCommanded: "upgrading", rollout.NodeRolledBack: "rolled back"}

func nodeWord(s rollout.NodeState) string {
	if w, ok := nodeWords[s]; ok {
		return w
	}
	return string(s)
}

// Done is how many nodes have finished, and Bad is how many of them failed.
func (d rolloutDetail) Done() int {
	return len(d.Nodes) - d.Count(rollout.NodeWaiting) - d.Count(rollout.NodeCommanded)
}

// Bad is how many nodes failed or were rolled back.
func (d rolloutDetail) Bad() int {
	return d.Count(rollout.NodeFailed) + d.Count(rollout.NodeRolledBack)
}

// Final reports whether it has ended.
func (d rolloutDetail) Final() bool { return d.Status.Final() }

// Summary is where its nodes stand, as "4 of 40 finished: 3 updated, 1 failed.
// 36 waiting."
func (d rolloutDetail) Summary() string {
	count := func(states ...rollout.NodeState) string {
		var parts []string
		for _, s := range states {
			if k := d.Count(s); k > 0 {
				parts = append(parts, fmt.Sprintf("%d %s", k, nodeWord(s)))
			}
		}
		return strings.Join(parts, ", ")
	}
	text := fmt.Sprintf("%d of %d finished", d.Done(), len(d.Nodes))
	if finished := count(rollout.NodeUpdated, rollout.NodeFailed, rollout.NodeRolledBack, rollout.NodeSkipped, rollout.NodeMissed); finished != "" {
		text += ": " + finished
	}
	text += "."
	if rest := count(rollout.NodeCommanded, rollout.NodeWaiting); rest != "" {
		text += " " + rest + "."
	}
	return text
}

// waveNode is a node of a wave.
type waveNode struct {
	rollout.Node
	Failure *failure
}

// Word is its state.
func (n waveNode) Word() string { return nodeWord(n.State) }

// Chip is its state, if that is a failure.
func (n waveNode) Chip() chip { return chip{n.Word(), "✕", "bad"} }

// MaySkip reports whether an operator can take it out of the rollout.
func (n waveNode) MaySkip() bool {
	return n.State != rollout.NodeUpdated && n.State != rollout.NodeSkipped
}

// wave is one wave of a rollout.
type wave struct {
	Number  int
	Nodes   []waveNode
	Updated int
	State   string // "done", "not started" or the rollout's status
}

// waves splits the nodes by wave. Causes are the nodes' own messages, by id.
func (d rolloutDetail) waves(causes map[string]string) []wave {
	var ws []wave
	first := 0
	for i, k := range d.Waves {
		w := wave{Number: i + 1, State: "not started"}
		for _, n := range d.Nodes[first:k] {
			wn := waveNode{Node: n}
			if n.State == rollout.NodeUpdated {
				w.Updated++
			}
			if n.State == rollout.NodeFailed || n.State == rollout.NodeRolledBack {
				wn.Failure = failureOf(n.Code, causes[n.ID])
			}
			w.Nodes = append(w.Nodes, wn)
		}
		switch {
		case i < d.Wave || d.Status == rollout.Completed:
			w.State = "done"
		case i == d.Wave:
			w.State = string(d.Status)
		}
		first = k
		ws = append(ws, w)
	}
	return ws
}

// SettleLeft is how long the settle window still is.
func (d rolloutDetail) SettleLeft() string { return duration(time.Until(d.SettleUntil)) }

func (r *request) rollouts() error {
	var list rolloutList
	path := "/api/v1/rollouts"
	if after := r.URL.Query().Get("after"); after != "" {
		path += "?after=" + url.QueryEscape(after)
	}
	if err := r.api(http.MethodGet, path, nil, &list); err != nil {
		return err
	}
	_, names, err := r.groupList()
	if err != nil {
		return err
	}
	return r.show("rollouts", "Rollouts", "rollouts", true, map[string]any{"Table": rolloutTable{list.Rollouts, names}, "Next": list.Next})
}

// rolloutView is what the page of a rollout shows.
type rolloutView struct {
	Rollout rolloutDetail
	Waves   []wave
}

func (r *request) rolloutPath() string {
	return "/api/v1/rollouts/" + url.PathEscape(r.PathValue("id"))
}

func (r *request) rolloutDetail() (rolloutDetail, error) {
	var d rolloutDetail
	if err := r.api(http.MethodGet, r.rolloutPath(), nil, &d); err != nil {
		return d, err
	}
	if d.GroupName == "" {
		_, names, err := r.groupList()
		if err != nil {
			return d, err
		}
		d.GroupName = names[d.GroupID]
	}
	return d, nil
}

func (r *request) rollout() error { return r.rolloutPage(nil) }

func (r *request) rolloutPage(problem error) error {
	d, err := r.rolloutDetail()
	if err != nil {
		return err
	}
	causes, err := r.causes(d)
	if err != nil {
		return err
	}
	v := rolloutView{d, d.waves(causes)}
	if problem != nil {
		return r.refused(problem, "rollout", "Rollout to "+d.Version, "rollouts", v)
	}
	return r.show("rollout", "Rollout to "+d.Version, "rollouts", true, v)
}

// causes returns the messages of the nodes that failed in the rollout, by id.
// A node that another command reached since has none.
func (r *request) causes(d rolloutDetail) (map[string]string, error) {
	causes := map[string]string{}
	if d.Bad() == 0 {
		return causes, nil
	}
	g, err := r.groupDetail(d.GroupID)
	if err != nil {
		return nil, err
	}
	commands := map[string]string{}
	for _, n := range d.Nodes {
		commands[n.ID] = d.CommandID(n)
	}
	for _, n := range g.Nodes {
		if n.CommandID == commands[n.ID] {
			causes[n.ID] = n.Error
		}
	}
	return causes, nil
}

func (r *request) actOnRollout() error {
	var body any
	if node := r.PostFormValue("node_id"); node != "" {
		body = map[string]string{"node_id": node}
	}
	if err := r.api(http.MethodPost, r.rolloutPath()+"/"+url.PathEscape(r.PathValue("act")), body, nil); err != nil {
		return r.rolloutPage(err)
	}
	return r.to("/admin/rollouts/%s", url.PathEscape(r.PathValue("id")))
}

func (r *request) abortPage() error { return r.confirmAbort(nil) }

func (r *request) confirmAbort(problem error) error {
	d, err := r.rolloutDetail()
	if err != nil {
		return err
	}
	if problem == nil && d.Final() {
		return r.to("/admin/rollouts/%s", url.PathEscape(d.ID)) // there is nothing to abort
	}
	at := "/admin/rollouts/" + url.PathEscape(d.ID)
	effects := []string{
		fmt.Sprintf("The rollout of group %s starts no new upgrades. Nodes still waiting, which keep their present version: %d.", d.GroupName, d.Count(rollout.NodeWaiting)),
		fmt.Sprintf("Running upgrades continue: %d.", d.Count(rollout.NodeCommanded)),
		fmt.Sprintf("Nodes updated so far keep the new version: %d. You can roll the group back afterwards.", d.Count(rollout.NodeUpdated)),
		"An aborted rollout cannot be resumed.",
	}
	return r.confirm(problem, confirmation{Title: "Abort the rollout to " + d.Version, Nav: "rollouts", Effects: effects,
		Action: at + "/abort", Button: "Abort rollout", Cancel: at})
}

func (r *request) abort() error {
	if err := r.api(http.MethodPost, r.rolloutPath()+"/abort", r.withReason(nil), nil); err != nil {
		return r.confirmAbort(err)
	}
	return r.to("/admin/rollouts/%s", url.PathEscape(r.PathValue("id")))
}
