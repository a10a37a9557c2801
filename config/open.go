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

	"github.com/bilbycast/edge-agent/internal/state"
	"github.com/bilbycast/edge-agent/release"
	"github.com/pelletier/go-toml/v2"
)

// Warnings are what Open found wrong with a config.toml that does not keep the node from
// running. The zero Warnings are none. Give them to agent.Options.
type Warnings struct {
	List []Warning
	// Withhold is why the node must refuse upgrades; "": nothing in the file is a
	// reason.
	Withhold string
	// Path is the file, if its mode permits others what it should not: with mode 0600
	// that is repaired, and the last entry of List no longer holds. Otherwise it is "".
	Path string
	// Accepted is the text of the file, if the Settings come from it; it has secrets. The
	// agent keeps it in state.Layout.AcceptedConfig.
	Accepted Secret `json:"-"`
}

// Warning is one problem of a file.
type Warning struct {
	Cause  string // with its consequence
	Remedy string
}

func (w Warning) String() string { return w.Cause + ": " + w.Remedy }

// upgradeSection is the section whose unknown keys withhold upgrades.
const upgradeSection = "upgrade"

// maxWarnings bounds how many unknown keys Warnings name.
const maxWarnings = 20

// maxText bounds each cause of Warnings, in bytes.
const maxText = 600

// Opener reads a configuration as Open does, for a service that keeps it in a file of its own.
type Opener func(path string) (Settings, Warnings, error)

// Open returns the settings with which a node runs. For a node that is not registered
// yet it is Read. A node that has credentials.json, or whose kept copy says that it has no
// manager, must start, so for it:
//
//   - an unknown key is a warning, and below [upgrade] a reason to withhold upgrades: it
//     may be a protection;
//   - a mode or an owner by which others may read a secret, or change the file, is a
//     warning;
//   - if the file is missing, cannot be read or parsed, or breaks a rule, the settings are
//     those of the copy that the agent kept, and upgrades are withheld. Without a usable
//     copy the error of Read is returned;
//   - if the file lies in the node's root and names another one, the node runs on its own
//     root, with the copy or else with the file, and upgrades are withheld.
//
// Open changes nothing.
func Open(path string) (Settings, Warnings, error) {
	f, err := parse(path)
	elsewhere := false // the file names another root than its own
	if err == nil {
		s, resolveErr := f.resolve()
		var misplaced error
		if resolveErr == nil {
			misplaced = f.misplaced(s)
		}
		if resolveErr == nil && misplaced == nil && registered(s.Layout) {
			return s, f.warnings(s.Layout), nil
		}
		elsewhere = misplaced != nil
		err = cmp.Or(misplaced, f.strict(), resolveErr)
		if err == nil {
			return s, Warnings{Accepted: NewSecret(string(f.text)), List: f.unusedToken()}, nil
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
		return s, fallback(err, c.path), nil
	}
	if home, ok := f.home(); ok && elsewhere {
		f.config.Service.InstallRoot = home.Root()
		if s, homeErr := f.resolve(); homeErr == nil {
			w := f.warnings(s.Layout)
			w.Accepted = Secret{} // it names the wrong root
			first := Warning{release.Foreign(fmt.Sprintf("%v; the agent runs on %s and refuses upgrades", err, home.Root()), maxText), "correct install_root, and restart the service"}
			w.List, w.Withhold = append([]Warning{first}, w.List...), first.String()
			return s, w, nil
		}
	}
	return Settings{}, Warnings{}, err
}

// home returns the root in which the file is the config.toml of a registered node.
func (f file) home() (state.Layout, bool) {
	path, err := filepath.Abs(f.path)
	if err != nil {
		return state.Layout{}, false
	}
	l, err := state.At(filepath.Dir(path))
	return l, err == nil && path == l.ConfigFile() && registered(l)
}

// misplaced returns an error if the file lies in the root of a registered node, and names
// another root: on that one the node would be another, or an unregistered one.
func (f file) misplaced(s Settings) error {
	home, ok := f.home()
	if !ok || resolved(home.Root()) == resolved(s.Layout.Root()) {
		return nil
	}
	return f.broken("service.install_root", "install_root is %s, but the file lies in the install root of a registered node; set install_root = %q", s.Layout.Root(), home.Root())
}

// OnlyWarns reports whether Read refuses a file with which a registered node runs and
// offers upgrades: it ignores unknown keys outside [upgrade], and corrects the mode.
func OnlyWarns(path string) bool {
	f, err := parse(path)
	if err != nil || f.strict() == nil || len(f.unknownProtections()) > 0 {
		return false
	}
	s, err := f.resolve()
	return err == nil && f.misplaced(s) == nil
}

// resolve is Config.Resolve with the path in its error.
func (f file) resolve() (Settings, error) {
	s, err := f.config.Resolve()
	if err != nil {
		return s, fmt.Errorf("%s: %w", f.path, err)
	}
	return s, nil
}

// registered reports whether the node has credentials, of which a damaged file counts, or
// has run without a manager.
func registered(l state.Layout) bool {
	_, err := os.Lstat(l.CredentialsFile())
	if err == nil || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return true
	}
	kept, err := parse(l.AcceptedConfig())
	urls := kept.config.Manager.URLs
	return err == nil && urls != nil && len(urls) == 0
}

// unusedToken returns a warning about a registration token of a node without a manager.
func (f file) unusedToken() []Warning {
	if m := f.config.Manager; m.RegistrationToken.IsZero() || len(m.URLs) > 0 {
		return nil
	}
	return []Warning{{release.Foreign(f.path+": registration_token has no use, since urls is empty and this node has no manager", maxText), "remove it, or name the manager in urls of [manager]"}}
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
	w := Warnings{Accepted: NewSecret(string(f.text)), List: f.unusedToken()}
	protections := f.unknownProtections()
	ignored := slices.DeleteFunc(slices.Clone(f.unknown), func(u unknownKey) bool {
		return slices.ContainsFunc(protections, func(p string) bool {
			return strings.EqualFold(p, u.key) || strings.EqualFold(p, upgradeSection+"."+u.key)
		})
	})
	for i, u := range ignored {
		if i == maxWarnings {
			u.text = fmt.Sprintf("%d more unknown keys", len(ignored)-i)
		}
		w.List = append(w.List, Warning{release.Foreign(f.path+": "+u.text+"; this version ignores it", maxText),
			"remove or correct the key, or run a version that knows it; check the file with: edge-agent config check " + f.path})
		if i == maxWarnings {
			break
		}
	}
	if len(protections) > 0 {
		var names []string
		for _, p := range protections[:min(len(protections), maxWarnings)] {
			name := fmt.Sprintf("unknown key %q", p)
			if i := slices.IndexFunc(f.unknown, func(u unknownKey) bool { return strings.EqualFold(u.key, p) }); i >= 0 {
				name = f.unknown[i].text // with its line
			}
			names = append(names, name)
		}
		protection := Warning{release.Foreign(fmt.Sprintf("%s: %s; it may be a protection, so this version refuses upgrades", f.path, strings.Join(names, "; ")), maxText),
			"remove or correct it, or run a version that knows it, and restart the service; check the file with: edge-agent config check " + f.path}
		w.Withhold = protection.String()
		w.List = append(w.List, protection)
	}
	return f.withAccess(w, l)
}

// unknownProtections returns the keys of [upgrade] that Config does not have. Unlike
// toml.StrictMissingError, it also finds those in an inline table.
func (f file) unknownProtections() []string {
	var all map[string]any
	if err := toml.Unmarshal(f.text, &all); err != nil {
		return nil // parse succeeded with the same text
	}
	var unknown []string
	for key, value := range all {
		table, ok := value.(map[string]any)
		if !ok || !strings.EqualFold(key, upgradeSection) {
			continue
		}
		for k := range table {
			known := false
			for field := range reflect.TypeFor[Upgrade]().Fields() {
				known = known || strings.EqualFold(k, field.Tag.Get("toml")) // as the decoder compares
			}
			if !known {
				unknown = append(unknown, upgradeSection+"."+k)
			}
		}
	}
	slices.Sort(unknown)
	return unknown
}

// access returns what is wrong with the mode or the owner of the file; the zero Warning is
// nothing. repairable reports whether mode 0600 corrects it, and the user of this process, euid, owns the
// file.
func (f file) access(l state.Layout, euid uint32) (w Warning, repairable bool) {
	st, err := os.Stat(f.path)
	if err != nil {
		return Warning{}, false
	}
	var problems []string
	mode := st.Mode().Perm()
	m := f.config.Manager
	if mode&0o077 != 0 && (!m.RegistrationToken.IsZero() || strings.Contains(m.Proxy.Reveal(), "@")) {
		problems = append(problems, fmt.Sprintf("others may read its secrets (mode %04o)", mode))
	} else if mode&0o022 != 0 {
		problems = append(problems, fmt.Sprintf("others may change it (mode %04o)", mode))
	}
	loose := len(problems) > 0
	remedy := "chmod 600 " + f.path
	sys, ok := st.Sys().(*syscall.Stat_t)
	mine := ok && sys.Uid == euid
	// The file is to belong to the root's owner, which is the service's user. Another user
	// may run doctor, root can use every file, and elsewhere than in the root an
	// administrator's file may belong to root.
	owner, err := l.Owner()
	if ok && err == nil && !mine && sys.Uid != owner && euid != 0 && (loose || resolved(f.path) == resolved(l.ConfigFile())) {
		problems = append(problems, "it belongs to "+userName(sys.Uid))
		remedy = fmt.Sprintf("chown %s: %s && %s", userName(owner), f.path, remedy)
	}
	if len(problems) == 0 {
		return Warning{}, false
	}
	return Warning{f.path + ": " + strings.Join(problems, ", and "), "run: " + remedy}, loose && mine
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
