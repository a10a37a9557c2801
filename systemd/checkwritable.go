package systemd

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// place is a path that the service writes to.
type place struct {
	name string // in the install root
	real string // without links
	// linked means that a link of an administrator points outside the root.
	linked bool
}

// places returns the install root, and what the agent writes to in it.
func (u unit) places() []place {
	out := []place{{u.Layout.Root(), u.real, false}}
	for _, path := range u.Layout.Written() {
		p := place{path, resolve(filepath.Join(u.real, u.name(path))), false}
		if _, err := os.Lstat(p.real); err != nil {
			continue // another check finds dangling links
		}
		p.linked = !within(p.real, u.real)
		out = append(out, p)
	}
	return out
}

// rule decides whether the service may write to a path. It comes from the setting that
// names the deepest directory.
type rule struct {
	depth    int
	key      string // the setting, without "="; "": there is none
	value    string
	writable bool
}

// access returns the rule of a path without links.
func (u unit) access(path string) rule {
	r := rule{depth: -1, writable: true}
	switch v := u.p["ProtectSystem"]; v {
	case "strict":
		r = rule{0, "ProtectSystem", v, false}
	case "full", "yes":
		for _, dir := range []string{"/usr", "/boot", "/etc"} {
			if within(path, dir) && (dir != "/etc" || v == "full") {
				r = rule{0, "ProtectSystem", v, false}
			}
		}
	}
	list := func(key string, writable bool, dirs []string) {
		for _, dir := range dirs {
			if dir := resolve(strings.TrimLeft(dir, "-+")); within(path, dir) && len(dir) > r.depth {
				r = rule{len(dir), key, dir, writable}
			}
		}
	}
	list("ReadOnlyPaths", false, strings.Fields(u.p["ReadOnlyPaths"]))
	list("InaccessiblePaths", false, strings.Fields(u.p["InaccessiblePaths"]))
	list("ReadWritePaths", true, strings.Fields(u.p["ReadWritePaths"]))
	for _, dir := range strings.Fields(u.p["StateDirectory"]) {
		list("StateDirectory", true, []string{filepath.Join("/var/lib", dir)})
	}
	return r
}

// checkWritable checks that the sandbox lets the service write to, and run programs
// from, its install root, and the directories that links in it point to.
func (u unit) checkWritable() (out []Problem) {
	places := u.places()
	root := u.access(u.real)
	var reported []rule
	for i, p := range places {
		r := u.access(p.real)
		if i == 0 || p.linked {
			out = append(out, u.hidden(p, r.writable)...)
		}
		if r.writable || i > 0 && (!p.linked && r == root || p.linked && slices.Contains(reported, r) && r.key != "ProtectSystem") {
			continue
		}
		reported = append(reported, r)
		what, reason := p.name, r.key+"="+r.value
		if p.linked {
			what = fmt.Sprintf("%s, to which %s is a link", p.real, p.name)
		}
		if r.key == "ProtectSystem" {
			reason += ", and ReadWritePaths= does not name it"
		}
		remedy := u.setRemedy("Service", "ReadWritePaths", u.Layout.Root())
		switch {
		case r.key != "ProtectSystem":
			remedy = fmt.Sprintf("remove %s from %s=%s, keep ReadWritePaths=%s, then run: %s", r.value, r.key, strings.Replace(u.fromFile(r.key), " from", " of", 1), p.real, u.reloadCommand())
		case p.linked:
			remedy = u.rewriteRemedy("ReadWritePaths")
		}
		out = append(out, Problem{Rollback: true, Remedy: remedy, Cause: fmt.Sprintf("%s may not write to %s (%s): no upgrade and no rollback can be recorded", u.Unit, what, reason)})
	}
	return append(out, u.noExec(places)...)
}

// hidden finds settings that replace a place by an empty directory.
func (u unit) hidden(p place, writable bool) (out []Problem) {
	check := func(key string, dirs ...string) {
		if v := u.p[key]; v == "no" || v == "" || v == "read-only" && writable {
			return
		}
		for _, dir := range dirs {
			if real := resolve(dir); p.real != real && within(p.real, real) { // /home may be a link
				out = append(out, Problem{Rollback: true, Remedy: fmt.Sprintf("move %s elsewhere, or %s", p.real, u.setRemedy("Service", key, "no")),
					Cause: fmt.Sprintf("%s has %s=%s, which hides %s from it", u.Unit, key, u.p[key], p.name)})
			}
		}
	}
	check("ProtectHome", "/home", "/root", "/run/user")
	check("PrivateTmp", "/tmp", "/var/tmp")
	return out
}

// noExec finds a setting that forbids to execute the programs of the versions.
func (u unit) noExec(places []place) []Problem {
	for _, p := range places {
		if p.name != u.Layout.Root() && p.name != u.Layout.Versions() {
			continue
		}
		deny, allow := -1, -1
		deepest := func(key string, depth *int) {
			for _, dir := range strings.Fields(u.p[key]) {
				if dir := resolve(strings.TrimLeft(dir, "-+")); within(p.real, dir) {
					*depth = max(*depth, len(dir))
				}
			}
		}
		deepest("NoExecPaths", &deny)
		deepest("ExecPaths", &allow)
		if deny > allow {
			return []Problem{{Rollback: true, Remedy: "add ExecPaths=" + p.name + " in [Service], then run: " + u.reloadCommand(),
				Cause: fmt.Sprintf("%s has NoExecPaths=%s: no version can be executed in %s", u.Unit, strings.Join(strings.Fields(u.p["NoExecPaths"]), " "), p.name)}}
		}
	}
	return nil
}
