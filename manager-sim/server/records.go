package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/server/answer"
	"github.com/bilbycast/edge-agent/manager-sim/server/engine"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

// recordRoutes are the lists of events, audit entries and releases.
type recordRoutes struct {
	*gate
	catalogue *engine.Catalogue
}

func (h *recordRoutes) events(w http.ResponseWriter, r *http.Request) {
	q := query{r: r}
	f := store.EventFilter{NodeID: q.text("node_id"), Severity: q.text("severity"), Category: q.text("category"),
		CommandID: q.text("command_id"), Search: q.text("search"), Groups: requester(r).Scope(), Page: 1, PerPage: api.DefaultEventsPerPage}
	q.number("page", &f.Page, api.MaxEventPage)
	q.number("per_page", &f.PerPage, api.MaxEventsPerPage)
	q.instant("from", &f.From)
	q.instant("to", &f.To)
	q.sequence("after", &f.Before)
	if f.Severity != "" && !slices.Contains(release.Severities(), release.Severity(f.Severity)) {
		q.err = fmt.Errorf("severity=%.40q is not one of %v", f.Severity, release.Severities())
	}
	if q.failed(w) {
		return
	}
	if f.NodeID != "" {
		n, err := nodeByPrefix(r.Context(), h.store, requester(r), f.NodeID)
		if err != nil {
			h.storeFailed(w, err)
			return
		}
		f.NodeID = n.ID
	}
	ctx, unreadable := store.CountUnreadable(r.Context())
	events, total, err := h.store.Events(ctx, f)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	budget := detailsBudget
	for i := range events {
		events[i] = trimDetails(events[i], &budget)
	}
	list := api.EventList{Events: events, Total: total, Page: f.Page, PerPage: f.PerPage, Unreadable: *unreadable}
	if len(events) > 0 && len(events)+*unreadable == f.PerPage {
		list.Next = strconv.FormatInt(events[len(events)-1].Seq, 10)
	}
	answer.JSON(w, http.StatusOK, list)
}

// detailsBudget bounds the details of all events of one answer, in bytes.
const detailsBudget = 4 << 20

// trimDetails subtracts the size of the details of e from a budget. When the budget is used
// up, it returns the event without its journal and marked as shortened. A list of that
// event alone has the journal.
func trimDetails(e api.Event, budget *int) api.Event {
	if *budget -= len(e.Details); *budget >= 0 {
		return e
	}
	var d wire.Details
	if err := json.Unmarshal(e.Details, &d); err != nil {
		d = wire.Details{}
	}
	d.Journal, d.FailedStarts, d.Trial, d.Reason = nil, nil, nil, release.Foreign(d.Reason, 500)
	short, err := answer.Encode(struct {
		wire.Details
		Shortened bool `json:"shortened"`
	}{d, true})
	if err != nil {
		short = []byte("{}")
	}
	e.Details, e.Message = short, release.Foreign(e.Message, 1000)
	return e
}

func (h *recordRoutes) audit(w http.ResponseWriter, r *http.Request) {
	q := query{r: r}
	f := store.AuditFilter{Actor: q.text("actor"), Action: q.text("action"), Target: q.text("target"), Limit: api.DefaultLimit}
	q.number("limit", &f.Limit, api.MaxLimit)
	q.sequence("after", &f.Before)
	if q.failed(w) {
		return
	}
	ctx, unreadable := store.CountUnreadable(r.Context())
	entries, total, err := h.store.AuditLog(ctx, f)
	if err != nil {
		h.storeFailed(w, err)
		return
	}
	list := api.AuditList{Entries: entries, Total: total, Unreadable: *unreadable}
	if len(entries) > 0 && len(entries)+*unreadable == f.Limit {
		list.Next = strconv.FormatInt(entries[len(entries)-1].Seq, 10)
	}
	answer.JSON(w, http.StatusOK, list)
}

func (h *recordRoutes) releases(w http.ResponseWriter, r *http.Request) {
	list, err := h.catalogue.Releases(r.Context(), r.PathValue("device_type"), cmp.Or(r.URL.Query().Get("channel"), release.DefaultChannel))
	if err != nil {
		h.log.Error().Err(err).Msg("releases cannot be listed")
		answer.Problem(w, http.StatusBadGateway, api.CodeReleasesUnavailable, "the releases cannot be listed now; see the manager's log")
		return
	}
	answer.JSON(w, http.StatusOK, api.ReleaseList{Releases: list})
}
