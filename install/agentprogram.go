package install

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

// programDirs are where the programs of a system are, or links to them.
var programDirs = []string{"/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin"}

// agentProgram returns the path of this program for a unit. called is its name in the
// command line. A package may keep each of its versions in a directory of its own, which is
// gone after an update; then the unit must name the link to the present one.
func agentProgram(called string) (string, error) {
	real, err := os.Executable()
	if err != nil {
		return "", err
	}
	return stableName(real, called, programDirs), nil
}

// stableName returns a link by which an administrator finds the program real: the one that
// was called, or one of that name in dirs; real, if there is none.
func stableName(real, called string, dirs []string) string {
	st, err := os.Stat(real)
	if err != nil {
		return real
	}
	var names []string
	if path, err := exec.LookPath(called); err == nil {
		if path, err = filepath.Abs(path); err == nil {
			names = append(names, path)
		}
	}
	for _, dir := range dirs {
		names = append(names, filepath.Join(dir, filepath.Base(called)), filepath.Join(dir, filepath.Base(real)))
	}
	for _, name := range names {
		if same, err := os.Stat(name); err == nil && name != real && os.SameFile(st, same) && onlyRootMoves(name) {
			return name
		}
	}
	return real
}

// maxLinks bounds the links of a path, as the kernel does.
const maxLinks = 40

// onlyRootMoves reports whether only root decides what a name is, because root runs it: of
// every link on the way to the program, and of every directory.
func onlyRootMoves(name string) bool {
	path, rest := "/", strings.Split(name, "/")
	for links := 0; len(rest) > 0; {
		st, err := os.Lstat(path)
		if err != nil || !st.IsDir() || !onlyRootChanges(st) {
			return false
		}
		next := filepath.Join(path, rest[0]) // no link is left in path
		rest = rest[1:]
		if st, err = os.Lstat(next); err != nil || !onlyRootChanges(st) {
			return false
		}
		if st.Mode().Type() != os.ModeSymlink {
			path = next
			continue
		}
		to, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return false
		}
		if filepath.IsAbs(to) {
			path = "/"
		}
		rest = append(strings.Split(to, "/"), rest...)
	}
	return true
}

// onlyRootChanges reports whether only root changes a file, or what a directory has. In a
// directory with the sticky bit, others move nothing of root's.
func onlyRootChanges(st fs.FileInfo) bool {
	_, gid, _ := ownerIDs(st)
	others := os.FileMode(0o002)
	if gid != 0 {
		others |= 0o020
	}
	return ownedByRoot(st) && (st.Mode().Type() == os.ModeSymlink || st.Mode()&os.ModeSticky != 0 || st.Mode().Perm()&others == 0)
}

// versioned matches a directory with a version or a revision in its name, as package managers
// and other deployment tools make one for each update.
var versioned = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`[0-9]\.[0-9]|/v?[0-9]+(/|$)|-[0-9]+(/|$)|^/(nix|gnu)/store/`)
})

// AgentNote returns what a person should know about the path of the agent in a unit, or "".
func AgentNote(agent string) string {
	if dir := filepath.Dir(agent); strings.HasPrefix(agent, "/") && versioned().MatchString(dir) {
		return "the units start " + agent + ", in a directory that an update of edge-agent may remove: give --agent a link that stays, or write the units again after each update"
	}
	return ""
}
