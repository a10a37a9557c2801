package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

// detail is one of the details of an entry.
type detail struct{ Key, Value string }

// auditRow is an entry as the page shows it.
type auditRow struct {
	api.AuditEntry
	TargetName string // the name of a group; otherwise the target itself
	Pairs      []detail
}

// auditRows returns the entries with the names of groups; names has them by id. The
// details keep the id.
func auditRows(entries []api.AuditEntry, names map[string]string) []auditRow {
	rows := make([]auditRow, len(entries))
	for i, e := range entries {
		rows[i] = auditRow{e, e.Target, details(e.Details, names)}
		if name, ok := names[e.Target]; ok {
			rows[i].TargetName = name
			rows[i].Pairs = append(rows[i].Pairs, detail{"group id", e.Target})
		}
	}
	return rows
}

// details returns the details of an entry, by key, without empty ones.
func details(raw json.RawMessage, names map[string]string) []detail {
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var fields map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&fields); err != nil {
		return []detail{{"details", string(raw)}}
	}
	var pairs []detail
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		value := valueText(fields[key], names)
		switch {
		case key == "group_id" && value == "":
			value = "none"
		case key == "role":
			value = words(value)
		}
		if value != "" {
			pairs = append(pairs, detail{strings.TrimSuffix(words(key), " id"), value})
		}
	}
	return pairs
}

// valueText returns a value of the details as text. A group is shown by its name with its
// id.
func valueText(v any, names map[string]string) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		if name, ok := names[v]; ok {
			if v == api.AllGroups {
				return name
			}
			return fmt.Sprintf("%s (%s)", name, v)
		}
		if t, err := time.Parse(time.RFC3339, v); err == nil {
			return utc(t)
		}
		return v
	case bool:
		if v {
			return "yes"
		}
		return "no"
	case json.Number:
		return v.String()
	case []any:
		var parts []string
		for _, e := range v {
			if text := valueText(e, names); text != "" {
				parts = append(parts, text)
			}
		}
		return strings.Join(parts, ", ")
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(b)
}

func (r *request) audit() error {
	text := func(key string) string { return strings.TrimSpace(r.URL.Query().Get(key)) }
	q := api.AuditQuery{Actor: text("actor"), Action: text("action"), Target: text("target"), After: text("after")}
	groups, names, err := r.groupList()
	if err != nil {
		return err
	}
	// The page shows the names of groups, so its filter accepts them.
	for _, g := range groups {
		if g.Name == q.Target {
			q.Target = g.ID
			break
		}
	}
	if format := r.URL.Query().Get("format"); format != "" {
		return r.exportAudit(q, format)
	}
	names[api.AllGroups] = "all groups"
	list, err := r.api.AuditLog(r.Context(), q)
	data := map[string]any{"Entries": auditRows(list.Entries, names), "Total": list.Total, "Query": r.URL.Query(), "Links": r.links(list.Next), "Refused": err != nil}
	if err != nil {
		return r.refused(err, "audit", "Audit trail", "audit", data)
	}
	return r.show("audit", "Audit trail", "audit", q.After == "", data)
}

func (r *request) exportAudit(q api.AuditQuery, format string) error {
	e, err := r.exporter("audit", format, []string{"seq", "time", "actor", "action", "target", "details"})
	if err != nil {
		return err
	}
	q.Limit = api.MaxLimit
	return export(e, func(after string) ([]api.AuditEntry, string, error) {
		q.After = after
		list, err := r.api.AuditLog(r.Context(), q)
		return list.Entries, list.Next, err
	}, func(a api.AuditEntry) []string {
		return []string{strconv.FormatInt(a.Seq, 10), a.Time.Format(time.RFC3339Nano), a.Actor, a.Action, a.Target, string(a.Details)}
	})
}
