package web

import (
	"cmp"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
)

// rolloutDetail is a rollout as the pages show it.
type rolloutDetail struct{ api.Rollout }

func rolloutsOf(list []api.Rollout) []rolloutDetail {
	rollouts := make([]rolloutDetail, len(list))
	for i, r := range list {
		rollouts[i] = rolloutDetail{r}
	}
	return rollouts
}

// number returns how many of its nodes are in a state.
func (d rolloutDetail) number(s rollout.NodeState) int {
	k := 0
	for _, n := range d.Nodes {
		if n.State == s {
			k++
		}
	}
	return k
}

// rolloutTable is a list of rollouts.
type rolloutTable struct {
	Rollouts []rolloutDetail
	Names    map[string]string // of groups, by id
}

// nodeWords are the states of a rollout's nodes whose names the pages do not show.
var nodeWords = map[rollout.NodeState]string{rollout.NodeCommanded: "upgrading", rollout.NodeRolledBack: "rolled back",
	rollout.NodeDependency: api.RolledBackDependency}

func nodeWord(s rollout.NodeState) string {
	if w, ok := nodeWords[s]; ok {
		return w
	}
	return string(s)
}

// Done is the number of nodes that have finished, including failed ones. An unproven one
// has not.
func (d rolloutDetail) Done() int {
	return len(d.Nodes) - d.number(rollout.NodeWaiting) - d.number(rollout.NodeCommanded) - d.number(rollout.NodeMissed) - d.number(rollout.NodeUnproven)
}

// Bad is the number of nodes that failed or were rolled back, which can be tried again.
func (d rolloutDetail) Bad() int {
	return d.number(rollout.NodeFailed) + d.number(rollout.NodeRolledBack) + d.number(rollout.NodeDependency)
}

// Word is its status, or how it ended.
func (d rolloutDetail) Word() string { return cmp.Or(d.Result, string(d.Status)) }

// Final reports whether the rollout has ended.
func (d rolloutDetail) Final() bool { return d.Status.Final() }

// word returns the name of a state of its nodes. After the end of the rollout no node
// waits.
func (d rolloutDetail) word(s rollout.NodeState) string {
	if s == rollout.NodeMissed || s == rollout.NodeWaiting && d.Final() {
		return "not upgraded"
	}
	return nodeWord(s)
}

// count returns the number of its nodes in each of the states, such as "1 failed, 2
// rolled back".
func (d rolloutDetail) count(states ...rollout.NodeState) string {
	var parts []string
	for _, s := range states {
		if k := d.number(s); k > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", k, d.word(s)))
		}
	}
	return strings.Join(parts, ", ")
}

// Brief is the progress of the rollout for a list: "4 of 40 finished, 1 failed".
func (d rolloutDetail) Brief() string {
	text := fmt.Sprintf("%d of %d finished", d.Done(), len(d.Nodes))
	if bad := d.count(rollout.NodeFailed, rollout.NodeRolledBack, rollout.NodeDependency, rollout.NodeUnproven); bad != "" {
		text += ", " + bad
	}
	if left := d.count(rollout.NodeWaiting, rollout.NodeMissed); left != "" && d.Final() {
		text += ", " + left
	}
	return text
}

// Summary is the progress of the rollout: "4 of 40 finished: 3 updated, 1 failed. 36
// waiting."
func (d rolloutDetail) Summary() string {
	count := d.count
	text := fmt.Sprintf("%d of %d finished", d.Done(), len(d.Nodes))
	if finished := count(rollout.NodeUpdated, rollout.NodeFailed, rollout.NodeRolledBack, rollout.NodeDependency, rollout.NodeSkipped); finished != "" {
		text += ": " + finished
	}
	text += "."
	if rest := count(rollout.NodeCommanded, rollout.NodeUnproven, rollout.NodeWaiting, rollout.NodeMissed); rest != "" {
		text += " " + rest + "."
	}
	return text
}

// waveNode is a node of a wave. Word is the name of its state.
type waveNode struct {
	api.RolloutNode
	Word    string
	Failure *failure
	Waits   string // what an unproven node waits for
}

// fallenWords are the states of nodes that kept the version and fell, by their codes.
var fallenWords = map[string]string{rollout.Vanished: "vanished", rollout.Degraded: "degraded", rollout.OtherVersion: "runs another version",
	rollout.OtherManifest: "runs another release"}

// Chip is the state of a node that failed, or rolled back.
func (n waveNode) Chip() chip {
	if n.State == rollout.NodeDependency {
		return chip{n.Word, "?", "warn"}
	}
	return chip{n.Word, "✕", "bad"}
}

// MaySkip reports whether an operator can leave the node out of the rollout.
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
			wn := waveNode{RolloutNode: n, Word: d.word(n.State)}
			if n.State == rollout.NodeUpdated {
				w.Updated++
			}
			if n.State == rollout.NodeFailed || n.State == rollout.NodeRolledBack || n.State == rollout.NodeDependency {
				wn.Failure = failureOf(n.Code, n.Message)
				wn.Word = cmp.Or(fallenWords[n.Code], wn.Word)
			}
			if n.State == rollout.NodeUnproven {
				wn.Waits = n.Hold.String()
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

// SettleLeft is the rest of the settle window.
func (d rolloutDetail) SettleLeft() string { return duration(time.Until(d.SettleUntil)) }

func (r *request) rollouts() error {
	list, err := r.api.Rollouts(r.Context(), api.RolloutQuery{After: r.URL.Query().Get("after")})
	if err != nil {
		return err
	}
	_, names, err := r.groupList()
	if err != nil {
		return err
	}
	return r.show("rollouts", "Rollouts", "rollouts", true, map[string]any{"Table": rolloutTable{rolloutsOf(list.Rollouts), names}, "Next": list.Next})
}

// rolloutView is the data of the page of a rollout.
type rolloutView struct {
	Rollout rolloutDetail
	Waves   []wave
}

func (r *request) rolloutDetail() (rolloutDetail, error) {
	answer, err := r.api.Rollout(r.Context(), r.PathValue("id"))
	if err != nil {
		return rolloutDetail{}, err
	}
	d := rolloutDetail{answer}
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

func (r *request) rolloutPage(refusal error) error {
	d, err := r.rolloutDetail()
	if err != nil {
		return err
	}
	v := rolloutView{d, d.waves()}
	if refusal != nil {
		return r.refused(refusal, "rollout", "Rollout to "+d.Version, "rollouts", v)
	}
	return r.show("rollout", "Rollout to "+d.Version, "rollouts", true, v)
}

func (r *request) actOnRollout() error {
	_, err := r.api.ActOnRollout(r.Context(), r.PathValue("id"), r.PathValue("act"), api.RolloutAct{NodeID: r.PostFormValue("node_id"), Revision: r.PostFormValue("revision")})
	if err != nil {
		return r.rolloutPage(err)
	}
	return r.to("/admin/rollouts/%s", url.PathEscape(r.PathValue("id")))
}

func (r *request) abortPage() error { return r.confirmAbort(nil) }

func (r *request) confirmAbort(refusal error) error {
	d, err := r.rolloutDetail()
	if err != nil {
		return err
	}
	if refusal == nil && d.Final() {
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
		{rollout.NodeUnproven, "1 unproven node keeps running the new version on trial.", "%d unproven nodes keep running the new version on trial."},
		{rollout.NodeUpdated, "1 updated node keeps the new version. You can roll the group back afterwards.", "%d updated nodes keep the new version. You can roll the group back afterwards."},
	} {
		switch k := d.number(e.state); k {
		case 0:
		case 1:
			effects = append(effects, e.one)
		default:
			effects = append(effects, fmt.Sprintf(e.more, k))
		}
	}
	effects = append(effects, "An aborted rollout cannot be resumed.")
	return r.confirm(refusal, confirmation{Title: "Abort the rollout to " + d.Version, Nav: "rollouts", Effects: effects,
		Action: at + "/abort", Button: "Abort rollout", Cancel: at})
}

func (r *request) abort() error {
	if _, err := r.api.ActOnRollout(r.Context(), r.PathValue("id"), api.ActAbort, api.RolloutAct{Reason: r.reason()}); err != nil {
		return r.confirmAbort(err)
	}
	return r.to("/admin/rollouts/%s", url.PathEscape(r.PathValue("id")))
}
