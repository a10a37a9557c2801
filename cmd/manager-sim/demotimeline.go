package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/bilbycast/edge-agent/internal/rig"
	"github.com/bilbycast/edge-agent/internal/supervise"
)

// logLine is what the timeline reads of the node's log.
type logLine struct {
	Time      time.Time `json:"time"`
	Message   string    `json:"message"`
	ConnectMS int64     `json:"connect_ms"`
	AuthMS    int64     `json:"auth_ms"`
}

// part is a part of an upgrade's downtime.
type part struct {
	name, what string
	took       time.Duration
}

// downtime returns the parts of an upgrade's downtime, in their order, and the time from the
// exit of the old process to the authentication of the new one. entries begins before the
// old process ends; log is the whole log of the node. Each time was noted by the process
// that did the part: the supervisor, or the agent, whose log has milliseconds.
func downtime(entries []rig.Entry, log []logLine) ([]part, time.Duration, error) {
	at := map[supervise.Kind]time.Time{} // the first of each kind, in this order
	order := []supervise.Kind{supervise.Exited, supervise.PreStarted, supervise.Started}
	for _, e := range entries {
		if e.From == rig.FromNode && len(at) < len(order) && e.Type == string(order[len(at)]) {
			at[order[len(at)]] = e.At
		}
	}
	exited, pre, started := at[supervise.Exited], at[supervise.PreStarted], at[supervise.Started]
	if started.IsZero() {
		return nil, 0, fmt.Errorf("the supervisor saw no restart: %v", at)
	}
	var stopping, begun, authenticated logLine
	for _, l := range log {
		switch {
		case l.Message == "restarting into the new version" && !l.Time.After(exited):
			stopping = l // the last one
		case l.Message == "agent started" && begun.Time.IsZero() && !l.Time.Before(started.Truncate(time.Millisecond)):
			begun = l
		case l.Message == "authenticated to the manager" && authenticated.Time.IsZero() && !begun.Time.IsZero():
			authenticated = l
		}
	}
	if stopping.Time.IsZero() || authenticated.Time.IsZero() {
		return nil, 0, fmt.Errorf("the log lacks the end of the old process, or the start of the new one")
	}
	connect, auth := time.Duration(authenticated.ConnectMS)*time.Millisecond, time.Duration(authenticated.AuthMS)*time.Millisecond
	return []part{
		{"stop", "the old process ends after its decision", exited.Sub(stopping.Time)},
		{"RestartSec", "the supervisor waits", pre.Sub(exited)},
		{"ExecStartPre", "the watchdog counts the start", started.Sub(pre)},
		{"exec", "the new process starts, up to its first line", begun.Time.Sub(started)},
		{"start", "it reads its root and begins to connect", authenticated.Time.Sub(begun.Time) - connect - auth},
		{"TLS", "TCP, TLS and the WebSocket", connect},
		{"authentication", "from there to the manager's answer", auth},
	}, authenticated.Time.Sub(exited), nil
}

// readLog returns the lines of a node's log; it skips what is no JSON.
func readLog(path string) (lines []logLine, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var l logLine
		if json.Unmarshal(in.Bytes(), &l) == nil {
			lines = append(lines, l)
		}
	}
	return lines, in.Err()
}

// printDowntime prints the parts as a table.
func printDowntime(out io.Writer, parts []part, down time.Duration) {
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", d.Seconds()*1000) }
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	for _, p := range parts {
		fmt.Fprintf(w, "\t%s\t%8s\t%s\n", p.name, ms(p.took), p.what)
	}
	fmt.Fprintf(w, "\tdown\t%8s\tfrom the exit of the old process to the authentication of the new one\n", ms(down))
	w.Flush()
	io.WriteString(out, text.String())
}

// jsonDowntime is the downtime as --json prints it. Times are in milliseconds.
type jsonDowntime struct {
	Version string     `json:"version"` // that the node was upgraded to
	Parts   []jsonPart `json:"parts"`
	DownMS  float64    `json:"down_ms"` // from the exit of the old process to the authentication of the new one
}

type jsonPart struct {
	Name string  `json:"name"`
	What string  `json:"what"`
	MS   float64 `json:"ms"`
}

// writeDowntime writes the parts as one line of JSON.
func writeDowntime(out io.Writer, version string, parts []part, down time.Duration) error {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	r := jsonDowntime{Version: version, DownMS: ms(down)}
	for _, p := range parts {
		r.Parts = append(r.Parts, jsonPart{p.name, p.what, ms(p.took)})
	}
	return json.NewEncoder(out).Encode(r)
}

// showDowntime prints the downtime of the upgrade after mark.
func (d *demo) showDowntime(mark int) error {
	log, err := readLog(d.node.Journal)
	if err != nil {
		return err
	}
	parts, down, err := downtime(d.rig.Timeline.Since(mark), log)
	if err != nil {
		return err
	}
	if d.json != nil {
		return writeDowntime(d.json, "1.1.0", parts, down)
	}
	d.say("demo", "the downtime of the upgrade to 1.1.0 (no systemd: a supervisor with RestartSec=0.05)")
	d.mu.Lock()
	defer d.mu.Unlock()
	printDowntime(d.out, parts, down)
	return nil
}
