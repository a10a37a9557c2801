package systemd

import (
	"os"
	"slices"
	"strings"
)

// assignment is a KEY=VALUE line of a unit file that is in effect.
type assignment struct{ file, section, key, value string }

// single lists the settings of which only the last line is in effect. Every other
// setting that can name a path is a list.
var single = []string{
	"WorkingDirectory", "RootDirectory", "RootImage", "RootVerity", "RootHash", "RootHashSignature",
	"StandardInput", "StandardOutput", "StandardError", "TTYPath", "NetworkNamespacePath", "IPCNamespacePath",
}

// assignments returns the assignments in effect, as systemd reads them: those of the
// unit first, then those of its drop-ins. It skips unreadable files.
func (u unit) assignments() []assignment {
	files := u.files()
	slices.Reverse(files)
	var out []assignment
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		section := ""
		for _, line := range logicalLines(string(b)) {
			if strings.HasPrefix(line, "[") {
				section = strings.Trim(line, "[]")
				continue
			}
			key, value, ok := strings.Cut(line, "=")
			if !ok {
				continue
			}
			a := assignment{file, section, strings.TrimSpace(key), strings.TrimSpace(value)}
			if a.value == "" || slices.Contains(single, a.key) {
				out = slices.DeleteFunc(out, func(old assignment) bool { return old.section == section && resets(a.key, old.key) })
			}
			if a.value != "" {
				out = append(out, a)
			}
		}
	}
	return out
}

// resets reports whether an empty key= cancels earlier lines of other. An empty condition
// cancels all conditions (systemd.unit(5)).
func resets(key, other string) bool {
	for _, kind := range []string{"Condition", "Assert"} {
		if strings.HasPrefix(key, kind) {
			return strings.HasPrefix(other, kind)
		}
	}
	return key == other
}

// logicalLines returns the lines of a unit file without comments. A line that ends in a
// backslash continues in the next one.
func logicalLines(text string) []string {
	var out []string
	joined, open := "", false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue // also between the parts of a line
		}
		part, more := strings.CutSuffix(line, `\`)
		if open {
			joined += " " + part
		} else {
			joined = part
		}
		if open = more; !open && joined != "" {
			out = append(out, joined)
		}
	}
	if open && joined != "" {
		out = append(out, joined)
	}
	return out
}
