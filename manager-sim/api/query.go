package api

import (
	"net/url"
	"strconv"
	"time"
)

// NodeQuery selects nodes; zero fields match all.
type NodeQuery struct {
	IDPrefix string
	Removed  bool // the removed nodes in place of the others
	Limit    int  // at most MaxLimit; 0: DefaultLimit
	After    string
}

// RolloutQuery selects rollouts; zero fields match all.
type RolloutQuery struct {
	GroupID string
	Active  bool // only those that have not ended
	Limit   int  // at most MaxLimit; 0: DefaultLimit
	After   string
}

// EventQuery selects events; zero fields match all.
type EventQuery struct {
	NodeID    string // an id, or its first MinPrefix characters or more
	Severity  string
	Category  string
	CommandID string
	Search    string    // in the message and the error code
	From, To  time.Time // of receipt; From is included, To is not
	Page      int       // from 1
	PerPage   int       // at most MaxEventsPerPage; 0: DefaultEventsPerPage
	After     string    // Next of the page before; unlike Page, new events do not move it
}

// AuditQuery selects entries of the audit trail; zero fields match all.
type AuditQuery struct {
	Actor, Action, Target string
	Limit                 int // at most MaxLimit; 0: DefaultLimit
	After                 string
}

// values is a query whose zero values are left out.
type values url.Values

func (v values) text(key, value string) {
	if value != "" {
		url.Values(v).Set(key, value)
	}
}

func (v values) number(key string, n int) {
	if n != 0 {
		v.text(key, strconv.Itoa(n))
	}
}

func (v values) flag(key string, on bool) {
	if on {
		v.text(key, "true")
	}
}

func (v values) time(key string, t time.Time) {
	if !t.IsZero() {
		v.text(key, t.UTC().Format(time.RFC3339Nano))
	}
}

func (q NodeQuery) values() url.Values {
	v := values{}
	v.text("id_prefix", q.IDPrefix)
	v.flag("removed", q.Removed)
	v.number("limit", q.Limit)
	v.text("after", q.After)
	return url.Values(v)
}

func (q RolloutQuery) values() url.Values {
	v := values{}
	v.text("group_id", q.GroupID)
	v.flag("active", q.Active)
	v.number("limit", q.Limit)
	v.text("after", q.After)
	return url.Values(v)
}

func (q EventQuery) values() url.Values {
	v := values{}
	v.text("node_id", q.NodeID)
	v.text("severity", q.Severity)
	v.text("category", q.Category)
	v.text("command_id", q.CommandID)
	v.text("search", q.Search)
	v.time("from", q.From)
	v.time("to", q.To)
	v.number("page", q.Page)
	v.number("per_page", q.PerPage)
	v.text("after", q.After)
	return url.Values(v)
}

func (q AuditQuery) values() url.Values {
	v := values{}
	v.text("actor", q.Actor)
	v.text("action", q.Action)
	v.text("target", q.Target)
	v.number("limit", q.Limit)
	v.text("after", q.After)
	return url.Values(v)
}
