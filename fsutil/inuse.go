package fsutil

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits of what InUse reads.
const (
	maxUsedFiles = 100_000  // files and directories below the directory
	maxMaps      = 16 << 20 // bytes of /proc/PID/maps
	maxMapLine   = 8 << 10
	maxOpenFiles = 100_000 // descriptors of a process
	maxCmdline   = 4 << 20 // bytes of /proc/PID/cmdline
)

// InUse describes a process that uses dir or a file below it: the process executes,
// maps or has opened it, has its root or working directory there, or was started with the
// path of a file there, as an interpreter is with its script. It returns "" if there is
// none.
//
// It reads /proc, where this user may not see what other users' processes use. So it
// also asks each file below dir (see probeOpen). A process of another user that has only
// its root or working directory in dir stays unseen, unless this user is root.
//
// An error means that dir may be in use. A dir that is absent is not in use. InUse
// changes nothing, and does not affect the processes.
func InUse(ctx context.Context, dir string) (by string, err error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil {
		real, err = filepath.Abs(real)
	}
	if err != nil {
		return "", fmt.Errorf("look for processes: %w", err)
	}
	u := usedDir{dir: real, inodes: map[fileID]bool{}}
	if err := u.list(ctx); err != nil {
		return "", fmt.Errorf("look for processes: %w", err)
	}
	by, err = u.process(ctx)
	if by == "" && err == nil {
		by, err = u.probe(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("look for processes in %s: %w", dir, err)
	}
	return by, nil
}

// fileID identifies a file in /proc/PID/maps.
type fileID struct {
	major, minor uint32
	ino          uint64
}

// usedDir is a directory whose users are looked for.
type usedDir struct {
	dir    string // a real path
	inodes map[fileID]bool
	files  []string // the regular files
}

// list reads what is in the directory. It skips what it cannot read.
func (u *usedDir) list(ctx context.Context) error {
	return filepath.WalkDir(u.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case len(u.inodes) >= maxUsedFiles:
			return fs.SkipAll
		case err != nil:
			return nil
		}
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil {
			return nil
		}
		dev := uint64(st.Dev)
		u.inodes[fileID{unix.Major(dev), unix.Minor(dev), st.Ino}] = true
		if d.Type().IsRegular() {
			u.files = append(u.files, path)
		}
		return nil
	})
}

// process looks into /proc.
func (u *usedDir) process(ctx context.Context) (by string, err error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return "", nil // the files are asked instead
	}
	defer proc.Close()
	for {
		names, err := proc.Readdirnames(100)
		for _, pid := range names {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			if _, err := strconv.Atoi(pid); err != nil {
				continue
			}
			if what := u.usedBy(filepath.Join("/proc", pid)); what != "" {
				return Process(pid) + " " + what, nil
			}
		}
		if err != nil {
			return "", nil
		}
	}
}

// usedBy returns what the process uses, or "".
func (u *usedDir) usedBy(proc string) string {
	for _, link := range []struct{ name, verb string }{
		{"exe", "executes"}, {"cwd", "has its working directory in"}, {"root", "has its root in"},
	} {
		if path, ok := u.holds(filepath.Join(proc, link.name)); ok {
			return link.verb + " " + path
		}
	}
	if path, ok := u.maps(filepath.Join(proc, "maps")); ok {
		return "has mapped " + path
	}
	if path, ok := u.argument(proc); ok {
		return "was started with " + path
	}
	fds, err := os.Open(filepath.Join(proc, "fd"))
	if err != nil {
		return ""
	}
	defer fds.Close()
	for n := 0; n < maxOpenFiles; {
		names, err := fds.Readdirnames(1000)
		for _, fd := range names {
			if path, ok := u.holds(filepath.Join(proc, "fd", fd)); ok {
				return "has opened " + path
			}
		}
		if n += len(names); err != nil {
			return ""
		}
	}
	return ""
}

// holds reports whether a link of /proc points into the directory.
func (u *usedDir) holds(link string) (path string, ok bool) {
	path, err := os.Readlink(link)
	if err != nil {
		return "", false
	}
	if u.contains(path) {
		return path, true
	}
	// In another mount namespace the directory may have another path. Only a path that looks
	// like one is asked for its inode: this can block on a network file system.
	if !slices.Contains(strings.Split(path, "/"), filepath.Base(u.dir)) {
		return "", false
	}
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil {
		return "", false
	}
	dev := uint64(st.Dev)
	return path, u.inodes[fileID{unix.Major(dev), unix.Minor(dev), st.Ino}]
}

// argument reports whether an argument of the process is the path of something in the
// directory: an interpreter reads its script, and closes it. Links are followed only
// where they may lead there, since others may block on a network file system.
func (u *usedDir) argument(proc string) (path string, ok bool) {
	b, err := ReadFile(filepath.Join(proc, "cmdline"), maxCmdline)
	if err != nil {
		return "", false
	}
	cwd, cwdErr := os.Readlink(filepath.Join(proc, "cwd")) // of another user's process it is not known
	root := filepath.Dir(filepath.Dir(u.dir))
	_, args, _ := strings.Cut(string(b), "\x00") // the first is the program, which is asked for otherwise
	for arg := range strings.SplitSeq(args, "\x00") {
		if !filepath.IsAbs(arg) && (arg == "" || cwdErr != nil) {
			continue
		}
		if path = arg; !filepath.IsAbs(arg) {
			path = filepath.Join(cwd, arg)
		}
		path = filepath.Clean(path)
		if !strings.HasPrefix(path, root+"/") && !slices.Contains(strings.Split(path, "/"), filepath.Base(u.dir)) {
			continue
		}
		if real, err := filepath.EvalSymlinks(path); err == nil && u.contains(real) {
			return real, true
		}
	}
	return "", false
}

func (u *usedDir) contains(path string) bool {
	return path == u.dir || strings.HasPrefix(path, u.dir+"/")
}

// maps reports whether the process has mapped a file of the directory.
func (u *usedDir) maps(path string) (mapped string, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxMaps))
	lines.Buffer(nil, maxMapLine)
	for lines.Scan() {
		// 7f00-7f01 r-xp 00000000 08:01 131 /path
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[4] == "0" {
			continue
		}
		if _, path, _ := strings.Cut(lines.Text(), "/"); u.contains("/" + path) {
			return "/" + path, true
		}
		major, minor, _ := strings.Cut(fields[3], ":")
		ma, err1 := strconv.ParseUint(major, 16, 32)
		mi, err2 := strconv.ParseUint(minor, 16, 32)
		ino, err3 := strconv.ParseUint(fields[4], 10, 64)
		if err1 == nil && err2 == nil && err3 == nil && u.inodes[fileID{uint32(ma), uint32(mi), ino}] {
			return strings.Join(fields[5:], " "), true
		}
	}
	return "", false
}

// Process names the process pid for a message: its number and, if this user sees it,
// its program.
func Process(pid string) string {
	comm, err := ReadFile("/proc/"+pid+"/comm", 100)
	if err != nil {
		return "process " + pid
	}
	return fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm)))
}
