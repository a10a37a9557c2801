package systemd

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
)

// LastLines bounds.
const (
	maxLines = 40
	maxLine  = 300 // bytes
)

// ErrNoUnit says that this process is not the service of a unit.
var ErrNoUnit = errors.New("not a service of systemd")

// Self returns the name of the unit that this process belongs to, like
// "edge.service", from its control group.
func Self() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return unitOf(string(b))
}

// unitOf finds the unit in the text of /proc/PID/cgroup (cgroups(7)): the
// unified hierarchy's line, or that of systemd's own.
func unitOf(text string) (string, error) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[1] == "" || parts[1] == "name=systemd") {
			if name := path.Base(parts[2]); strings.HasSuffix(name, ".service") {
				return name, nil
			}
		}
	}
	return "", ErrNoUnit
}

// LastLines returns what the journal has of the start of this unit before
// this one: at most 41, of at most 300 bytes
// each, oldest first. The
// user must be able to read the journal (group systemd-journal).
func LastLines(ctx context.Context) ([]string, error) {
	unit, err := Self()
	if err != nil {
		return nil, err
	}
	return lastLines(ctx, unit, os.Getenv("INVOCATION_ID"))
}

// lastLines is LastLines of any unit, whose present start is now.
func lastLines(ctx context.Context, unit, now string) ([]string, error) {
	out, err := output(ctx, "journalctl", "--quiet", "--no-pager", "--output=json", "--lines=500", "--unit="+unit)
	if err != nil {
		return nil, err
	}
	return linesOf(out, now), nil
}

// linesOf takes the messages of the last invocation before now out of
// journalctl's JSON. A process that ends at once can be gone before journald
// asks for its invocation; its lines are of the one that the line before is of. Of a long one, as a traceback makes it, the middle is left out.
func linesOf(out []byte, now string) []string {
	var lines []string
	last, before := "", ""
	in := bufio.NewScanner(bytes.NewReader(out))
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			Message any    `json:"MESSAGE"` // an array of bytes if it is not UTF-8
			Of      string `json:"_SYSTEMD_INVOCATION_ID"`
			About   string `json:"INVOCATION_ID"` // in systemd's own messages
		}
		if json.Unmarshal(in.Bytes(), &e) != nil {
			continue
		}
		id := cmp.Or(e.About, e.Of, before)
		before = id
		if id == now || id == "" {
			continue
		}
		if id != last {
			last, lines = id, nil
		}
		if s, ok := e.Message.(string); ok && s != "" {
			lines = append(lines, strings.ToValidUTF8(s[:min(len(s), maxLine)], ""))
		}
	}
	if over := len(lines) - maxLines; over > 0 {
		end := lines[len(lines)-maxLines/2:]
		lines = append(lines[:maxLines/2:maxLines/2], fmt.Sprintf("... %d lines left out", over))
		lines = append(lines, end...)
	}
	return lines
}
