package web

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const eventsPerPage = 50

// maxExport bounds an export; one that has more says so in its last line.
const maxExport = 100_000

// eventQuery is the query of the page of events, as the API takes it.
func (r *request) eventQuery() (url.Values, int) {
	q := url.Values{}
	for _, key := range []string{"category", "severity", "node_id", "search", "from", "to"} {
		if v := strings.TrimSpace(r.URL.Query().Get(key)); v != "" {
			if (key == "from" || key == "to") && len(v) == len("2006-01-02T15:04") { // as a form has it: UTC
				v += ":00Z"
			}
			q.Set(key, v)
		}
	}
	page, err := strconv.Atoi(r.URL.Query().Get("page"))
	if err != nil || page < 1 {
		page = 1
	}
	return q, page
}

func (r *request) eventPage(q url.Values, page, perPage int) (events []json.RawMessage, total int, err error) {
	q.Set("page", strconv.Itoa(page))
	q.Set("per_page", strconv.Itoa(perPage))
	var list struct {
		Events []json.RawMessage `json:"events"`
		Total  int               `json:"total"`
	}
	err = r.api(http.MethodGet, "/api/v1/events?"+q.Encode(), nil, &list)
	return list.Events, list.Total, err
}

func (r *request) events() error {
	q, page := r.eventQuery()
	if format := r.URL.Query().Get("format"); format != "" {
		return r.exportEvents(q, format)
	}
	raw, total, err := r.eventPage(q, page, eventsPerPage)
	if err != nil {
		return err
	}
	events := make([]event, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &events[i]); err != nil {
			return err
		}
	}
	link := func(page int) string {
		l := url.Values{}
		for k, v := range r.URL.Query() {
			l[k] = v
		}
		l.Set("page", strconv.Itoa(page))
		return "?" + l.Encode()
	}
	data := map[string]any{"Events": events, "Total": total, "Query": r.URL.Query(), "Page": page, "Export": "?" + q.Encode() + "&format="}
	if page > 1 {
		data["Newer"] = link(page - 1)
	}
	if page*eventsPerPage < total {
		data["Older"] = link(page + 1)
	}
	return r.show("events", "Events", "events", page == 1, data)
}

// exporter writes records as CSV or as lines of JSON.
type exporter struct {
	rw  http.ResponseWriter
	csv *csv.Writer // nil: JSON
}

func (r *request) exporter(name, format string, columns []string) (*exporter, error) {
	if format != "csv" && format != "jsonl" {
		return nil, &apiError{http.StatusBadRequest, fmt.Sprintf("format %.20q is neither csv nor jsonl", format)}
	}
	h := r.rw.Header()
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%s-%s.%s", name, time.Now().UTC().Format("20060102T150405Z"), format))
	if format == "jsonl" {
		h.Set("Content-Type", "application/jsonl")
		return &exporter{rw: r.rw}, nil
	}
	h.Set("Content-Type", "text/csv; charset=utf-8")
	e := &exporter{r.rw, csv.NewWriter(r.rw)}
	return e, e.csv.Write(columns)
}

func (e *exporter) write(raw json.RawMessage, fields ...string) error {
	if e.csv == nil {
		_, err := fmt.Fprintf(e.rw, "%s\n", raw)
		return err
	}
	for i, f := range fields {
		// A spreadsheet would take these for a formula.
		if f != "" && strings.ContainsRune("=+-@\t\r", rune(f[0])) {
			fields[i] = "'" + f
		}
	}
	return e.csv.Write(fields)
}

func (e *exporter) end(left int) error {
	if left > 0 {
		if err := e.write(json.RawMessage(fmt.Sprintf(`{"left_out":%d}`, left)), fmt.Sprintf("%d more were left out", left)); err != nil {
			return err
		}
	}
	if e.csv == nil {
		return nil
	}
	e.csv.Flush()
	return e.csv.Error()
}

func (r *request) exportEvents(q url.Values, format string) error {
	e, err := r.exporter("events", format, []string{"seq", "received_at", "time", "severity", "category", "node_id", "error_code", "command_id", "message"})
	if err != nil {
		return err
	}
	const perPage = 200
	// What arrives meanwhile would move the pages: it is left out.
	if q.Get("to") == "" {
		q.Set("to", time.Now().UTC().Format(time.RFC3339))
	}
	for page := 1; ; page++ {
		raw, total, err := r.eventPage(q, page, perPage)
		if err != nil {
			return err
		}
		for _, b := range raw {
			var v event
			if err := json.Unmarshal(b, &v); err != nil {
				return err
			}
			if err := e.write(b, strconv.FormatInt(v.Seq, 10), v.ReceivedAt.Format(time.RFC3339Nano), v.Time.Format(time.RFC3339Nano),
				v.Severity, v.Category, v.NodeID, v.ErrorCode, v.CommandID, v.Message); err != nil {
				return err
			}
		}
		if page*perPage >= min(total, maxExport) {
			return e.end(total - min(total, page*perPage))
		}
	}
}

type auditEntry struct {
	Seq     int64           `json:"seq"`
	Time    time.Time       `json:"time"`
	Actor   string          `json:"actor"`
	Action  string          `json:"action"`
	Target  string          `json:"target"`
	Details json.RawMessage `json:"details"`
}

func (r *request) audit() error {
	var list struct {
		Entries []json.RawMessage `json:"entries"`
	}
	if err := r.api(http.MethodGet, "/api/v1/audit-log", nil, &list); err != nil {
		return err
	}
	entries := make([]auditEntry, len(list.Entries))
	for i, b := range list.Entries {
		if err := json.Unmarshal(b, &entries[i]); err != nil {
			return err
		}
	}
	if format := r.URL.Query().Get("format"); format != "" {
		e, err := r.exporter("audit", format, []string{"seq", "time", "actor", "action", "target", "details"})
		if err != nil {
			return err
		}
		for i, a := range entries {
			if err := e.write(list.Entries[i], strconv.FormatInt(a.Seq, 10), a.Time.Format(time.RFC3339Nano), a.Actor, a.Action, a.Target, string(a.Details)); err != nil {
				return err
			}
		}
		return e.end(0)
	}
	return r.show("audit", "Audit", "audit", true, entries)
}

type user struct {
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Groups    []string  `json:"groups"`
	CreatedAt time.Time `json:"created_at"`
}

func (r *request) users() error { return r.usersPage(nil) }

func (r *request) usersPage(problem error) error {
	var list struct {
		Users []user `json:"users"`
	}
	if err := r.api(http.MethodGet, "/api/v1/users", nil, &list); err != nil {
		return err
	}
	groups, names, err := r.groupList()
	if err != nil {
		return err
	}
	names["*"] = "all groups"
	data := map[string]any{"Users": list.Users, "Groups": groups, "Names": names, "Roles": []string{"viewer", "operator", "group_admin", "super_admin"}}
	if problem != nil {
		return r.refused(problem, "users", "Users", "users", data)
	}
	return r.show("users", "Users", "users", false, data)
}

func (r *request) addUser() error {
	if err := r.ParseForm(); err != nil {
		return &apiError{http.StatusBadRequest, "the form is not readable"}
	}
	err := r.api(http.MethodPost, "/api/v1/users", map[string]any{
		"name": r.PostFormValue("name"), "password": r.PostFormValue("password"), "role": r.PostFormValue("role"), "groups": r.PostForm["groups"]}, nil)
	if err != nil {
		return r.usersPage(err)
	}
	return r.to("/admin/users")
}

func (r *request) removeUser() error {
	if err := r.api(http.MethodDelete, "/api/v1/users/"+url.PathEscape(r.PathValue("name")), nil, nil); err != nil {
		return r.usersPage(err)
	}
	return r.to("/admin/users")
}
