package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/state"
	"github.com/pelletier/go-toml/v2"
)

// Warnings are what Open found wrong with a config.toml that does not keep the node from
// running. The zero Warnings are none. Give them to agent.Options.
type Warnings struct {
	// Texts name each problem, its consequence and its remedy.
	Texts []string
	// Withhold is why the node must refuse upgrades; "": nothing in the file is a
	// reason.
	Withhold string
	// Path is the file, if its mode permits others what it should not: with mode 0600
	// that is repaired. Otherwise it is "".
	Path string
	// Accepted is the text of the file, if the Settings come from it. It may hold
	// secrets. The agent keeps it in state.Layout.AcceptedConfig.
	Accepted []byte `json:"-"`
}

// maxTexts bounds how many unknown keys Warnings name.
const maxTexts = 20

// maxText bounds each text of Warnings, in bytes.
const maxText = 600

// Open returns the settings with which a node runs. For a node that is not registered
// yet it is Read. A node that has credentials.json must start, so for it:
//
//   - an unknown key is a warning, and below [upgrade] a reason to withhold upgrades: it
//     may be a protection;
//   - a mode or an owner by which others may read a secret, or change the file, is a
//     warning;
//   - if the file is missing, cannot be read or parsed, or breaks a rule, the settings are
//     those of the copy that the agent kept, and upgrades are withheld. Without a usable
//     copy the error of Read is returned.
//
// Open changes nothing.
func Open(path string) (Settings, Warnings, error) {
	f, err := parse(path)
	if err == nil {
		s, resolveErr := f.resolve()
		if resolveErr == nil && registered(s.Layout) {
			return s, f.warnings(s.Layout), nil
		}
		err = cmp.Or(f.strict(), resolveErr)
		if err == nil {
			return s, Warnings{Accepted: f.text}, nil
		}
	}
	for _, l := range f.roots() {
		c, copyErr := parse(l.AcceptedConfig())
		if copyErr != nil {
			continue
		}
		s, copyErr := c.resolve()
		if copyErr != nil || !registered(s.Layout) {
			continue
		}
		w := Warnings{Withhold: release.Foreign(fmt.Sprintf("%v; the agent runs with a copy of the last valid file (%s): correct the file, and restart the service", err, c.path), maxText)}
		w.Texts = []string{w.Withhold}
		return s, w, nil
	}
	return Settings{}, Warnings{}, err
}

// OnlyIgnores reports whether unknown keys outside [upgrade] are the only errors of Read
// in a file: a registered node runs with it, and offers upgrades.
func OnlyIgnores(path string) bool {
	f, err := parse(path)
	if err != nil || len(f.unknown) == 0 || len(f.unknownProtections()) > 0 {
		return false
	}
	f.unknown = nil
	_, err = f.resolve()
	return err == nil && f.strict() == nil
}

// resolve is Config.Resolve with the path in its error.
func (f file) resolve() (Settings, error) {
	s, err := f.config.Resolve()
	if err != nil {
		return s, fmt.Errorf("%s: %w", f.path, err)
	}
	return s, nil
}

// registered reports whether the node has credentials, of which a damaged file counts.
func registered(l state.Layout) bool {
	_, err := os.Lstat(l.CredentialsFile())
	return err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR)
}

// roots returns where the copy of a file may be that cannot be used: the directory of the
// file, the root of the version that this program is, and the root that the file names.
// The default of install_root is left out: it may be the root of another service.
func (f file) roots() []state.Layout {
	var roots []state.Layout
	if path, err := filepath.Abs(f.path); err == nil {
		if l, err := state.At(filepath.Dir(path)); err == nil {
			roots = append(roots, l)
		}
	}
	if exe, err := os.Executable(); err == nil {
		if l, ok := state.RootOf(exe); ok {
			roots = append(roots, l)
		}
	}
	if l, err := state.At(f.config.Service.InstallRoot); err == nil {
		roots = append(roots, l)
	}
	return roots
}

// warnings returns what is wrong with a file that can be used.
func (f file) warnings(l state.Layout) Warnings {
	w := Warnings{Accepted: f.text}
	for i, u := range f.unknown {
		if i == maxTexts {
			w.Texts = append(w.Texts, fmt.Sprintf("%s: %d more unknown keys", f.path, len(f.unknown)-i))
			break
		}
		w.Texts = append(w.Texts, release.Foreign(fmt.Sprintf("%s: %s; this version ignores it", f.path, u), maxText))
	}
	if keys := f.unknownProtections(); len(keys) > 0 {
		more := ""
		if len(keys) > maxTexts {
			keys, more = keys[:maxTexts], " and more"
		}
		w.Withhold = release.Foreign(fmt.Sprintf("%s has %s%s, which this version does not know and which may be a protection: remove it, or run a version that knows it; then restart the service",
			f.path, strings.Join(keys, " and "), more), maxText)
		w.Texts = append(w.Texts, w.Withhold)
	}
	if text, repairable := f.access(l); text != "" {
		w.Texts = append(w.Texts, text)
		if repairable {
			w.Path = f.path
		}
	}
	return w
}

// unknownProtections returns the keys of [upgrade] that Config does not have. Unlike
// toml.StrictMissingError, it also finds those in an inline table.
func (f file) unknownProtections() []string {
	var all map[string]any
	if err := toml.Unmarshal(f.text, &all); err != nil {
		return nil // parse succeeded with the same text
	}
	section, _ := reflect.TypeFor[Config]().FieldByName("Upgrade")
	name := section.Tag.Get("toml")
	var unknown []string
	for key, value := range all {
		table, ok := value.(map[string]any)
		if !ok || !strings.EqualFold(key, name) {
			continue
		}
		for k := range table {
			known := false
			for field := range section.Type.Fields() {
				known = known || strings.EqualFold(k, field.Tag.Get("toml")) // as the decoder compares
			}
			if !known {
				unknown = append(unknown, name+"."+k)
			}
		}
	}
	slices.Sort(unknown)
	return unknown
}

// access returns what is wrong with the mode or the owner of the file, or "". repairable
// reports whether mode 0600 corrects it, and this process owns the file.
func (f file) access(l state.Layout) (text string, repairable bool) {
	st, err := os.Stat(f.path)
	if err != nil {
		return "", false
	}
	var problems []string
	mode := st.Mode().Perm()
	m := f.config.Manager
	if mode&0o077 != 0 && (m.RegistrationToken != "" || strings.Contains(m.Proxy, "@")) {
		problems = append(problems, fmt.Sprintf("others may read its secrets (mode %04o)", mode))
	} else if mode&0o022 != 0 {
		problems = append(problems, fmt.Sprintf("others may change it (mode %04o)", mode))
	}
	loose := len(problems) > 0
	remedy := "chmod 600 " + f.path
	sys, ok := st.Sys().(*syscall.Stat_t)
	mine := !ok || sys.Uid == uint32(os.Geteuid())
	// Elsewhere than in the root, an administrator's file may belong to root.
	if !mine && (loose || resolved(f.path) == resolved(l.ConfigFile())) {
		problems = append(problems, "it belongs to "+userName(sys.Uid))
		remedy = fmt.Sprintf("chown %s: %s && %s", userName(uint32(os.Geteuid())), f.path, remedy)
	}
	if len(problems) == 0 {
		return "", false
	}
	return fmt.Sprintf("%s: %s; run: %s", f.path, strings.Join(problems, ", and "), remedy), loose && mine
}

func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return filepath.Clean(path)
}

// userName returns the name of a user, or the uid where no user has it.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
