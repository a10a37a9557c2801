package web

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const eventsPerPage = 50

// eventQuery is the query of the page of events, as the API takes it.
func (r *request) eventQuery() url.Values {
	q := url.Values{}
	for _, key := range []string{"category", "severity", "node_id", "search", "from", "to", "after"} {
		if v := strings.TrimSpace(r.URL.Query().Get(key)); v != "" {
			if (key == "from" || key == "to") && len(v) == len("2006-01-02T15:04") { // as a form has it: UTC
				v += ":00Z"
			}
			q.Set(key, v)
		}
	}
	return q
}

// records is a part of a list: of events, or of the audit trail.
type records struct {
	Events  []json.RawMessage `json:"events"`
	Entries []json.RawMessage `json:"entries"`
	Total   int               `json:"total"`
	Next    string            `json:"next"`
}

// recordsOf returns a part of a list, and its entries as T.
func recordsOf[T any](r *request, path string, q url.Values) (records, []T, error) {
	var list records
	if err := r.api(http.MethodGet, path+"?"+q.Encode(), nil, &list); err != nil {
		return list, nil, err
	}
	raw := append(list.Events, list.Entries...)
	entries := make([]T, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &entries[i]); err != nil {
			return list, nil, err
		}
	}
	return list, entries, nil
}

// links are the page's to other pages of its list.
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
	q := r.eventQuery()
	if format := r.URL.Query().Get("format"); format != "" {
		return r.exportEvents(q, format)
	}
	q.Set("per_page", strconv.Itoa(eventsPerPage))
	list, events, err := recordsOf[event](r, "/api/v1/events", q)
	data := map[string]any{"Events": events, "Total": list.Total, "Query": r.URL.Query(), "Links": r.links(list.Next), "Severities": withAsked(severities, q.Get("severity")), "Refused": err != nil}
	if err != nil {
		return r.refused(err, "events", "Events", "events", data)
	}
	return r.show("events", "Events", "events", !q.Has("after"), data)
}

// severities are what the form offers.
var severities = []string{"info", "minor", "warning", "major", "critical"}

// withAsked adds what the query asks for, so that the form shows it.
func withAsked(options []string, asked string) []string {
	if asked == "" || slices.Contains(options, asked) {
		return options
	}
	return append(slices.Clone(options), asked)
}

// exporter writes records as CSV or as lines of JSON.
type exporter struct {
	rw           http.ResponseWriter
	name, format string
	columns      []string
	csv          *csv.Writer // nil: JSON, or not begun
}

func (r *request) exporter(name, format string, columns []string) (*exporter, error) {
	if format != "csv" && format != "jsonl" {
		return nil, &apiError{status: http.StatusBadRequest, text: fmt.Sprintf("The format %.20q is neither csv nor jsonl.", format)}
	}
	return &exporter{rw: r.rw, name: name, format: format, columns: columns}, nil
}

// begin makes the answer a file. Until then it can become an error page.
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

func (e *exporter) write(raw json.RawMessage, fields ...string) error {
	if e.csv == nil {
		_, err := fmt.Fprintf(e.rw, "%s\n", raw)
		return err
	}
	for i, f := range fields {
		// A spreadsheet would read these as a formula.
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

// export writes a whole list, a part at a time. It leaves out what arrives
// meanwhile.
func export[T any](r *request, e *exporter, path string, q url.Values, fields func(T) []string) error {
	q.Del("after")
	for begun := false; ; begun = true {
		list, entries, err := recordsOf[T](r, path, q)
		if err == nil && !begun {
			err = e.begin()
		}
		if err != nil {
			return err
		}
		raw := append(list.Events, list.Entries...)
		for i, v := range entries {
			if err := e.write(raw[i], fields(v)...); err != nil {
				return err
			}
		}
		if list.Next == "" {
			return e.end()
		}
		q.Set("after", list.Next)
	}
}

func (r *request) exportEvents(q url.Values, format string) error {
	e, err := r.exporter("events", format, []string{"seq", "received_at", "time", "severity", "category", "node_id", "error_code", "command_id", "message"})
	if err != nil {
		return err
	}
	q.Set("per_page", "200")
	return export(r, e, "/api/v1/events", q, func(v event) []string {
		return []string{strconv.FormatInt(v.Seq, 10), v.ReceivedAt.Format(time.RFC3339Nano), v.Time.Format(time.RFC3339Nano),
			v.Severity, v.Category, v.NodeID, v.ErrorCode, v.CommandID, v.Message}
	})
}
