package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/rollout"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/google/uuid"
)

// eligible splits a group's nodes.
func (s *Server) eligible(ctx context.Context, nodes []store.Node, body api.RolloutRequest) (ids []string, online map[string]bool, out []api.NodeLeftOut) {
	online, out = map[string]bool{}, []api.NodeLeftOut{}
	unpublished := map[string]*api.NotUpgradable{} // by device type
	for _, n := range nodes {
		if _, known := unpublished[n.DeviceType]; !known && !body.AllowUnlisted {
			unpublished[n.DeviceType] = s.unpublished(ctx, n.DeviceType, cmp.Or(body.Channel, release.DefaultChannel), body.Version)
		}
		present := s.online(n.ID) != nil
		if f := cmp.Or(unfit(n, present), unpublished[n.DeviceType]); f != nil {
			reason := f.Reason
			if f.Code == api.CodeNotPublished {
				reason = f.Detail() // with what is published
			}
			out = append(out, api.NodeLeftOut{NodeID: n.ID, Reason: reason})
			continue
		}
		if n.Version == body.Version {
			out = append(out, api.NodeLeftOut{NodeID: n.ID, Reason: "It runs " + body.Version + " already."})
			continue
		}
		ids = append(ids, n.ID)
		online[n.ID] = present
	}
	return ids, online, out
}

// leftOutSummary counts the reasons for which nodes are left out.
func leftOutSummary(out []api.NodeLeftOut) string {
	count := map[string]int{}
	for _, l := range out {
		count[l.Reason]++
	}
	var parts []string
	for _, reason := range slices.Sorted(maps.Keys(count)) {
		nodes := "1 node"
		if count[reason] > 1 {
			nodes = fmt.Sprintf("%d nodes", count[reason])
		}
		parts = append(parts, nodes+": "+reason)
	}
	const most = 3
	if len(parts) > most {
		parts = append(parts[:most], "...")
	}
	return strings.Join(parts, " ")
}

// commonest is the version that most nodes run.
func commonest(nodes []store.Node) string {
	count, most := map[string]int{}, ""
	for _, n := range nodes {
		if count[n.Version]++; most == "" || count[n.Version] > count[most] {
			most = n.Version
		}
	}
	return most
}

// checkRollout returns an error unless the manager can carry out a request.
func checkRollout(b api.RolloutRequest) error {
	if _, err := release.ParseVersion(b.Version); err != nil {
		return err
	}
	if b.Channel != "" {
		if err := release.CheckName("channel", b.Channel); err != nil {
			return err
		}
	}
	if b.SettleSecs != nil && (*b.SettleSecs < 0 || *b.SettleSecs > api.MaxSettleSecs) {
		return errors.New("settle_secs is not 0 to 86400")
	}
	if b.LimitSecs != 0 && (b.LimitSecs < api.MinLimitSecs || b.LimitSecs > api.MaxLimitSecs) {
		return errors.New("limit_secs is not 60 to 86400")
	}
	if b.LifeSecs != 0 && (b.LifeSecs < api.MinLifeSecs || b.LifeSecs > api.MaxLifeSecs) {
		return errors.New("life_secs is not 60 to 2592000")
	}
	if len(b.Reason) > api.MaxReason {
		return fmt.Errorf("reason has %d bytes, more than %d", len(b.Reason), api.MaxReason)
	}
	if b.Threshold < 0 || b.Threshold > api.MaxThreshold {
		return errors.New("threshold is not 1 to 100000")
	}
	return nil
}

func (s *Server) upgradeGroup(w http.ResponseWriter, r *http.Request) {
	var body api.RolloutRequest
	if !readBody(w, r, &body) {
		return
	}
	if err := checkRollout(body); err != nil {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "%v", err)
		return
	}
	g, err := s.Store.Group(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, g.ID) {
		return
	}
	nodes, err := s.Store.GroupNodes(r.Context(), g.ID)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	s.schedule(w, r, g, nodes, body)
}

// schedule begins a rollout to the eligible of nodes, or says what it would do.
func (s *Server) schedule(w http.ResponseWriter, r *http.Request, g api.Group, nodes []store.Node, body api.RolloutRequest) {
	p := rollout.Plan{ID: uuid.NewString(), GroupID: g.ID, Version: body.Version, Channel: cmp.Or(body.Channel, release.DefaultChannel),
		Strategy: cmp.Or(body.Strategy, rollout.Staged), Threshold: body.Threshold, From: commonest(nodes), By: who(r).Name,
		Limit: time.Duration(body.LimitSecs) * time.Second, Life: time.Duration(body.LifeSecs) * time.Second}
	if body.SettleSecs != nil { // 0 would mean the default there
		p.Settle = max(time.Duration(*body.SettleSecs)*time.Second, 1)
	}
	ids, online, out := s.eligible(r.Context(), nodes, body)
	s.commanding.Lock()
	defer s.commanding.Unlock()
	now := time.Now().UTC()
	var ro rollout.Rollout
	var acts []rollout.Action
	var refused error
	err := s.untilFree(r.Context(), func(busy map[string]bool) ([]string, error) {
		for id := range busy {
			online[id] = false
		}
		ro, acts, refused = rollout.New(p, ids, online, now)
		return commanded(acts), nil
	})
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if refused != nil {
		why := refused.Error()
		if len(out) > 0 && len(ids) == 0 {
			why += ". " + leftOutSummary(out)
		}
		fail(w, http.StatusConflict, api.CodeNotSchedulable, "%s", why)
		return
	}
	plan := api.RolloutPlan{Version: p.Version, Channel: p.Channel, Strategy: p.Strategy, NodeCount: len(ids), LeftOut: out, Waves: [][]string{},
		EstimatedSecs: int64(ro.Settle.Seconds()) * int64(len(ro.Waves)-1)}
	for i, first := 0, 0; i < len(ro.Waves); i++ {
		var wave []string
		for _, n := range ro.Nodes[first:ro.Waves[i]] {
			wave = append(wave, n.ID)
			if !n.Online {
				plan.Offline++
			}
		}
		first = ro.Waves[i]
		plan.Waves = append(plan.Waves, wave)
	}
	if body.DryRun {
		reply(w, http.StatusOK, plan)
		return
	}
	details := map[string]any{"version": p.Version, "channel": p.Channel, "strategy": p.Strategy, "node_count": len(ids)}
	if reason := strings.TrimSpace(body.Reason); reason != "" {
		details["reason"] = release.Foreign(reason, api.MaxReason)
	}
	scheduled := audit(now, who(r).Name, "group.upgrade.schedule", g.ID, details)
	err = s.save(r.Context(), store.Rollout{ID: ro.ID, GroupID: g.ID, CreatedAt: now}, ro, acts, "manager", "", []api.AuditEntry{scheduled})
	if errors.Is(err, store.ErrExists) {
		fail(w, http.StatusConflict, api.CodeRolloutActive, "group %q has an active rollout; abort it, or wait for its end", g.Name)
		return
	}
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	for _, id := range ids { // who came or went since
		s.stir(id)
	}
	plan.RolloutID = ro.ID
	reply(w, http.StatusAccepted, plan)
}

func (s *Server) listRollouts(w http.ResponseWriter, r *http.Request) {
	active := false
	q := query{r: r}
	if q.boolean("active", &active); q.failed(w) {
		return
	}
	groups, err := s.groupNames(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	rs, err := s.Store.Rollouts(r.Context(), r.URL.Query().Get("group_id"), active, -1)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	rs = slices.DeleteFunc(rs, func(r1 store.Rollout) bool { return !who(r).In(r1.GroupID) })
	rs, next, ok := cut(w, r, rs, func(r store.Rollout) string { return r.ID })
	if !ok {
		return
	}
	views := make([]api.Rollout, len(rs))
	for i, stored := range rs {
		_, v, err := viewRollout(stored, groups)
		if err != nil {
			s.storeFailed(w, err)
			return
		}
		views[i] = v
	}
	reply(w, http.StatusOK, api.RolloutList{Rollouts: views, Next: next})
}

func (s *Server) getRollout(w http.ResponseWriter, r *http.Request) {
	stored, err := s.Store.Rollout(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, stored.GroupID) {
		return
	}
	groups, err := s.groupNames(r.Context())
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	ro, v, err := viewRollout(stored, groups)
	if err == nil {
		err = s.addMessages(r.Context(), ro, &v)
	}
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	reply(w, http.StatusOK, v)
}

// retried calls f with a stored rollout, again if somebody else changed it meanwhile:
// the engine may do that at any time.
func (s *Server) retried(ctx context.Context, id string, f func(store.Rollout) error) error {
	const tries = 10
	for try := 1; ; try++ {
		stored, err := s.Store.Rollout(ctx, id)
		if err != nil {
			return err
		}
		if err = f(stored); !errors.Is(err, store.ErrConflict) || try == tries {
			return err
		}
	}
}

// actOnRollout is what an operator does: pause, resume, retry, skip or abort.
func (s *Server) actOnRollout(w http.ResponseWriter, r *http.Request) {
	var body api.RolloutAct
	if r.ContentLength != 0 && !readBody(w, r, &body) {
		return
	}
	if len(body.Reason) > api.MaxReason {
		fail(w, http.StatusBadRequest, api.CodeBadRequest, "reason has %d bytes, more than %d", len(body.Reason), api.MaxReason)
		return
	}
	body.Reason = release.Foreign(strings.TrimSpace(body.Reason), api.MaxReason)
	act := r.PathValue("act")
	e, ok := map[string]rollout.Event{
		"pause": rollout.Pause{Why: "paused by " + who(r).Name}, "resume": rollout.Resume{}, "retry": rollout.Retry{},
		"skip": rollout.Skip{NodeID: body.NodeID}, "abort": rollout.Abort{},
	}[act]
	if !ok {
		fail(w, http.StatusNotFound, api.CodeNotFound, "there is no action %.40q; there are pause, resume, retry, skip and abort", act)
		return
	}
	stored, err := s.Store.Rollout(r.Context(), r.PathValue("id"))
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	if !s.inScope(w, r, stored.GroupID) {
		return
	}
	details := map[string]any{"rollout_id": stored.ID}
	if body.NodeID != "" {
		details["node_id"] = body.NodeID
	}
	if body.Reason != "" {
		details["reason"] = body.Reason
	}
	err = s.retried(r.Context(), stored.ID, func(stored store.Rollout) error {
		_, err := s.change(r.Context(), stored, func(rollout.Rollout) ([]rollout.Event, error) { return []rollout.Event{e}, nil }, who(r).Name,
			audit(time.Now().UTC(), who(r).Name, "group.upgrade."+act, stored.GroupID, details))
		return err
	})
	switch {
	case err == nil:
		s.getRollout(w, r)
	case errors.Is(err, rollout.ErrFinal), errors.Is(err, rollout.ErrNotPaused), errors.Is(err, rollout.ErrNoFailure), errors.Is(err, rollout.ErrOver), errors.Is(err, rollout.ErrNoSuchNode):
		fail(w, http.StatusConflict, api.CodeNotNow, "%v", err)
	default:
		s.storeFailed(w, err)
	}
}
