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

// Limits of LastLines.
const (
	maxLines = 40
	maxLine  = 300 // bytes
)

// ErrNoUnit means that this process is not the service of a unit.
var ErrNoUnit = errors.New("not a service of systemd")

// Self returns the name of the unit of this process, like "edge.service", from its
// control group.
func Self() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	return unitOf(string(b))
}

// unitOf returns the unit in the text of /proc/PID/cgroup (cgroups(7)), from the line of
// the unified hierarchy or of systemd's own.
func unitOf(text string) (string, error) {
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[1] == "" || parts[1] == "name=systemd") {
			if name := path.Base(parts[2]); strings.HasSuffix(name, ".service") {
				return strings.TrimPrefix(name, "_"), nil // systemd escapes _x.service, and names of controllers like cpu.service
			}
		}
	}
	return "", ErrNoUnit
}

// LastLines returns the journal of the previous start of this process's unit: at most 41
// lines of at most 300 bytes each, oldest first. The user must be able to read the
// journal (group systemd-journal).
func LastLines(ctx context.Context) ([]string, error) {
	unit, err := Self()
	if err != nil {
		return nil, err
	}
	return lastLines(ctx, unit, os.Getenv("INVOCATION_ID"))
}

// lastLines is LastLines of any unit. now is the invocation id of its present start.
func lastLines(ctx context.Context, unit, now string) ([]string, error) {
	out, err := output(ctx, "journalctl", "--quiet", "--no-pager", "--output=json", "--lines=500", "--unit="+unit)
	if err != nil {
		return nil, err
	}
	return linesOf(out, now), nil
}

// linesOf returns the messages of the last invocation before now, from journalctl's JSON.
// A process that ends at once may be gone before journald learns its invocation; its
// lines belong to that of the line before. Long output, such as a traceback, loses its
// middle.
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
