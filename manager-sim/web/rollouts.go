package web

import (
	"encoding/json"
	"errors"
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
	// Messages are the nodes' own messages of their failures, by node id.
	Messages map[string]string `json:"-"`
}

// UnmarshalJSON reads a rollout of the API, with the messages of its nodes.
func (d *rolloutDetail) UnmarshalJSON(b []byte) error {
	type plain rolloutDetail
	var more struct {
		Nodes []struct {
			ID      string `json:"id"`
			Message string `json:"message"`
		} `json:"nodes"`
	}
	if err := errors.Join(json.Unmarshal(b, (*plain)(d)), json.Unmarshal(b, &more)); err != nil {
		return err
	}
	d.Messages = map[string]string{}
	for _, n := range more.Nodes {
		d.Messages[n.ID] = n.Message
	}
	return nil
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
	return len(d.Nodes) - d.Count(rollout.NodeWaiting) - d.Count(rollout.NodeCommanded) - d.Count(rollout.NodeMissed)
}

// Bad is how many nodes failed or were rolled back.
func (d rolloutDetail) Bad() int {
	return d.Count(rollout.NodeFailed) + d.Count(rollout.NodeRolledBack)
}

// Final reports whether it has ended.
func (d rolloutDetail) Final() bool { return d.Status.Final() }

// word is what a page calls a state of its nodes. Once the rollout has ended,
// nothing waits any more.
func (d rolloutDetail) word(s rollout.NodeState) string {
	if s == rollout.NodeMissed || s == rollout.NodeWaiting && d.Final() {
		return "not upgraded"
	}
	return nodeWord(s)
}

// count returns how many of its nodes are in each of the states, as "1 failed, 2
// rolled back".
func (d rolloutDetail) count(states ...rollout.NodeState) string {
	var parts []string
	for _, s := range states {
		if k := d.Count(s); k > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", k, d.word(s)))
		}
	}
	return strings.Join(parts, ", ")
}

// Brief is where its nodes stand, for a list: "4 of 40 finished, 1 failed".
func (d rolloutDetail) Brief() string {
	text := fmt.Sprintf("%d of %d finished", d.Done(), len(d.Nodes))
	if bad := d.count(rollout.NodeFailed, rollout.NodeRolledBack); bad != "" {
		text += ", " + bad
	}
	if left := d.count(rollout.NodeWaiting, rollout.NodeMissed); left != "" && d.Final() {
		text += ", " + left
	}
	return text
}

// Summary is where its nodes stand, as "4 of 40 finished: 3 updated, 1 failed.
// 36 waiting."
func (d rolloutDetail) Summary() string {
	count := d.count
	text := fmt.Sprintf("%d of %d finished", d.Done(), len(d.Nodes))
	if finished := count(rollout.NodeUpdated, rollout.NodeFailed, rollout.NodeRolledBack, rollout.NodeSkipped); finished != "" {
		text += ": " + finished
	}
	text += "."
	if rest := count(rollout.NodeCommanded, rollout.NodeWaiting, rollout.NodeMissed); rest != "" {
		text += " " + rest + "."
	}
	return text
}

// waveNode is a node of a wave. Word is its state.
type waveNode struct {
	rollout.Node
	Word    string
	Failure *failure
}

// Chip is its state, if that is a failure.
func (n waveNode) Chip() chip { return chip{n.Word, "✕", "bad"} }

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

// waves splits the nodes by wave.
func (d rolloutDetail) waves() []wave {
	var ws []wave
	first := 0
	for i, k := range d.Waves {
		w := wave{Number: i + 1, State: "not started"}
		for _, n := range d.Nodes[first:k] {
			wn := waveNode{Node: n, Word: d.word(n.State)}
			if n.State == rollout.NodeUpdated {
				w.Updated++
			}
			if n.State == rollout.NodeFailed || n.State == rollout.NodeRolledBack {
				wn.Failure = failureOf(n.Code, d.Messages[n.ID])
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
	v := rolloutView{d, d.waves()}
	if problem != nil {
		return r.refused(problem, "rollout", "Rollout to "+d.Version, "rollouts", v)
	}
	return r.show("rollout", "Rollout to "+d.Version, "rollouts", true, v)
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
		fmt.Sprintf("The rollout of group %s starts no new upgrades.", d.GroupName),
	}
	for _, e := range []struct {
		state     rollout.NodeState
		one, more string
	}{
		{rollout.NodeWaiting, "1 node still waits and keeps its current version.", "%d nodes still wait and keep their current version."},
		{rollout.NodeCommanded, "1 running upgrade continues.", "%d running upgrades continue."},
		{rollout.NodeUpdated, "1 updated node keeps the new version. You can roll the group back afterwards.", "%d updated nodes keep the new version. You can roll the group back afterwards."},
	} {
		switch k := d.Count(e.state); k {
		case 0:
		case 1:
			effects = append(effects, e.one)
		default:
			effects = append(effects, fmt.Sprintf(e.more, k))
		}
	}
	effects = append(effects, "An aborted rollout cannot be resumed.")
	return r.confirm(problem, confirmation{Title: "Abort the rollout to " + d.Version, Nav: "rollouts", Effects: effects,
		Action: at + "/abort", Button: "Abort rollout", Cancel: at})
}

func (r *request) abort() error {
	if err := r.api(http.MethodPost, r.rolloutPath()+"/abort", r.withReason(nil), nil); err != nil {
		return r.confirmAbort(err)
	}
	return r.to("/admin/rollouts/%s", url.PathEscape(r.PathValue("id")))
}
