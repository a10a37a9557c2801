package systemd

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// harmless lists the settings that may name a path in a version. systemd does not open
// it, or only after the watchdog counted the start.
var harmless = []string{
	"Description", "Documentation", "SourcePath", "RequiresMountsFor", "WantsMountsFor",
	"Environment", "PassEnvironment", "UnsetEnvironment", "ExecSearchPath", "SyslogIdentifier", "LogExtraFields",
	"SetCredential", "SetCredentialEncrypted", "PIDFile",
	"ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost",
}

// optional lists the settings in which a "-" before a path allows it to be missing.
var optional = []string{
	"EnvironmentFile", "WorkingDirectory", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths",
	"BindPaths", "BindReadOnlyPaths", "ExecCondition",
}

// checkPaths finds settings that fail if a version lacks a file. systemd then starts
// nothing, not even the watchdog, and no start is counted.
func (u unit) checkPaths() (out []Problem) {
	type setting struct{ key, path string }
	found := map[setting]bool{}
	report := func(file, key, path string) {
		if found[setting{key, path}] {
			return
		}
		found[setting{key, path}] = true
		remedy := fmt.Sprintf("remove %s= from %s, or name a path outside the versions there", key, file)
		if slices.Contains(optional, key) {
			remedy = fmt.Sprintf("put a \"-\" before the path in %s= of %s", key, file)
		}
		out = append(out, Problem{Rollback: true, Remedy: remedy + ", then run: " + u.reloadCommand(),
			Cause: fmt.Sprintf("%s has %s=%s, inside a version: a version without it could not start, and its starts would not be counted", u.Unit, key, path)})
	}
	for _, a := range u.assignments() {
		if a.section != "Unit" && a.section != "Service" || slices.Contains(harmless, a.key) || strings.HasPrefix(a.key, "X-") {
			continue
		}
		for _, path := range u.required(a.key, a.value) {
			report(a.file, a.key, path)
		}
	}
	// The properties, in which systemd replaced the specifiers of the text.
	for property, key := range map[string]string{"EnvironmentFiles": "EnvironmentFile", "WorkingDirectory": "", "RootDirectory": "",
		"ReadWritePaths": "", "ReadOnlyPaths": "", "InaccessiblePaths": ""} {
		if key == "" {
			key = property
		}
		for line := range strings.Lines(u.p[property]) {
			if strings.Contains(line, "ignore_errors=yes") {
				continue
			}
			for _, path := range u.required(key, line) {
				report(strings.TrimPrefix(u.fromFile(key), " from "), key, path)
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Cause < out[j].Cause })
	return out
}

// required returns the paths in a version that a setting needs.
func (u unit) required(key, value string) (out []string) {
	words := strings.Fields(value)
	for i, word := range words {
		word = strings.Trim(word, `"'`)
		prefix := word
		if slash := strings.IndexByte(word, '/'); slash >= 0 {
			prefix = word[:slash]
		}
		switch {
		case key == "ExecCondition" && i == 0 && strings.Contains(prefix, "-"):
			return nil // its result is ignored
		case (strings.HasPrefix(key, "Condition") || strings.HasPrefix(key, "Assert")) && strings.Contains(prefix, "!"):
			continue // met if the file is missing
		case key == "OpenFile" && strings.HasSuffix(word, "graceful"):
			continue
		case key != "ExecCondition" && strings.HasPrefix(strings.TrimLeft(word, "+"), "-"):
			continue
		}
		for part := range strings.FieldsFuncSeq(word, func(r rune) bool { return strings.ContainsRune("\"':,=;()|&<>`", r) }) {
			if path := strings.TrimLeft(part, "+@!-"); u.inVersion(path) {
				out = append(out, path)
			}
		}
	}
	return out
}
