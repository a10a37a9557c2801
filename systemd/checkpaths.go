package systemd

import (
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
)

// harmless lists the settings that may name a path in a version. systemd does not open
// it, creates it, or opens it after the watchdog counted the start.
var harmless = []string{
	"Description", "Documentation", "SourcePath", "RequiresMountsFor", "WantsMountsFor",
	"Environment", "PassEnvironment", "UnsetEnvironment", "ExecSearchPath", "SyslogIdentifier", "LogExtraFields",
	"SetCredential", "SetCredentialEncrypted", "PIDFile", "TemporaryFileSystem",
	"ExecStart", "ExecStartPre", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost",
}

// optional lists the settings in which a "-" before a path allows it to be missing.
var optional = []string{
	"EnvironmentFile", "WorkingDirectory", "ReadWritePaths", "ReadOnlyPaths", "InaccessiblePaths", "ExecPaths", "NoExecPaths",
	"BindPaths", "BindReadOnlyPaths", "MountImages", "ExtensionImages", "ExtensionDirectories", "ExecCondition",
}

// need is a path in a version that a setting of the unit names, and without which systemd
// starts nothing.
type need struct {
	file, key string // where it is set
	path      string // "" in a condition about something else
	negated   bool   // of a condition: "!"
	trigger   bool   // of a condition: "|", one of them is enough
}

// condition returns "Condition" or "Assert" and the rest of the key, or "".
func (n need) condition() (class, kind string) {
	for _, class := range []string{"Condition", "Assert"} {
		if kind, ok := strings.CutPrefix(n.key, class); ok {
			return class, kind
		}
	}
	return "", ""
}

// checkPaths finds settings that fail if a version lacks a file. systemd then starts
// nothing, not even the watchdog in the unit. Without a watchdog in a unit of its own,
// no start would be counted, so no such setting is accepted. With one, the versions that
// may be started must have what the unit needs (see FitVersion).
func (u unit) checkPaths() (out []Problem) {
	guarded := len(u.checkGuard()) == 0 && u.p["DefaultDependencies"] != "no"
	lacking := map[need]string{}
	if guarded {
		for _, link := range []string{u.Layout.Current(), u.Layout.LastGood()} {
			for _, n := range u.lacking(link) {
				lacking[n] = filepath.Base(resolve(link))
			}
		}
	}
	for _, n := range u.needs() {
		lacks, missing := lacking[n]
		if n.path == "" || !missing && (n.negated || guarded && u.moves(n.path)) {
			continue
		}
		remedy := fmt.Sprintf("remove %s= from %s, or name a path outside the versions there", n.key, n.file)
		if slices.Contains(optional, n.key) {
			remedy = fmt.Sprintf("put a \"-\" before the path in %s= of %s", n.key, n.file)
		}
		remedy += ", then run: " + u.reloadCommand()
		why := "a version without it could not start, and its starts would not be counted"
		switch {
		case missing:
			why = lacks + " " + n.fault() + ", so it could not be started again"
		case guarded:
			why = "that version can be removed at any time"
		case u.moves(n.path):
			remedy += "; or add " + watchdogUnit(u.Unit) + ": " + u.writeCommand()
		}
		out = append(out, Problem{Rollback: true, Remedy: remedy, Cause: fmt.Sprintf("%s has %s=%s, inside a version: %s", u.Unit, n.key, n.path, why)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Cause < out[j].Cause })
	return slices.CompactFunc(out, func(a, b Problem) bool { return a.Cause == b.Cause })
}

// moves reports whether path is below a link that points to another version after an
// upgrade.
func (u unit) moves(path string) bool {
	_, ok := u.inNext(path)
	return ok
}

// reported are the properties that have the paths of a setting, as systemd opens them: with
// the specifiers replaced, and from files that only root can read. Conditions and
// credentials are in addHidden.
var reported = map[string]string{
	"EnvironmentFiles": "EnvironmentFile", "WorkingDirectory": "WorkingDirectory", "RootDirectory": "RootDirectory", "RootImage": "RootImage",
	"RootHashPath": "RootHash", "RootHashSignaturePath": "RootHashSignature", "RootVerityPath": "RootVerity", "TTYPath": "TTYPath",
	"NetworkNamespacePath": "NetworkNamespacePath", "IPCNamespacePath": "IPCNamespacePath",
	"MountImages": "MountImages", "ExtensionImages": "ExtensionImages", "ExtensionDirectories": "ExtensionDirectories",
	"ReadWritePaths": "ReadWritePaths", "ReadOnlyPaths": "ReadOnlyPaths", "InaccessiblePaths": "InaccessiblePaths",
	"ExecPaths": "ExecPaths", "NoExecPaths": "NoExecPaths", "BindPaths": "BindPaths", "BindReadOnlyPaths": "BindReadOnlyPaths",
}

// needs returns the paths in versions that settings of the unit need.
func (u unit) needs() (out []need) {
	_, known := u.p["Conditions"]
	for _, a := range u.assignments() {
		if a.section != "Unit" && a.section != "Service" || slices.Contains(harmless, a.key) || strings.HasPrefix(a.key, "X-") {
			continue
		}
		n := need{file: a.file, key: a.key}
		value := u.expand(a.value)
		if class, _ := n.condition(); class != "" {
			if known {
				continue
			}
			value, n.trigger = cutMark(value, "|")
			value, n.negated = cutMark(value, "!")
		}
		paths := u.required(a.key, value)
		if paths == nil && n.trigger {
			out = append(out, n)
		}
		for _, n.path = range paths {
			out = append(out, n)
		}
	}
	add := func(n need) {
		n.file = strings.TrimPrefix(u.fromFile(n.key), " from ")
		if !slices.ContainsFunc(out, func(o need) bool {
			// A list is printed without quotes: this may be the beginning of a path with a space.
			return o.key == n.key && (o.path == n.path || strings.HasPrefix(o.path, n.path+" "))
		}) {
			out = append(out, n)
		}
	}
	for _, c := range conditions(u.p) {
		n := need{key: c.kind, trigger: c.trigger, negated: c.negated}
		if u.inVersion(c.param) {
			n.path = c.param
		}
		if n.path != "" || n.trigger {
			n.file = strings.TrimPrefix(u.fromFile(n.key), " from ")
			out = append(out, n)
		}
	}
	for _, key := range []string{"LoadCredential", "LoadCredentialEncrypted"} {
		for _, path := range credentials(u.p, key) {
			if u.inVersion(path) {
				add(need{key: key, path: path})
			}
		}
	}
	for property, key := range reported {
		for line := range strings.Lines(u.p[property]) {
			line = strings.TrimSpace(line)
			// "!": a working directory that may be missing
			if strings.HasSuffix(line, " (ignore_errors=yes)") || strings.HasPrefix(line, "!") {
				continue
			}
			for _, path := range u.required(key, strings.TrimSuffix(line, " (ignore_errors=no)")) {
				add(need{key: key, path: path})
			}
		}
	}
	return out
}

// cutMark removes a mark from the beginning of a condition.
func cutMark(value, mark string) (string, bool) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(value), mark)
	return strings.TrimSpace(rest), ok
}

// expand replaces the specifiers that stand for the unit's own name (systemd.unit(5)).
func (u unit) expand(value string) string {
	name := strings.TrimSuffix(u.Unit, ".service")
	prefix, instance, _ := strings.Cut(name, "@")
	return strings.NewReplacer("%%", "%", "%n", u.Unit, "%N", name, "%p", prefix, "%P", prefix, "%i", instance, "%I", instance).Replace(value)
}

// onePath lists the settings whose whole value is one path, which may have spaces. Those
// of conditions are, too.
var onePath = []string{"EnvironmentFile", "WorkingDirectory", "RootDirectory", "RootImage", "RootHash", "RootHashSignature", "RootVerity", "TTYPath",
	"NetworkNamespacePath", "IPCNamespacePath", "LoadCredential", "LoadCredentialEncrypted", "OpenFile", "StandardInput", "StandardOutput", "StandardError"}

// required returns the paths in a version that a setting needs.
func (u unit) required(key, value string) (out []string) {
	if class, _ := (need{key: key}).condition(); class != "" || slices.Contains(onePath, key) {
		if path := u.onlyPath(key, strings.Trim(strings.TrimSpace(value), `"'`)); u.inVersion(path) {
			return []string{path}
		}
		return nil
	}
	for i, word := range words(value) {
		prefix := word
		if slash := strings.IndexByte(word, '/'); slash >= 0 {
			prefix = word[:slash]
		}
		switch {
		case key == "ExecCondition" && i == 0 && strings.Contains(prefix, "-"):
			return nil // its result is ignored
		case key != "ExecCondition" && strings.HasPrefix(strings.TrimLeft(word, "+"), "-"):
			continue
		}
		if key == "ExecCondition" {
			out = append(out, u.versionPaths(word)...)
			continue
		}
		if key == "BindPaths" || key == "BindReadOnlyPaths" || key == "MountImages" || key == "ExtensionImages" {
			word, _, _ = strings.Cut(word, ":") // systemd creates the destination
		}
		if path := strings.TrimLeft(word, "+"); u.inVersion(path) {
			out = append(out, path)
		}
	}
	return out
}

// onlyPath returns the path that the value of a setting is; "" if it may be missing.
func (u unit) onlyPath(key, value string) string {
	switch key {
	case "LoadCredential", "LoadCredentialEncrypted":
		_, value, _ = strings.Cut(value, ":")
	case "StandardInput", "StandardOutput", "StandardError":
		_, value, _ = strings.Cut(value, ":") // file:, append: or truncate:
	case "OpenFile":
		if strings.HasSuffix(value, "graceful") {
			return ""
		}
		value, _, _ = strings.Cut(value, ":")
	}
	if strings.HasPrefix(value, "-") {
		return ""
	}
	return value
}

// words splits a list as systemd does: at white space outside quotes.
func words(value string) (out []string) {
	var word strings.Builder
	quote, open, escaped := rune(0), false, false
	for _, r := range value {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			escaped, open = true, true
		case quote != 0 && r == quote:
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			quote, open = r, true
		case quote == 0 && (r == ' ' || r == '\t' || r == '\n'):
			if open {
				out = append(out, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteRune(r)
			open = true
		}
	}
	if open {
		out = append(out, word.String())
	}
	return out
}

// versionPaths returns the paths in versions that a word consists of.
func (u unit) versionPaths(word string) (out []string) {
	for part := range strings.FieldsFuncSeq(word, func(r rune) bool { return strings.ContainsRune("\"':,=;()|&<>` ", r) }) {
		if path := strings.TrimLeft(part, "+@!-"); u.inVersion(path) {
			out = append(out, path)
		}
	}
	return out
}
