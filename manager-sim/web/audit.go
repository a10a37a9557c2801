package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
)

type auditEntry struct {
	Seq     int64           `json:"seq"`
	Time    time.Time       `json:"time"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Target  string          `json:"target"`
	Details json.RawMessage `json:"details"`
}

// detail is one of the details of an entry, as its page shows it.
type detail struct{ Key, Value string }

// auditRow is an entry as its page shows it.
type auditRow struct {
	auditEntry
	TargetName string // of a group; otherwise the target itself
	Pairs      []detail
}

// auditRows shows groups by their names, which are by id. The id is kept in the
// details.
func auditRows(entries []auditEntry, names map[string]string) []auditRow {
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

// details splits the details of an entry, by key. It leaves out what has no value.
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

// valueText returns a value of the details as text, and a group as its name with
// its id.
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
	q := url.Values{}
	for _, key := range []string{"actor", "action", "target", "after"} {
		if v := strings.TrimSpace(r.URL.Query().Get(key)); v != "" {
			q.Set(key, v)
		}
	}
	groups, names, err := r.groupList()
	if err != nil {
		return err
	}
	// The page shows a group by its name, so its filter takes the name, too.
	for _, g := range groups {
		if g.Name == q.Get("target") {
			q.Set("target", g.ID)
			break
		}
	}
	if format := r.URL.Query().Get("format"); format != "" {
		e, err := r.exporter("audit", format, []string{"seq", "time", "actor", "action", "target", "details"})
		if err != nil {
			return err
		}
		q.Set("limit", "1000")
		return export(r, e, "/api/v1/audit-log", q, func(a auditEntry) []string {
			return []string{strconv.FormatInt(a.Seq, 10), a.Time.Format(time.RFC3339Nano), a.Actor, a.Action, a.Target, string(a.Details)}
		})
	}
	names[api.AllGroups] = "all groups"
	list, entries, err := recordsOf[auditEntry](r, "/api/v1/audit-log", q)
	data := map[string]any{"Entries": auditRows(entries, names), "Total": list.Total, "Query": r.URL.Query(), "Links": r.links(list.Next), "Refused": err != nil}
	if err != nil {
		return r.refused(err, "audit", "Audit trail", "audit", data)
	}
	return r.show("audit", "Audit trail", "audit", !q.Has("after"), data)
}
