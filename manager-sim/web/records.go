package web

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
)

// eventQuery returns the query of the page of events. An unreadable time is a refusal.
func (r *request) eventQuery() (api.EventQuery, error) {
	text := func(key string) string { return strings.TrimSpace(r.URL.Query().Get(key)) }
	from, err1 := queryTime("From", text("from"))
	to, err2 := queryTime("To", text("to"))
	return api.EventQuery{Category: text("category"), Severity: text("severity"), NodeID: text("node_id"), Search: text("search"),
		From: from, To: to, After: text("after")}, cmp.Or(err1, err2)
}

// queryTime reads a time in UTC as a form sends it, or as RFC 3339.
func queryTime(what, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, problem(http.StatusBadRequest, fmt.Sprintf("%s is not a time: %.40q. Write it like 2026-01-31T15:04.", what, text))
}

// links returns the links to the other pages of a list, and to its exports.
func (r *request) links(next string) map[string]string {
	with := func(key, v string) string {
		q := r.URL.Query()
		q.Del("after")
		if v != "" {
			q.Set(key, v)
		}
		return "?" + q.Encode()
	}
	l := map[string]string{"CSV": with("format", "csv"), "JSONL": with("format", "jsonl")}
	if r.URL.Query().Get("after") != "" {
		l["Newest"] = with("after", "")
	}
	if next != "" {
		l["Older"] = with("after", next)
	}
	return l
}

func (r *request) events() error {
	q, err := r.eventQuery()
	if format := r.URL.Query().Get("format"); format != "" {
		if err != nil {
			return err
		}
		return r.exportEvents(q, format)
	}
	q.PerPage = api.DefaultEventsPerPage
	var list api.EventList
	if err == nil {
		list, err = r.api.Events(r.Context(), q)
	}
	data := map[string]any{"Events": eventsOf(list.Events), "Total": list.Total, "Query": r.URL.Query(), "Links": r.links(list.Next),
		"Severities": withRequested(severities(), q.Severity), "Refused": err != nil}
	if err != nil {
		return r.refused(err, "events", "Events", "events", data)
	}
	return r.show("events", "Events", "events", q.After == "", data)
}

// severities returns the severities that the form offers.
func severities() []string {
	var names []string
	for _, s := range release.Severities() {
		names = append(names, string(s))
	}
	return names
}

// withRequested adds the requested option, so that the form shows it.
func withRequested(options []string, requested string) []string {
	if requested == "" || slices.Contains(options, requested) {
		return options
	}
	return append(slices.Clone(options), requested)
}

// exporter writes records as CSV or as lines of JSON.
type exporter struct {
	rw           http.ResponseWriter
	name, format string
	columns      []string
	csv          *csv.Writer // nil: lines of JSON, or not begun
}

func (r *request) exporter(name, format string, columns []string) (*exporter, error) {
	if format != "csv" && format != "jsonl" {
		return nil, problem(http.StatusBadRequest, fmt.Sprintf("The format %.20q is neither csv nor jsonl.", format))
	}
	return &exporter{rw: r.rw, name: name, format: format, columns: columns}, nil
}

// begin makes the answer a file. Before that it can become an error page.
func (e *exporter) begin() error {
	h := e.rw.Header()
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%s-%s.%s", e.name, time.Now().UTC().Format("20060102T150405Z"), e.format))
	if e.format == "jsonl" {
		h.Set("Content-Type", "application/jsonl")
		return nil
	}
	h.Set("Content-Type", "text/csv; charset=utf-8")
	e.csv = csv.NewWriter(e.rw)
	return e.csv.Write(e.columns)
}

func (e *exporter) write(entry any, fields ...string) error {
	if e.csv == nil {
		return json.NewEncoder(e.rw).Encode(entry)
	}
	for i, f := range fields {
		// A spreadsheet would run these as a formula.
		if f != "" && strings.ContainsRune("=+-@\t\r", rune(f[0])) {
			fields[i] = "'" + f
		}
	}
	return e.csv.Write(fields)
}

func (e *exporter) end() error {
	if e.csv == nil {
		return nil
	}
	e.csv.Flush()
	return e.csv.Error()
}

// export writes a whole list, page by page. It omits entries that arrive meanwhile.
func export[T any](e *exporter, page func(after string) (entries []T, next string, err error), fields func(T) []string) error {
	after := ""
	for begun := false; ; begun = true {
		entries, next, err := page(after)
		if err == nil && !begun {
			err = e.begin()
		}
		if err != nil {
			return err
		}
		for _, v := range entries {
			if err := e.write(v, fields(v)...); err != nil {
				return err
			}
		}
		if next == "" {
			return e.end()
		}
		after = next
	}
}

func (r *request) exportEvents(q api.EventQuery, format string) error {
	e, err := r.exporter("events", format, []string{"seq", "received_at", "time", "severity", "category", "node_id", "error_code", "command_id", "message"})
	if err != nil {
		return err
	}
	q.PerPage = api.MaxEventsPerPage
	return export(e, func(after string) ([]api.Event, string, error) {
		q.After = after
		list, err := r.api.Events(r.Context(), q)
		return list.Events, list.Next, err
	}, func(v api.Event) []string {
		return []string{strconv.FormatInt(v.Seq, 10), v.ReceivedAt.Format(time.RFC3339Nano), v.Time.Format(time.RFC3339Nano),
			v.Severity, v.Category, v.NodeID, v.ErrorCode, v.CommandID, v.Message}
	})
}
