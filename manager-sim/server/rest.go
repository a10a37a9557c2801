package server

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/manager-sim/store"
	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/wire"
)

const releasesKept = 5 * time.Minute

func (s *Server) listEvents(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	f := store.EventFilter{NodeID: v.Get("node_id"), Severity: v.Get("severity"), Category: v.Get("category"),
		CommandID: v.Get("command_id"), Search: v.Get("search"), Groups: who(r).scope(), Page: 1, PerPage: api.DefaultEventsPerPage}
	q := query{r: r}
	q.number("page", &f.Page, api.MaxEventPage)
	q.number("per_page", &f.PerPage, api.MaxEventsPerPage)
	q.instant("from", &f.From)
	q.instant("to", &f.To)
	q.sequence("after", &f.Before)
	if f.Severity != "" && !slices.Contains(release.Severities(), release.Severity(f.Severity)) {
		q.bad = fmt.Errorf("severity=%.40q is not one of %v", f.Severity, release.Severities())
	}
	if q.failed(w) {
		return
	}
	if f.NodeID != "" {
		n, err := s.nodeByPrefix(r.Context(), who(r), f.NodeID)
		if err != nil {
			s.storeFailed(w, err)
			return
		}
		f.NodeID = n.ID
	}
	events, total, err := s.Store.Events(r.Context(), f)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	budget := pageBudget
	for i := range events {
		events[i] = slim(events[i], &budget)
	}
	list := api.EventList{Events: events, Total: total, Page: f.Page, PerPage: f.PerPage, Next: ""}
	if len(events) == f.PerPage {
		list.Next = strconv.FormatInt(events[len(events)-1].Seq, 10)
	}
	reply(w, http.StatusOK, list)
}

// pageBudget bounds the details of the events of one answer, in bytes.
const pageBudget = 4 << 20

// slim takes the details of e from what is left of a budget. Beyond it the event has no
// journal, and says so: a list of that event alone has it.
func slim(e api.Event, left *int) api.Event {
	if *left -= len(e.Details); *left >= 0 {
		return e
	}
	var d wire.Details
	if err := json.Unmarshal(e.Details, &d); err != nil {
		d = wire.Details{}
	}
	d.Journal, d.FailedStarts, d.Reason = nil, nil, release.Foreign(d.Reason, 500)
	short, err := encode(struct {
		wire.Details
		Shortened bool `json:"shortened"`
	}{d, true})
	if err != nil {
		short = []byte("{}")
	}
	e.Details, e.Message = short, release.Foreign(e.Message, 1000)
	return e
}

func (s *Server) listAudit(w http.ResponseWriter, r *http.Request) {
	v := r.URL.Query()
	f := store.AuditFilter{Actor: v.Get("actor"), Action: v.Get("action"), Target: v.Get("target"), Limit: api.DefaultLimit}
	q := query{r: r}
	q.number("limit", &f.Limit, api.MaxLimit)
	q.sequence("after", &f.Before)
	if q.failed(w) {
		return
	}
	entries, total, err := s.Store.AuditLog(r.Context(), f)
	if err != nil {
		s.storeFailed(w, err)
		return
	}
	list := api.AuditList{Entries: entries, Total: total, Next: ""}
	if len(entries) == f.Limit {
		list.Next = strconv.FormatInt(entries[len(entries)-1].Seq, 10)
	}
	reply(w, http.StatusOK, list)
}

// releaseCache keeps answers of Config.Releases.
type releaseCache struct {
	mu   sync.Mutex
	kept map[[2]string]cached
}

type cached struct {
	at   time.Time
	list []api.Release
}

const maxCached = 1000

// releasesOf returns what is published for a device type on a channel, newest first,
// as it was at most maxAge ago.
func (s *Server) releasesOf(ctx context.Context, deviceType, channel string, maxAge time.Duration) ([]api.Release, error) {
	key := [2]string{deviceType, channel}
	s.cache.mu.Lock()
	c, ok := s.cache.kept[key]
	s.cache.mu.Unlock()
	if ok && time.Since(c.at) <= maxAge {
		return c.list, nil
	}
	c = cached{at: time.Now(), list: []api.Release{}}
	if s.Releases != nil {
		list, err := s.Releases(ctx, deviceType, channel)
		if err != nil {
			return nil, err
		}
		c.list = append(c.list, list...)
	}
	s.cache.mu.Lock()
	defer s.cache.mu.Unlock()
	if len(s.cache.kept) >= maxCached {
		clear(s.cache.kept)
	}
	s.cache.kept[key] = c
	return c.list, nil
}

// A list of releases with so many entries may lack older ones.
const fullList = 10

// unpublished returns why a version cannot be requested because it is not published for
// the device type on the channel; nil if it is, or if that is not known.
func (s *Server) unpublished(ctx context.Context, deviceType, channel, version string) *api.NotUpgradable {
	if s.Releases == nil {
		return nil
	}
	v, err := release.ParseVersion(version)
	if err != nil {
		return nil
	}
	for _, maxAge := range []time.Duration{releasesKept, time.Second} { // it may be a minute old
		list, err := s.releasesOf(ctx, deviceType, channel, maxAge)
		if err != nil {
			s.Log.Warn().Err(err).Msg("releases cannot be listed; the version is not checked")
			return nil
		}
		if slices.ContainsFunc(list, func(r api.Release) bool { return r.Version == version }) {
			return nil
		}
		if len(list) < fullList {
			continue
		}
		if oldest, err := release.ParseVersion(list[len(list)-1].Version); err == nil && v.Compare(oldest) < 0 {
			return nil
		}
	}
	list, err := s.releasesOf(ctx, deviceType, channel, releasesKept)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = r.Version
	}
	f := &api.NotUpgradable{Code: api.CodeNotPublished, Reason: fmt.Sprintf("%s is not published for the device type %s on the channel %s.", version, deviceType, channel),
		Remedy: "Published there: " + strings.Join(names, ", ") + "."}
	if len(names) == 0 {
		f.Remedy = "Nothing is published there yet."
	}
	return f
}

func (s *Server) listReleases(w http.ResponseWriter, r *http.Request) {
	list, err := s.releasesOf(r.Context(), r.PathValue("device_type"), cmp.Or(r.URL.Query().Get("channel"), release.DefaultChannel), releasesKept)
	if err != nil {
		s.Log.Error().Err(err).Msg("releases")
		fail(w, http.StatusBadGateway, api.CodeReleasesUnavailable, "the releases cannot be listed now; see the manager's log")
		return
	}
	reply(w, http.StatusOK, api.ReleaseList{Releases: list})
}
